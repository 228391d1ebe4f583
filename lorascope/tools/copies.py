"""Copies: is a picture one of the training images, or put together from several?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import BadInputError, MissingInputError, ShapeError
from lorascope.io.dataset_file import Dataset, DatasetImage, read_dataset
from lorascope.io.images import read_image, resize_crop
from lorascope.metrics.copies import (
    Prepared,
    compared_size,
    distinct_places,
    nearest,
    patch_matches,
)
from lorascope.metrics.intervals import interval
from lorascope.metrics.similarity import cosines, gist
from lorascope.progress import track
from lorascope.records import Inputs, Measured, Measurement, Row, Scalar, Tool, cell
from lorascope.tools.drawing.prompts import WITH_TRIGGER
from lorascope.tools.pictures.features import (
    OWN,
    encoder_digest,
    features_of,
    features_of_images,
    open_encoder,
)
from lorascope.tools.pictures.rows import over_prompts, row_facts
from lorascope.tools.pictures.sets import BASE, Picture, PictureSet, read_pictures, usual_size

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]
Size = tuple[int, int]

LEFT_OUT = (BadInputError, MissingInputError, ShapeError)
NAMED = 3  # pictures that cannot be read and are named
MEASURES = ("nearest_distance", "copy_ratio", "patch_share", "source_share", "second_share")
CONTROLS = ("copy_ratio", "patch_share", "source_share")  # given for held-out images and base
BETWEEN = " | "  # names of files


def copies(inputs: Inputs, *, features: str = "") -> Measured:
    """Look for every picture, and its parts, among the training images.

    Parameters
    ----------
    inputs : Inputs
        Reads ``pictures`` and ``dataset``; ``base`` and ``features`` only with the option.
    features : str
        Compare by a network as well: base, latents, sscd:FILE, dinov2, clip, a folder; empty for
        none.

    Returns
    -------
    Measured
        Tables ``cells`` (a row per picture), ``held_out`` (the same of held-out images: what
        pictures come to that cannot be copies) and ``epochs`` (a row per row of the set, over its
        pictures whose prompt asks for the subject; ``beyond_held_out`` is the share of them with
        more in one training image than any held-out image has).

    Raises
    ------
    BadInputError
        No picture, or no training image, can be read.
    MissingInputError
        There is no such network on this machine.

    Notes
    -----
    ``copy_ratio`` is the distance to the nearest training image over that to the second nearest.
    ``source_share`` is the share of a picture's patches found in one training image, the
    ``source``; ``patch_share`` in any. ``sources`` counts those that give 15 % or more of what was
    found, ``second_share`` is what the second of them adds. All pictures are compared at 96 px,
    mirrored or not; near-duplicates among the training images count once.
    """
    dataset = read_dataset(inputs["dataset"])
    pictures = read_pictures(inputs["pictures"], dataset)
    usual = usual_size(pictures, dataset)
    sought = _Sought(dataset, usual)
    cells, unread = _cells(pictures, sought)
    if not any(row["nearest_train"] for row in cells):
        raise BadInputError(f"Not one picture can be read: {unread[0]}\nFix: draw them again.")
    held_out = _held_out(dataset, pictures.pictures[0], sought)
    if features:
        _add_features(cells, pictures, dataset, features, inputs)
    return Measured(
        numbers=tuple(_numbers(cells, held_out, len(sought.distinct))),
        tables={"cells": cells, "held_out": held_out, "epochs": _epochs(pictures, cells, held_out)},
        caveats=(*_unread_said(unread), *_doubts(dataset, held_out, cells, sought)),
    )


@dataclass
class _Sought:
    """The training images that are looked for, prepared once for every size of picture."""

    dataset: Dataset
    usual: Size  # of the pictures
    distinct: list[DatasetImage] = field(init=False)  # one of every group of near-duplicates
    unread: list[str] = field(default_factory=list)
    prepared: dict[Size, list[Prepared]] = field(default_factory=dict)
    gists: dict[Size, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = all(self.dataset.resolution)
        size = compared_size(*(self.dataset.resolution if known else self.usual))
        images, found = [], []
        for image in track(self.dataset.train, label="training images"):
            try:
                found.append(resize_crop(read_image(self.dataset.path(image)), *size))
                images.append(image)
            except LEFT_OUT as error:
                self.unread.append(str(error).splitlines()[0])
        if not images:
            raise BadInputError(
                "No training image can be read: there is nothing to look for.\n"
                "Fix: lorascope add dataset RUN FOLDER"
            )
        kept = distinct_places(np.stack([gist(picture) for picture in found]))
        self.distinct = [images[place] for place in kept]
        self._prepare(size, [found[place] for place in kept])

    def look(self, picture: Pixels) -> dict[str, Scalar]:
        """Look for one picture."""
        height, width = picture.shape[:2]
        size = compared_size(width, height)
        if size not in self.prepared:
            paths = [self.dataset.path(image) for image in self.distinct]
            self._prepare(size, [resize_crop(read_image(path), *size) for path in paths])
        small = resize_crop(picture, *size)
        near = nearest(gist(small), self.gists[size])
        found = patch_matches(small, self.prepared[size])
        names = [self.distinct[place].file for place in found.sources] if found else []
        return {
            "nearest_train": self.distinct[near.place].file,
            "nearest_distance": near.distance,
            "copy_ratio": near.ratio,
            "mirrored": near.mirrored,
            "patch_share": found.share if found else None,
            "source_share": found.largest if found else None,
            "second_share": (*found.shares, 0.0, 0.0)[1] if found else None,
            "source": names[0] if names else "",
            "sources": len(names) if found else None,
            "source_names": BETWEEN.join(names),
        }

    def _prepare(self, size: Size, pictures: Sequence[Pixels]) -> None:
        self.prepared[size] = [Prepared(picture) for picture in pictures]
        self.gists[size] = np.stack([gist(picture) for picture in pictures])


NOTHING: Row = {
    **dict.fromkeys(MEASURES),
    **{"nearest_train": "", "mirrored": None, "source": "", "sources": None, "source_names": ""},
}


def _cells(pictures: PictureSet, sought: _Sought) -> tuple[list[dict[str, Scalar]], list[str]]:
    """Look for every picture, one at a time."""
    rows: list[dict[str, Scalar]] = []
    unread: list[str] = []
    for picture in track(pictures.pictures, label="looking for copies"):
        facts: dict[str, Scalar] = {
            "cell": picture.cell,
            "row": picture.row,
            "kind": picture.kind,
            "epoch": picture.epoch,
            "strength": picture.strength,
            "prompt": picture.prompt,
            "asks": picture.group in WITH_TRIGGER,
            "file": picture.file,
        }
        try:
            rows.append(facts | sought.look(picture.read(pictures.run)))
        except LEFT_OUT as error:
            unread.append(str(error).splitlines()[0])
            rows.append(facts | dict(NOTHING))
    return rows, unread


def _held_out(dataset: Dataset, like: Picture, sought: _Sought) -> list[Row]:
    """Look for the held-out images, as if they were pictures of the set."""
    size = (like.width, like.height) if like.width and like.height else sought.usual
    rows: list[Row] = []
    for image in track(dataset.held_out, label="held-out images"):
        try:
            found = sought.look(resize_crop(read_image(dataset.path(image)), *size))
        except LEFT_OUT as error:
            sought.unread.append(str(error).splitlines()[0])
            continue
        rows.append({"image": image.file, **found})
    return rows


def _epochs(pictures: PictureSet, cells: Sequence[Row], held_out: Sequence[Row]) -> list[Row]:
    most = max((_column([row], "source_share")[0] for row in held_out), default=np.nan)
    rows: list[Row] = []
    for row in pictures.rows():
        here = [cells[p.cell] for p in row if cells[p.cell]["asks"]]
        prompts = [one["prompt"] for one in here]
        ratios, shares = _column(here, "copy_ratio"), _column(here, "source_share")
        known = shares[np.isfinite(shares)]
        beyond = float((known > most).mean()) if known.size and np.isfinite(most) else None
        rows.append(
            {
                **row_facts(row),
                **over_prompts("copy_ratio", ratios, prompts),
                "copy_ratio_lowest": cell(float(np.nanmin(ratios, initial=np.inf))),
                **over_prompts("patch_share", _column(here, "patch_share"), prompts),
                **over_prompts("source_share", shares, prompts),
                "source_share_highest": cell(float(np.nanmax(shares, initial=-np.inf))),
                "beyond_held_out": beyond,
                "counted": int(known.size),
            }
        )
    return rows


def _numbers(cells: Sequence[Row], held_out: Sequence[Row], distinct: int) -> list[Measurement]:
    """Give what pictures come to that cannot be copies: held-out images, and the base model's."""
    base = [row for row in cells if row["kind"] == BASE and row["asks"]]
    found = [Measurement(name="training_images", value=distinct, unit="images", n=distinct)]
    for ending, rows in (("held_out", held_out), ("base", base)):
        for name in CONTROLS:
            values = _column(rows, name)
            known = values[np.isfinite(values)]
            if known.size:
                found.append(
                    Measurement(
                        name=f"{name}_{ending}",
                        value=float(known.mean()),
                        unit="1",
                        n=known.size,
                        interval=interval(known) if known.size > 1 else None,
                    )
                )
    return found


