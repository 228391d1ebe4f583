"""Progress on stderr, with the time left, for whatever takes longer than two seconds."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

QUIET_S = 2.0  # shorter work says nothing
EVERY_S = 0.5  # between two updates on a terminal
EVERY_LOG_S = 10.0  # between two lines in a log file


def track(items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
    """Yield the items, saying how far the work is and how long it still takes.

    Parameters
    ----------
    items : iterable
        What is worked on.
    label : str
        What the work is called.
    total : int, optional
        How many items there are, where ``len`` cannot tell.
    """
    total = total if total is not None else len(items)  # type: ignore[arg-type]  # sized by contract
    started = shown = time.monotonic()
    every = EVERY_S if sys.stderr.isatty() else EVERY_LOG_S
    spoke = False
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - started > QUIET_S and (now - shown > every or not spoke):
            left = (now - started) / done * (total - done)
            _say(f"{label}: {done}/{total}, {duration(left)} left")
            shown, spoke = now, True
        yield item
    if spoke:
        _say(f"{label}: {total}/{total}, {duration(time.monotonic() - started)}", end="\n")


def announce(text: str) -> None:
    """Say one line of its own: what is about to be done, and what it costs."""
    _say(text, end="\n" if sys.stderr.isatty() else "")


def duration(seconds: float) -> str:
    """Write a time span for people: ``7 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _say(text: str, *, end: str = "") -> None:
    """Overwrite the line on a terminal; write a line of its own into a log."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}{end}")
    else:
        sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
