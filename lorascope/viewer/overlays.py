"""What was measured of the pictures, arranged to be laid over them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lorascope.records import Evidence, Row, Scalar

# Columns of a table of cells that say which picture a row is about; the rest was measured.
IDENTITY = frozenset(
    "cell row column kind epoch step strength text_strength prompt group seed width height base "
    "baseline file negative guidance steps sampler clip_skip lora companions tags split "
    "shown shown_group infotext parameters asks".split()
)
GRID = "grid"
# What a column is called, and what its numbers mean. Others appear under their own name.
MEANINGS: Mapping[str, tuple[str, str]] = {
    "likeness": (
        "likeness",
        "how near the subject's images: 0 as the base model's pictures, 1 as the training images",
    ),
    "cosine": (
        "cosine",
        "mean cosine to the three nearest references, of the features as they are",
    ),
    "adherence": (
        "adherence",
        "how much of the prompt is seen in the picture: 0 as in pictures of other prompts, 1 as in "
        "the base model's own picture of the prompt",
    ),
    "gain": (
        "gain",
        "how much better the base model explains the picture once it knows the prompt",
    ),
    "apart": (
        "apart",
        "mean distance to the other pictures of the row, in usual distances of the base model's",
    ),
    "copy_ratio": (
        "copy ratio",
        "distance to the nearest training image over that to the second nearest: near 0 for a "
        "copy, near 1 for a picture of its own",
    ),
    "nearest_distance": ("nearest distance", "to the nearest training image"),
    "source_share": ("source share", "share of the picture's patches found in one training image"),
    "patch_share": ("patch share", "share of the picture's patches found in any training image"),
    "artefact_z": (
        "artefacts",
        "how far the worst measure of artefacts lies from the base model's picture and from the "
        "training images, in spreads",
    ),
    "moved": (
        "moved",
        "distance to the base model's picture of the same prompt and noise, in distances between "
        "its pictures of two prompts",
    ),
    "class_likeness": (
        "class likeness",
        "likeness to the subject beyond the base model's picture, without the trigger: 0 nothing, "
        "1 the subject is there unasked",
    ),
    "change": ("change", "mean difference to the base model's picture, pixel by pixel"),
    "saturation": ("saturation", "mean saturation of the colours, 0 to 1"),
    "colourfulness": ("colourfulness", "how strong and how different the colours are"),
    "clipped": ("clipped", "share of pixels that are fully black or white in a channel"),
    "noise": ("noise", "strength of the finest grain"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """One number for each picture, and what to know about it."""

    key: str
    name: str
    meaning: str
    values: Mapping[int, float]  # by cell
    means: Mapping[int, tuple[float, float | None, float | None]] = field(default_factory=dict)
    numbers: tuple[str, ...] = ()  # anchors and marks that belong to it


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlays:
    """Everything measured of the pictures of one page."""

    numbers: tuple[Overlay, ...]
    texts: Mapping[str, Mapping[int, str]]  # what is no number: the nearest training image ...
    caveats: tuple[str, ...]


def overlays_of(measures: Mapping[str, Evidence], cells: Sequence[Row]) -> Overlays:
    """Gather what tools measured.

    Parameters
    ----------
    measures : mapping of str to Evidence
        Name of the tool to its evidence: tables ``cells`` and ``epochs``.
    cells : sequence of Row
        The pictures; an older grid measured them itself.

    Returns
    -------
    Overlays
        A column of numbers becomes an overlay, one of texts a fact; columns of the same name from
        two tools carry the tool's name.
    """
    numbers: dict[str, Overlay] = {}
    texts: dict[str, Mapping[int, str]] = {}
    caveats: dict[str, None] = {}
    tables = {name: e.table("cells") for name, e in measures.items()}
    for tool, rows in {GRID: cells, **tables}.items():
        evidence = measures.get(tool)
        for column in dict.fromkeys(name for row in rows for name in row if name not in IDENTITY):
            key = f"{tool}: {column}" if column in numbers or column in texts else column
            told = _column(rows, column)
            if all(isinstance(value, int | float) for value in told.values()):
                floats = {c: float(v) for c, v in told.items() if _finite(v)}  # type: ignore[arg-type]  # finite
                if floats:
                    numbers[key] = _overlay(key, column, tool, floats, evidence)
            else:
                texts[key] = {cell: str(value) for cell, value in told.items()}
        caveats |= dict.fromkeys(evidence.measured.caveats if evidence else ())
    return Overlays(numbers=tuple(numbers.values()), texts=texts, caveats=tuple(caveats))


def overlay(name: str, values: Mapping[int, Scalar]) -> Overlay | None:
    """Make an overlay of plain values; None where they are no numbers."""
    known = {cell: value for cell, value in values.items() if value is not None}
    if not known or not all(isinstance(value, int | float) for value in known.values()):
        return None
    floats = {cell: float(value) for cell, value in known.items() if _finite(value)}
    return _overlay(name, name, "", floats, None)


def _overlay(
    key: str, column: str, tool: str, values: Mapping[int, float], evidence: Evidence | None
) -> Overlay:
    name, meaning = MEANINGS.get(column, (column.replace("_", " "), ""))
    if not meaning and tool and tool != GRID:
        meaning = f"measured by lorascope {tool}"
    return Overlay(
        key=key,
        name=name if key == column else f"{name} ({tool})",
        meaning=meaning,
        values=values,
        means=_means(column, evidence.table("epochs")) if evidence else {},
        numbers=_numbers(column, evidence) if evidence else (),
    )


def _column(rows: Sequence[Row], column: str) -> dict[int, Scalar]:
    """Give one column by cell; truth values become words."""
    found: dict[int, Scalar] = {}
    for place, row in enumerate(rows):
        value, cell = row.get(column), row.get("cell", place)
        if value is not None and value != "" and isinstance(cell, int):
            found[cell] = ("no", "yes")[value] if isinstance(value, bool) else value
    return found


def _means(
    column: str, epochs: Sequence[Row]
) -> dict[int, tuple[float, float | None, float | None]]:
    """Give a row's mean over its pictures, with the ends of its interval."""
    found = {}
    for place, row in enumerate(epochs):
        mean, number = row.get(column), row.get("row", place)
        if _finite(mean) and isinstance(number, int):
            low, high = row.get(f"{column}_low"), row.get(f"{column}_high")
            ends = (float(low), float(high)) if _finite(low) and _finite(high) else (None, None)  # type: ignore[arg-type]  # finite
            found[number] = (float(mean), *ends)  # type: ignore[arg-type]  # a finite number
    return found


def _numbers(column: str, evidence: Evidence) -> tuple[str, ...]:
    """Write the tool's numbers about a column: what a copy ratio comes to that is no copy ..."""
    return tuple(
        f"{m.name.replace('_', ' ')} {m.value:.3g} (n = {m.n})"
        for m in evidence.measured.numbers
        if column in m.name and m.name != column
    )


def _finite(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
