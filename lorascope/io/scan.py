"""Images looked at before anything is done with them: their bytes, sizes, captions, repeats."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.captions import read_caption
from lorascope.io.dataset_file import DatasetImage
from lorascope.io.folders import left_out, scan_training_folder
from lorascope.io.images import read_file, read_image
from lorascope.progress import track

Say = Callable[[str], None]


def scan_images(root: Path, *, repeats: int | None = None, say: Say) -> list[DatasetImage]:
    """Look at every image of a training folder.

    An image that cannot be read is named and left out; captions that are missing are counted.

    Parameters
    ----------
    root : Path
        A folder of ``<repeats>_<name>/`` folders, or of images.
    repeats : int, optional
        Of every image, whatever its folder is called.
    say : callable
        Takes each warning.

    Returns
    -------
    list of DatasetImage
        Sorted by path, all of them as trained on.

    Raises
    ------
    MissingInputError, BadInputError
        There is no such folder, or no image in it can be used.
    """
    found = scan_training_folder(root)
    if unused := left_out(root):
        count = "1 image" if len(unused) == 1 else f"{len(unused)} images"
        say(f"warning: {count} outside numbered folders not used: {unused[0]} ...")
    images = [
        image
        for path, of_folder in track(found, label="looking at images")
        if (image := look_at(root, path, repeats or of_folder, say=say)) is not None
    ]
    if not images:
        raise BadInputError(
            f"None of the {len(found)} images in {root} can be read; each is named above.\n"
            "Fix: replace them."
        )
    bare = [image.file for image in images if not image.caption]
    if bare:
        say(
            f"warning: {len(bare)} of {len(images)} images have no caption and train with an empty "
            f"one: {', '.join(bare[:3])}{' ...' if len(bare) > 3 else ''}"
        )
    return images


def look_at(root: Path, path: Path, repeats: int, *, say: Say) -> DatasetImage | None:
    """Read one image and its caption; None, and a warning, where the image cannot be used."""
    try:
        height, width, _ = read_image(path).shape
        digest = hashlib.sha256(read_file(path)).hexdigest()
    except (BadInputError, MissingInputError) as error:
        say(f"warning: skipped: {str(error).splitlines()[0]}")
        return None
    return DatasetImage(
        file=path.relative_to(root).as_posix(),
        sha256=digest,
        caption=read_caption(path),
        repeats=repeats,
        split="train",
        width=width,
        height=height,
    )
