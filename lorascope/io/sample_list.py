"""The list of the pictures that another trainer drew: ``images.csv`` beside them."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorascope import tables
from lorascope.records import Row

LIST = "images.csv"
COLUMNS = ("file", "epoch", "step", "index", "prompt", "negative", "seed", "width", "height",
           "taken")  # fmt: skip
TYPES: Mapping[str, str] = dict.fromkeys(COLUMNS, "str") | dict.fromkeys(
    ("epoch", "step", "index", "seed", "width", "height"), "int"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleList:
    """What the list says."""

    rows: Sequence[Row] = ()
    damaged: int = 0  # rows that were left out


def read_sample_list(folder: Path) -> Sequence[Row]:
    """Read the list of a folder of samples, without its damaged rows; nothing if there is none."""
    return read_list(folder).rows


def read_list(folder: Path) -> SampleList:
    """Read the list row by row; a row is damaged alone, and counted."""
    try:
        text = (folder / LIST).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return SampleList()
    except (OSError, ValueError):
        return SampleList(damaged=1)
    lines = [line for line in _lines(text) if line != []]
    if not lines or lines[0] is None:
        return SampleList(damaged=1)
    header, rest = lines[0], lines[1:]
    if set(TYPES) - set(header):
        return SampleList(damaged=1 + len(rest))
    rows = [_row(header, line) for line in rest]
    sound = [row for row in rows if row is not None]
    return SampleList(rows=sound, damaged=len(rows) - len(sound))


def _lines(text: str) -> Iterator[list[str] | None]:
    """Split the text into rows of cells; None for one that is no CSV."""
    reader = csv.reader(io.StringIO(text, newline=""))
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield None


def _row(header: Sequence[str], line: Sequence[str] | None) -> Row | None:
    """Give one row its types; None where it is damaged or names no file of the folder."""
    if line is None or len(line) != len(header):
        return None
    text = io.StringIO()
    csv.writer(text).writerows([header, line])
    try:
        (row,) = tables.from_csv(text.getvalue(), TYPES)
    except (ValueError, KeyError, TypeError, csv.Error):
        return None
    file, epoch = str(row["file"]), row["epoch"]
    inside = Path(file).name == file and file not in ("", "..") and "\0" not in file
    return row if inside and not (isinstance(epoch, int) and epoch < 0) else None
