"""What the pictures of a grid show: each measured, each epoch summed up, all on one sheet."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lorascope.io.contact_sheet import contact_sheet, shown_size, thumbnail
from lorascope.io.dataset_file import Dataset, DatasetImage
from lorascope.io.images import read_image, resize_crop, write_png
from lorascope.metrics import colour, similarity
from lorascope.metrics.intervals import interval
from lorascope.metrics.spread import relative_spread, spread
from lorascope.progress import track
from lorascope.records import Measured, Measurement, Row, Scalar
from lorascope.tools.prompts import WITH_TRIGGER, WITHOUT_TRIGGER, Prompt

if TYPE_CHECKING:
    from lorascope.models.base import Base

Picture = NDArray[np.uint8]
Features = NDArray[np.float64]

FEATURE_PX = 512  # the longer side that pictures are encoded at, to be compared
MOST_REFERENCES = 64  # training images that likeness is measured against
CELLS_A_SIDE = max(similarity.LEVELS)  # latent cells that layout needs at least
ENCODED_AT_ONCE = 8
PICTURE_MEASURES: Mapping[str, Callable[[Picture], float]] = {
    "colourfulness": colour.colourfulness,
    "saturation": colour.saturation,
    "clipped": colour.clipped_share,
    "noise": colour.noise_sigma,
}


@dataclass(frozen=True, slots=True)
class Layer:
    """One row of the grid: a checkpoint at a strength; the base model is epoch 0."""

    epoch: int
    step: int
    strength: float
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """One picture of the grid, named by everything that decides what it shows."""

    layer: Layer
    column: int
    prompt: Prompt
    seed: int
    path: Path


def drawing_size(dataset: Dataset, base: "Base") -> tuple[int, int]:
    """Width and height to draw at: what was trained at, in steps that the model can."""
    unit = base.pixels_per_latent
    width, height = (round(side / unit) * unit or base.size for side in dataset.resolution)
    return width, height


def measure_pictures(
    base: "Base", dataset: Dataset, cells: Sequence[Cell], samples: Path
) -> Measured:
    """Read every picture once, row by row, measure it, and put it on the sheet."""
    layers = list(dict.fromkeys(cell.layer for cell in cells))
    across = len(cells) // len(layers)
    size = drawing_size(dataset, base)
    shown = shown_size(*size, cells=len(cells))
    copies, training = _training(base, dataset, size)
    rows: list[dict[str, Scalar]] = []
    codes: list[Features] = []
    thumbs: list[list[Picture]] = []
    origin: list[Picture] = []
    for number in track(range(len(layers)), label="grid, rows measured"):
        several = cells[number * across : (number + 1) * across]
        pictures = [read_image(cell.path) for cell in several]
        origin = origin or pictures
        codes.append(_codes(base, pictures))
        thumbs.append([np.asarray(thumbnail(picture, *shown)) for picture in pictures])
        for cell, picture, first in zip(several, pictures, origin, strict=True):
            nearest, ratio = copies.nearest(picture)
            rows.append(
                _cell_row(cell, number, samples)
                | {name: measure(picture) for name, measure in PICTURE_MEASURES.items()}
                | {"change": similarity.pixel_change(picture, first)}
                | {"nearest_train": nearest, "copy_ratio": ratio}
            )
    _write_sheet(samples / "grid.png", thumbs, layers, cells[:across])
    asks = np.array([cell.prompt.group in WITH_TRIGGER for cell in cells[:across]])
    scale = similarity.LikenessScale.between(codes[0][asks if asks.any() else ...], training)
    likeness = scale.likeness(np.concatenate(codes))
    moved = _moved(scale, codes, ~asks)
    for place, row in enumerate(rows):
        row["likeness"] = None if likeness is None else float(likeness[place])
        row["moved"] = None if moved is None else float(moved[place])
    by_layer: list[Row] = []
    for number, layer in enumerate(layers):
        here = rows[number * across : (number + 1) * across]
        features = scale.features(codes[number]), scale.features(codes[0])
        by_layer.append(_layer_row(layer, across) | _summary(here, rows[:across], *features))
    usual = scale.features(codes[0])[asks]
    columns = list(dict.fromkeys(cell.prompt for cell in cells))
    return Measured(
        numbers=(*_counts(cells), *_marks(dataset, size, copies, scale, usual)),
        tables={"cells": rows, "epochs": by_layer, "prompts": _prompt_rows(columns)},
        caveats=_caveats(dataset, columns, across // len(columns), scale),
    )


def _moved(
    scale: similarity.LikenessScale, codes: Sequence[Features], plain: NDArray[np.bool_]
) -> NDArray[np.float64] | None:
    """How far each picture is from the base model's of the same prompt and noise.

    In usual distances between the base model's pictures of two prompts: those without the
    trigger where there are several, which the LoRA should leave alone.
    """
    origin = scale.features(codes[0])
    several = origin[plain] if plain.sum() > 1 else origin
    usual = spread(several) if len(several) > 1 else 0.0
    if usual == 0:
        return None
    apart = [np.sqrt(np.mean((scale.features(c) - origin) ** 2, axis=1)) for c in codes]
    return np.concatenate(apart) / usual


def _training(
    base: "Base", dataset: Dataset, size: tuple[int, int]
) -> tuple[similarity.Copies, Features]:
    """Read the training images: all of them to look for copies, some for likeness."""
    every = math.ceil(len(dataset.train) / MOST_REFERENCES)
    gists, codes = [], []
    for number, image in enumerate(track(dataset.train, label="grid, training images")):
        picture = _at_size(dataset, image, size)
        gists.append(similarity.gist(picture))
        if number % every == 0:
            codes.append(_codes(base, [picture]))
    files = [image.file for image in dataset.train]
    return similarity.Copies.among(files, np.stack(gists)), np.concatenate(codes)


def _at_size(dataset: Dataset, image: DatasetImage, size: tuple[int, int]) -> Picture:
    return resize_crop(read_image(dataset.path(image)), *size)


def _codes(base: "Base", pictures: Sequence[Picture]) -> Features:
    """Describe pictures by the layout of the base model's image codes."""
    height, width, _ = pictures[0].shape
    share, unit = min(1.0, FEATURE_PX / max(height, width)), base.pixels_per_latent
    size = [max(CELLS_A_SIDE, round(side * share / unit)) * unit for side in (width, height)]
    found = []
    for start in range(0, len(pictures), ENCODED_AT_ONCE):
        several = [resize_crop(p, *size) for p in pictures[start : start + ENCODED_AT_ONCE]]
        found.append(similarity.layout(base.encode_images(np.stack(several)).cpu().numpy()))
    return np.concatenate(found)


