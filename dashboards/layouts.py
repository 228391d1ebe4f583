"""What the browser is told of a grid: some of its rows, their thumbnails, one measure on them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dashboards import cells, thumbs
from dashboards.charts import SHAPES
from lorascope.records import EpochFit, Fit, Row
from lorascope.tools.pictures.sets import BASE, TRIGGER_OFF
from lorascope.viewer.overlays import Overlay

SIZE = 112  # px, the least width of a cell
MOST = 400  # cells on the page at once: thumbnails are made for no others
FINE, COARSE = 0.01, 100  # between them a number has two decimals


@dataclass(frozen=True, kw_only=True, slots=True)
class Marks:
    """What is marked on the rows."""

    chosen: int | None  # epoch
    fits: Sequence[EpochFit] = ()  # where epochs stand, as far as known
    overlay: Overlay | None = None  # the number that is written on every cell


def layout(
    run: Path, sheet: cells.Sheet, rows: Sequence[Row], columns: Sequence[Row], marks: Marks
) -> dict[str, object]:
    """Arrange some rows and columns of a grid for the component.

    Parameters
    ----------
    run : Path
        The run directory.
    sheet : Sheet
        All pictures.
    rows, columns : sequence of Row
        Those that are shown, in order; thumbnails are made for no others.
    marks : Marks
        What is marked.
    """
    shown = [
        [sheet.placed.get((row["row"], column["column"])) for column in columns] for row in rows
    ]
    files = [
        cells.file_of(run, one)
        for cell in (cell for line in shown for cell in line if cell)
        for one in (cell, sheet.baseline(cell))
        if one
    ]
    urls = thumbs.urls(files)
    heads, sides = cells.heads(columns), cells.sides(rows)
    known = {e.epoch: e.fit for e in marks.fits}
    span = _span(marks.overlay)

    def cell(row: Row | None) -> dict[str, object] | None:
        if row is None:
            return None
        base = sheet.baseline(row)
        off = {"prompt": row["prompt"]} if row["kind"] == TRIGGER_OFF else {}
        return {
            "cell": row["cell"],
            "url": urls[cells.file_of(run, row)],
            "base": urls[cells.file_of(run, base)] if base else "",
            **off,
            **_note(row, marks.overlay, span),
        }

    return {
        "size": SIZE,
        "chosen": marks.chosen,
        "measure": marks.overlay.name if marks.overlay else "",
        "columns": [
            {
                "label": column["shown"],
                "group": head,
                "title": _title(column, head),
                "shape": _shape(run, column),
            }
            for column, head in zip(columns, heads, strict=True)
        ],
        "rows": [
            {
                **_head(row, side, known),
                "cells": [cell(one) for one in line],
            }
            for row, side, line in zip(rows, sides, shown, strict=True)
        ],
    }


def pages(rows: Sequence[Row], columns: int, *, most: int = MOST) -> list[list[Row]]:
    """Split rows so that no more cells than a page bears are shown at once.

    The base model's rows stand on top of each part.
    """
    top = [row for row in rows if row["kind"] == BASE]
    others = [row for row in rows if row["kind"] != BASE]
    room = max(1, most // max(1, columns) - len(top))
    count = -(-len(others) // room) or 1
    size = -(-len(others) // count) or 1  # parts of about the same length
    parts = [others[start : start + size] for start in range(0, len(others), size)]
    return [[*top, *part] for part in parts] or [top]


def short(value: float) -> str:
    """Write a number so that it fits on a picture."""
    if value == 0 or FINE <= abs(value) < COARSE:
        return f"{value:.2f}"
    return f"{value:.2g}" if abs(value) < FINE else f"{value:.3g}"


def _head(row: Row, side: str, known: Mapping[int, Fit]) -> dict[str, object]:
    epoch, off = int(cells.number(row, "epoch")), row["kind"] == TRIGGER_OFF
    fit = known.get(epoch, Fit.UNCERTAIN) if epoch and not off else None
    plain = f"epoch {epoch}" if epoch and off else str(epoch) if epoch else "base"
    name = cells.name_of(row)
    return {
        "epoch": epoch,
        "apart": off,
        "label": f"{plain}, trigger left out" if off else plain,
        "side": side,
        "fit": fit or "",
        "shape": SHAPES[fit] if fit else "",
        "title": f"{name}, {side}" if side else name,
    }


def _title(column: Row, head: str) -> str:
    negative = f"; negative prompt: {column['negative']}" if column.get("negative") else ""
    return f"{column['shown']} ({head}{negative})"


def _shape(run: Path, column: Row) -> float:
    width, height = cells.number(column, "width"), cells.number(column, "height")
    return width / height if width and height else thumbs.shape(cells.file_of(run, column))


def _span(overlay: Overlay | None) -> tuple[float, float]:
    """Give the lowest and the highest number of a measure."""
    values = overlay.values.values() if overlay else ()
    return min(values, default=0.0), max(values, default=0.0)


def _note(row: Row, overlay: Overlay | None, span: tuple[float, float]) -> dict[str, object]:
    """Write a measure on a cell, and how far up its range it lies."""
    cell = row["cell"]
    value = overlay.values.get(cell) if overlay and isinstance(cell, int) else None
    if value is None or not math.isfinite(value):
        return {}
    low, high = span
    level = (value - low) / (high - low) if high > low else 1.0
    return {"note": short(value), "level": round(level, 3)}
