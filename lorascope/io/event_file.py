"""TensorBoard's event files, read whole or while they grow, whatever happened to them.

An event file is a row of records: eight bytes with the length of the payload, the masked CRC32C of
these eight, the payload (a protocol buffer ``Event``), its masked CRC32C. One scalar is one event
of some 35 bytes, laid out alike by all usual writers, so those are taken apart with numpy, many at
once; what is laid out in another way goes to the protocol buffer library.
"""

import math
import os
import re
import stat
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import BadInputError, LorascopeError, MissingInputError
from lorascope.io.crc32c import Bytes, Checksums, Places, crc32c, masked

NAMED = "tfevents"  # what TensorBoard itself goes by
WROTE_AT = re.compile(NAMED + r"\.(\d{1,12})\b")  # s, in the name
HEAD, TAIL = 12, 4  # bytes of a record before and after its payload
FIRST_EVENT = 65_536  # bytes that are read for the time of a file's first event
WINDOW = 1 << 20  # bytes searched at once for sound records
BATCH = 16_384  # records taken apart at once
PLACES_NAMED = 100  # damaged places of one file that get a sentence of their own
START = 1  # SessionLog.START
SHORTEST, LONGEST = 20, 160  # bytes of a scalar's payload as usually laid out, and some more
NUMBERS = {1: ("<f4", "float_val"), 2: ("<f8", "double_val")}  # tensors of DT_FLOAT, DT_DOUBLE
SCALARS = ("", "scalars")  # TensorBoard's plugins for one number a step
POINT = np.dtype([("order", "i8"), ("tag", "i8"), ("step", "i8"), ("time", "f8"), ("value", "f8")])

Points = NDArray[np.void]  # of type POINT
Tags = dict[bytes, int]  # UTF-8: number of the tag
Span = tuple[int, int]  # first byte, first byte after


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


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Added:
    """What a growing event file gained."""

    series: Mapping[str, Series]  # by tag; the new scalars alone
    offset: int  # bytes; where the next reading begins
    damage: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Records:
    """Where the records of a buffer lie whose lengths hold."""

    starts: Places
    lengths: Places  # of their payloads
    gaps: list[Span]  # what was passed over between them
    end: int  # the first byte after the last one
    torn: bool  # a record begins at `end` that the file does not hold whole


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
    and the first run's later steps stay: one curve out of two trainings. `event_runs` gives the
    folders, so that each can be read alone.
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


def event_runs(folder: Path) -> dict[Path, tuple[Path, ...]]:
    """Group the event files below a folder by the folders that they lie in.

    Trainers give each training a folder of its own (kohya ``logs/20260101120000/network_train``,
    OneTrainer ``tensorboard/<time>``), so this tells trainings apart that were logged side by side.

    Returns
    -------
    dict of Path to tuple of Path
        Folders and files in the order of their first events. A folder may hold settings alone and
        no scalars: accelerate puts those into one of their own. Empty where there are no files.

    Raises
    ------
    MissingInputError
        There is no such folder.
    """
    if not _is_folder(Path(folder)):
        raise MissingInputError(f"{folder} is not a folder.\nFix: name a folder with event files.")
    return _find(Path(folder))[0]


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

    found: dict[Path, list[tuple[float, Path]]] = {}
    for folder, _, names in os.walk(root, onerror=unreadable):
        for path in (Path(folder, name) for name in names if NAMED in name):
            try:
                if stat.S_ISREG(path.lstat().st_mode):  # no link, no pipe
                    found.setdefault(path.parent, []).append((_written_at(path), path))
            except OSError as error:
                damage.append(f"Passed over: {_unreadable(path, error)}")
    ordered = sorted(sorted(files) for files in found.values())
    return {files[0][1].parent: tuple(path for _, path in files) for files in ordered}, damage


def _written_at(path: Path) -> float:
    """Give the wall time of a file's first event, else the time in its name, else infinity."""
    data = np.fromfile(path, dtype=np.uint8, count=FIRST_EVENT)
    records = _find_records(data)
    if records.starts.size:
        event = _event(data, int(records.starts[0]) + HEAD, int(records.lengths[0]))
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
    records = _find_records(data)
    begun = NAMED in path.name if data.size < HEAD else records.torn
    if data.size and not (begin or begun or records.starts.size):
        raise BadInputError(
            f"{path} is not an event file.\nFix: name a file that TensorBoard can read."
        )
    points, restarts, broken = _scalars(data, records, tags)
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


# Records


