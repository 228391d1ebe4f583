"""Likeness: how near do the pictures come to the subject?"""

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import BadInputError
from lorascope.metrics.intervals import interval
from lorascope.metrics.likeness import LikenessScale
from lorascope.metrics.similarity import cosines
from lorascope.records import Inputs, Measured, Measurement, Row, Tool, cell
from lorascope.tools.pictures.described import FEW_REFERENCES, Described, References, describe
from lorascope.tools.pictures.features import encoder_digest
from lorascope.tools.pictures.rows import over_prompts, row_facts

Floats = NDArray[np.float64]


def likeness(inputs: Inputs, *, features: str = "base") -> Measured:
    """Compare every picture with images of the subject that were not trained on.

    Parameters
    ----------
    inputs : Inputs
        Reads ``pictures``, ``dataset`` and ``base``; keeps what it saw in ``features``.
    features : str
        What pictures are compared by: base (the base model's own UNet), latents (its VAE alone),
        or a network on this machine: dinov2, clip, dreamsim:FOLDER, sscd:FILE, a folder.

    Returns
    -------
    Measured
        Tables ``cells`` (a row per picture) and ``epochs`` (a row per row of the set: the mean
        over its pictures whose prompt asks for the subject; ``counted`` says how many).

    Raises
    ------
    BadInputError
        No picture, or no image of the dataset, can be read.
    MissingInputError
        There is no such network on this machine.

    Notes
    -----
    Likeness is the mean cosine to the three nearest held-out images, on a scale from the base
    model's pictures of the same prompts (0) to the training images (1). Where fewer than four
    images are held out, the training images are the reference, one of them left out each time.
    Features are measured from the base model's pictures and whitened: directions in which images
    of the subject, or the base model's pictures, differ among themselves count less. ``cosine`` is
    to the nearest three as well, of the features as they are.
    """
    described = describe(inputs, features)
    references = references_of(described)
    scale = scale_of(described)
    values = np.full(len(described), np.nan)
    plain, nearest = np.full(len(described), np.nan), np.zeros(len(described), dtype=int)
    for _, places in described.rows():
        here = places[described.known[places]]
        if not len(here):
            continue
        raw = described.features[here].astype(np.float64)
        placed = scale.likeness(raw)
        values[here] = np.nan if placed is None else placed
        found = cosines(raw, references.features.astype(np.float64))
        plain[here] = np.sort(found, axis=1)[:, -3:].mean(axis=1)
        nearest[here] = scale.cosines(raw).argmax(axis=1)
    origin = np.flatnonzero(described.of_origin)
    for place, value in scale.of_base(len(origin)).items():
        values[origin[place]] = value
    cells: list[Row] = [
        {
            "cell": place,
            "likeness": cell(values[place]),
            "cosine": cell(plain[place]),
            "nearest_reference": references.names[nearest[place]] if known else "",
        }
        for place, known in enumerate(described.known)
    ]
    rows: list[Row] = []
    for row, places in described.rows():
        asking = places[described.asks[places] & described.known[places]]
        prompts = described.prompts(asking)
        rows.append(
            {
                **row_facts(row),
                **over_prompts("likeness", values[asking], prompts),
                **over_prompts("cosine", plain[asking], prompts),
                "counted": len(asking),
            }
        )
    return Measured(
        numbers=tuple(_anchors(scale)),
        tables={"cells": cells, "epochs": rows},
        caveats=(described.compared, *described.seen, *doubts(described, scale)),
    )


def references_of(described: Described) -> References:
    """Choose what pictures are compared with: held-out images, or the training images.

    Raises
    ------
    BadInputError
        None of them can be read.
    """
    if len(described.held_out.names) >= FEW_REFERENCES:
        return described.held_out
    if not described.training.names:
        raise BadInputError(
            "No image of the dataset can be read: there is nothing to compare pictures with.\n"
            "Fix: lorascope add dataset RUN FOLDER"
        )
    return described.training


def scale_of(described: Described) -> LikenessScale:
    """Lay the scale of likeness over what was looked at."""
    references = references_of(described)
    training = described.training
    if not training.names:  # what is held out has to stand for it
        training = references
    own = None if references is training else references.features
    return LikenessScale.between(described.origin, training.features, own)


def doubts(described: Described, scale: LikenessScale) -> tuple[str, ...]:
    """Say what the scale was laid over, or why it could not be."""
    found = []
    count = len(references_of(described).names)
    if references_of(described) is described.held_out:
        found.append(f"Likeness is measured against {count} held-out images.")
    else:
        found.append(
            f"Likeness is measured against the {count} training images, one left out each time: "
            f"fewer than {FEW_REFERENCES} are held out, so a copy looks like likeness."
        )
    if not len(scale.at_one):
        found.append("Likeness was not measured: one image alone cannot say how alike they are.")
    elif not len(scale.at_zero):
        found.append("Likeness was not measured: its scale begins at the base model's pictures.")
    elif not scale.laid:
        found.append("Likeness was not measured: the base model's pictures are as near already.")
    if not described.asks.any():
        found.append("No prompt has the trigger: no row has a likeness.")
    return tuple(found)


def _anchors(scale: LikenessScale) -> list[Measurement]:
    """Give both ends of the scale."""
    count = len(scale.references)
    found = [Measurement(name="references", value=count, unit="images", n=count)]
    for name, values in (("anchor_base", scale.at_zero), ("anchor_training", scale.at_one)):
        if len(values):
            found.append(
                Measurement(
                    name=name,
                    value=float(values.mean()),
                    unit="cosine",
                    n=len(values),
                    interval=interval(values) if len(values) > 1 else None,
                )
            )
    return found


LIKENESS = Tool(
    name="likeness",
    asks="Do the pictures show the subject?",
    reads=("pictures", "dataset", "base"),
    writes=("features",),
    measure=likeness,
    page="grid",
    named=encoder_digest,
)
