"""Synthetic runs: every tool's evidence, written through Run, with small pictures."""

import functools
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lorascope.io.dataset_file import Dataset, DatasetImage, write_dataset
from lorascope.records import Evidence, Measured, Measurement, Row, Tool
from lorascope.run import Run
from lorascope.tools import TOOLS
from tests.dashboards import pictures
from tests.dashboards.pictures import EPOCHS, NASTY, picture

RNG = np.random.default_rng(7)


def n(name: str, value: float, unit: str = "1", count: int = 12) -> Measurement:
    return Measurement(name=name, value=value, unit=unit, n=count)


def held_out(epoch: int) -> float:
    """Fall until epoch 6, then rise."""
    return 0.004 * (epoch - 6) ** 2 - 0.004 * 36


def loss(run: Path) -> Measured:
    rows: list[Row] = [
        {"epoch": e, "step": 80 * e, "file": f"fern-{e:06}.safetensors" if e else "",
         "held_out": held_out(e), "held_out_low": held_out(e) - 0.02,
         "held_out_high": held_out(e) + 0.02, "train": -0.03 * e, "gap": held_out(e) + 0.03 * e,
         "composition": 0.8 * held_out(e), "kept": 0.01 * e,
         "rise": held_out(e) / 0.144 + 1, "p_best": 0.62 if e == 6 else 0.05}
        for e in range(EPOCHS + 1)
    ]  # fmt: skip
    log: list[Row] = [
        {"step": s, "epoch": 1 + (s - 1) // 80, "loss": 0.12 + 0.02 * float(RNG.random()),
         "smooth": 0.13 + 0.02 * math.exp(-s / 400), "low": 0.09 + 0.02 * float(RNG.random()),
         "high": 0.15 + 0.03 * float(RNG.random())}
        for s in range(4, 80 * EPOCHS + 1, 4)
    ]  # fmt: skip
    images: list[Row] = [
        {"epoch": e, "image": f"{i:02}.png", "split": "held-out" if i < 12 else "train",
         "value": held_out(e) * (1 + 0.02 * i)}
        for e in range(EPOCHS + 1) for i in range(18)
    ]  # fmt: skip
    bands: list[Row] = [
        {"epoch": e, "band": band, "held_out": held_out(e) * factor}
        for e in range(EPOCHS + 1)
        for band, factor in (("composition", 0.5), ("structure", 1.0), ("detail", 1.5))
    ]
    return Measured(
        numbers=(n("best_epoch", 6, "epochs"), n("depth", 0.144), n("rise_last", 1.0),
                 n("p_best", 0.62), n("images", 12, "images"), n("slope_p", 0.01)),
        tables={
            "epochs": rows, "log": log, "images": images, "bands": bands,
            "turns": [
                {"set": name, "images": 12, "lowest_epoch": 6, "earliest_epoch": 5, "turn_epoch": 6,
                 "set_first": first, "set_last": first and first + 2, "turned": name == "held-out"}
                for name, first in (("held-out", 5), ("composition", None), ("kept", 1))
            ],
            "trajectories": [
                {"image": NASTY, "split": "train", "gain": 0.1, "lowest_epoch": 6,
                 "half_epoch": 3, "rise": 0.02}
            ],
            "memory": [{"epoch": e, "caption_gap": 0.01 * e} for e in range(EPOCHS + 1)],
            "log_events": [
                {"event": "trap", "tag": NASTY, "step": None, "epoch": None, "text": NASTY,
                 "value": None, "threshold": None},
                {"event": "spike", "tag": "loss/current", "step": 40, "epoch": 1,
                 "text": "a spike", "value": 9.0, "threshold": 1.0},
            ],
            "log_tags": [{"tag": NASTY, "kind": "step loss", "points": 240}],
            "log_curves": [
                {"tag": "lr/unet", "kind": "learning rate", "axis": "step", "step": s,
                 "value": 1e-4}
                for s in (0, 480, 960)
            ],
            "dips": [{"step": 401, "epoch": 6, "loss": 0.12, "prominence": 0.03, "noise": 0.01}],
        },
        caveats=("Images of one set resemble each other: the band is too narrow.",),
    )  # fmt: skip