def _find_records(data: Bytes) -> _Records:
    """Find the records of a buffer; where lengths are damaged, search on for the next sound one."""
    starts, end = _chain(data)
    holds = _heads_hold(data, starts)
    sound = starts.size if holds.all() else int(holds.argmin())
    if sound == starts.size and end == data.size:
        lengths = np.diff(starts, append=end) - (HEAD + TAIL)
        return _Records(starts=starts, lengths=lengths, gaps=[], end=end, torn=False)
    # Bytes may be missing from the last sound record, so that it leads too far: begin inside it.
    before = max(sound - 1, 0)
    begin = int(starts[before]) if sound else 0
    heads = begin + _search(data[begin:])
    lengths = _stored(data, heads).astype(np.int64)
    ends = heads + lengths + HEAD + TAIL
    kept, gaps, end, torn = _walk(heads.tolist(), ends.tolist(), begin, data.size)
    return _Records(
        starts=np.concatenate([starts[:before], heads[kept]]),
        lengths=np.concatenate(
            [np.diff(starts[: before + 1]) - (HEAD + TAIL), lengths[kept]]
        ),
        gaps=gaps,
        end=end,
        torn=torn,
    )  # fmt: skip


def _chain(data: Bytes) -> tuple[Places, int]:
    """Follow the lengths, unchecked; give the records' places and where the last one leads."""
    starts: list[int] = []
    place, last = 0, data.size - HEAD
    length_at = struct.Struct("<Q").unpack_from
    buffer = data.data
    while place <= last:
        starts.append(place)
        place += length_at(buffer, place)[0] + HEAD + TAIL
    return np.array(starts, dtype=np.int64), place


def _stored(data: Bytes, places: Places) -> Checksums:
    """Read 32-bit numbers."""
    found: Checksums = data[places[:, None] + np.arange(4)].view("<u4")[:, 0]
    return found


def _heads_hold(data: Bytes, starts: Places) -> NDArray[np.bool_]:
    sums = crc32c(data, starts, np.full(starts.size, 8))
    holds: NDArray[np.bool_] = masked(sums) == _stored(data, starts + 8)
    return holds


def _search(data: Bytes) -> Places:
    """Find all places where the checksum of a record's length holds."""
    found = [np.zeros(0, dtype=np.int64)]
    for begin in range(0, data.size - HEAD + 1, WINDOW):
        count = min(WINDOW, data.size - HEAD + 1 - begin)
        # No event is 4 GiB long: the upper half of its length is zero, which few places are.
        upper = [data[begin + byte : begin + byte + count] for byte in range(4, 8)]
        places = begin + np.flatnonzero((upper[0] | upper[1] | upper[2] | upper[3]) == 0)
        found.append(places[_heads_hold(data, places)])
    return np.concatenate(found)


def _walk(
    heads: list[int], ends: list[int], begin: int, size: int
) -> tuple[list[int], list[Span], int, bool]:
    """Choose among places that look like records: which are kept, what lies between, the end."""
    numbers = {head: number for number, head in enumerate(heads)}
    kept: list[int] = []
    gaps: list[Span] = []
    place, number = begin, 0
    while number < len(heads):
        head, end = heads[number], ends[number]
        follower = len(heads) if end == size else numbers.get(end)
        if follower is None:  # it leads nowhere
            follower = number + 1
            if follower < len(heads) and heads[follower] < end:
                number = follower  # another one begins inside it: bytes of it are missing
                continue
        if head > place:
            gaps.append((place, head))
        place = head
        if end > size:
            return kept, gaps, place, True
        kept.append(number)
        place, number = end, follower
    return kept, gaps, place, 0 < size - place < HEAD


# Scalars


def _scalars(
    data: Bytes, records: _Records, tags: Tags
) -> tuple[Points, list[tuple[int, int]], list[Span]]:
    """Read the scalars of sound records; give the restarts and the broken records beside them."""
    starts, lengths = records.starts + HEAD, records.lengths
    stored = _stored(data, starts + lengths)
    sound = masked(crc32c(data, starts, lengths)) == stored
    usual = (lengths >= SHORTEST) & (lengths <= LONGEST)
    parts: list[Points] = []
    read = np.zeros(starts.size, dtype=np.bool_)
    for begin in range(0, starts.size, BATCH):
        rows = begin + np.flatnonzero((sound & usual)[begin : begin + BATCH])
        for length in np.unique(lengths[rows]).tolist():
            alike = rows[lengths[rows] == length]
            points = _usual_scalars(data, alike, length, starts[alike], tags)
            read[points["order"]] = True
            parts.append(points)
    others = np.flatnonzero(sound & ~read).tolist()
    points, restarts, unread = _other_scalars(data, others, starts, lengths, tags)
    broken = [
        (int(starts[row]) - HEAD, int(starts[row] + lengths[row]) + TAIL)
        for row in [*np.flatnonzero(~sound).tolist(), *unread]
    ]
    return np.concatenate([*parts, points]), restarts, broken


