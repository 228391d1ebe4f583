"""Files made of records with checksums (TFRecord), found again behind whatever is damaged.

A record: eight bytes with the length of the payload, the masked CRC32C of these eight, the payload,
its masked CRC32C. Lengths alone lead from one record to the next, so that a damaged one leads
astray; then every place is tried where the checksum of a length holds. What a payload means is not
known here.
"""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lorascope.io.crc32c import Bytes, Checksums, Places, crc32c, masked

HEAD, TAIL = 12, 4  # bytes of a record before and after its payload
WINDOW = 1 << 20  # bytes searched at once for sound records

Span = tuple[int, int]  # first byte, first byte after


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Records:
    """Where the records of a buffer lie whose lengths hold."""

    starts: Places
    lengths: Places  # of their payloads
    gaps: list[Span]  # what was passed over between them
    end: int  # the first byte after the last one
    torn: bool  # a record begins at `end` that the file does not hold whole


def find_records(data: Bytes) -> Records:
    """Find the records of a buffer; where lengths are damaged, search on for the next sound one."""
    starts, end = _chain(data)
    holds = _heads_hold(data, starts)
    sound = starts.size if holds.all() else int(holds.argmin())
    if sound == starts.size and end == data.size:
        lengths = np.diff(starts, append=end) - (HEAD + TAIL)
        return Records(starts=starts, lengths=lengths, gaps=[], end=end, torn=False)
    # Bytes may be missing from the last sound record, so that it leads too far: begin inside it.
    before = max(sound - 1, 0)
    begin = int(starts[before]) if sound else 0
    heads = begin + _search(data[begin:])
    lengths = _stored(data, heads).astype(np.int64)
    ends = heads + lengths + HEAD + TAIL
    kept, gaps, end, torn = _walk(heads.tolist(), ends.tolist(), begin, data.size)
    return Records(
        starts=np.concatenate([starts[:before], heads[kept]]),
        lengths=np.concatenate([np.diff(starts[: before + 1]) - (HEAD + TAIL), lengths[kept]]),
        gaps=gaps,
        end=end,
        torn=torn,
    )


def payloads_hold(data: Bytes, records: Records) -> NDArray[np.bool_]:
    """Tell for each record whether the checksum of its payload holds."""
    starts = records.starts + HEAD
    stored = _stored(data, starts + records.lengths)
    holds: NDArray[np.bool_] = masked(crc32c(data, starts, records.lengths)) == stored
    return holds


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
