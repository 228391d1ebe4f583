"""Drift: what changes in pictures that have nothing to do with the subject?"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lorascope.metrics.likeness import LikenessScale
from lorascope.metrics.similarity import pixel_change
from lorascope.metrics.spread import spread
from lorascope.progress import track
from lorascope.records import Inputs, Measured, Measurement, Row, Tool, cell
from lorascope.tools.likeness import doubts as likeness_doubts
from lorascope.tools.likeness import scale_of
from lorascope.tools.pictures.described import Described, describe
from lorascope.tools.pictures.features import UNREADABLE, encoder_digest
from lorascope.tools.pictures.rows import over_prompts, row_facts

Floats = NDArray[np.float64]


def drift(inputs: Inputs, *, features: str = "base") -> Measured:
    """Compare every picture with the base model's of the same prompt and noise.

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
        Tables ``cells`` (a row per picture) and ``epochs`` (a row per row of the set, over its
        pictures whose prompt lacks the trigger: ``counted``, of them ``unrelated``).

    Raises
    ------
    BadInputError
        No picture can be read.
    MissingInputError
        There is no such network on this machine.

    Notes
    -----
    - moved: distance to the base model's picture, in usual distances between the base model's
      pictures of two prompts without the trigger; drift is its mean over prompts without the
      trigger, unrelated_drift over those that have nothing in common with the captions.
    - class_likeness: likeness to the subject beyond the base model's picture, without the
      trigger: 0 nothing, 1 the subject is there unasked (what Ruiz et al., DreamBooth, CVPR 2023,
      call PRES).
    - change: mean absolute difference in pixels, from 0 to 1, without the trigger.
    """
    described = describe(inputs, features)
    usual, several = _usual(described)
    scale = _scale(described)
    found = {
        "moved": _moved(described, usual),
        "class_likeness": _gained(described, scale),
        "change": _changed(described),
    }
    cells: list[Row] = [
        {"cell": place} | {name: cell(values[place]) for name, values in found.items()}
        for place in range(len(described))
    ]
    rows = [
        {**row_facts(row), **_summed(described, found, places)} for row, places in described.rows()
    ]
    mark = Measurement(name="usual_distance", value=usual, unit="1", n=several)
    return Measured(
        numbers=(mark,) if several else (),
        tables={"cells": cells, "epochs": rows},
        caveats=(*described.seen, *_doubts(described, scale, usual)),
    )


def _usual(described: Described) -> tuple[float, int]:
    """Usual distance between two of the base model's pictures, and of how many."""
    plain = described.of_scale & described.plain
    chosen = plain if plain.sum() > 1 else described.of_scale
    if chosen.sum() < 2:
        return 0.0, 0
    placed = described.space.place(described.features[chosen])
    return spread(placed), int(chosen.sum())


def _scale(described: Described) -> LikenessScale | None:
    """Lay the scale of likeness; None where no image of the dataset can be read."""
    if not described.training.names and not described.held_out.names:
        return None
    return scale_of(described)


def _moved(described: Described, usual: float) -> Floats:
    """Distance of each picture to the base model's; NaN where there is none."""
    found = np.full(len(described), np.nan)
    if usual == 0:
        return found
    space, everything = described.space, np.ones(len(described), dtype=bool)
    for _, places in described.rows():
        here, there = described.pairs(places, everything)
        if len(here):
            step = space.place(described.features[here]) - space.place(described.features[there])
            found[here] = np.sqrt(np.mean(step**2, axis=1)) / usual
    return found


def _gained(described: Described, scale: LikenessScale | None) -> Floats:
    """Likeness beyond that of the base model's picture, where the prompt lacks the trigger."""
    found = np.full(len(described), np.nan)
    if scale is None or not scale.laid:
        return found
    for _, places in described.rows():
        here, there = described.pairs(places, described.plain)
        if len(here):
            own = scale.likeness(described.features[here])
            base = scale.likeness(described.features[there])
            assert own is not None
            assert base is not None
            found[here] = own - base
    return found


def _changed(described: Described) -> Floats:
    """Mean absolute difference to the base model's picture; two pictures in memory at a time."""
    found = np.full(len(described), np.nan)
    everything = np.ones(len(described), dtype=bool)
    places, origins = described.pairs(np.arange(len(described)), everything)
    run, pictures = described.pictures.run, described.pictures.pictures
    for origin in track(np.unique(origins), label="comparing pixels"):
        try:
            first = pictures[origin].read(run)
        except UNREADABLE:
            continue
        for place in places[origins == origin]:
            try:
                found[place] = pixel_change(pictures[place].read(run), first)
            except UNREADABLE:  # or of another size
                continue
    return found


def _summed(described: Described, found: Mapping[str, Floats], places: NDArray[np.int64]) -> Row:
    """Average one row over the prompts that lack the trigger."""
    plain = places[described.plain[places]]
    pictures = described.pictures.pictures
    unrelated = np.array([p for p in plain if pictures[p].group == "unrelated"], dtype=np.int64)
    prompts = described.prompts(plain)
    return (
        over_prompts("class_likeness", found["class_likeness"][plain], prompts)
        | over_prompts("drift", found["moved"][plain], prompts)
        | over_prompts("unrelated_drift", found["moved"][unrelated], described.prompts(unrelated))
        | over_prompts("change", found["change"][plain], prompts)
        | {
            "counted": int(np.isfinite(found["moved"][plain]).sum()),
            "unrelated": int(np.isfinite(found["moved"][unrelated]).sum()),
        }
    )


def _doubts(described: Described, scale: LikenessScale | None, usual: float) -> list[str]:
    if not described.plain.any():
        return ["No prompt lacks the trigger: drift was not measured."]
    found = []
    plain = np.flatnonzero(described.plain & described.known & ~described.by_base)
    here, _ = described.pairs(plain, described.plain)
    if len(here) < len(plain):
        found.append(
            f"{len(plain) - len(here)} of {len(plain)} pictures without the trigger have no "
            "picture by the base model of the same prompt and noise beside them."
        )
    if described.by_base.any() and usual == 0:
        found.append("The base model's pictures are all the same: drift has no unit.")
    if scale is None:
        found.append("No image of the dataset can be read: class likeness was not measured.")
    elif not scale.laid:
        found += [doubt for doubt in likeness_doubts(described, scale) if "not measured" in doubt]
    return found


DRIFT = Tool(
    name="drift",
    asks="What changes where the subject was not asked for?",
    reads=("pictures", "dataset", "base"),
    writes=("features",),
    measure=drift,
    page="grid",
    named=encoder_digest,
)
