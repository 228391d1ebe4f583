"""The run's ``train/log.csv``: a row per step, appended while training goes on."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from lorascope import storage
from lorascope.errors import BadInputError, MissingInputError

HEADER = "step,epoch,loss,lr_unet,lr_text"


@dataclass(frozen=True, kw_only=True, slots=True)
class LogRow:
    """What one step left behind."""

    step: int  # from 1
    epoch: int  # from 1
    loss: float  # the number that was minimised
    lr_unet: float
    lr_text: float  # 0 where the text encoder is not trained


class LogWriter:
    """Appends rows to a log; each is on disk, as far as the system goes, when `add` returns.

    Parameters
    ----------
    path : Path
        The file. One that is there is kept up to ``after``; later rows are dropped.
    after : int
        The last step that counts; 0 begins anew.

    Raises
    ------
    StorageError
        The file cannot be written.
    """

    def __init__(self, path: Path, *, after: int = 0) -> None:
        self.path = path
        kept = [row for row in read_log(path) if row.step <= after] if after else []
        lines = "".join(_line(row) for row in kept)
        storage.write_text(path, f"{HEADER}\n{lines}")
        self._file: TextIO = path.open("a", encoding="utf-8", newline="")

    def add(self, row: LogRow) -> None:
        """Append one row.

        Raises
        ------
        StorageError
            The disk is full or the file was taken away.
        """
        try:
            self._file.write(_line(row))
            self._file.flush()
        except OSError as error:
            raise storage.storage_error(self.path, error) from error

    def __enter__(self) -> Self:
        """Use the writer in a ``with`` block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._file.close()


def read_log(path: Path) -> list[LogRow]:
    """Read a log, also while it is being written: a torn last line is passed over.

    Returns
    -------
    list of LogRow
        In the order of the file. A row whose loss is not a number is kept.

    Raises
    ------
    MissingInputError
        There is no such file.
    BadInputError
        It is not such a log, or a line before the last is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError as error:
        raise MissingInputError(f"{path} does not exist.\nFix: lorascope train CONFIG") from error
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror}.") from error
    whole = text[: text.rfind("\n") + 1]
    lines = whole.splitlines()
    if lines and lines[0].strip() != HEADER:
        raise BadInputError(f"{path} is not a training log: its first line is not {HEADER}.")
    return list(_rows(path, lines[1:]))


def _rows(path: Path, lines: list[str]) -> Iterator[LogRow]:
    for number, line in enumerate(lines, start=2):
        try:
            step, epoch, loss, lr_unet, lr_text = line.split(",")
            yield LogRow(
                step=int(step),
                epoch=int(epoch),
                loss=float(loss),
                lr_unet=float(lr_unet),
                lr_text=float(lr_text),
            )
        except ValueError as error:
            raise BadInputError(
                f"{path}, line {number} is damaged: {line[:60]!r}.\nFix: delete that line."
            ) from error


def _line(row: LogRow) -> str:
    loss = f"{row.loss:.8g}" if math.isfinite(row.loss) else str(row.loss)
    return f"{row.step},{row.epoch},{loss},{row.lr_unet:.8g},{row.lr_text:.8g}\n"
