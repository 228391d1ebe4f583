"""What an encoder sees in pictures, kept by content, so that nothing is looked at twice."""

import contextlib
import hashlib
import io
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lorascope import storage
from lorascope.errors import BadInputError, MissingInputError, ShapeError
from lorascope.io.dataset_file import Dataset, DatasetImage
from lorascope.io.images import read_image, resize_crop
from lorascope.models.encoder_files import NAMED, find_encoder
from lorascope.models.sources import base_digest
from lorascope.progress import track
from lorascope.records import Scalar
from lorascope.run import digest
from lorascope.tools.pictures.own_encoders import BaseEncoder, Encoder, LatentEncoder
from lorascope.tools.pictures.sets import Picture, PictureSet

if TYPE_CHECKING:
    from lorascope.models.base import Base

Pixels = NDArray[np.uint8]
Features = NDArray[np.float32]

OWN = ("base", "latents")  # features that need no network but the base model
IN_A_FILE = 32  # pictures; what a stopped measurement loses at most
TORN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
UNREADABLE = (BadInputError, MissingInputError, ShapeError)


def encoder_of(name: str, base: "Base") -> Encoder:
    """Choose what pictures are compared by.

    Parameters
    ----------
    name : str
        base (the base model's UNet), latents (its VAE alone), or what `load_encoder` knows.
    base : Base
        Without any LoRA.

    Raises
    ------
    MissingInputError, BadInputError
        There is no such network on this machine.
    """
    from lorascope.models.encoders import load_encoder

    if name == "base":
        return BaseEncoder(base=base, digest=base_digest(base.name))
    if name == "latents":
        return LatentEncoder(base=base, digest=base_digest(base.name))
    return load_encoder(name)


def open_encoder(name: str, base: str) -> Encoder:
    """Open what pictures are compared by; the base model only where it is needed.

    Parameters
    ----------
    name : str
        As for `encoder_of`.
    base : str
        The name of the base model.
    """
    from lorascope.models.base import shared_base
    from lorascope.models.encoders import load_encoder

    return encoder_of(name, shared_base(base)) if name in OWN else load_encoder(name)


def encoder_digest(options: Mapping[str, Scalar]) -> Mapping[str, str]:
    """Say which bytes the option ``features`` stands for, where it names files."""
    name = str(options["features"])
    kind, _, place = name.partition(":")
    if name in OWN:
        return {}
    if kind not in NAMED:
        return {"encoder": find_encoder(name).name}
    path = Path(place).expanduser()
    return {"encoder": digest(path)} if place and path.exists() else {}


def features_of(pictures: PictureSet, encoder: Encoder, folder: Path) -> Features:
    """Describe every picture of a set; what was described before is read.

    Parameters
    ----------
    pictures : PictureSet
    encoder : Encoder
    folder : Path
        The run's folder of features; files are named by encoder and content.

    Returns
    -------
    (N, F) float32 array
        Row i is picture i; NaN where it cannot be read. (N, 0) where none can.
    """

    def content(picture: Picture) -> str:
        with contextlib.suppress(OSError):
            return pictures.content(picture)
        return ""  # it is not there

    return kept_features(
        [content(picture) for picture in pictures.pictures],
        lambda place: pictures.pictures[place].read(pictures.run),
        encoder,
        folder,
    )


def features_of_images(
    dataset: Dataset,
    images: Sequence[DatasetImage],
    size: tuple[int, int],
    encoder: Encoder,
    folder: Path,
) -> Features:
    """Describe images of a dataset, cut to one size, as `features_of` does.

    Parameters
    ----------
    dataset : Dataset
    images : sequence of DatasetImage
    size : (width, height)
        In px: that of the pictures that they are compared with.
    encoder, folder
        As for `features_of`.
    """
    width, height = size
    return kept_features(
        [f"{image.sha256}-{width}x{height}" for image in images],
        lambda place: resize_crop(read_image(dataset.path(images[place])), width, height),
        encoder,
        folder,
    )


def kept_features(
    contents: Sequence[str], read: Callable[[int], Pixels], encoder: Encoder, folder: Path
) -> Features:
    """Describe what is not yet kept, and keep it.

    Parameters
    ----------
    contents : sequence of str
        What names each picture's content; "" for one that is not there.
    read : callable
        Gives the picture at a place.
    encoder : Encoder
    folder : Path

    Returns
    -------
    (N, F) float32 array
        NaN where a picture cannot be read.
    """
    place = folder / _file_name(encoder.name)
    wanted = dict.fromkeys(content for content in contents if content)
    known = _read_kept(place, wanted)
    first = {content: i for i, content in reversed(list(enumerate(contents)))}
    missing = [content for content in wanted if content not in known]
    parts = [missing[i : i + IN_A_FILE] for i in range(0, len(missing), IN_A_FILE)]
    for part in track(parts, label="looking at pictures"):
        found: dict[str, Pixels] = {}
        for content in part:
            with contextlib.suppress(*UNREADABLE):
                found[content] = read(first[content])
        if found:
            rows = np.asarray(encoder.images(list(found.values())), dtype=np.float32)
            _keep(place, list(found), rows)
            known |= zip(found, rows, strict=True)
    size = len(next(iter(known.values()), ()))
    nothing = np.full(size, np.nan, dtype=np.float32)
    return np.stack([known.get(content, nothing) for content in contents])


def _read_kept(place: Path, wanted: Mapping[str, None]) -> dict[str, Features]:
    """Read what is kept of the contents that are wanted; a torn file is passed over."""
    known: dict[str, Features] = {}
    for file in sorted(place.glob("*.npz")):
        with contextlib.suppress(*TORN):
            packed = np.load(io.BytesIO(file.read_bytes()), allow_pickle=False)
            contents = [str(content) for content in packed["contents"]]
            if any(content in wanted for content in contents):
                pairs = zip(contents, packed["features"], strict=True)
                known |= {content: row.copy() for content, row in pairs if content in wanted}
    return known


def _keep(place: Path, contents: Sequence[str], rows: Features) -> None:
    name = hashlib.sha256("\0".join(contents).encode()).hexdigest()[:16]
    with storage.replacing(place / f"{name}.npz") as partial:
        np.savez(partial, contents=np.array(contents), features=rows)


def _file_name(name: str) -> str:
    """Turn an encoder's name into that of a folder; two encoders never share one."""
    short = re.sub(r"[^\w.-]+", "-", name)
    if short == name and len(name) <= 100:
        return name
    return f"{short[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
