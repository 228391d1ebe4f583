"""Event files are read whatever happened to them: sound records all come back, exactly."""

import math
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from torch.utils.tensorboard import SummaryWriter

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io import event_file
from lorascope.io.event_file import Events, event_runs, read_events, read_since

NAME = "events.out.tfevents.1767225600.host.1.0"
Scalar = tuple[str, int, float, float]  # tag, step, time, value


def head(length: int) -> bytes:
    eight = struct.pack("<Q", length)
    return eight + struct.pack("<I", masked_crc32c(eight))


def record(payload: bytes) -> bytes:
    return head(len(payload)) + payload + struct.pack("<I", masked_crc32c(payload))


def scalar(tag: str, step: int, value: float, at: float = 0.0) -> bytes:
    summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
    event = Event(wall_time=at or 1000.0 + step, step=step, summary=summary)
    return record(event.SerializeToString())


def small_records(rng: np.random.Generator) -> list[bytes]:
    """Give the version, then scalars of three tags; steps of no, one and two bytes."""
    first = record(Event(wall_time=999.0, file_version="brain.Event:2").SerializeToString())
    tags = ["loss/current", "lr/unet", "loss/average"]
    steps = [0, 1, 2, 3, 127, 128, 129, 300]
    return [first] + [
        scalar(tags[number % 3], step, float(rng.normal())) for number, step in enumerate(steps)
    ]


def scalars_in(events: Events) -> set[Scalar]:
    return {
        (series.tag, int(step), float(at), float(value))
        for series in events.series.values()
        for step, at, value in zip(series.steps, series.times, series.values, strict=True)
    }


def written(folder: Path, content: bytes, name: str = NAME) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(content)
    return path


