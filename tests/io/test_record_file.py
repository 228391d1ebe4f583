"""Records are found whatever happened to their file: the sound ones all come back, exactly."""

import struct
import sys
import time
import tracemalloc

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from lorascope.errors import BadInputError
from lorascope.io import event_file
from lorascope.io.event_file import read_events
from tests.event_records import (
    NAME,
    expected,
    expected_in_order,
    head,
    latest,
    record,
    scalar,
    scalars_in,
    small_records,
    written,
)


def test_a_file_cut_at_any_byte_gives_its_whole_records(tmp_path, rng):
    records = small_records(rng)
    content = b"".join(records)
    ends = np.cumsum([0, *map(len, records)]).tolist()
    for cut in range(len(content)):
        events = read_events(written(tmp_path, content[:cut]))
        whole = sum(end <= cut for end in ends) - 1
        assert scalars_in(events) == expected(records[:whole]), cut
        if cut in ends:
            assert events.damage == ()
        else:
            (sentence,) = events.damage
            assert f"{NAME} ends inside a record, at byte {ends[whole]}" in sentence


def test_a_flip_at_any_byte_costs_the_record_that_it_hits_and_no_other(tmp_path, rng):
    records = small_records(rng)
    content = b"".join(records)
    hit = [number for number, one in enumerate(records) for _ in one]
    ends = np.cumsum([0, *map(len, records)]).tolist()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        events = read_events(written(tmp_path, bytes(flipped)))
        sound = [one for number, one in enumerate(records) if number != hit[place]]
        assert scalars_in(events) == expected(sound), place
        (sentence,) = events.damage
        assert f"bytes {ends[hit[place]]} to {ends[hit[place] + 1] - 1} are damaged" in sentence


@pytest.mark.parametrize("count", [1, 7, 12, 30, 47, 200])
def test_lost_bytes_cost_the_records_that_they_were_of_and_no_other(tmp_path, rng, count):
    records = small_records(rng) + small_records(rng)
    content = b"".join(records)
    ends = np.cumsum([0, *map(len, records)]).tolist()
    for place in range(0, len(content) - count, 3):
        lost = content[:place] + content[place + count :]
        events = read_events(written(tmp_path, lost))
        sound = [
            one
            for one, begin, end in zip(records, ends, ends[1:], strict=False)
            if end <= place or begin >= place + count
        ]
        whole = place in ends and place + count in ends
        assert latest(expected_in_order(sound)) == scalars_in(events), place
        assert len(events.damage) == (0 if whole else 1)


@pytest.mark.parametrize("count", [1, 8, 12, 40, 5000])
def test_bytes_that_do_not_belong_are_passed_over(tmp_path, rng, count):
    records = small_records(rng)
    content = b"".join(records)
    ends = np.cumsum([0, *map(len, records)]).tolist()
    for place in range(0, len(content) - 1, 5):
        stuffed = content[:place] + rng.bytes(count) + content[place:]
        events = read_events(written(tmp_path, stuffed))
        sound = [
            one
            for one, begin, end in zip(records, ends, ends[1:], strict=False)
            if end <= place or begin >= place
        ]
        assert scalars_in(events) == expected(sound), place
        # What is left of a last record that was torn apart looks like the beginning of one.
        assert len(events.damage) == 1 or place > ends[-2]


