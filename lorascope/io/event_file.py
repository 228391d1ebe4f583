"""TensorBoard's event files, read whole or while they grow, whatever happened to them.

Here files become series: found below a folder, put in order, merged by tag, read on from where the
last reading ended. `record_file` finds the records of a file, `event_scalars` the scalars in them.
"""

import math
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import BadInputError, LorascopeError, MissingInputError
from lorascope.io.event_scalars import POINT, Points, Tags, parse_event, read_scalars
from lorascope.io.record_file import HEAD, Span, find_records

NAMED = "tfevents"  # what TensorBoard itself goes by
WROTE_AT = re.compile(NAMED + r"\.(\d{1,12})\b")  # s, in the name
NUMBER = re.compile(r"(?<=\.)\d{1,12}(?=\.|$)")
FIRST_EVENT = 65_536  # bytes that are read for the time of a file's first event
PLACES_NAMED = 100  # damaged places of one file that get a sentence of their own


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Series:
    """One scalar tag."""

    tag: str  # exactly as the trainer wrote it
    steps: NDArray[np.int64]  # ascending, each once
    times: NDArray[np.float64]  # wall time, s
    values: NDArray[np.float64]  # NaN and infinity are kept


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Events:
    """All scalars of one event file, or of all that a folder holds."""

    series: Mapping[str, Series]  # by tag
    files: tuple[Path, ...]  # in the order of their writing
    damage: tuple[str, ...]  # a sentence for each damaged or cut place
    # The series of each folder, in the order of its first event. Trainers give each training a
    # folder of its own, so this tells trainings apart that lie side by side.
    sessions: tuple[Mapping[str, Series], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Added:
    """What a growing event file gained."""

    series: Mapping[str, Series]  # by tag; the new scalars alone
    offset: int  # bytes; where the next reading begins
    damage: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Part:
    """What one reading of one file found."""

    points: Points
    restarts: list[tuple[int, int]]  # order and step of each SessionLog.START
    records: int
    end: int
    damage: tuple[str, ...]


def read_events(path: Path) -> Events:
    """Read the scalars of an event file, or of all event files below a folder.

    Parameters
    ----------
    path : Path
        A file, also one that is being written to. Or a folder, searched recursively for names
        with ``tfevents``; links in it are not followed.

    Returns
    -------
    Events
        Series of one tag are merged. Where a step was written twice, the later wall time wins. A
        writer that was told where it resumes (``purge_step``) takes back what its folder had
        logged at and after that step, as in TensorBoard. An empty file holds no series.

    Raises
    ------
    MissingInputError
        There is no such file or folder, or no event file in the folder.
    BadInputError
        The named file is not an event file, or may not be read. One that a folder holds is passed
        over instead, with a sentence in ``damage``.

    Notes
    -----
    A trainer that resumes often restarts its steps at 0, in a new folder named by the time (kohya
    without ``initial_step``). Merged, the steps that such a run repeats replace the first run's,
    and the first run's later steps stay: one curve out of two trainings. ``sessions`` tells.
    """
    path = Path(path)
    tags: Tags = {}
    if not _is_folder(path):
        return _events([[_read_file(path, tags)]], [path], (), tags)
    runs, damage = _find(path)
    if not runs:
        raise MissingInputError(
            f"{path} holds no event file: no name below it has {NAMED}.\n"
            "Fix: name the folder that your trainer logs to for TensorBoard."
        )
    parts: list[list[_Part]] = []
    for files in runs.values():
        parts.append([])
        for file in files:
            try:
                parts[-1].append(_read_file(file, tags))
            except LorascopeError as error:
                damage.append(f"Passed over: {str(error).splitlines()[0]}")
    return _events(parts, [file for files in runs.values() for file in files], damage, tags)


def read_since(path: Path, offset: int = 0) -> Added:
    """Read what was appended to an event file since the last reading.

    Parameters
    ----------
    path : Path
    offset : int
        What the last reading gave; 0 at first. A file that is shorter by now was begun anew, and
        is read from its beginning.

    Returns
    -------
    Added
        A record that is not yet whole is left for the next reading. Writers begin a new file when
        they resume, so nothing that was given before is ever taken back.

    Raises
    ------
    MissingInputError, BadInputError
        As `read_events`.
    """
    path = Path(path)
    tags: Tags = {}
    part = _read_file(path, tags, offset=offset, growing=True)
    return Added(series=_series(part.points, tags), offset=part.end, damage=part.damage)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> BadInputError:
    return BadInputError(f"{path} cannot be read: {error.strerror}.")


def _find(root: Path) -> tuple[dict[Path, tuple[Path, ...]], list[str]]:
    """Find the event files below a folder, by folder, and what may not be looked into."""
    damage: list[str] = []

    def unreadable(error: OSError) -> None:
        damage.append(f"Passed over: {_unreadable(Path(error.filename), error)}")

    found: dict[Path, list[tuple[float, tuple[int, ...], Path]]] = {}
    for folder, _, names in os.walk(root, onerror=unreadable):
        for path in (Path(folder, name) for name in names if NAMED in name):
            try:
                if stat.S_ISREG(path.lstat().st_mode):  # no link, no pipe
                    key = (_written_at(path), _numbers_in(path.name), path)
                    found.setdefault(path.parent, []).append(key)
            except OSError as error:
                damage.append(f"Passed over: {_unreadable(path, error)}")
    ordered = sorted(sorted(files) for files in found.values())
    return {files[0][-1].parent: tuple(file[-1] for file in files) for files in ordered}, damage


def _numbers_in(name: str) -> tuple[int, ...]:
    """Give the numbers of a name behind ``tfevents``: time, process and how many it opened before.

    They order files whose first events have one time, as a coarse clock gives them: the tenth
    comes after the ninth, though its name as text comes before.
    """
    return tuple(int(number) for number in NUMBER.findall(name.rpartition(NAMED)[2]))


def _written_at(path: Path) -> float:
    """Give the wall time of a file's first event, else the time in its name, else infinity."""
    data = np.fromfile(path, dtype=np.uint8, count=FIRST_EVENT)
    records = find_records(data)
    if records.starts.size:
        event = parse_event(data, int(records.starts[0]) + HEAD, int(records.lengths[0]))
        if event is not None and math.isfinite(event.wall_time):
            return float(event.wall_time)
    named = WROTE_AT.search(path.name)
    return float(named[1]) if named else math.inf


def _read_file(path: Path, tags: Tags, *, offset: int = 0, growing: bool = False) -> _Part:
    try:
        if not path.is_file():
            what = "is not a file" if path.exists() else "does not exist"
            raise MissingInputError(f"{path} {what}.\nFix: name an event file, or its folder.")
        begin = offset if offset <= path.stat().st_size else 0
        # Not mapped into memory: a file that is cut while it is read would end the program.
        data = np.fromfile(path, dtype=np.uint8, offset=begin)
    except OSError as error:
        raise _unreadable(path, error) from error
    records = find_records(data)
    begun = NAMED in path.name if data.size < HEAD else records.torn
    if data.size and not (begin or begun or records.starts.size):
        raise BadInputError(
            f"{path} is not an event file.\nFix: name a file that TensorBoard can read."
        )
    points, restarts, broken = read_scalars(data, records, tags)
    spans = sorted(records.gaps + broken)
    if records.end < data.size and not records.torn and not growing:
        spans.append((records.end, data.size))
    damage = _sentences(path, spans, begin)
    if records.torn and not growing:
        damage.append(
            f"{path} ends inside a record, at byte {records.end}: it is still being written, "
            "or was cut short."
        )
    return _Part(
        points=points,
        restarts=restarts,
        records=records.starts.size,
        end=begin + records.end,
        damage=tuple(damage),
    )


def _sentences(path: Path, spans: list[Span], begin: int) -> list[str]:
    """Name damaged places, those that touch as one."""
    places: list[list[int]] = []
    for start, end in spans:
        if places and start <= places[-1][1]:
            places[-1][1] = max(end, places[-1][1])
        else:
            places.append([start, end])
    told = [
        f"{path}: bytes {begin + start} to {begin + end - 1} are damaged and were left out."
        for start, end in places[:PLACES_NAMED]
    ]
    if more := len(places) - len(told):
        told.append(f"{path}: {more} more places are damaged and were left out.")
    return told


# Series


def _events(
    runs: Sequence[Sequence[_Part]], files: Sequence[Path], damage: Sequence[str], tags: Tags
) -> Events:
    """Merge the parts of all files, each folder's restarts applied to that folder."""
    kept: list[Points] = []
    before = 0  # records in the files before
    for parts in runs:
        restarts: list[tuple[int, int]] = []
        points = [np.zeros(0, dtype=POINT)]
        for part in parts:
            moved = part.points.copy()
            moved["order"] += before
            points.append(moved)
            restarts += [(before + order, step) for order, step in part.restarts]
            before += part.records
        kept.append(_not_taken_back(np.concatenate(points), restarts))
    told = [sentence for parts in runs for part in parts for sentence in part.damage]
    sessions = tuple(_series(points, tags) for points in kept)
    return Events(
        series=sessions[0] if len(kept) == 1 else _series(np.concatenate(kept), tags),
        files=tuple(files),
        damage=(*damage, *told),
        sessions=sessions,
    )


def _not_taken_back(points: Points, restarts: list[tuple[int, int]]) -> Points:
    """Drop what was logged before a restart at a step that it repeats."""
    if not restarts:
        return points
    orders, steps = np.array(restarts, dtype=np.int64).T
    lowest = np.minimum.accumulate(steps[::-1])[::-1]  # of all restarts from each one on
    following = np.searchsorted(orders, points["order"], side="right")
    limit = lowest[np.minimum(following, len(lowest) - 1)]
    kept: Points = points[(following == len(lowest)) | (points["step"] < limit)]
    return kept


def _series(points: Points, tags: Tags) -> dict[str, Series]:
    """Sort by tag, step, wall time and place in the files; keep the last of each step."""
    keys = ("order", "time", "step", "tag")
    points = points[np.lexsort([points[key] for key in keys])]
    last = np.ones(len(points), dtype=np.bool_)
    last[:-1] = (np.diff(points["tag"]) != 0) | (np.diff(points["step"]) != 0)
    points = points[last]
    numbers, begins = np.unique(points["tag"], return_index=True)
    own = dict(zip(numbers.tolist(), np.split(points, begins[1:]), strict=False))
    return {
        name.decode(): _one_series(name.decode(), own[number])
        for name, number in sorted(tags.items())
        if number in own
    }


def _one_series(tag: str, points: Points) -> Series:
    return Series(
        tag=tag,
        steps=points["step"].copy(),
        times=points["time"].copy(),
        values=points["value"].copy(),
    )
