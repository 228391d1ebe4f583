"""Event files of one training or many become series, also while they are written."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from torch.utils.tensorboard import SummaryWriter

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io import event_file
from lorascope.io.event_file import read_events, read_since
from tests.event_records import (
    NAME,
    expected_in_order,
    record,
    scalar,
    scalars_in,
    small_records,
    tensor_event,
    written,
)


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


# Several files


def test_a_resumed_writer_takes_back_what_was_logged_after_its_step(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(20):
            writer.add_scalar("loss", 1.0, step)
    # TensorBoard reads files in the order of their names, where 10.resumed comes before 9: two
    # writers of one second would be read the wrong way round.
    (first,) = tmp_path.iterdir()
    first.rename(tmp_path / "events.out.tfevents.1")
    with SummaryWriter(str(tmp_path), purge_step=10, filename_suffix=".resumed") as writer:
        for step in range(10, 15):
            writer.add_scalar("loss", 2.0, step)
    events = read_events(tmp_path)
    theirs = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    theirs.Reload()
    assert events.series["loss"].steps.tolist() == list(range(15))
    assert events.series["loss"].values.tolist() == [p.value for p in theirs.Scalars("loss")]


@pytest.mark.parametrize("count", [9, 99])
def test_writers_of_one_second_are_read_in_the_order_of_their_writing(tmp_path, count):
    log = SessionLog(status=SessionLog.START)
    restart = record(Event(wall_time=50.0, step=3, session_log=log).SerializeToString())
    first = b"".join(scalar("loss", step, 1.0, at=50.0) for step in range(5))
    names = [f"events.out.tfevents.1767225600.host.1.{number}" for number in (count, count + 1)]
    written(tmp_path, first, names[0])
    written(tmp_path, restart + scalar("loss", 3, 2.0, at=50.0), names[1] + ".resumed")
    events = read_events(tmp_path)
    assert [file.name for file in events.files] == [names[0], names[1] + ".resumed"]
    assert events.series["loss"].values.tolist() == [1.0] * 3 + [2.0]


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
    events = read_events(tmp_path)
    assert [file.relative_to(tmp_path).parts[::2] for file in events.files] == [
        ("20260101000000", NAME),
        ("20260102000000", NAME),
        ("20260102000000", "events.out.tfevents.150.host"),
    ]
    values = [read_events(file).series["loss"].values.tolist() for file in events.files[:2]]
    assert values == [[1.0] * 3, [0.0] * 3]


def test_what_each_folder_holds_is_told_apart(tmp_path):
    first, second = (
        b"".join(scalar("loss", step, 1.0, at=at + step) for step in steps)
        for at, steps in ((100.0, range(3, 9)), (200.0, (2, 7, 5)))
    )
    written(tmp_path / "b", first + scalar("lr", -4, 1.0, at=150.0))
    written(tmp_path / "a", second)
    written(tmp_path / "a", scalar("loss", 30, 1.0, at=300.0), NAME + ".resumed")
    written(tmp_path / "c", b"")
    sessions = read_events(tmp_path).sessions
    steps = [{tag: one.steps.tolist() for tag, one in series.items()} for series in sessions]
    assert steps == [{"loss": [*range(3, 9)], "lr": [-4]}, {"loss": [2, 5, 7, 30]}, {}]
    (alone,) = read_events(tmp_path / "b").sessions
    assert {tag: one.steps.tolist() for tag, one in alone.items()} == steps[0]


def test_what_the_files_gave_is_left_as_it_was(tmp_path, monkeypatch):
    for name in ("a", "b"):
        written(tmp_path / name, b"".join(scalar("loss", step, 1.0) for step in range(5)))
    parts, once = [], event_file._read_file

    def keeping(path, tags):
        parts.append(once(path, tags))
        return parts[-1]

    monkeypatch.setattr(event_file, "_read_file", keeping)
    read_events(tmp_path)
    assert [part.points["order"].tolist() for part in parts] == [list(range(5))] * 2


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