def _add_features(
    cells: Sequence[dict[str, Scalar]],
    pictures: PictureSet,
    dataset: Dataset,
    name: str,
    inputs: Inputs,
) -> None:
    """Add each picture's cosine to the nearest training image, as a network sees them."""
    if name in OWN and "base" not in inputs:
        raise MissingInputError(
            f"Features {name} are the base model's own, and it is not known.\n"
            "Fix: lorascope add base RUN PATH"
        )
    encoder = open_encoder(name, str(inputs.get("base", "")))
    folder: Path = inputs["features"]
    here = features_of(pictures, encoder, folder).astype(np.float64)
    like = pictures.pictures[0]
    known_size = like.width and like.height
    size = (like.width, like.height) if known_size else usual_size(pictures, dataset)
    training = features_of_images(dataset, dataset.train, size, encoder, folder)
    known = np.flatnonzero(np.isfinite(training).all(axis=1))
    for row, values in zip(cells, here, strict=True):
        row |= {"feature_similarity": None, "feature_nearest": ""}
        if known.size and values.size and np.isfinite(values).all():
            found = cosines(values[None], training[known].astype(np.float64))[0]
            row["feature_similarity"] = float(found.max())
            row["feature_nearest"] = dataset.train[int(known[found.argmax()])].file


def _encoder(options: Mapping[str, Scalar]) -> Mapping[str, str]:
    return encoder_digest(options) if options["features"] else {}