@pytest.mark.parametrize("seed", range(40))
def test_what_flips_and_cuts_leave_whole_comes_back(tmp_path, seed):
    rng = np.random.default_rng(seed)
    records = [scalar(f"t{n % 5}", n, float(rng.normal())) for n in range(400)]
    ends = np.cumsum([0, *map(len, records)])
    content = bytearray(b"".join(records))
    cut = int(rng.integers(len(content) // 2, len(content) + 1))
    places = rng.integers(0, cut, int(rng.integers(1, 40)))
    for place in places:
        content[place] ^= int(rng.integers(1, 256))
    hit = set(np.searchsorted(ends, np.unique(places), side="right") - 1)
    # A byte that two flips restored is no harm: keep to what really differs.
    original = b"".join(records)
    hit = {
        n
        for n in hit
        if content[ends[n] : ends[n + 1]] != original[ends[n] : ends[n + 1]]
    }  # fmt: skip
    events = read_events(written(tmp_path, bytes(content[:cut])))
    sound = [one for n, one in enumerate(records) if n not in hit and ends[n + 1] <= cut]
    assert scalars_in(events) == expected(sound)


@pytest.mark.parametrize("seed", range(30))
def test_random_bytes_give_an_answer_or_a_refusal(tmp_path, seed):
    rng = np.random.default_rng(seed)
    noise = rng.bytes(int(rng.integers(0, 3000)))
    try:
        assert read_events(written(tmp_path, noise)).series == {}
    except BadInputError as error:
        assert "is not an event file" in str(error)
    # Behind a sound record, and as the payload of a sound record.
    before = scalar("loss", 1, 0.5)
    events = read_events(written(tmp_path, before + noise + record(noise) + before))
    assert ("loss", 1, 1001.0, 0.5) in scalars_in(events)


@pytest.mark.parametrize("promised", [1 << 20, 1 << 31, 1 << 40, 1 << 60, (1 << 64) - 1])
def test_a_length_that_promises_more_than_there_is_allocates_nothing(tmp_path, promised):
    before, after = scalar("loss", 1, 1.0), scalar("loss", 2, 2.0)
    path = written(tmp_path, before + head(promised) + b"x" * 100 + after)
    read_events(path)  # what is imported late is not counted
    tracemalloc.start()
    events = read_events(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert events.series["loss"].steps.tolist() == [1, 2]
    assert peak < 1 << 20


def test_a_record_inside_a_sound_record_is_not_read_for_itself(tmp_path):
    image = Summary.Image(encoded_image_string=scalar("inner", 2, 2.0) * 3)
    value = Summary.Value(tag="sample", image=image)
    outer = record(Event(wall_time=1.0, summary=Summary(value=[value])).SerializeToString())
    content = scalar("loss", 1, 1.0) + b"damage" + outer + scalar("loss", 3, 3.0)
    events = read_events(written(tmp_path, content))
    assert [series.steps.tolist() for series in events.series.values()] == [[1, 3]]
    assert len(events.damage) == 1


WORST = {  # bytes of a file, by how many of its parts
    "zeros": lambda count: bytes(32 * count),
    "noise": lambda count: np.random.default_rng(0).bytes(32 * count),
    "long": lambda count: head(6 * count) * count,  # each promises half of what is there
    "false ends": lambda count: (head(4) + b"garbage here") * count,
    "rising": lambda count: b"".join(head(n) for n in range(1, count)),
    "hollow": lambda count: (head(0) + struct.pack("<I", masked_crc32c(b""))) * count,
    "torn": lambda count: (scalar("loss", 1, 1.0)[:-1] + b"\xff\xff") * count,
    "tags": lambda count: b"".join(scalar(f"tag/{n:06}", n, 1.0) for n in range(count)),
    "lengths": lambda count: b"".join(
        record(b"\x01" * (37 * n % 1500)) for n in range(count // 20)
    ),
    "broken": lambda count: (scalar("loss", 1, 1.0) + b"?") * count,
}
FEW, MANY = 10_000, 80_000  # parts
SECONDS = 10  # of processor time for many; calls hide it where one call itself is slow


class Looked(np.ndarray):
    """Bytes that count how many of them are looked at."""

    count = 0

    def __getitem__(self, key):
        found = super().__getitem__(key)
        Looked.count += np.size(found)
        return found


@pytest.fixture
def work(monkeypatch):
    """Read a file; count the bytes looked at and the calls, which no busy machine adds to."""
    fromfile = np.fromfile
    monkeypatch.setattr(
        event_file.np, "fromfile", lambda *a, **named: fromfile(*a, **named).view(Looked)
    )

    def ask(path):
        calls = 0

        def count(_frame, event, _what):
            nonlocal calls
            calls += event in ("call", "c_call")

        Looked.count, before = 0, sys.getprofile()
        sys.setprofile(count)
        try:
            read_events(path)
        except BadInputError:
            pass
        finally:
            sys.setprofile(before)
        return Looked.count, calls

    return ask


@pytest.mark.slow
@pytest.mark.parametrize("kind", WORST)
def test_the_worst_files_are_read_in_linear_time(tmp_path, work, kind):
    small, large, vast = (
        written(tmp_path / str(count), WORST[kind](count)) for count in (FEW, 2 * FEW, MANY)
    )
    work(small)  # what is imported late is not counted
    for once, twice in zip(work(small), work(large), strict=True):
        assert twice < 2.5 * once + 1000  # 4 times as much where the work is quadratic
    started = time.process_time()
    work(vast)
    assert time.process_time() - started < SECONDS