def tags(run: Path) -> Measured:
    names = ("fern_x", "green leaves", "red hat", "<i>smile</i>", "night", "beach")
    rows: list[Row] = [
        {"tag": tag, "images": 20 - 3 * i, "share": 1 - 0.15 * i, "exposure": 1 - 0.15 * i,
         "position": 1.0 + i, "trigger": i == 0}
        for i, tag in enumerate(names)
    ]  # fmt: skip
    images: list[Row] = [
        {"image": f"{i:02}.png", "caption": NASTY if i else "night, beach", "tags": 4,
         "tokens": 12, "has_trigger": i > 0, "trigger_position": 1 if i else None,
         "split": "train" if i % 5 else "held-out" if i else "train"}
        for i in range(20)
    ]  # fmt: skip
    return Measured(
        numbers=(n("images", 16, "images"), n("trigger_share", 0.95),
                 n("trigger_first_share", 0.9), n("tags", 6, "tags"),
                 n("trigger_missing", 1, "images", 17), n("trigger_guessed", 0)),
        tables={"tags": rows, "images": images,
                "pairs": [{"tag": "night", "other": "beach", "images": 5, "npmi": 0.8}]},
    )  # fmt: skip


def heatmap(run: Path) -> Measured:
    names = ("fern_x", "red hat", "beach")
    for which in ("base", "lora"):
        picture(run / f"samples/heatmap/{which}.png", 9 if which == "lora" else 1, 2)
    y, x = np.mgrid[0:16, 0:16] / 16
    maps = np.stack([
        [np.exp(-((x - 0.3 * t) ** 2 + (y - 0.5) ** 2) * (4 + 8 * w)) for t in range(3)]
        for w in range(2)
    ]).astype(np.float32)  # fmt: skip
    return Measured(
        numbers=(n("tags", 3, "tags", 3),),
        tables={
            "tags": [
                {"tag": t, "pieces": 2, "epoch": 12, "change": 0.1 * i} for i, t in enumerate(names)
            ],
            "pictures": [
                {"which": w, "file": f"samples/heatmap/{w}.png"} for w in ("base", "lora")
            ],
        },
        arrays={"maps": maps},
        caveats=("Attention alone does not prove bleeding.",),
    )


def vae(run: Path) -> Measured:
    rows: list[Row] = []
    for i in range(8):
        files = {w: f"samples/vae/{i:02}-{w}.png" for w in ("original", "decoded")}
        picture(run / files["original"], 12, i)
        picture(run / files["decoded"], 6, i)
        rows.append(
            {"image": f"{i:02}.png", "split": "train", "psnr": 22.0 + i, "ssim": 0.8 + 0.01 * i,
             "edges": 0.7, "worst_x": 40, "worst_y": 30, "worst_psnr": 14.0 + i,
             "file_original": files["original"], "file_decoded": files["decoded"]}
        )  # fmt: skip
    return Measured(
        numbers=(n("psnr", 25.4, "dB", 8), n("ssim", 0.84, "1", 8),
                 n("edge_retention", 0.7, "1", 8), n("worst_psnr", 14.0, "dB", 8)),
        tables={"images": rows},
        arrays={"errors": np.zeros((8, 32, 32), np.float32)},
        caveats=("PSNR depends on the content of a picture: compare within the set.",),
    )  # fmt: skip


def weights(run: Path) -> Measured:
    epochs: list[Row] = [
        {"epoch": e, "step": 80 * e, "file": f"fern-{e:06}.safetensors", "norm": 0.5 * e**0.7,
         "effective_rank": 3 + 0.3 * e, "rank": 16.0, "modules": 18, "nan_modules": int(e == 12),
         "dead_modules": 0, "update_cosine": 0.9 - 0.03 * e if e > 1 else None,
         "text_encoder_share": 0.1, "identical_to_previous": e == 4}
        for e in range(1, EPOCHS + 1)
    ]  # fmt: skip
    modules: list[Row] = [
        {"epoch": EPOCHS, "module": f"lora_unet_down_blocks_{b}_{p}_{i}", "block": f"down {b}",
         "part": p, "norm": 0.1 + 0.1 * i, "effective_rank": 3.0 + i, "rank": 16}
        for b in range(3) for p in ("query", "key", "value") for i in range(2)
    ]  # fmt: skip
    blocks: list[Row] = [
        {"epoch": EPOCHS, "block": f"down {b}", "part": p, "modules": 2, "norm": 0.3,
         "share": 0.05 * (b + 1)}
        for b in range(3) for p in ("query", "key", "value")
    ]  # fmt: skip
    return Measured(
        numbers=(n("norm", 2.8, "1", 18), n("effective_rank", 6.6, "directions", 18),
                 n("rank", 16, "directions", 18), n("nan_modules", 1, "modules", 18),
                 n("dead_modules", 0, "modules", 18)),
        tables={"epochs": epochs, "modules": modules, "blocks": blocks},
        caveats=("Sizes compare within one run only.",),
    )  # fmt: skip


