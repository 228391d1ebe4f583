"""A run with pictures in rows and columns, as a grid leaves them; small enough to be drawn."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from lorascope.records import Evidence, Measured, Measurement, Row
from lorascope.run import Run

HOSTILE = (
    "zyxfern, <img src=x onerror=\"document.title='taken'\">",
    "</script><script>document.title='taken'</script>",
    'zyxfern, "quotes" & <!-- <script src=x {{data}} \u2028 \\u003c',
)
PROMPTS = ("zyxfern", "zyxfern, on a beach", *HOSTILE)
EPOCHS = (1, 2, 3)
STRENGTHS = (0.6, 1.0)
SIDE = 48


def picture(epoch: int, column: int, side: int = SIDE) -> np.ndarray:
    """Draw a disc whose size tells the epoch and whose colour tells the column."""
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    image = np.full((side, side, 3), 235, np.uint8)
    image[np.hypot(x, y) < 0.12 + 0.07 * epoch] = (40 * column, 120, 220 - 40 * column)
    return image


def save(path: Path, image: np.ndarray, text: str = "") -> None:
    """Write a PNG without waiting for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    info = PngImagePlugin.PngInfo()
    if text:
        info.add_itxt("parameters", text)
    Image.fromarray(image).save(path, pnginfo=info)


def cells(run: Run) -> list[Row]:
    """Draw a grid: the base model, three epochs at two strengths, one row without the trigger."""
    layers = [("base", 0, 0.0), *(("lora", e, s) for e in EPOCHS for s in STRENGTHS)]
    layers += [("trigger-off", 0, 0.0), ("trigger-off", 3, 1.0)]
    rows: list[Row] = []
    baseline = 0
    for number, (kind, epoch, strength) in enumerate(layers):
        baseline = baseline if epoch else len(rows)
        for column, prompt in enumerate(PROMPTS):
            name = f"{number * 16 + column:016x}"
            file = f"samples/cells/{name}.png"
            text = f"{prompt}\nSteps: 20, Seed: 1" if epoch else ""
            save(run.path / file, picture(epoch, column), text)
            off = kind == "trigger-off"
            rows.append(
                {
                    "cell": len(rows), "row": number, "column": column, "kind": kind,
                    "epoch": epoch, "step": 10 * epoch, "strength": strength,
                    "text_strength": strength,
                    "prompt": prompt.replace("zyxfern", "a woman") if off else prompt,
                    "group": "class" if off else "trigger", "seed": 1, "width": SIDE,
                    "height": SIDE, "base": "/home/somebody/models/base.safetensors",
                    "baseline": baseline + column, "file": file, "negative": "", "guidance": 5.0,
                    "steps": 20, "sampler": "ddim", "clip_skip": 1,
                    "lora": f"fern-{epoch:06}.safetensors" if epoch else "", "companions": "",
                    "tags": "",
                }
            )  # fmt: skip
    return rows


def evidence(tool: str, tables: Mapping[str, list[Row]], *, caveats: tuple[str, ...] = ()):
    numbers = (Measurement(name="copy_ratio_held_out", value=0.8, unit="1", n=6),)
    measured = Measured(numbers=numbers, tables=tables, caveats=caveats)
    return Evidence(tool=tool, version=1, params={}, inputs={"pictures": tool}, measured=measured)


def grid_of(run: Run) -> Evidence:
    return evidence("grid", {"cells": cells(run)}, caveats=("One seed <b>only</b>.",))


def likeness_of(rows: list[Row]) -> Evidence:
    """Measure all but the last row of pictures."""
    told: list[Row] = [
        {"cell": r["cell"], "likeness": round(0.3 * r["epoch"], 3)} for r in rows if r["row"] != 8
    ]
    means: list[Row] = [{"row": 1, "likeness": 0.31, "likeness_low": 0.2, "likeness_high": 0.4}]
    return evidence("likeness", {"cells": told, "epochs": means})


def copies_of(rows: list[Row]) -> Evidence:
    told: list[Row] = [
        {"cell": r["cell"], "copy_ratio": 0.9, "nearest_train": f"{6 + r['column']:02}.png",
         "is_copy": r["epoch"] == 3}
        for r in rows
    ]  # fmt: skip
    return evidence("copies", {"cells": told})


@pytest.fixture
def drawn(tiny_run: Run) -> tuple[Run, Evidence, dict[str, Evidence]]:
    grid = grid_of(tiny_run)
    rows = list(grid.table("cells"))
    return tiny_run, grid, {"likeness": likeness_of(rows), "copies": copies_of(rows)}


@pytest.fixture
def page(tiny_run: Run) -> Path:
    return tiny_run.place("samples") / "grid.html"
