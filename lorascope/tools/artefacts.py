"""Artefacts: are the pictures burnt, blotchy or noisy, beyond base model and training images?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import BadInputError, MissingInputError, ShapeError
from lorascope.io.dataset_file import Dataset, DatasetImage, read_dataset
from lorascope.io.images import read_image, resize_crop
from lorascope.metrics.artefacts import (
    MEASURES,
    Usual,
    artefact_z,
    joint_z,
    measured,
    z_scores,
)
from lorascope.metrics.strengths import SPOILT
from lorascope.progress import track
from lorascope.records import Inputs, Measured, Measurement, Row, Scalar, Tool, cell
from lorascope.tools.pictures.rows import over_prompts, row_facts
from lorascope.tools.pictures.sets import BASE, Picture, PictureSet, read_pictures, usual_size

Floats = NDArray[np.float64]

NAMES = tuple(MEASURES)
MOST_REFERENCES = 64  # training images that pictures are compared with
LEFT_OUT = (BadInputError, MissingInputError, ShapeError)
NAMED = 3  # pictures that cannot be read and are named
FEW = 4  # pictures, below which a median and its deviation are a guess


@dataclass(frozen=True, kw_only=True, eq=False)
class Yardstick:
    """What pictures are held against.

    Attributes
    ----------
    bases : mapping
        Base model -> its own pictures; empty where there is none.
    training : Usual or None
    """

    bases: Mapping[str, Usual]
    training: Usual | None


def artefacts(inputs: Inputs) -> Measured:
    """Measure colours, noise, blocks and contrast of every picture, and how unusual they are.

    Parameters
    ----------
    inputs : Inputs
        Reads ``pictures`` and ``dataset``.

    Returns
    -------
    Measured
        Tables ``cells`` (a row per picture: every measure, ``artefact_z`` and the ``worst``
        measure, which it is of) and ``epochs`` (a row per row of the set: means with their
        intervals, and ``spoilt``, the share of pictures with an artefact z above 3). Arrays
        ``against_base`` and ``against_training`` (picture, measure), NaN where there is none.

    Raises
    ------
    BadInputError
        Not one picture can be read, or there is nothing to compare them with.

    Notes
    -----
    A z is counted in spreads: 1.4826 median absolute deviations, and never less than a small
    floor that each measure has. Against the base model it is the distance to *its picture of the
    same prompt and noise*; since there is one such picture for each cell, the spread is pooled
    over all pictures of the base model: how far apart its pictures lie anyway. Against the
    training images it is the distance to their median, in their own spreads. Only what both have
    in common counts, the smaller of the two: a LoRA is meant to leave the base model, and a neon
    dataset is no fault. ``artefact_z`` is the largest of a picture's measures, on the side that
    artefacts move them to.
    """
    dataset = read_dataset(inputs["dataset"])
    pictures = read_pictures(inputs["pictures"], dataset)
    values, unread = _values(pictures)
    known = np.asarray(np.isfinite(values).all(axis=1))
    if not known.any():
        raise BadInputError(f"Not one picture can be read: {unread[0]}\nFix: draw them again.")
    yardstick, doubts = _yardstick(pictures, values, dataset)
    base, training, joint = _scores(pictures, values, yardstick)
    total = np.full(len(values), np.nan)
    total[known] = artefact_z(joint[known])
    cells = [
        _cell_row(picture, values[i], joint[i], total[i]) if known[i] else _empty_row(picture)
        for i, picture in enumerate(pictures.pictures)
    ]
    return Measured(
        numbers=tuple(_numbers(pictures, values, total, yardstick)),
        tables={"cells": cells, "epochs": _epochs(pictures, values, total)},
        arrays={"against_base": base, "against_training": training},
        caveats=(*_unread_said(unread), *doubts),
    )


def training_values(
    dataset: Dataset, size: tuple[int, int]
) -> tuple[NDArray[np.float64], list[str]]:
    """Measure training images, cut to the size of the pictures that they are compared with.

    Parameters
    ----------
    dataset : Dataset
    size : (width, height)
        In px.

    Returns
    -------
    (N, K) array, list of str
        And a sentence for each image that cannot be read.
    """
    every = -(-len(dataset.train) // MOST_REFERENCES) or 1
    rows, unread = [], []
    for image in track(dataset.train[::every], label="artefacts, training images"):
        try:
            rows.append(_of_image(dataset, image, size))
        except LEFT_OUT as error:
            unread.append(f"{str(error).splitlines()[0]} It was left out.")
    return np.array(rows).reshape(-1, len(NAMES)), unread


def _of_image(dataset: Dataset, image: DatasetImage, size: tuple[int, int]) -> Floats:
    return measured(resize_crop(read_image(dataset.path(image)), *size))


def _values(pictures: PictureSet) -> tuple[Floats, list[str]]:
    """Measure one picture after the other; NaN where one cannot be read."""
    found = np.full((len(pictures.pictures), len(NAMES)), np.nan)
    unread = []
    for place in track(range(len(found)), label="artefacts"):
        try:
            found[place] = measured(pictures.pictures[place].read(pictures.run))
        except LEFT_OUT as error:
            unread.append(str(error).splitlines()[0])
    return found, unread


def _yardstick(
    pictures: PictureSet, values: Floats, dataset: Dataset
) -> tuple[Yardstick, list[str]]:
    """Find out what is usual, among the base model's pictures and the training images."""
    known = np.isfinite(values).all(axis=1)
    of_base = np.array([picture.kind == BASE for picture in pictures.pictures]) & known
    names = np.array([picture.base for picture in pictures.pictures])
    bases = {
        str(name): Usual.among(values[of_base & (names == name)])
        for name in np.unique(names[of_base])
    }
    trained, doubts = training_values(dataset, usual_size(pictures, dataset))
    training = Usual.among(trained) if len(trained) else None
    if not bases and training is None:
        raise BadInputError(
            "There is neither a picture by the base model nor a training image to compare with.\n"
            "Fix: lorascope add dataset RUN FOLDER"
        )
    counts = [usual.n for usual in bases.values()]
    if not bases:
        doubts.append(
            "There is no picture by the base model: pictures are compared with the training "
            "images alone, and what the base model draws anyway counts as an artefact."
        )
    elif min(counts) < FEW:
        doubts.append(
            f"The base model drew {min(counts)}: how far its pictures lie apart is a guess."
        )
    if training is None:
        doubts.append("No training image can be read: what the dataset looks like counts as well.")
    elif training.n < FEW:
        doubts.append(f"There are {training.n} training images: their spread is a guess.")
    return Yardstick(bases=bases, training=training), doubts


