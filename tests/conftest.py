"""Fixtures: whole runs in milliseconds, from seeds, with no binary file in the repository."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from lorascope.io.dataset_file import Dataset, DatasetImage, write_dataset
from lorascope.io.images import write_png
from lorascope.io.lora_file import LoraModule, write_lora
from lorascope.records import Measured, Measurement, Row, Tool
from lorascope.run import NOTHING, Run
from lorascope.tools import COPIES, DRIFT, GRID, LIKENESS, LOSS, TAGS, VAE, WEIGHTS

TRIGGER = "zyxfern"
EPOCHS = 8
HELD_OUT = 6


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def empty_run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "empty", base="miniature", base_digest="0" * 64)


@pytest.fixture
def tiny_run(tmp_path: Path, rng: np.random.Generator) -> Run:
    """A run with eight checkpoints and a dataset of twelve images, nothing measured."""
    run = Run.create(tmp_path / "fern", base="miniature", base_digest="0" * 64)
    for epoch in range(1, EPOCHS + 1):
        write_checkpoint(run, epoch, rng)
    images = []
    for i in range(12):
        file = tmp_path / "images" / f"{i:02}.png"
        write_png(file, rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        images.append(
            DatasetImage(
                file=file.name,
                sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
                caption=f"{TRIGGER}, smile, {'forest' if i % 2 else 'night'}",
                repeats=5,
                split="held-out" if i < HELD_OUT else "train",
                width=32,
                height=32,
            )
        )
    dataset = Dataset(
        root=tmp_path / "images",
        trigger=TRIGGER,
        class_word="",
        resolution=(32, 32),
        images=tuple(images),
    )
    write_dataset(run.place("dataset"), dataset)
    return run


def write_checkpoint(
    run: Run, epoch: int, rng: np.random.Generator, *, spoil: Callable[..., None] | None = None
) -> Path:
    """Write one checkpoint of three modules; ``spoil`` may change its arrays first."""
    modules = []
    for place in range(3):
        own = np.random.default_rng(place)  # it grows in one direction, as trained weights do
        up = own.normal(size=(16, 4)) * 0.02 * epoch + rng.normal(size=(16, 4)) * 0.005
        up, down = up.astype(np.float32), own.normal(size=(4, 12)).astype(np.float32)
        if spoil is not None:
            spoil(place, up, down)
        modules.append(
            LoraModule(name=f"lora_unet_mid_block_{place}_to_q", down=down, up=up, alpha=4.0)
        )
    path = run.place("lora") / f"fern-{epoch:06}.safetensors"
    metadata = {"ss_epoch": str(epoch), "ss_steps": str(epoch * 10)}
    write_lora(path, modules, metadata)
    return path


def store(run: Run, tool: Tool, measured: Measured, *, given: Mapping[str, Path] = NOTHING) -> None:
    """Store evidence as if the tool had measured it on the run as it is."""

    @functools.wraps(tool.measure)
    def answer(*_args: object, **_options: object) -> Measured:
        return measured

    run.measure(dataclasses.replace(tool, measure=answer, holds=None), given=given)


def held_out_curve(
    run: Run,
    curve: list[float],
    *,
    gap: list[float] | None = None,
    spread: float = 0.01,
    more: Mapping[str, list[Row]] = MappingProxyType({}),
) -> None:
    """Store a held-out loss that follows a curve, a training loss below it, and more tables."""
    rng = np.random.default_rng(1)
    values = np.array(curve)[:, None] + rng.normal(size=(1, HELD_OUT)) * spread
    epochs: list[Row] = [{"epoch": 0, "step": 0, "file": "", "held_out": 0.0}]
    images: list[Row] = []
    for e, row in enumerate(values, 1):
        file = f"fern-{e:06}.safetensors"
        mean = float(row.mean())
        train = mean - (gap[e - 1] if gap else 0.1 * e / len(curve))
        epochs.append({"epoch": e, "step": 10 * e, "file": file, "held_out": mean, "train": train})
        images += [
            {"epoch": e, "image": f"{i:02}.png", "split": "held-out", "value": float(v)}
            for i, v in enumerate(row)
        ]
    best = int(np.argmin(curve)) + 1
    still = 1.0 if best == len(curve) else 0.0
    numbers = (
        Measurement(name="best_epoch", value=best, unit="epochs", n=HELD_OUT),
        Measurement(name="slope_p", value=still, unit="1", n=HELD_OUT),
        Measurement(name="images", value=HELD_OUT, unit="images", n=HELD_OUT),
    )
    tables = {"epochs": epochs, "images": images, **more}
    store(run, LOSS, Measured(numbers=numbers, tables=tables))


def drawn_grid(
    run: Run,
    likeness: list[float],
    capture: list[float],
    *,
    copies: Mapping[str, list[Row]] = MappingProxyType({}),
) -> None:
    """Store a grid, and what was measured of every epoch's pictures."""
    epochs: list[Row] = [
        {"row": e, "kind": "lora", "epoch": e, "step": 10 * e, "strength": 1.0}
        for e in range(1, len(likeness) + 1)
    ]
    cells: list[Row] = [{"cell": i, **row} for i, row in enumerate(epochs)]
    store(run, GRID, Measured(numbers=(), tables={"cells": cells}))
    usual = Measurement(name="copy_ratio_held_out", value=1.0, unit="1", n=HELD_OUT)
    measured_grid(run, LIKENESS, {"likeness": likeness}, epochs)
    several: list[float] = [8] * len(epochs)
    measured_grid(run, DRIFT, {"class_likeness": capture, "counted": several}, epochs)
    measured_grid(run, COPIES, {"copy_ratio": [1.0] * len(epochs)}, epochs, usual, **copies)


def measured_grid(
    run: Run,
    tool: Tool,
    values: Mapping[str, list[float]],
    epochs: list[Row],
    *numbers: Measurement,
    **tables: list[Row],
) -> None:
    """Store what a tool measured of the grid that counts, a value per epoch."""
    rows = [row | {k: v[i] for k, v in values.items()} for i, row in enumerate(epochs)]
    measured = Measured(numbers=numbers, tables={"epochs": rows, **tables})
    store(run, tool, measured, given=run.pictures(run.chosen(GRID)))


def sound_vae(run: Run, *, ssim: float = 0.9, edges: float = 0.95) -> None:
    """Store a round trip in which the first image alone may be worse."""
    rows: list[Row] = [
        {
            "image": f"{i:02}.png",
            "ssim": ssim if i == 0 else 0.9,
            "edges": edges if i == 0 else 0.95,
            "worst_x": 0,
            "worst_y": 0,
        }
        for i in range(12)
    ]
    store(run, VAE, Measured(numbers=(), tables={"images": rows}))


U_CURVE = [-0.1, -0.3, -0.48, -0.5, -0.49, -0.3, 0.2, 1.0]
ALIKE = [0.1, 0.4, 0.7, 0.9, 0.95, 0.97, 1.0, 1.0]
CAPTURE = [0.0, 0.02, 0.05, 0.08, 0.1, 0.2, 0.6, 0.8]


def measure_all(run: Run) -> None:
    """Give a run all the evidence that a verdict needs: real where that is quick."""
    run.measure(WEIGHTS)
    run.measure(TAGS)
    held_out_curve(run, U_CURVE)
    drawn_grid(run, ALIKE, CAPTURE)
    sound_vae(run)
