"""The training images of another trainer: found by what it wrote down, never guessed at."""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lorascope.errors import BadInputError, LorascopeError
from lorascope.io.captions import split_tags
from lorascope.io.dataset_file import Dataset, DatasetImage, Split, read_dataset, write_dataset
from lorascope.io.folders import NUMBERED, scan_training_folder
from lorascope.io.foreign.folder import places
from lorascope.io.foreign.layouts import DATASET_FOLDERS
from lorascope.io.foreign.settings import Settings
from lorascope.io.scan import Say, scan_images
from lorascope.io.train_settings import Folder
from lorascope.run import Run

SIDES = (("sdxl", 1024), ("sd_v2", 768), ("stable-diffusion-xl", 1024))
USUAL_SIDE = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Guess:
    """What a dataset is called by, and where that was read."""

    trigger: str = ""
    class_word: str = ""
    source: str = ""


NO_GUESS = Guess()


def find_datasets(
    folder: Path, settings: Settings, folders: Sequence[Folder], run: Run
) -> tuple[list[Path], str]:
    """Find the folders of images that a training used.

    Parameters
    ----------
    folder : Path
        What the trainer left behind.
    settings : Settings
        Name folders of images, where its config was found.
    folders : sequence of Folder
        What the checkpoints say of their images: names and counts.
    run : Run
        For the command that mends what does not agree.

    Returns
    -------
    paths : list of Path
        None where they are not there, or more than one place could be meant.
    why : str
        Then, what was looked for; else what does not agree, or "".
    """
    told = [path for name in settings.datasets if (path := _near(folder, name)) is not None]
    if told and len(told) == len(settings.datasets):
        return told, _counts(told, folders, run)
    names = [f.name.replace("\\", "/") for f in folders if not f.regularisation]
    if not names:
        looked = ", ".join(settings.datasets) or "nothing that was left behind names it"
        return [], looked
    whole = [path for name in names if (path := _near(folder, name)) is not None]
    if len(whole) == len(names) and all("/" in name for name in names):
        return whole, _counts(whole, folders, run)
    last = [Path(name).name for name in names]
    roots = _roots(folder, last)
    if len(roots) == 1:
        return roots, _counts(roots, folders, run)
    if roots:
        return [], f"{', '.join(last)} lies in more than one place: {roots[0]}, {roots[1]}"
    return [], f"looked for {', '.join(last[:3])} near {folder}"


def guess(told: Guess, folders: Iterable[str], captions: Sequence[str], given: Guess) -> Guess:
    """Guess the trigger and the class word, from the surest source to the least.

    Parameters
    ----------
    told : Guess
        What the LoRA's maker wrote down as such.
    folders : iterable of str
        Names of folders: ``10_fern woman``.
    captions : sequence of str
        Of the images trained on.
    given : Guess
        What the user said; it counts before all.
    """
    words = next((n.split("_", 1)[1].split() for n in folders if NUMBERED.fullmatch(n)), [])
    found = Guess()
    firsts = [tags[0] for caption in captions if (tags := split_tags(caption))]
    if told.trigger:
        found = told
    elif words and (not firsts or any(words[0] in caption for caption in captions)):
        found = Guess(trigger=words[0], source="the folder's name")
    elif len(firsts) > 1 and len(firsts) == len(captions) and len(set(firsts)) == 1:
        found = Guess(trigger=firsts[0], source="the first tag of every caption")
    return Guess(
        trigger=given.trigger or found.trigger,
        class_word=given.class_word or " ".join(words[1:]),
        source="" if given.trigger else found.source,
    )


def put_images(
    run: Run,
    folder: Path,
    *,
    split: Split,
    given: Guess,
    told: Guess = NO_GUESS,
    resolution: tuple[int, int] | None,
    say: Say,
) -> tuple[Dataset, int]:
    """Put a folder of images into a run's dataset; the first call makes it.

    Returns
    -------
    dataset : Dataset
    new : int
        How many images were not in it before.

    Raises
    ------
    MissingInputError, BadInputError
        There is no such folder, no image in it can be used, or all are on another side already.
    """
    folder = folder.resolve()
    images = [replace(i, split=split) for i in scan_images(folder, say=say)]
    old = read_dataset(run.place("dataset")) if run.has("dataset") else None
    names = [folder.name, *(p.name for p in {f.parent for f, _ in scan_training_folder(folder)})]
    captions = [image.caption for image in images]
    called = guess(told, names, captions, given)
    if called.trigger and called.source and not (old and old.trigger):
        say(
            f"The trigger is taken to be {called.trigger!r} (a guess from {called.source}); if it "
            f"is another: lorascope add dataset {run.shell} {shlex.quote(str(folder))} "
            "--trigger WORD"
        )
    root = folder
    kept: list[DatasetImage] = []
    if old is not None:
        root = _common(old.root.resolve(), folder)
        left = old.images if split == "train" else _left(run, old, images, split, say)
        kept = [_moved(image, old.root.resolve(), root) for image in left]
        images = [_moved(image, folder, root) for image in images]
        images = _not_elsewhere(images, kept, split, say)
    fresh = {image.file for image in images}
    known = {image.file for image in kept}
    together = [image for image in kept if image.file not in fresh] + images
    dataset = Dataset(
        root=root,
        trigger=given.trigger or (old.trigger if old else "") or called.trigger,
        class_word=given.class_word or (old.class_word if old else "") or called.class_word,
        resolution=resolution or (old.resolution if old else (USUAL_SIDE, USUAL_SIDE)),
        images=tuple(sorted(together, key=lambda image: image.file)),
    )
    write_dataset(run.place("dataset"), dataset)
    return dataset, len(fresh - known)


