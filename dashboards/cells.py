"""Pictures in order: which columns, which rows, which one stands for an epoch.

They are the cells of the grid, or in the same form the samples of a trainer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dashboards import thumbs
from dashboards.charts import SHAPES
from lorascope.records import EpochFit, Fit, Row, Scalar, Table

STRIP_GROUP = "trigger"  # the prompts that call the subject up
SIZE = 112  # px, the least width of a cell
STRENGTH = 1.0  # what most people generate with


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One prompt with one seed."""

    prompt: str
    seed: Scalar
    group: str


def columns(cells: Table) -> list[Column]:
    """List the prompts and seeds in the order in which they were drawn."""
    found = {column_of(cell): None for cell in cells}
    return sorted(found, key=lambda column: column.group != STRIP_GROUP)


def strengths(cells: Table) -> list[float]:
    """List the strengths that were drawn, the base model's own pictures aside."""
    return sorted({number(c, "strength") for c in cells if number(c, "epoch") > 0})


def usual(found: Sequence[float]) -> float:
    """Choose the strength nearest to 1."""
    return min(found, key=lambda s: abs(s - STRENGTH), default=STRENGTH)


def by_place(cells: Table, strength: float) -> dict[tuple[int, Column], Row]:
    """Find the cell of every epoch and column at one strength; the base model is epoch 0."""
    return {
        (int(number(c, "epoch")), column_of(c)): c
        for c in cells
        if number(c, "epoch") == 0 or number(c, "strength") == strength
    }


def of_strip(cells: Table, prompt: str) -> dict[int, Row]:
    """Choose one cell an epoch: the same prompt, the same seed, the usual strength."""
    fitting = [c for c in columns(cells) if c.prompt == prompt]
    placed = by_place(cells, usual(strengths(cells)))
    return {epoch: cell for (epoch, column), cell in placed.items() if column in fitting[:1]}


def layout(
    run: Path, cells: Table, strength: float, *, chosen: int | None, fits: Sequence[EpochFit]
) -> dict[str, object]:
    """Arrange the cells of one strength for the component.

    Parameters
    ----------
    run : Path
        The run directory.
    cells : table
        All cells.
    strength : float
        Which ones are shown; the base model's always are.
    chosen : int, optional
        The epoch that is marked.
    fits : sequence of EpochFit
        Where the epochs stand, as far as known.
    """
    placed, across = by_place(cells, strength), columns(cells)
    epochs = sorted({epoch for epoch, _ in placed})
    known = {e.epoch: e.fit for e in fits}
    files = {place: file_of(run, row) for place, row in placed.items()}
    urls = thumbs.urls(files.values())

    def cell(epoch: int, column: Column) -> dict[str, object] | None:
        row = placed.get((epoch, column))
        if row is None:
            return None
        title = f"{name_of(epoch)}: {column.prompt}, {about(column)}"
        return {"file": row["file"], "url": urls[files[epoch, column]], "title": title}

    return {
        "size": SIZE,
        "shape": thumbs.shape(next(iter(files.values()), run)),
        "chosen": chosen,
        "columns": [
            {
                "label": c.prompt,
                "group": about(c),
                "title": f"{c.prompt} ({about(c)})",
                "base": urls.get(files.get((0, c), Path()), ""),
            }
            for c in across
        ],
        "rows": [
            {
                "epoch": epoch,
                "label": str(epoch) if epoch else "base",
                "fit": known.get(epoch, Fit.UNCERTAIN) if epoch else "",
                "shape": SHAPES[known.get(epoch, Fit.UNCERTAIN)] if epoch else "",
                "title": name_of(epoch),
                "cells": [cell(epoch, c) for c in across],
            }
            for epoch in epochs
        ],
    }


def about(column: Column) -> str:
    """Say what tells a column from others of the same prompt."""
    return f"{column.group}, seed {column.seed}" if column.group else f"seed {column.seed}"


def name_of(epoch: int) -> str:
    """Name a row of the grid."""
    return f"Epoch {epoch}" if epoch else "Base model"


def file_of(run: Path, row: Row, column: str = "file") -> Path:
    """Where a row's picture lies."""
    return run / str(row.get(column) or "missing")


def number(row: Row, column: str) -> float:
    """Read a number from a row; 0 where there is none."""
    value = row.get(column)
    return float(value) if isinstance(value, int | float) else 0.0


def column_of(cell: Row) -> Column:
    """Tell which prompt and seed a cell belongs to."""
    return Column(
        prompt=str(cell.get("prompt") or ""),
        seed=cell.get("seed"),
        group=str(cell.get("group") or ""),
    )
