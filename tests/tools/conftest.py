"""Logs of trainings: series as event files hold them, and the checkpoints saved meanwhile."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from lorascope.io.checkpoints import Checkpoint
from lorascope.io.event_file import Events, Series
from lorascope.io.lora_file import LoraModule, write_lora
from lorascope.records import Measured
from lorascope.tools.logs import reading as log_reading
from lorascope.tools.logs.logged import describe_logs

PER_EPOCH = 50
TRAINED = {"ss_num_batches_per_epoch": str(PER_EPOCH)}


def series(tag: str, values, steps=None, times=None) -> Series:
    values = np.asarray(values, dtype=np.float64)
    steps = np.arange(1, len(values) + 1) if steps is None else np.asarray(steps)
    return Series(
        tag=tag,
        steps=steps.astype(np.int64),
        times=np.asarray(steps if times is None else times, dtype=np.float64),
        values=values,
    )


@pytest.fixture
def describe(tmp_path, monkeypatch):
    """Describe series as if they had been read from event files."""

    def ask(*given: Series, checkpoints=(), damage: tuple[str, ...] = ()) -> Measured:
        events = Events(series={s.tag: s for s in given}, files=(), damage=damage)
        monkeypatch.setattr(log_reading, "read_events", lambda _path: events)
        return describe_logs({"events": tmp_path}, checkpoints)

    return ask


def checkpoints(folder: Path, metadata: Mapping[str, str] = TRAINED, *, steps=(50, 100, 150)):
    found = []
    for epoch, step in enumerate(steps, 1):
        path = folder / f"fern-{epoch:06}.safetensors"
        rng = np.random.default_rng(epoch)
        up, down = (rng.normal(size=shape).astype(np.float32) for shape in ((4, 2), (2, 4)))
        names = ("lora_unet_a", "lora_unet_b")
        modules = [LoraModule(name=name, down=down, up=up, alpha=2.0) for name in names]
        write_lora(path, modules, dict(metadata))
        found.append(Checkpoint(path, epoch, step))
    return found


def losses(rng, epochs: int = 6, levels=None) -> np.ndarray:
    levels = np.ones(epochs) if levels is None else np.asarray(levels, dtype=float)
    return (rng.exponential(0.1, size=(len(levels), PER_EPOCH)) * levels[:, None]).ravel()


def events_of(found: Measured, event: str) -> list:
    return [row for row in found.tables["log_events"] if row["event"] == event]


def number(found: Measured, name: str) -> float:
    return next(n.value for n in found.numbers if n.name == name)
