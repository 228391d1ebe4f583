"""Event files byte by byte, and what the protocol buffer library finds in them."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from lorascope.io.event_file import Events

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


def tensor_event(tensor: TensorProto, plugin: str = "scalars") -> bytes:
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin))
    value = Summary.Value(tag="loss", tensor=tensor, metadata=metadata)
    return record(Event(wall_time=1.0, step=7, summary=Summary(value=[value])).SerializeToString())


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


def expected_in_order(records: list[bytes]) -> Iterator[Scalar]:
    for one in records:
        yield from expected([one])


def latest(found: Iterator[Scalar]) -> set[Scalar]:
    kept = {(tag, step): (tag, step, at, value) for tag, step, at, value in found}
    return set(kept.values())