def _cell_row(cell: Cell, number: int, samples: Path) -> dict[str, Scalar]:
    return {
        "epoch": cell.layer.epoch,
        "step": cell.layer.step,
        "strength": cell.layer.strength,
        "row": number,
        "column": cell.column,
        "prompt": cell.prompt.text,
        "group": cell.prompt.group,
        "seed": cell.seed,
        "file": f"{samples.name}/{cell.path.parent.name}/{cell.path.name}",
    }


def _layer_row(layer: Layer, pictures: int) -> dict[str, Scalar]:
    return {
        "epoch": layer.epoch,
        "step": layer.step,
        "strength": layer.strength,
        "file": layer.path.name if layer.path else "",
        "pictures": pictures,
    }


def _prompt_rows(columns: Sequence[Prompt]) -> list[Row]:
    return [
        {"column": place, "prompt": prompt.text, "group": prompt.group, "split": prompt.split}
        for place, prompt in enumerate(columns)
    ]


def _summary(
    rows: Sequence[Row], first: Sequence[Row], here: Features, origin: Features
) -> dict[str, Scalar]:
    """Sum one row of the grid up.

    Parameters
    ----------
    rows, first : sequences of Row
        Its cells, and the base model's.
    here, origin : (cells, F) arrays
        The features of their pictures.

    Returns
    -------
    dict
        The columns of the table ``epochs`` that are measured; None where nothing can be.
    """
    asks = np.array([row["group"] in WITH_TRIGGER for row in rows])
    prompts = np.array([row["column"] for row in rows])
    likeness, copies = _column(rows, "likeness"), _column(rows, "copy_ratio")
    moved = _column(rows, "moved")
    unrelated = np.array([row["group"] == "unrelated" for row in rows])
    low, high = _interval(likeness[asks], prompts[asks])
    return {
        "likeness": _mean(likeness[asks]),
        "likeness_low": low,
        "likeness_high": high,
        "class_likeness": _mean((likeness - _column(first, "likeness"))[~asks]),
        "diversity": relative_spread(here[asks], origin[asks]),
        "seed_diversity": _seed_diversity(here[asks], origin[asks], prompts[asks]),
        "drift": _mean(moved[~asks]),
        "unrelated_drift": _mean(moved[unrelated]),
        "unrelated_change": _mean(_column(rows, "change")[~asks]),
        "copy_ratio": _mean(copies[asks]),
        "copy_ratio_lowest": float(copies[asks].min()) if _mean(copies[asks]) else None,
        **{name: _mean(_column(rows, name)) for name in PICTURE_MEASURES},
    }


