"""Options as people write them become values: "2,4,6-10", "512x768", "blurry | ", "0.6,1"."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lorascope.errors import BadInputError

MOST_SEEDS = 10_000  # that a range may stand for
MOST_STEPS = 1000
LARGEST_SIDE = 4096  # px


def epochs(text: str, available: Sequence[int], *, option: str = "epochs") -> tuple[int, ...]:
    """Read which epochs are meant.

    Parameters
    ----------
    text : str
        As in "2,4,6-10": numbers, and ranges that take every saved epoch between their ends; all
        where empty; "first" and "last". 0, the base model, may be named and changes nothing.
    available : sequence of int
        The saved epochs.
    option : str
        What is being read, for what is said where it cannot be.

    Returns
    -------
    tuple of int
        Rising, without 0.

    Raises
    ------
    BadInputError
        It cannot be read, or names an epoch that was not saved.
    """
    if not text.strip():
        return tuple(sorted(set(available)))
    words = {"first": min(available, default=0), "last": max(available, default=0)}
    wanted: set[int] = set()
    absent = []
    for part in _listed(option, text, "2,4,6-10"):
        if part in words:
            wanted.add(words[part])
            continue
        low, high = _span(option, part, "2,4,6-10")
        found = {epoch for epoch in (0, *available) if low <= epoch <= high}
        wanted |= found
        absent += [part] if not found else []
    if absent:
        there = spans(available)
        raise BadInputError(
            f"There is no epoch {', '.join(absent)} to draw; there are {there}.\n"
            f"Fix: --{option} {there.replace(' ', '')}"
        )
    return tuple(sorted(wanted - {0}))


def seeds(text: str) -> tuple[int, ...]:
    """Read seeds: "1,2" or "1-4"; each once, in the order given."""
    found: dict[int, None] = {}
    for part in _listed("seeds", text, "1,2"):
        low, high = _span("seeds", part, "1,2")
        if high - low >= MOST_SEEDS:
            raise _unreadable("seeds", part, "1-4")
        found |= dict.fromkeys(range(low, high + 1))
    return tuple(found)


def numbers(option: str, text: str, *, example: str, least: float = -math.inf) -> tuple[float, ...]:
    """Read numbers with commas between them; each once, in the order given."""
    found: dict[float, None] = {}
    for part in _listed(option, text, example):
        try:
            value = float(part)
        except ValueError as error:
            raise _unreadable(option, part, example) from error
        if not math.isfinite(value):
            raise _unreadable(option, part, example)
        if value < least:
            raise BadInputError(
                f"{option} is {part}, and must be {least:g} or more.\nFix: --{option} {example}"
            )
        found[value] = None
    return tuple(found)


def steps(text: str) -> tuple[int, ...]:
    """Read numbers of sampling steps."""
    found = tuple(
        dict.fromkeys(_whole("steps", part, "20,30") for part in _listed("steps", text, "20,30"))
    )
    if wrong := [count for count in found if not 1 <= count <= MOST_STEPS]:
        raise BadInputError(
            f"steps is {wrong[0]}, and must be from 1 to {MOST_STEPS}.\nFix: --steps 20"
        )
    return found


def sizes(text: str, *, unit: int) -> tuple[tuple[int, int], ...]:
    """Read sizes of pictures, as in "512x512,512x768": width x height in px.

    Raises
    ------
    BadInputError
        A side cannot be read, or is no multiple of ``unit``.
    """
    found = []
    for part in _listed("sizes", text, "512x512,512x768"):
        width, _, height = part.lower().partition("x")
        size = (
            _whole("sizes", width, "512x768"),
            _whole("sizes", height or width, "512x768"),
        )
        if any(side < unit or side % unit or side > LARGEST_SIDE for side in size):
            raise BadInputError(
                f"{part} px cannot be drawn: both sides must be multiples of {unit}, "
                f"at most {LARGEST_SIDE}.\nFix: --sizes {_nearest(size, unit)}"
            )
        found.append(size)
    return tuple(dict.fromkeys(found))


def choices(option: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Read names of which only some are known."""
    found = tuple(dict.fromkeys(_listed(option, text, known[0])))
    if strange := [name for name in found if name not in known]:
        raise BadInputError(
            f"{strange[0]!r} is no {option}.\nFix: --{option} with one of {', '.join(known)}"
        )
    return found


def texts(text: str) -> tuple[str, ...]:
    """Read texts with a bar between them; an empty one counts, each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split("|")))


def spans(found: Sequence[int]) -> str:
    """Write 1, 2, 3, 7 as "1-3, 7"."""
    runs: list[list[int]] = []
    for number in sorted(set(found)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def read_all(readers: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Read every option, and name all that cannot be read at once.

    Raises
    ------
    BadInputError
        One or more cannot be read.
    """
    found, wrong = {}, []
    for name, read in readers.items():
        try:
            found[name] = read()
        except BadInputError as error:
            wrong.append(str(error))
    if wrong:
        raise BadInputError("\n".join(wrong))
    return found


def _listed(option: str, text: str, example: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise _unreadable(option, text, example)
    return parts


def _span(option: str, part: str, example: str) -> tuple[int, int]:
    """Read "3" or "3-7"."""
    ends = [_whole(option, end, example) for end in part.split("-")]
    if len(ends) > 2 or ends[0] > ends[-1]:
        raise _unreadable(option, part, example)
    return ends[0], ends[-1]


def _whole(option: str, text: str, example: str) -> int:
    if not (text.strip().isascii() and text.strip().isdecimal()) or int(text) >= 2**63:
        raise _unreadable(option, text, example)
    return int(text)


def _nearest(size: tuple[int, int], unit: int) -> str:
    width, height = (min(max(round(side / unit), 1) * unit, LARGEST_SIDE) for side in size)
    return f"{width}x{height}"


def _unreadable(option: str, text: str, example: str) -> BadInputError:
    return BadInputError(f"Cannot read {text!r} in --{option}.\nFix: --{option} {example}")
