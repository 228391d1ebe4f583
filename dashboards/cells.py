"""Pictures in order: which rows, which columns, which one stands for an epoch.

They are the cells of the grid, or in the same form the samples of a trainer. A place belongs to
one picture: rows and columns are those of the grid itself, whatever their labels.
"""

import functools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorascope.records import Evidence, Row, Scalar, Table
from lorascope.tools.pictures.sets import BASE, LORA, TRIGGER_OFF
from lorascope.viewer.axes import ACROSS, ANY, DOWN, KINDS, Kind, axes_of, complete

STRIP_GROUP = "trigger"  # the prompts that call the subject up
STRENGTH = 1.0  # what most people generate with
STRENGTHS = ("strength", "text_strength")
CHOSEN = ("base", "companions", *STRENGTHS)  # what rows may differ by beside their epoch
IN_HEAD = ("prompt", "seed")  # said of a column in any case
ORDER = (BASE, LORA, TRIGGER_OFF)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sheet:
    """The pictures of one grid, each at its place; never two at one."""

    rows: tuple[Row, ...] = ()  # the first cell of each row, from the top down
    columns: tuple[Row, ...] = ()  # the first cell of each column, which tells its prompt
    placed: Mapping[tuple[Scalar, Scalar], Row]  # row and column to a cell
    known: Mapping[Scalar, Row]  # number of a cell to it

    def baseline(self, cell: Row) -> Row | None:
        """Find what the base model drew of the same prompt and noise; None for its own."""
        found = self.known.get(cell["baseline"])
        return None if found is None or found["cell"] == cell["cell"] else found


def arrange(cells: Table) -> Sheet:
    """Put every picture at its place.

    Parameters
    ----------
    cells : table
        The grid's table ``cells``, or a trainer's samples. What older ones do not say is
        filled in.
    """
    numbered = _numbered(cells, "row", ("kind", "epoch", *STRENGTHS, "base", "companions"))
    numbered = _numbered(numbered, "column", ("prompt", "group", "seed"))
    full = complete(numbered)
    rows = {row["row"]: row for row in reversed(full)}
    columns = {row["column"]: row for row in sorted(full, key=_place, reverse=True)}
    return Sheet(
        rows=tuple(sorted(rows.values(), key=_place)),
        columns=tuple(columns[number] for number in sorted(columns, key=_whole)),
        placed={(row["row"], row["column"]): row for row in full},
        known={row["cell"]: row for row in full},
    )


@functools.lru_cache(maxsize=8)
def sheet_of(grid: Evidence) -> Sheet:
    """Put the pictures of a grid at their places, once for each evidence."""
    return arrange(grid.table("cells"))


def variants(rows: Sequence[Row]) -> list[Kind]:
    """List what rows differ by beside their epoch: strength, base model, companions ..."""
    varies = {axis.key for axis in axes_of(rows)} if rows else set()
    return [kind for kind in KINDS if kind.key in CHOSEN and kind.key in varies]


def values(rows: Sequence[Row], kind: Kind) -> list[Hashable]:
    """List the values of what rows differ by; numbers in order, the rest as it was asked for."""
    found = dict.fromkeys(kind.value(row) for row in rows if row["kind"] != TRIGGER_OFF)
    known = [value for value in found if value is not None]
    if all(isinstance(value, int | float) for value in known):
        return sorted(known, key=lambda value: float(str(value)))
    return known


def usual(found: Sequence[Hashable]) -> Hashable:
    """Choose the strength nearest to 1; of what is no number the first."""
    if all(isinstance(value, int | float) for value in found):
        return min(found, key=lambda value: abs(float(str(value)) - STRENGTH), default=STRENGTH)
    return found[0]


def keep(rows: Sequence[Row], kind: Kind, value: Hashable) -> list[Row]:
    """Keep the rows of one value, and those that it does not concern.

    The base model has no strength. What was drawn without the trigger was drawn at the usual one,
    and stays as it is.
    """
    free = {TRIGGER_OFF} if kind.key in STRENGTHS else set()
    return [r for r in rows if kind.value(r) in (None, value) or r["kind"] in free]


