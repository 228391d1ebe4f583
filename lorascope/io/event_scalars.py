"""Scalars out of the events of TensorBoard's files: most of them with numpy, many at once.

An event is a protocol buffer of some 35 bytes where it holds one scalar, laid out alike by all
usual writers, so those are taken apart with numpy; what is laid out in another way goes to the
protocol buffer library.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.io.crc32c import Bytes, Places
from lorascope.io.record_file import HEAD, TAIL, Records, Span, payloads_hold

BATCH = 16_384  # records taken apart at once
START = 1  # SessionLog.START
SHORTEST, LONGEST = 20, 160  # bytes of a scalar's payload as usually laid out, and some more
NUMBERS = {1: ("<f4", "float_val"), 2: ("<f8", "double_val")}  # tensors of DT_FLOAT, DT_DOUBLE
SCALARS = ("", "scalars")  # TensorBoard's plugins for one number a step
POINT = np.dtype([("order", "i8"), ("tag", "i8"), ("step", "i8"), ("time", "f8"), ("value", "f8")])

Points = NDArray[np.void]  # of type POINT
Tags = dict[bytes, int]  # UTF-8: number of the tag


def read_scalars(
    data: Bytes, records: Records, tags: Tags
) -> tuple[Points, list[tuple[int, int]], list[Span]]:
    """Read the scalars of sound records; give the restarts and the broken records beside them."""
    starts, lengths = records.starts + HEAD, records.lengths
    sound = payloads_hold(data, records)
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
        event = parse_event(data, int(starts[row]), int(lengths[row]))
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


def parse_event(data: Bytes, start: int, length: int) -> Any:
    """Read one payload with the protocol buffer library; `None` where it is no event."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it ships none
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