def _column(rows: Sequence[Row], name: str) -> NDArray[np.float64]:
    """Give a column as numbers; what was not measured is not a number."""
    return np.array([math.nan if row[name] is None else row[name] for row in rows], dtype=float)


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if values.size and np.isfinite(values).all() else None


def _interval(
    values: NDArray[np.float64], prompts: NDArray[np.int64]
) -> tuple[float | None, float | None]:
    """95 % interval of a mean over the prompts; the seeds of one prompt are one item."""
    items = [values[prompts == prompt].mean() for prompt in np.unique(prompts)]
    if len(items) < 2 or not np.isfinite(items).all():
        return None, None
    return interval(np.array(items))


def _seed_diversity(here: Features, origin: Features, prompts: NDArray[np.int64]) -> float | None:
    """Diversity among the seeds of one prompt, averaged over the prompts."""
    sets = [prompts == prompt for prompt in np.unique(prompts)]
    ratios = [relative_spread(here[some], origin[some]) for some in sets]
    known = [ratio for ratio in ratios if ratio is not None]
    return float(np.mean(known)) if known else None


def _counts(cells: Sequence[Cell]) -> list[Measurement]:
    counts = {
        "cells": (len(cells), "pictures"),
        "prompts": (len({cell.column for cell in cells}), "prompts"),
        "seeds": (len({cell.seed for cell in cells}), "seeds"),
        "epochs": (len({cell.layer.epoch for cell in cells} - {0}), "epochs"),
    }
    return [Measurement(name=k, value=n, unit=unit, n=n) for k, (n, unit) in counts.items()]


def _marks(
    dataset: Dataset,
    size: tuple[int, int],
    copies: similarity.Copies,
    scale: similarity.LikenessScale,
    usual: Features,
) -> list[Measurement]:
    """Give what the measures of the epochs are to be compared with."""
    count = len(scale.references)
    found = [Measurement(name="anchor_base", value=scale.zero, unit="cosine", n=count)]
    if count > 1:
        found.append(Measurement(name="anchor_training", value=scale.one, unit="cosine", n=count))
    if wide := relative_spread(scale.references, usual):
        found.append(Measurement(name="diversity_training", value=wide, unit="1", n=count))
    ratios = [copies.nearest(_at_size(dataset, image, size))[1] for image in dataset.held_out]
    known = np.array([ratio for ratio in ratios if ratio is not None])
    if known.size:
        found.append(
            Measurement(
                name="copy_ratio_held_out",
                value=float(known.mean()),
                unit="1",
                n=known.size,
                interval=interval(known),
            )
        )
    return found


def _caveats(
    dataset: Dataset, columns: Sequence[Prompt], seeds: int, scale: similarity.LikenessScale
) -> tuple[str, ...]:
    groups = {prompt.group for prompt in columns}
    found = [
        "Likeness, diversity and drift compare colours, shading and their layout; "
        "a face is not recognised."
    ]
    if scale.one - scale.zero < similarity.LEAST:
        found.append("Likeness was not measured: the base model's pictures are as near already.")
    if len(dataset.train) > MOST_REFERENCES:
        found.append(f"Likeness is measured against {len(scale.references)} training images.")
    if not groups.intersection(WITHOUT_TRIGGER):
        found.append("No prompt lacks the trigger: drift was not measured.")
    if not groups.intersection(WITH_TRIGGER):
        found.append("No prompt has the trigger: likeness and diversity were not measured.")
    if seeds == 1:
        found.append("One seed: diversity is the spread over prompts, not over seeds.")
    return tuple(found)


def _write_sheet(
    path: Path,
    pictures: Sequence[Sequence[Picture]],
    layers: Sequence[Layer],
    columns: Sequence[Cell],
) -> None:
    """Draw the grid as one picture: epochs down, prompts across."""
    strengths = {layer.strength for layer in layers if layer.epoch}
    rows = [
        (
            f"epoch {layer.epoch}" if layer.epoch else "base model",
            f"strength {layer.strength:g}" if layer.epoch and strengths != {1.0} else "",
        )
        for layer in layers
    ]
    several = len({cell.seed for cell in columns}) > 1
    heads = [
        (
            f"{cell.prompt.text} (seed {cell.seed})" if several else cell.prompt.text,
            cell.prompt.group,
        )
        for cell in columns
    ]
    write_png(path, contact_sheet(pictures, rows=rows, columns=heads))