def usual_resolution(version: str, stated: tuple[int, int] | None) -> tuple[int, int]:
    """Give the resolution that a training aimed at; else what its kind of model is made for."""
    if stated:
        return stated
    side = next((side for start, side in SIDES if version.lower().startswith(start)), USUAL_SIDE)
    return side, side


def _near(folder: Path, name: str) -> Path | None:
    """Find a folder that a config names: in what was left behind, or beside it."""
    for path in places(folder, name):
        try:
            if path.is_dir():
                return path
        except OSError:  # a name too long to be one
            continue
    return None


def _roots(folder: Path, names: Sequence[str]) -> list[Path]:
    """List the places near a folder that hold all the named folders."""
    bases = list(dict.fromkeys([folder, folder.parent, folder.parent.parent]))
    places = [base / sub for base in bases for sub in ("", *DATASET_FOLDERS)]
    found = {}
    for place in places:
        try:
            if all((place / name).is_dir() for name in names):
                found[place.resolve()] = place
        except OSError:
            continue
    return list(found.values())


def _counts(roots: Sequence[Path], folders: Sequence[Folder], run: Run) -> str:
    """Say where a folder has not as many images as the training had, and what to do about it."""
    wanted = sum(f.images for f in folders if not f.regularisation)
    have = 0
    for root in roots:
        try:
            have += len(scan_training_folder(root))
        except LorascopeError:
            continue
    if not wanted or have == wanted:
        return ""
    said = f"it has {have} {'image' if have == 1 else 'images'}, and the training had {wanted}"
    if have < wanted:
        return said
    return (
        f"{said}; all are taken as trained on, so move those that were not to a folder of their "
        f"own and give lorascope add dataset {run.shell} FOLDER --as held-out"
    )


def _common(one: Path, other: Path) -> Path:
    try:
        return Path(os.path.commonpath([one, other]))
    except ValueError as error:
        raise BadInputError(
            f"{other} is on another drive than {one}; a dataset has one root.\n"
            "Fix: copy the images to one drive."
        ) from error


def _moved(image: DatasetImage, root: Path, to: Path) -> DatasetImage:
    return replace(image, file=(root / image.file).relative_to(to).as_posix())


def _left(
    run: Run, old: Dataset, images: Sequence[DatasetImage], split: Split, say: Say
) -> list[DatasetImage]:
    """Give a dataset without those images that the user has moved out of it, and names again.

    Of another trainer's folder, ingest takes all images as trained on; by moving them its user
    says that these were not. What our own trainer was shown stays trained on, wherever it lies.
    """
    new = {image.sha256 for image in images} if run.origin else set()
    gone = [i for i in old.images if i.sha256 in new and not old.path(i).is_file()]
    if gone:
        count = "1 image was" if len(gone) == 1 else f"{len(gone)} images were"
        say(f"{count} moved out of {old.root}, and no longer {gone[0].split} but {split}.")
    return [image for image in old.images if image not in gone]


def _not_elsewhere(
    images: Sequence[DatasetImage], kept: Sequence[DatasetImage], split: Split, say: Say
) -> list[DatasetImage]:
    """Leave out images that are on another side already: one trained on is never held out."""
    files = {image.file for image in images}
    sides: Mapping[str, str] = {
        i.sha256: i.split for i in kept if i.split != split and i.file not in files
    }
    clash = [image for image in images if image.sha256 in sides]
    if clash:
        count = "1 image is" if len(clash) == 1 else f"{len(clash)} images are"
        side = sides[clash[0].sha256]
        say(f"warning: {count} in the run as {side} already and not added: {clash[0].file}")
    left = [image for image in images if image.sha256 not in sides]
    if not left:
        raise BadInputError(
            f"All of these images are in the run already, as {sides[clash[0].sha256]}.\n"
            "Fix: name a folder of other images."
        )
    return left