def _usual_scalars(data: Bytes, rows: Places, length: int, starts: Places, tags: Tags) -> Points:
    """Read those records of one length that hold a time, a step and one simple value.

    Their bytes: ``09`` time; ``10`` step, left out when it is 0; ``2a`` length of the summary;
    ``0a`` length of its value; ``0a`` length of the tag, tag; ``15`` number.
    """
    found = [np.zeros(0, dtype=POINT)]
    table = data[starts[:, None] + np.arange(length)]
    # A step goes on as long as its bytes are 128 or more; the tenth and last holds its sign.
    step_ends = 11 + (table[:, 10:20] < 128).argmax(axis=1)
    summaries = np.where(table[:, 9] == 0x2A, 9, step_ends)
    for summary in np.unique(summaries).tolist():
        fits = (summaries == summary) & _laid_out_as_usual(table, summary)
        usual = table[fits]
        points = np.zeros(len(usual), dtype=POINT)
        points["order"] = rows[fits]
        points["tag"] = _numbered(usual[:, summary + 6 : -5], tags)
        points["time"] = usual[:, 1:9].copy().view("<f8")[:, 0]
        for byte in range(10, summary):
            points["step"] |= (usual[:, byte] & 127).astype(np.int64) << (7 * (byte - 10))
        with np.errstate(invalid="ignore"):  # some kinds of NaN are reported when converted
            points["value"] = usual[:, -4:].copy().view("<f4")[:, 0]
        found.append(points[points["tag"] >= 0])
    return np.concatenate(found)


def _laid_out_as_usual(table: Bytes, summary: int) -> NDArray[np.bool_]:
    """Compare every byte that is no time, step, tag or number; ``summary`` is where that begins."""
    length = table.shape[1]
    tag = length - summary - 11
    if tag < 0:
        return np.zeros(len(table), dtype=np.bool_)
    wanted = {
        0: 0x09,
        summary: 0x2A,
        summary + 1: length - summary - 2,
        summary + 2: 0x0A,
        summary + 3: length - summary - 4,
        summary + 4: 0x0A,
        summary + 5: tag,
        length - 5: 0x15,
    }
    fits: NDArray[np.bool_] = (table[:, list(wanted)] == list(wanted.values())).all(axis=1)
    if summary > 9:
        fits &= table[:, 9] == 0x10
    return fits


def _numbered(names: Bytes, tags: Tags) -> Places:
    """Give each name the number of its tag; -1 where it is not UTF-8."""
    count, width = names.shape
    joined = names.tobytes()
    cut = [joined[width * row : width * (row + 1)] for row in range(count)]
    for name in dict.fromkeys(cut):
        if name not in tags:
            tags[name] = len(tags) if _is_text(name) else -1
    return np.array([tags[name] for name in cut], dtype=np.int64)


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _other_scalars(
    data: Bytes, rows: list[int], starts: Places, lengths: Places, tags: Tags
) -> tuple[Points, list[tuple[int, int]], list[int]]:
    """Read records with the protocol buffer library; name those that it cannot read."""
    found: list[tuple[int, int, int, float, float]] = []
    restarts: list[tuple[int, int]] = []
    unread: list[int] = []
    for row in rows:
        event = _event(data, int(starts[row]), int(lengths[row]))
        if event is None:
            unread.append(row)
            continue
        if event.session_log.status == START:
            restarts.append((row, event.step))
        for value in event.summary.value:
            number = _number(value)
            if number is not None:
                tag = tags.setdefault(value.tag.encode(), len(tags))
                found.append((row, tag, event.step, event.wall_time, number))
    return np.array(found, dtype=POINT), restarts, unread


def _event(data: Bytes, start: int, length: int) -> Any:
    """Read one payload with the protocol buffer library; `None` where it is no event."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboard.compat.proto.event_pb2 import Event

    try:
        return Event.FromString(data[start : start + length].tobytes())
    except DecodeError:
        return None


def _number(value: Any) -> float | None:
    """Give the scalar of one value of a summary, if it is one."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind != "tensor" or value.metadata.plugin_data.plugin_name not in SCALARS:
        return None
    tensor = value.tensor
    if tensor.dtype not in NUMBERS or any(side.size != 1 for side in tensor.tensor_shape.dim):
        return None
    stored_as, listed_as = NUMBERS[tensor.dtype]
    listed = getattr(tensor, listed_as)
    if len(tensor.tensor_content) == np.dtype(stored_as).itemsize:
        listed = np.frombuffer(tensor.tensor_content, dtype=stored_as)
    return float(listed[0]) if len(listed) == 1 else None


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
            part.points["order"] += before
            points.append(part.points)
            restarts += [(before + order, step) for order, step in part.restarts]
            before += part.records
        kept.append(_not_taken_back(np.concatenate(points), restarts))
    told = [sentence for parts in runs for part in parts for sentence in part.damage]
    return Events(
        series=_series(np.concatenate(kept), tags),
        files=tuple(files),
        damage=(*damage, *told),
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
