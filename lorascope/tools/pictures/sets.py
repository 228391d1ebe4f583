"""The pictures that are measured: the cells of a grid, or what another trainer drew."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lorascope import tables
from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.dataset_file import Dataset
from lorascope.io.images import read_image
from lorascope.io.sample_list import read_sample_list
from lorascope.records import Row, Scalar
from lorascope.run import digest, run_of
from lorascope.tools.drawing.prompts import group_of

TYPES = {
    **dict.fromkeys(("cell", "row", "column", "epoch", "step"), "int"),
    **dict.fromkeys(("seed", "width", "height", "baseline"), "int"),
    **dict.fromkeys(("strength", "text_strength"), "float"),
    **dict.fromkeys(("kind", "prompt", "group", "base", "file"), "str"),
}  # of the columns of a grid's table of cells that make a Picture
BASE, LORA, TRIGGER_OFF = "base", "lora", "trigger-off"  # kinds of rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One picture of a set, with what decided it as far as that is known."""

    cell: int  # its place in the list of the set
    row: int
    column: int
    kind: str  # base, lora or trigger-off
    epoch: int  # 0: the base model
    step: int
    strength: float
    text_strength: float
    prompt: str
    group: str  # of `prompts.GROUPS`; "" where it is not known
    seed: int | None
    width: int
    height: int
    base: str = ""  # the base model that drew it
    baseline: int | None = None  # cell that the base model drew of the same prompt and noise
    file: str = ""  # relative to the run

    def read(self, run: Path) -> NDArray[np.uint8]:
        """Read the picture: (height, width, 3) uint8."""
        return read_image(run / self.file)


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureSet:
    """Pictures in rows (checkpoint and strength) and columns (prompt and seed)."""

    run: Path
    pictures: tuple[Picture, ...]  # `pictures[i].cell` is i
    by_trainer: bool = False

    def rows(self) -> Iterator[tuple[Picture, ...]]:
        """Give the pictures row by row, the base model's row first."""
        found: dict[int, list[Picture]] = {}
        for picture in self.pictures:
            found.setdefault(picture.row, []).append(picture)
        yield from (tuple(found[row]) for row in sorted(found))

    def content(self, picture: Picture) -> str:
        """Name what is in a picture, for whoever keeps what was computed from it."""
        path = self.run / picture.file
        return digest(path) if self.by_trainer else path.stem


def read_pictures(path: Path, dataset: Dataset) -> PictureSet:
    """Read which pictures are to be measured.

    Parameters
    ----------
    path : Path
        A grid's table of cells, or the folder with the samples of another trainer.
    dataset : Dataset
        Tells what the prompts of another trainer ask for.

    Raises
    ------
    MissingInputError
        There is none.
    BadInputError
        The list is damaged.
    """
    pictures = _of_trainer(path, dataset) if path.is_dir() else _of_grid(path)
    if not pictures:
        fix = "add samples RUN PATH" if path.is_dir() else "grid RUN"
        raise MissingInputError(f"{path} lists no picture.\nFix: lorascope {fix}")
    run = path.parents[1] if path.is_dir() else run_of(path)
    return PictureSet(run=run, pictures=tuple(pictures), by_trainer=path.is_dir())


def usual_size(pictures: PictureSet, dataset: Dataset) -> tuple[int, int]:
    """Give width and height of most pictures.

    Where they are not known, what was trained at; where that is not known either, the size of the
    first picture, or training image, that can be read.

    Raises
    ------
    BadInputError
        None can.
    """
    sizes = Counter((p.width, p.height) for p in pictures.pictures if p.width and p.height)
    if sizes:
        return sizes.most_common(1)[0][0]
    if all(dataset.resolution):
        return dataset.resolution
    files = [pictures.run / picture.file for picture in pictures.pictures]
    for file in (*files, *map(dataset.path, dataset.train)):
        with contextlib.suppress(BadInputError, MissingInputError):
            height, width = read_image(file).shape[:2]
            return width, height
    raise BadInputError("Not one picture can be read.\nFix: draw them again.")


def _of_grid(path: Path) -> list[Picture]:
    try:
        rows = tables.from_csv(path.read_text(encoding="utf-8"), TYPES)
        return [Picture(**row) for row in rows]  # type: ignore[arg-type]  # typed by the table
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(
            f"{path} is damaged ({error}).\nFix: lorascope grid {run_of(path)}"
        ) from error


def _of_trainer(folder: Path, dataset: Dataset) -> list[Picture]:
    """Arrange samples like a grid: a row is an epoch, a column a prompt."""
    listed = [row for row in read_sample_list(folder) if _usable(folder, row)]
    latest = {(_epoch(row), *_column(row)): row for row in listed}  # one drawn twice: the later
    epochs = sorted({_epoch(row) for row in latest.values()})
    columns = list(dict.fromkeys(_column(row) for row in latest.values()))
    ordered = sorted(latest, key=lambda key: (key[0], columns.index(key[1:])))
    places = {key: place for place, key in enumerate(ordered)}
    return [
        Picture(
            cell=place,
            row=epochs.index(key[0]),
            column=columns.index(key[1:]),
            kind=LORA if key[0] else BASE,
            epoch=key[0],
            step=_whole(latest[key]["step"]) or 0,
            strength=1.0 if key[0] else 0.0,
            text_strength=1.0 if key[0] else 0.0,
            prompt=str(latest[key]["prompt"] or ""),
            group=group_of(str(latest[key]["prompt"]), dataset) if latest[key]["prompt"] else "",
            seed=_whole(latest[key]["seed"]),
            width=_whole(latest[key]["width"]) or 0,
            height=_whole(latest[key]["height"]) or 0,
            baseline=places.get((0, *key[1:])),
            file=f"samples/{folder.name}/{latest[key]['file']}",
        )
        for key, place in places.items()
    ]


def _usable(folder: Path, row: Row) -> bool:
    name = str(row["file"])
    return row["epoch"] is not None and Path(name).name == name and os.path.isfile(folder / name)  # noqa: PTH113 - a name too long is no file


def _epoch(row: Row) -> int:
    return _whole(row["epoch"]) or 0


def _column(row: Row) -> tuple[Scalar, Scalar]:
    return row["index"], row["prompt"]


def _whole(value: Scalar) -> int | None:
    return value if isinstance(value, int) else None