def _doubts(
    dataset: Dataset, held_out: Sequence[Row], cells: Sequence[Row], sought: _Sought
) -> list[str]:
    found = _unread_said(sought.unread)
    if len(sought.distinct) < 2:
        found.append("One distinct training image: there is no copy ratio.")
    if not held_out:
        found.append(
            "No image is held out: what pictures come to that cannot be copies is not known."
        )
    if not any(row["asks"] for row in cells):
        found.append("No prompt has the trigger: no row has a copy ratio.")
    plain = sum(row["source_share"] is None and bool(row["nearest_train"]) for row in cells)
    if plain:
        found.append(f"{plain} pictures are too plain to look for their patches.")
    return found


def _unread_said(unread: Sequence[str]) -> list[str]:
    if not unread:
        return []
    named = "; ".join(unread[:NAMED]) + ("; ..." if len(unread) > NAMED else "")
    return [f"{len(unread)} left out, since they cannot be read: {named}"]


def _column(rows: Sequence[Row], name: str) -> Floats:
    """Give a column as numbers; what was not measured is not a number."""
    return np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=float)


COPIES = Tool(
    name="copies",
    asks="Are pictures copies of training images?",
    reads=("pictures", "dataset"),
    may_read=("base",),
    writes=("features",),
    measure=copies,
    page="grid",
    named=_encoder,
)