def expected(records: list[bytes]) -> set[Scalar]:
    """Read whole records with the library alone, one by one."""
    found = set()
    for one in records:
        event = Event.FromString(one[12:-4])
        for value in event.summary.value:
            found.add((value.tag, event.step, event.wall_time, value.simple_value))
    return found


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log as a trainer writes it: scalars among pictures, histograms and text."""
    folder = tmp_path_factory.mktemp("logged")
    rng = np.random.default_rng(0)
    with SummaryWriter(str(folder)) as writer:
        writer.add_text("args", "learning_rate 1e-4 " * 100)
        for step in range(300):
            writer.add_scalar("loss/current", rng.lognormal(), step)
            writer.add_scalar("lr/unet", 1e-4, step)
            if step % 100 == 0:
                writer.add_image("sample", torch.rand(3, 200, 200), step)
                writer.add_histogram("weights", torch.randn(100), step)
        for epoch in range(1, 4):
            writer.add_scalar("loss/epoch_average", rng.lognormal(), epoch)
    return folder


# Known answers


def test_a_sound_log_holds_what_tensorboard_finds_in_it(logged):
    events = read_events(logged)
    theirs = EventAccumulator(str(logged), size_guidance={"scalars": 0})
    theirs.Reload()
    assert sorted(events.series) == sorted(theirs.Tags()["scalars"])
    for tag, series in events.series.items():
        points = theirs.Scalars(tag)
        assert series.tag == tag
        assert series.steps.tolist() == [point.step for point in points]
        assert series.times.tolist() == [point.wall_time for point in points]
        assert series.values.tolist() == [point.value for point in points]
    assert events.damage == ()
    assert events.files == tuple(logged.iterdir())
    assert [kind.dtype for kind in (series.steps, series.times, series.values)] == [
        np.int64,
        np.float64,
        np.float64,
    ]


def test_a_file_reads_like_the_folder_that_holds_it(logged):
    (file,) = logged.iterdir()
    assert scalars_in(read_events(file)) == scalars_in(read_events(logged))


@pytest.mark.parametrize("double", [False, True])
def test_scalars_in_the_new_style_are_read(tmp_path, double):
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(5):
            writer.add_scalar("loss", 0.1 * step, step, new_style=True, double_precision=double)
    kind = float if double else np.float32
    (series,) = read_events(tmp_path).series.values()
    assert series.values.tolist() == [float(kind(0.1 * step)) for step in range(5)]


def tensor_event(tensor: TensorProto, plugin: str = "scalars") -> bytes:
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin))
    value = Summary.Value(tag="loss", tensor=tensor, metadata=metadata)
    return record(Event(wall_time=1.0, step=7, summary=Summary(value=[value])).SerializeToString())


def test_a_tensor_may_hold_its_number_as_bytes(tmp_path):
    tensor = TensorProto(dtype="DT_FLOAT", tensor_content=struct.pack("<f", 2.5))
    (series,) = read_events(written(tmp_path, tensor_event(tensor))).series.values()
    assert (series.steps.tolist(), series.values.tolist()) == ([7], [2.5])


@pytest.mark.parametrize(
    ("tensor", "plugin"),
    [
        (TensorProto(dtype="DT_FLOAT", float_val=[1.0, 2.0]), "scalars"),
        (TensorProto(dtype="DT_FLOAT", tensor_content=b"\0" * 3), "scalars"),
        (TensorProto(dtype="DT_FLOAT", tensor_content=b"\0" * 8), "scalars"),
        (TensorProto(dtype="DT_FLOAT", float_val=[1.0]), "histograms"),
        (TensorProto(dtype="DT_STRING", string_val=[b"text"]), "text"),
        (TensorProto(dtype="DT_FLOAT"), "scalars"),
    ],
)
def test_a_tensor_that_is_no_single_number_is_no_scalar(tmp_path, tensor, plugin):
    events = read_events(written(tmp_path, tensor_event(tensor, plugin)))
    assert (events.series, events.damage) == ({}, ())


def test_a_tensor_with_a_vast_shape_allocates_nothing(tmp_path):
    tensor = TensorProto(dtype="DT_FLOAT", float_val=[1.0])
    tensor.tensor_shape.dim.add(size=1 << 40)
    assert read_events(written(tmp_path, tensor_event(tensor))).series == {}


def test_one_event_may_hold_several_values(tmp_path):
    values = [Summary.Value(tag=f"lr/{name}", simple_value=0.5) for name in ("unet", "text")]
    event = Event(wall_time=5.0, step=9, summary=Summary(value=values))
    events = read_events(written(tmp_path, record(event.SerializeToString())))
    assert scalars_in(events) == {("lr/unet", 9, 5.0, 0.5), ("lr/text", 9, 5.0, 0.5)}


def test_numbers_that_are_none_are_kept(tmp_path):
    values = [math.nan, math.inf, -math.inf, -0.0, 1e-45]
    content = b"".join(scalar("loss", step, value) for step, value in enumerate(values))
    # A signalling NaN, which processors report when they convert it.
    payload = bytearray(scalar("loss", 9, 1.0)[12:-4])
    payload[-4:] = struct.pack("<I", 0x7F800001)
    (series,) = read_events(written(tmp_path, content + record(bytes(payload)))).series.values()
    np.testing.assert_array_equal(series.values, [*np.float32(values), math.nan])
    assert math.copysign(1.0, series.values[3]) == -1.0


@pytest.mark.parametrize("step", [0, 1, 127, 128, 2**31, 2**56, 2**63 - 1, -1, -(2**63)])
@pytest.mark.parametrize("tag", ["x", "損失/平均", "t" * 116, "t" * 117, "t" * 200, "a\0b\0", ""])
def test_any_step_and_any_tag_is_read(tmp_path, step, tag):
    events = read_events(written(tmp_path, scalar(tag, step, 0.25, at=3.0)))
    assert scalars_in(events) == {(tag, step, 3.0, 0.25)}
    assert events.damage == ()


def test_events_of_the_usual_layout_are_read_as_the_library_reads_them(tmp_path, rng, monkeypatch):
    steps = np.unique(2 ** rng.uniform(0, 40, 2000).astype(np.int64) + rng.integers(0, 99, 2000))
    content = b"".join(
        scalar(f"tag/{'x' * (number % 7)}", int(step), float(rng.normal()), rng.uniform(1, 2e9))
        for number, step in enumerate(steps)
    )
    path = written(tmp_path, content)
    fast = scalars_in(read_events(path))
    monkeypatch.setattr(event_file, "SHORTEST", 1 << 40)
    assert fast == scalars_in(read_events(path))
    assert len(fast) == len(steps)


@pytest.mark.parametrize("step", [0, 5, 300, 2**62, -5])
def test_any_byte_of_the_usual_layout_may_differ_as_far_as_the_library_allows(
    tmp_path, step, monkeypatch
):
    usual = scalar("loss", step, 0.5, at=3.0)[12:-4]
    for place in range(len(usual)):
        changed = [usual[:place] + bytes([byte]) + usual[place + 1 :] for byte in range(256)]
        path = written(tmp_path, b"".join(map(record, changed)))
        events = read_events(path)
        with monkeypatch.context() as slow:
            slow.setattr(event_file, "SHORTEST", 1 << 40)
            theirs = read_events(path)
        assert scalars_in(events) == scalars_in(theirs), place
        assert events.damage == theirs.damage


# Several files


def test_a_resumed_writer_takes_back_what_was_logged_after_its_step(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(20):
            writer.add_scalar("loss", 1.0, step)
    with SummaryWriter(str(tmp_path), purge_step=10, filename_suffix=".resumed") as writer:
        for step in range(10, 15):
            writer.add_scalar("loss", 2.0, step)
    events = read_events(tmp_path)
    theirs = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    theirs.Reload()
    assert events.series["loss"].steps.tolist() == list(range(15))
    assert events.series["loss"].values.tolist() == [p.value for p in theirs.Scalars("loss")]


def test_each_restart_takes_back_only_what_came_before_it(tmp_path):
    def restart(step):
        log = SessionLog(status=SessionLog.START)
        return record(Event(wall_time=1.0, step=step, session_log=log).SerializeToString())

    parts = [scalar("loss", s, 1.0, at=s + 1) for s in range(10)] + [restart(6)]
    parts += [scalar("loss", s, 2.0, at=s + 20) for s in range(6, 9)] + [restart(8)]
    parts += [scalar("loss", 8, 3.0, at=40), restart(50)]
    (series,) = read_events(written(tmp_path, b"".join(parts))).series.values()
    assert series.steps.tolist() == list(range(9))
    assert series.values.tolist() == [1.0] * 6 + [2.0] * 2 + [3.0]
    # A later one that goes further back also takes what an earlier one left.
    parts += [restart(4), scalar("loss", 4, 4.0, at=60)]
    (series,) = read_events(written(tmp_path, b"".join(parts))).series.values()
    assert series.values.tolist() == [1.0] * 4 + [4.0]


def test_a_restart_at_a_vast_step_is_short_and_no_scalar(tmp_path):
    log = SessionLog(status=SessionLog.START)
    event = Event(wall_time=1.0, step=2**62, session_log=log)
    content = scalar("loss", 1, 1.0) + record(event.SerializeToString())
    assert scalars_in(read_events(written(tmp_path, content))) == {("loss", 1, 1001.0, 1.0)}


def test_a_step_that_was_written_twice_keeps_its_later_wall_time(tmp_path):
    later = [scalar("loss", step, 2.0, at=2000.0 + step) for step in range(3)]
    earlier = [scalar("loss", step, 1.0, at=1000.0 + step) for step in range(5)]
    # By name the later file comes first.
    written(tmp_path / "a", b"".join(later))
    written(tmp_path / "b", b"".join(earlier))
    events = read_events(tmp_path)
    assert events.series["loss"].values.tolist() == [2.0, 2.0, 2.0, 1.0, 1.0]
    assert events.series["loss"].steps.tolist() == [0, 1, 2, 3, 4]
    assert [path.parent.name for path in events.files] == ["b", "a"]


def test_the_wall_time_counts_and_not_the_file_that_was_begun_later(tmp_path):
    written(tmp_path, scalar("loss", 1, 1.0, at=10.0) + scalar("loss", 2, 1.0, at=30.0))
    written(tmp_path, scalar("loss", 2, 2.0, at=20.0), NAME + ".later")
    assert read_events(tmp_path).series["loss"].times.tolist() == [10.0, 30.0]


def test_equal_wall_times_leave_the_one_that_was_written_last(tmp_path):
    content = b"".join(scalar("loss", 7, value, at=1.0) for value in (1.0, 2.0, 3.0))
    assert scalars_in(read_events(written(tmp_path, content))) == {("loss", 7, 1.0, 3.0)}
    # Also where the one before is laid out in another way.
    tensor = tensor_event(TensorProto(dtype="DT_FLOAT", float_val=[4.0]))
    content = tensor + scalar("loss", 7, 5.0, at=1.0)
    assert scalars_in(read_events(written(tmp_path, content))) == {("loss", 7, 1.0, 5.0)}
    content = scalar("loss", 7, 5.0, at=1.0) + tensor
    assert scalars_in(read_events(written(tmp_path, content))) == {("loss", 7, 1.0, 4.0)}


def test_trainings_side_by_side_can_be_read_apart(tmp_path):
    for number, day in enumerate(("20260102000000", "20260101000000")):
        content = b"".join(scalar("loss", step, float(number), at=99 - number) for step in range(3))
        written(tmp_path / day / "network_train", content)
    written(tmp_path / "20260102000000" / "network_train", b"", "events.out.tfevents.150.host")
    runs = event_runs(tmp_path)
    assert [folder.parts[-2:] for folder in runs] == [
        ("20260101000000", "network_train"),
        ("20260102000000", "network_train"),
    ]
    assert [[file.name for file in files] for files in runs.values()] == [
        [NAME],
        [NAME, "events.out.tfevents.150.host"],
    ]
    values = [read_events(folder).series["loss"].values.tolist() for folder in runs]
    assert values == [[1.0] * 3, [0.0] * 3]


def test_a_restart_takes_nothing_back_in_another_folder(tmp_path):
    log = SessionLog(status=SessionLog.START)
    restart = record(Event(wall_time=2000.0, session_log=log).SerializeToString())
    written(tmp_path / "a", b"".join(scalar("loss", step, 1.0) for step in range(5)))
    written(tmp_path / "b", restart + scalar("loss", 1, 2.0, at=2001.0))
    values = read_events(tmp_path).series["loss"].values.tolist()
    assert values == [1.0, 2.0, 1.0, 1.0, 1.0]


def test_links_are_not_followed(tmp_path):
    outside = written(tmp_path / "outside", scalar("loss", 1, 1.0))
    written(tmp_path / "logs", scalar("lr", 1, 1.0))
    (tmp_path / "logs" / "folder").symlink_to(outside.parent)
    (tmp_path / "logs" / "file.tfevents.1").symlink_to(outside)
    (tmp_path / "logs" / "round").symlink_to(tmp_path / "logs")
    assert list(read_events(tmp_path / "logs").series) == ["lr"]


# Damage


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


def expected_in_order(records: list[bytes]) -> Iterator[Scalar]:
    for one in records:
        yield from expected([one])


def latest(found: Iterator[Scalar]) -> set[Scalar]:
    kept = {(tag, step): (tag, step, at, value) for tag, step, at, value in found}
    return set(kept.values())


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


@pytest.mark.parametrize("seed", range(30))
def test_payloads_that_pass_their_checksum_and_are_no_events_do_no_harm(tmp_path, seed):
    rng = np.random.default_rng(seed)
    parts = [scalar("loss", 1, 0.5)]
    for _ in range(50):
        payload = bytearray(scalar("lr", 2, 1.0)[12:-4])
        for place in rng.integers(0, len(payload), 3):
            payload[place] = rng.integers(256)
        parts.append(record(bytes(payload)))
    parts.append(scalar("loss", 3, 0.25))
    series = read_events(written(tmp_path, b"".join(parts))).series["loss"]
    assert {1: 0.5, 3: 0.25}.items() <= dict(zip(series.steps, series.values, strict=True)).items()


def test_a_tag_that_is_no_text_is_named_as_damage(tmp_path):
    payload = scalar("loss", 2, 1.0)[12:-4].replace(b"loss", b"\xff\xfe\xfd\xfc")
    content = scalar("loss", 1, 1.0) + record(payload) + scalar("loss", 3, 1.0)
    events = read_events(written(tmp_path, content))
    assert events.series["loss"].steps.tolist() == [1, 3]
    assert len(events.damage) == 1


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


def test_many_damaged_places_are_counted_and_not_all_named(tmp_path):
    records = [scalar("loss", step, 1.0) for step in range(1000)]
    for step in range(0, 1000, 2):
        records[step] = records[step][:-1] + bytes([records[step][-1] ^ 1])
    events = read_events(written(tmp_path, b"".join(records)))
    assert events.series["loss"].steps.tolist() == list(range(1, 1000, 2))
    assert len(events.damage) == event_file.PLACES_NAMED + 1
    assert "400 more places" in events.damage[-1]


def test_a_damaged_picture_costs_no_scalar(tmp_path, logged):
    (file,) = logged.iterdir()
    content = bytearray(file.read_bytes())
    content[content.index(b"IHDR") + 60_000] ^= 4
    events = read_events(written(tmp_path, bytes(content)))
    assert scalars_in(events) == scalars_in(read_events(file))
    assert len(events.damage) == 1


def test_a_record_inside_a_sound_record_is_not_read_for_itself(tmp_path):
    image = Summary.Image(encoded_image_string=scalar("inner", 2, 2.0) * 3)
    value = Summary.Value(tag="sample", image=image)
    outer = record(Event(wall_time=1.0, summary=Summary(value=[value])).SerializeToString())
    content = scalar("loss", 1, 1.0) + b"damage" + outer + scalar("loss", 3, 3.0)
    events = read_events(written(tmp_path, content))
    assert [series.steps.tolist() for series in events.series.values()] == [[1, 3]]
    assert len(events.damage) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        bytes(4 << 20),
        np.random.default_rng(0).bytes(4 << 20),
        head(1 << 19) * (1 << 16),  # each promises half of what is there
        (head(4) + b"garbage here") * (1 << 16),
        b"".join(head(n) for n in range(1, 1 << 16)),
        (head(0) + struct.pack("<I", masked_crc32c(b""))) * (1 << 17),
        (scalar("loss", 1, 1.0)[:-1] + b"\xff\xff") * (1 << 15),
        b"".join(scalar(f"tag/{n:06}", n, 1.0) for n in range(1 << 15)),
        b"".join(record(b"\x01" * n) for n in range(1, 2500)),
    ],
    ids=["zeros", "noise", "long", "false ends", "rising", "hollow", "torn", "tags", "lengths"],
)
def test_the_worst_files_are_read_in_linear_time(tmp_path, content):
    def seconds(path):
        started = time.perf_counter()
        try:
            read_events(path)
        except BadInputError:
            pass
        return time.perf_counter() - started

    half = written(tmp_path / "half", content[: len(content) // 2])
    whole = written(tmp_path / "whole", content)
    seconds(half)
    best, best_half = (min(seconds(path) for _ in range(3)) for path in (whole, half))
    assert best < 4 * best_half + 0.5
    assert best < 20


# Live


def test_a_growing_file_gives_each_scalar_once_as_soon_as_it_is_whole(tmp_path, rng):
    records = small_records(rng)
    content = b"".join(records)
    ends = np.cumsum([0, *map(len, records)]).tolist()
    path = written(tmp_path, b"")
    offset, found = 0, []
    with path.open("ab", buffering=0) as growing:
        for place in range(len(content)):
            growing.write(content[place : place + 1])
            added = read_since(path, offset)
            assert added.damage == ()
            offset = added.offset
            whole = sum(end <= place + 1 for end in ends) - 1
            assert offset == ends[whole]
            found += [(s.tag, int(s.steps[0]), float(s.values[0])) for s in added.series.values()]
    assert found == [
        (tag, step, value) for tag, step, _, value in expected_in_order(records)
    ]  # fmt: skip
    again = read_since(path, offset)
    assert (again.series, again.offset) == ({}, offset)


@pytest.mark.parametrize("place", [3, 9, 20, 44])
def test_a_growing_file_is_read_on_behind_a_damaged_place(tmp_path, rng, place):
    records = small_records(rng)
    content = bytearray(b"".join(records))
    start = len(records[0]) + len(records[1])
    content[start + place] ^= 16
    path = written(tmp_path, b"")
    offset, steps, damage = 0, [], []
    with path.open("ab", buffering=0) as growing:
        for byte in content:
            growing.write(bytes([byte]))
            added = read_since(path, offset)
            offset = added.offset
            damage += added.damage
            steps += [int(step) for s in added.series.values() for step in s.steps]
    assert steps == [0, 2, 3, 127, 128, 129, 300]
    assert len(damage) == 1
    assert f"bytes {start} to {start + len(records[2]) - 1} are damaged" in damage[0]
    assert offset == len(content)


def test_a_file_that_was_begun_anew_is_read_from_its_beginning(tmp_path):
    path = written(tmp_path, scalar("loss", 1, 1.0) * 3)
    offset = read_since(path).offset
    added = read_since(written(tmp_path, scalar("loss", 2, 2.0)), offset)
    assert added.series["loss"].steps.tolist() == [2]


# Refusals


@pytest.mark.parametrize(
    "content", [b"a text of some length\n", b"PK\x03\x04" + bytes(100), bytes(500), b"step,loss\n"]
)
def test_what_is_no_event_file_is_refused_or_passed_over(tmp_path, content):
    written(tmp_path / "logs", scalar("loss", 1, 1.0))
    other = written(tmp_path / "logs", content.ljust(12), "notes.tfevents.txt")
    with pytest.raises(BadInputError, match="txt is not an event file"):
        read_events(other)
    with pytest.raises(BadInputError, match="is not an event file"):
        read_since(other)
    events = read_events(tmp_path / "logs")
    assert events.series["loss"].steps.tolist() == [1]
    (sentence,) = events.damage
    assert sentence == f"Passed over: {other} is not an event file."


def test_a_short_text_is_not_taken_for_the_beginning_of_an_event_file(tmp_path):
    with pytest.raises(BadInputError):
        read_events(written(tmp_path, b"hello", "notes.txt"))


def test_an_empty_file_holds_no_series(tmp_path):
    events = read_events(written(tmp_path, b""))
    assert (events.series, events.damage) == ({}, ())
    assert read_events(tmp_path).series == {}


def test_records_of_something_else_hold_no_series(tmp_path):
    assert read_events(written(tmp_path, record(b"") + record(b"\x0a\x00"))).series == {}


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(MissingInputError, match="does not exist"):
        read_events(tmp_path / "nothing")
    with pytest.raises(MissingInputError, match="does not exist"):
        read_since(tmp_path / "nothing")
    with pytest.raises(MissingInputError, match="holds no event file"):
        read_events(tmp_path)
    with pytest.raises(MissingInputError, match="is not a folder"):
        event_runs(tmp_path / "nothing")
    assert event_runs(tmp_path) == {}


def test_a_path_that_no_system_takes_is_refused():
    with pytest.raises(BadInputError, match="cannot be read"):
        read_events(Path("x" * 5000))


def test_nothing_heavy_is_loaded_before_a_file_is_read():
    code = (
        "import sys, lorascope.io.event_file\n"
        "print({'tensorboard', 'google.protobuf', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout.strip() == "set()"
