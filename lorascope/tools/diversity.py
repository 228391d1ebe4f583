"""Diversity: how different are the pictures from each other, beside the base model's?"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lorascope.metrics.likeness import Space
from lorascope.metrics.similarity import distances
from lorascope.metrics.spread import relative_spread, spread
from lorascope.metrics.vendi import alike, vendi
from lorascope.records import Inputs, Measured, Measurement, Row, Scalar, Tool
from lorascope.tools.pictures.described import Described, describe, interval_of_pairs
from lorascope.tools.pictures.features import encoder_digest
from lorascope.tools.pictures.rows import over_prompts, row_facts

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Places = NDArray[np.int64]

FEW = 8  # pictures below which a Vendi score says little


def diversity(inputs: Inputs, *, features: str = "base") -> Measured:
    """Compare the pictures of each row that ask for the subject with one another.

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
        Tables ``cells`` (``apart``: distance of a picture to the others of its row) and
        ``epochs`` (a row per row of the set; ``counted`` pictures).

    Raises
    ------
    BadInputError
        No picture can be read.
    MissingInputError
        There is no such network on this machine.

    Notes
    -----
    - diversity: mean distance between two pictures of a row over that between the base model's of
      the same prompts and noise; seed_diversity the same among the seeds of one prompt.
    - vendi: how many different pictures there are, from 1 to their number: exp of the entropy of
      the eigenvalues of K / n, where K = exp(-(distance / usual distance)^2) and the usual
      distance is that of the base model's pictures (Friedman and Dieng, TMLR 2023); vendi_ratio
      is over that of the base model's pictures.
    - Intervals leave out one prompt at a time, or one seed where there are more seeds.
    """
    described = describe(inputs, features)
    space = described.space
    apart = np.full(len(described), np.nan)
    rows: list[Row] = []
    for row, places in described.rows():
        here = places[described.asks[places] & described.known[places]]
        if len(here) > 1:
            apart[here] = _apart(space, described, here)
        rows.append({**row_facts(row), **_measured(described, space, places)})
    values = [None if np.isnan(value) else float(value) for value in apart]
    return Measured(
        numbers=tuple(_marks(described, space)),
        tables={
            "cells": [{"cell": place, "apart": value} for place, value in enumerate(values)],
            "epochs": rows,
        },
        caveats=(*described.seen, *_doubts(described)),
    )


def _apart(space: Space, described: Described, here: Places) -> Floats:
    """Mean distance of each picture to the others, in usual distances of the base model's."""
    placed = space.place(described.features[here])
    found = distances(placed, placed).sum(axis=1) / (len(here) - 1)
    usual = _usual(space, described)
    return found / usual if usual > 0 else np.full(len(here), np.nan)


def _measured(described: Described, space: Space, places: Places) -> Row:
    """Measure one row, beside the base model's pictures where they are known."""
    here, there = described.pairs(places, described.asks)
    beside = len(here) > 1
    if not beside:
        here = places[described.asks[places] & described.known[places]]
    placed = space.place(described.features[here])
    origin = space.place(described.features[there]) if beside else placed[:0]
    pictures = [described.pictures.pictures[place] for place in here]
    prompts: list[Scalar] = [picture.prompt for picture in pictures]
    seeds: list[Scalar] = [picture.seed for picture in pictures]
    usual = spread(origin) if beside else _usual(space, described)

    def spread_ratio(kept: Mask) -> float | None:
        return relative_spread(placed[kept], origin[kept]) if beside else None

    def score(kept: Mask) -> float | None:
        return vendi(alike(placed[kept], usual)) if usual > 0 and kept.sum() > 1 else None

    def score_ratio(kept: Mask) -> float | None:
        own = score(kept)
        return own / vendi(alike(origin[kept], usual)) if beside and own else None

    found: dict[str, Scalar] = {}
    for name, measure in (
        ("diversity", spread_ratio),
        ("vendi", score),
        ("vendi_ratio", score_ratio),
    ):
        low, high = interval_of_pairs(measure, prompts, seeds)
        value = measure(np.ones(len(here), dtype=bool)) if len(here) > 1 else None
        found |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return {**found, **_among_seeds(placed, origin, prompts), "counted": len(here)}


def _among_seeds(placed: Floats, origin: Floats, prompts: Sequence[Scalar]) -> Row:
    """Diversity among the seeds of one prompt, averaged over the prompts."""
    told = np.array([str(prompt) for prompt in prompts])
    names = list(dict.fromkeys(told.tolist()))
    ratios = [
        relative_spread(placed[told == name], origin[told == name]) if len(origin) else None
        for name in names
    ]
    values = np.array([np.nan if ratio is None else ratio for ratio in ratios])
    return over_prompts("seed_diversity", values, names)


def _usual(space: Space, described: Described) -> float:
    """Usual distance between two pictures: the base model's, else the training images'."""
    origin = described.origin if len(described.origin) > 1 else described.training.features
    return spread(space.place(origin)) if len(origin) > 1 else 0.0


def _marks(described: Described, space: Space) -> list[Measurement]:
    """Give what the rows are to be compared with."""
    training, origin = described.training.features, described.origin
    found = []
    if len(training) > 1 and len(origin) > 1:
        wide = relative_spread(space.place(training), space.place(origin))
        if wide is not None:
            found.append(
                Measurement(name="diversity_training", value=wide, unit="1", n=len(training))
            )
    if len(origin) > 1 and _usual(space, described) > 0:
        kernel = alike(space.place(origin), _usual(space, described))
        found.append(
            Measurement(name="vendi_base", value=vendi(kernel), unit="pictures", n=len(origin))
        )
    return found


def _doubts(described: Described) -> list[str]:
    pictures = [
        picture
        for picture, asks in zip(described.pictures.pictures, described.asks, strict=True)
        if asks
    ]
    if not pictures:
        return ["No prompt has the trigger: diversity was not measured."]
    found = []
    seeds = {picture.seed for picture in pictures}
    if len(seeds) == 1:
        known = "One seed" if seeds != {None} else "Seeds are not known, one picture a prompt"
        found.append(f"{known}: diversity is the spread over prompts, not over seeds.")
    most = max(
        int((described.asks[places] & described.known[places]).sum())
        for _, places in described.rows()
    )
    if most < FEW:
        counted = "1 picture" if most == 1 else f"{most} pictures"
        found.append(f"A Vendi score of {counted} says little; take {FEW} or more.")
    return found


DIVERSITY = Tool(
    name="diversity",
    asks="Are the pictures still different from each other?",
    reads=("pictures", "dataset", "base"),
    writes=("features",),
    measure=diversity,
    page="grid",
    named=encoder_digest,
)