def _scores(
    pictures: PictureSet, values: Floats, yardstick: Yardstick
) -> tuple[Floats, Floats, Floats]:
    """Give each picture's z against the base model, against the training images, and jointly."""
    base, training = np.full_like(values, np.nan), np.full_like(values, np.nan)
    if yardstick.training is not None:
        training = z_scores(values, None, yardstick.training)
    for place, picture in enumerate(pictures.pictures):
        usual = yardstick.bases.get(picture.base) or next(iter(yardstick.bases.values()), None)
        if usual is None:
            continue
        own = None if picture.baseline is None else values[picture.baseline][None]
        if own is not None and not np.isfinite(own).all():
            own = None  # the base model's picture cannot be read: its usual picture stands for it
        base[place] = z_scores(values[place][None], own, usual)[0]
    if not yardstick.bases:
        return base, training, training
    if yardstick.training is None:
        return base, training, base
    return base, training, joint_z(base, training)


def _cell_row(picture: Picture, values: Floats, joint: Floats, total: float) -> Row:
    return {
        "cell": picture.cell,
        "artefact_z": cell(total),
        "worst": NAMES[int(joint.argmax())] if total > 0 else "",
        **{name: float(value) for name, value in zip(NAMES, values, strict=True)},
        **{f"{name}_z": float(z) for name, z in zip(NAMES, joint, strict=True)},
    }


def _empty_row(picture: Picture) -> Row:
    nothing: dict[str, Scalar] = dict.fromkeys((*NAMES, *(f"{name}_z" for name in NAMES)))
    return {"cell": picture.cell, "artefact_z": None, "worst": "", **nothing}


def _epochs(pictures: PictureSet, values: Floats, total: Floats) -> list[Row]:
    """Sum every row of the set up over its pictures."""
    rows: list[Row] = []
    for row in pictures.rows():
        places = [picture.cell for picture in row]
        prompts = [picture.prompt for picture in row]
        here = total[places][np.isfinite(total[places])]
        means: dict[str, Scalar] = {}
        for column, name in enumerate(NAMES):
            means |= over_prompts(name, values[places, column], prompts)
        rows.append(
            dict(row_facts(row))
            | over_prompts("artefact_z", total[places], prompts)
            | {
                "artefact_median": float(np.median(here)) if here.size else None,
                "spoilt": float((here > SPOILT).mean()) if here.size else None,
                "counted": int(here.size),
            }
            | means
        )
    return rows


def _numbers(
    pictures: PictureSet, values: Floats, total: Floats, yardstick: Yardstick
) -> Sequence[Measurement]:
    known = int(np.isfinite(values).all(axis=1).sum())
    counts = {
        "pictures": known,
        "base_pictures": sum(usual.n for usual in yardstick.bases.values()),
        "training_images": yardstick.training.n if yardstick.training else 0,
    }
    found = [Measurement(name=k, value=v, unit="pictures", n=v) for k, v in counts.items()]
    last = [picture for picture in pictures.pictures if picture.kind != BASE]
    epoch = max((picture.epoch for picture in last), default=0)
    here = total[[picture.cell for picture in last if picture.epoch == epoch]]
    here = here[np.isfinite(here)]
    if here.size:
        spoilt = float((here > SPOILT).mean())
        found += [
            Measurement(
                name="artefact_median_last", value=float(np.median(here)), unit="1", n=here.size
            ),
            Measurement(name="spoilt_last_share", value=spoilt, unit="1", n=here.size),
        ]
    return found


def _unread_said(unread: Sequence[str]) -> list[str]:
    more = f" And {len(unread) - NAMED} more." if len(unread) > NAMED else ""
    if not unread:
        return []
    return [f"{len(unread)} pictures were left out: {' '.join(unread[:NAMED])}{more}"]


ARTEFACTS = Tool(
    name="artefacts",
    asks="Are the pictures burnt, blotchy or noisy?",
    reads=("pictures", "dataset"),
    measure=artefacts,
    page="grid",
)
