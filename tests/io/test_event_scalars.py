"""Scalars of any layout, old style and new, come out as the protocol buffer library reads them."""

import math
import struct

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from torch.utils.tensorboard import SummaryWriter

from lorascope.io import event_scalars
from lorascope.io.event_file import read_events
from tests.event_records import (
    record,
    scalar,
    scalars_in,
    tensor_event,
    written,
)


@pytest.mark.parametrize("double", [False, True])
def test_scalars_in_the_new_style_are_read(tmp_path, double):
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(5):
            writer.add_scalar("loss", 0.1 * step, step, new_style=True, double_precision=double)
    kind = float if double else np.float32
    (series,) = read_events(tmp_path).series.values()
    assert series.values.tolist() == [float(kind(0.1 * step)) for step in range(5)]


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
    monkeypatch.setattr(event_scalars, "SHORTEST", 1 << 40)
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
            slow.setattr(event_scalars, "SHORTEST", 1 << 40)
            theirs = read_events(path)
        assert scalars_in(events) == scalars_in(theirs), place
        assert events.damage == theirs.damage


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
