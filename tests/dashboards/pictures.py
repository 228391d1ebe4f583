"""Synthetic grids, and what the tools that measure pictures say of them."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from lorascope.records import Measured, Measurement, Row, Table, Tool
from lorascope.tools import TOOLS

EPOCHS = 12
NASTY = "fern_x, <b>bold</b> [link](http://example.invalid) $x$ :smile: `code`"
PROMPTS = (("fern_x", "trigger"), (NASTY, "caption"), ("fern_x, on a beach", "unseen"),
           ("a wooden house", "unrelated"))  # fmt: skip
INFOTEXT = "fern_x <lora:fern-{epoch:06}:1>\nSteps: 20, Sampler: DPM++ 2M, Seed: 1, Size: 96x96"
SETTINGS: Row = {"negative": "", "guidance": 5.0, "steps": 20, "sampler": "dpm++2m",
                 "clip_skip": 1, "companions": "", "tags": "", "base": "miniature",
                 "width": 96, "height": 96, "seed": 1}  # fmt: skip
FACTS = ("row", "kind", "epoch", "step", "strength", "text_strength")


def picture(path: Path, epoch: int, hue: int, size: int = 96, *, text: str = "") -> None:
    """Draw a disc that sharpens with the epochs."""
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    disc = 1 / (1 + np.exp((np.hypot(x, y) - 0.3) * (4 + 6 * epoch)))
    colour = np.array([(40 + 60 * hue) % 256, 120, (220 - 40 * hue) % 256])
    image = 235 - disc[..., None] * (235 - colour) * (0.3 + 0.7 * epoch / EPOCHS)
    path.parent.mkdir(parents=True, exist_ok=True)
    said = PngImagePlugin.PngInfo()
    if text:
        said.add_text("parameters", text)
    Image.fromarray(image.astype(np.uint8)).save(path, pnginfo=said)


def row_facts(
    *, epochs: int = EPOCHS, strengths: Sequence[float] = (1.0, 0.6), off: bool = True, **more: str
) -> list[Row]:
    """List rows as the tool lays them out: base, epochs, and the last one without the trigger."""
    plain = {"text_strength": 0.0, "strength": 0.0, "epoch": 0, "step": 0, "lora": "", **more}
    found: list[Row] = [plain | {"kind": "base"}]
    for epoch, strength in itertools.product(range(1, epochs + 1), strengths):
        found.append(_lora(plain, epoch, strength) | {"kind": "lora"})
    if off:
        found.append(plain | {"kind": "trigger-off"})
        found.append(_lora(plain, epochs, 1.0) | {"kind": "trigger-off"})
    return found


def _lora(plain: Row, epoch: int, strength: float) -> Row:
    return {**plain, "epoch": epoch, "step": 80 * epoch, "strength": strength,
            "text_strength": strength, "lora": f"fern-{epoch:06}.safetensors"}  # fmt: skip


def cells(rows: Sequence[Row], columns: Sequence[Row]) -> list[Row]:
    """Make the table ``cells`` of a grid: every row with every column."""
    found: list[Row] = []
    bases: dict[tuple[object, ...], int] = {}
    for (number, row), (across, column) in itertools.product(enumerate(rows), enumerate(columns)):
        off = row["kind"] == "trigger-off"
        key = (row.get("base"), row.get("companions"), off, across)
        place = len(found)
        if not row["epoch"]:
            bases[key] = place
        prompt = str(column["prompt"]).removeprefix("fern_x, ") if off else column["prompt"]
        found.append(
            {**SETTINGS, **column, **row, "cell": place, "row": number, "column": across,
             "prompt": prompt, "baseline": bases[key],
             "file": f"samples/cells/{place:016x}.png"}
        )  # fmt: skip
    return found


def large() -> list[Row]:
    """Make 5,000 cells: 50 prompts, the base model and 99 rows of 50 epochs at two strengths."""
    columns: list[Row] = [{"prompt": f"fern_x, place {i}", "group": "unseen"} for i in range(50)]
    return cells(row_facts(epochs=50, off=False)[:100], columns)


def grid_of(table: Table) -> Measured:
    """Give what the tool ``grid`` says of cells."""
    rows = {row.get("row"): {name: row.get(name) for name in FACTS} for row in table}
    columns = {
        row.get("column"): {n: row.get(n) for n in ("column", "prompt", "group")} for row in table
    }
    return Measured(
        numbers=(Measurement(name="cells", value=len(table), unit="pictures", n=len(table)),),
        tables={"cells": table, "rows": [*rows.values()], "prompts": [*columns.values()]},
        caveats=("No prompt is a held-out caption.",),
    )


def grid(run: Path) -> Measured:
    """Draw a grid into a run."""
    table = cells(row_facts(), [{"prompt": prompt, "group": group} for prompt, group in PROMPTS])
    for row in table:
        epoch = int(str(row["epoch"]))
        text = INFOTEXT.format(epoch=epoch) if row["column"] == 0 else ""
        picture(run / str(row["file"]), epoch, int(str(row["column"])), text=text)
    return grid_of(table)


def _measured(table: Table, columns: Mapping[str, Callable[[int], float]]) -> Measured:
    """Say something of each cell, and its mean of each row."""
    found = [
        {"cell": row["cell"], **_values(columns, row)} for row in table
    ]  # fmt: skip
    rows = {row["row"]: row for row in table}
    epochs = [
        {name: row.get(name) for name in FACTS} | {"pictures": len(PROMPTS), "counted": 4}
        | {k: v for name, of in columns.items() for k, v in _mean(name, of, row).items()}
        for row in rows.values()
    ]  # fmt: skip
    return Measured(
        numbers=tuple(
            Measurement(name=f"{name}_held_out", value=0.9, unit="1", n=12) for name in columns
        ),
        tables={"cells": found, "epochs": epochs},
        caveats=("Few prompts: the interval is wide.",),
    )


def _values(columns: Mapping[str, Callable[[int], float]], row: Row) -> Row:
    return {name: of(int(str(row["epoch"]))) for name, of in columns.items()}


def copies(table: Table, *, nearest: str = "01.png") -> Measured:
    """Say that every picture is nearest to one training image, and none a copy of it."""
    found = _measured(table, {"copy_ratio": lambda e: 0.9 - 0.02 * e})
    more = {"nearest_train": nearest, "nearest_distance": 0.2, "mirrored": False, "asks": True,
            "patch_share": 0.1, "source_share": 0.1, "second_share": 0.0, "source": nearest,
            "sources": 1, "source_names": nearest}  # fmt: skip
    facts = ("cell", "row", "kind", "epoch", "strength", "prompt", "file")
    cells = [
        {**{name: row.get(name) for name in facts}, **more, **said}
        for row, said in zip(table, found.tables["cells"], strict=True)
    ]
    return replace(found, tables={**found.tables, "cells": cells, "held_out": []})


def _mean(name: str, of: Callable[[int], float], row: Row) -> Row:
    mean = of(int(str(row["epoch"])))
    return {name: mean, f"{name}_low": mean - 0.1, f"{name}_high": mean + 0.1}


MEASURES: Mapping[str, Callable[[Table], Measured]] = {
    "likeness": lambda t: _measured(t, {"likeness": lambda e: e / EPOCHS}),
    "adherence": lambda t: _measured(t, {"adherence": lambda e: 0.9 - 0.02 * e}),
    "diversity": lambda t: _measured(
        t, {"diversity": lambda e: 1 - 0.05 * e, "vendi": lambda e: 4 - e / 8}
    ),
    "drift": lambda t: _measured(
        t, {"moved": lambda e: 0.1 * e, "class_likeness": lambda e: 0.03 * e,
            "unrelated_drift": lambda e: 0.02 * e}
    ),
    "copies": copies,
    "artefacts": lambda t: _measured(t, {"artefact_z": lambda e: 0.2 * e}),
}  # fmt: skip


def tool(name: str) -> Tool:
    """Find a tool by its name."""
    return next(tool for tool in TOOLS if tool.name == name)
