"""The pictures that another trainer drew while it trained, in the form of the grid's cells."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dashboards import cells
from lorascope.errors import LorascopeError
from lorascope.io.dataset_file import read_dataset
from lorascope.io.sample_list import LIST, read_list
from lorascope.records import Evidence, Row, Scalar, Table
from lorascope.run import Run
from lorascope.tools.pictures.sets import Picture, read_pictures

Place = tuple[Scalar, Scalar]  # index of the prompt and its text: one column


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """What lies in ``samples/trainer``."""

    cells: Table = ()  # one row a picture at a saved epoch; epoch 0 is the base model
    between: int = 0  # pictures drawn between two saves: they show no epoch
    unread: int = 0  # damaged rows


def read(run: Run) -> Samples:
    """Read which picture shows which epoch and prompt; what is damaged is counted and left out."""
    folder = run.place("drawn")
    try:
        state = (folder / LIST).stat()
    except OSError:
        return Samples()
    return _read(folder, run.path, state.st_mtime_ns)


def pictures(run: Run, grid: Evidence | None) -> tuple[cells.Sheet, bool]:
    """Choose the pictures that stand for the epochs.

    Returns
    -------
    sheet : Sheet
        Of the grid where there is one, else of the trainer's samples.
    by_trainer : bool
        Whether they are the trainer's.
    """
    if grid and grid.table("cells"):
        return cells.sheet_of(grid), False
    drawn = sheet(run)
    return drawn, bool(drawn.rows)


def sheet(run: Run) -> cells.Sheet:
    """Put the samples at their places, numbered as the tools that measure them number them."""
    found = read(run).cells
    listed = _listed(run) if found else ()
    rows = {picture.epoch: picture.row for picture in listed}
    numbers = {picture.file: picture.cell for picture in listed}
    return cells.arrange(
        [
            {
                **row,
                "row": rows.get(_whole(row["epoch"]), len(rows) + _whole(row["epoch"])),
                "cell": numbers.pop(str(row["file"]), len(listed) + place),
            }
            for place, row in enumerate(found)
        ]
    )


def _listed(run: Run) -> Sequence[Picture]:
    """List the samples as they are measured; none where they cannot be, and so were not."""
    try:
        return read_pictures(run.input("drawn"), read_dataset(run.input("dataset"))).pictures
    except LorascopeError:
        return ()


@functools.lru_cache(maxsize=64)
def _read(folder: Path, run: Path, _mtime_ns: int) -> Samples:
    """Read a table once for each state that it was seen in."""
    listed = read_list(folder)
    placed = sorted((row for row in listed.rows if row["epoch"] is not None), key=_order)
    return Samples(
        cells=_cells(placed, folder.relative_to(run)),
        between=len(listed.rows) - len(placed),
        unread=listed.damaged,
    )


def _cells(rows: Sequence[Row], folder: Path) -> Table:
    """Arrange rows like the grid's cells: a column is one of the prompts."""
    seeds: dict[Place, dict[Scalar, None]] = {}
    for row in rows:
        seeds.setdefault(_place(row), {})[row["seed"]] = None
    return tuple(_cell(row, list(seeds[_place(row)]), folder) for row in rows)


def _cell(row: Row, seeds: Sequence[Scalar], folder: Path) -> Row:
    index, text = row["index"], str(row["prompt"])
    number = f"prompt {index + 1}" if isinstance(index, int) else ""
    seed: Scalar = "differs" if len(seeds) > 1 else "unknown" if seeds[0] is None else seeds[0]
    own: Mapping[str, Scalar] = {"own seed": row["seed"]} if len(seeds) > 1 else {}
    return {
        "epoch": row["epoch"],
        "step": row["step"],
        "prompt": text or number or "prompt unknown",
        "group": number if text else "",
        "seed": seed,
        **own,
        "negative": row["negative"],
        "width": row["width"],
        "height": row["height"],
        "taken": row["taken"],
        "file": (folder / str(row["file"])).as_posix(),
    }


def _place(row: Row) -> Place:
    return row["index"], row["prompt"]


def _order(row: Row) -> tuple[float, str, float, float, str, str]:
    """Sort by column, then by time: of two pictures of one place the later is the one shown."""
    numbers = [row[key] for key in ("index", "epoch", "step")]
    index, epoch, step = (n if isinstance(n, int) else float("inf") for n in numbers)
    return index, str(row["prompt"]), epoch, step, str(row["taken"]), str(row["file"])


def _whole(value: Scalar) -> int:
    return value if isinstance(value, int) else 0