def at_usual(rows: Sequence[Row]) -> list[Row]:
    """Keep the rows at the usual strength, of the run's own base model, without companions."""
    kept = list(rows)
    for kind in variants(kept):
        if found := values(kept, kind):
            kept = keep(kept, kind, usual(found))
    return kept


def of_strip(sheet: Sheet, prompt: str) -> dict[int, Row]:
    """Choose one cell an epoch: the same prompt, the same seed, the usual strength.

    What was drawn without the trigger never stands for an epoch.
    """
    column = next((c for c in sheet.columns if c["shown"] == prompt), None)
    if column is None:
        return {}
    rows = [row for row in at_usual(sheet.rows) if row["kind"] != TRIGGER_OFF]
    cells = {_whole(row["epoch"]): sheet.placed.get((row["row"], column["column"])) for row in rows}
    return {epoch: cell for epoch, cell in cells.items() if cell is not None}


def prompts(sheet: Sheet) -> list[str]:
    """List the prompts, those that call the subject up first."""
    ordered = sorted(sheet.columns, key=lambda column: column["group"] != STRIP_GROUP)
    return list(dict.fromkeys(str(column["shown"]) for column in ordered))


def heads(columns: Sequence[Row]) -> list[str]:
    """Say what tells each column from others of the same prompt; the seed in any case."""
    own = [a for a in axes_of(columns) if a.side == ACROSS and a.key not in IN_HEAD]
    texts = [column["shown"] for column in columns]
    varies = [
        axis for axis in own if len(set(zip(texts, axis.places, strict=True))) > len(set(texts))
    ]
    return [
        ", ".join(
            [
                *filter(None, [str(column["group"] or "")]),
                f"seed {column.get('seed')}",
                *(axis.labels[axis.places[i]] for axis in varies if axis.places[i] != ANY),
            ]
        )
        for i, column in enumerate(columns)
    ]


def sides(rows: Sequence[Row]) -> list[str]:
    """Say what tells each row from others of the same epoch; "" where nothing does."""
    own = [a for a in axes_of(rows) if a.side == DOWN and a.key not in ("epoch", "trigger")]
    varies = [axis for axis in own if len(axis.labels) > 1]
    return [
        ", ".join(axis.labels[axis.places[i]] for axis in varies if axis.places[i] != ANY)
        for i in range(len(rows))
    ]


def name_of(row: Row) -> str:
    """Name a row of the grid, or the row of a cell."""
    epoch = _whole(row["epoch"])
    name = f"Epoch {epoch}" if epoch else "Base model"
    return f"{name}, trigger left out" if row.get("kind") == TRIGGER_OFF else name


def file_of(run: Path, row: Row, column: str = "file") -> Path:
    """Where a row's picture lies."""
    return run / str(row.get(column) or "missing")


def number(row: Row, column: str) -> float:
    """Read a number from a row; 0 where there is none."""
    value = row.get(column)
    return float(value) if isinstance(value, int | float) else 0.0


def _numbered(cells: Table, name: str, by: Sequence[str]) -> list[Row]:
    """Give rows or columns numbers where the table has none, as older ones have."""
    if all(isinstance(cell.get(name), int) for cell in cells):
        return list(cells)
    order: dict[tuple[Scalar, ...], int] = {}
    keys = [tuple(cell.get(column) for column in by) for cell in cells]
    return [{**c, name: order.setdefault(k, len(order))} for c, k in zip(cells, keys, strict=True)]


def _place(row: Row) -> tuple[int, int, int]:
    return ORDER.index(str(row["kind"])), _whole(row["epoch"]), _whole(row["row"])


def _whole(value: Scalar) -> int:
    return value if isinstance(value, int) else 0