ANSWERS = {f.__name__: f for f in (loss, heatmap, tags, vae, weights)}


def answering(tool: Tool, answer: Measured) -> Tool:
    """Give a tool that answers so, with the options of the real one."""

    @functools.wraps(tool.measure)
    def measure(*_inputs: object, **_options: object) -> Measured:
        return answer

    return replace(tool, writes=(), named=None, holds=None, measure=measure)


def make_run(path: Path, tools: tuple[str, ...]) -> Path:
    """Write a run whose tools were asked, each answering with made-up figures."""
    run = Run.create(path, base="miniature", base_digest="0" * 64)
    if not tools:
        return path
    for epoch in range(1, EPOCHS + 1):
        file = path / "lora" / f"fern-{epoch:06}.safetensors"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"stands for epoch {epoch}: pages never open it")
    make_dataset(path)
    (path / "train" / "log.csv").write_text("stands for the real one")
    for tool in TOOLS:
        if tool.name in ANSWERS:
            run.measure(answering(tool, ANSWERS[tool.name](path)))
        elif tool.name == "grid":
            drawn = run.measure(answering(tool, pictures.grid(path)))
            measure_pictures(run, drawn)
    (path / "samples" / "grid.html").write_text("<title>stands for the page</title>")
    return path


def make_dataset(path: Path) -> None:
    """Write training images and their list into a run."""
    images = []
    for i in range(20):
        picture(path / "images" / f"{i:02}.png", 12, i)
        images.append(
            DatasetImage(file=f"{i:02}.png", sha256=f"{i:064}", caption="fern_x", repeats=5,
                         split="train" if i % 5 else "held-out", width=96, height=96)
        )  # fmt: skip
    dataset = Dataset(root=path / "images", trigger="fern_x", class_word="plant",
                      resolution=(96, 96), images=tuple(images))  # fmt: skip
    write_dataset(path / "train" / "dataset.json", dataset)


def of_run(path: Path, table: list[Row]) -> Path:
    """Write a run with a grid of these cells, without any picture on disk."""
    run = Run.create(path, base="miniature", base_digest="0" * 64)
    (path / "lora").mkdir()
    (path / "lora" / "fern-000001.safetensors").write_text("stands for an epoch")
    make_dataset(path)
    run.measure(answering(pictures.tool("grid"), pictures.grid_of(table)))
    return path


def measure_pictures(
    run: Run, drawn: Evidence, *, only: Sequence[str] = tuple(pictures.MEASURES)
) -> None:
    """Have the tools that measure pictures say something of a grid."""
    rows, given = drawn.table("cells"), run.pictures(drawn)
    for name in only:
        answer = pictures.MEASURES[name](rows)
        run.measure(answering(pictures.tool(name), answer), given=given)


@pytest.fixture(scope="session")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a run in which everything was measured."""
    return make_run(tmp_path_factory.mktemp("runs") / "fern", ("all",))


@pytest.fixture(scope="session")
def empty_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a run in which nothing was measured."""
    return make_run(tmp_path_factory.mktemp("runs") / "bare", ())


@pytest.fixture(scope="session")
def large_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a run with a grid of 5,000 pictures, all of them one file."""
    table = pictures.large()
    path = of_run(tmp_path_factory.mktemp("runs") / "large", table)
    picture(path / "samples" / "one.png", 6, 2)
    (path / "samples" / "cells").mkdir()
    for row in table:
        (path / str(row["file"])).hardlink_to(path / "samples" / "one.png")
    return path


@pytest.fixture
def copy_of_full(full_run: Path, tmp_path: Path) -> Iterator[Path]:
    """Give a run that a test may damage."""
    yield Path(shutil.copytree(full_run, tmp_path / "fern"))
