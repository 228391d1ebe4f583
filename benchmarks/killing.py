"""Drawing under fire: ``python -m benchmarks.killing``.

Processes that draw a grid are killed at random moments (SIGKILL, no warning) and started again, one
or two at a time, until the grid is whole; it is then compared, byte by byte, with the same grid
drawn without interruption.
"""

import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from lorascope import storage
from lorascope.io.images import read_image
from lorascope.io.lora_file import LoraModule, write_lora
from lorascope.models import lora  # here, so that a process begins to draw at once
from lorascope.models.base import load_base
from lorascope.models.shots import Shot
from lorascope.tools.drawing import draw as drawing
from lorascope.tools.drawing.cells import Applied, Cell, Weights, make_cell
from lorascope.tools.drawing.plan import RECORD

RESULTS = Path(__file__).parent / "results" / "killing.json"
KILLS, SEED = 200, 0
LONGEST_LIFE_S = 6.0  # before a process is killed
PROMPTS = ("pink hair, smile, sky", "blue hair, frown, forest", "brown hair, red hoodie, night")
STRENGTHS = (0.0, 0.5, 1.0, 1.5)
SEEDS, STEPS, BATCH = range(1, 9), 6, 4
LAYERS = tuple(
    f"lora_unet_{block}_attentions_0_transformer_blocks_0_attn2_to_{which}"
    for block in ("down_blocks_0", "up_blocks_1")
    for which in "qv"
)


def cells_of(file: Path) -> list[Cell]:
    """Lay out a grid of the miniature at four strengths of a LoRA."""
    return [
        make_cell(
            Weights(
                base="miniature",
                loras=(Applied(path=file, strength=strength, text_strength=strength),),
            ),
            Shot(prompt=prompt, seed=seed, width=64, height=64, steps=STEPS),
        )
        for strength in STRENGTHS
        for prompt in PROMPTS
        for seed in SEEDS
    ]


def write_lora_of_noise(path: Path, *, seed: int = SEED) -> None:
    """Write a LoRA of random numbers that fits the miniature."""
    layers = lora.module_names(load_base("miniature"))
    rng = np.random.default_rng(seed)
    modules = []
    for name in LAYERS:
        out, into = layers[name].get_parameter("weight").shape
        down, up = rng.normal(0, 0.1, (4, into)), rng.normal(0, 0.1, (out, 4))
        modules.append(LoraModule(name, down.astype(np.float32), up.astype(np.float32), 4.0))
    write_lora(path, modules, {})


def started(cells: Sequence[Cell], samples: Path) -> int:
    """Start a process that draws; its imports are done already, so that it draws at once."""
    process = os.fork()
    if process:
        return process
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    drawing.draw(cells, samples, batch=BATCH)
    os._exit(0)


def besieged(
    cells: Sequence[Cell], samples: Path, rng: random.Random, *, kills: int, life: float
) -> dict[str, int]:
    """Draw a grid while its processes are killed at random moments.

    Returns
    -------
    dict
        kills: that hit a process at work; lives: processes started; left_behind: partial files and
        locks, none of which was taken for a picture.
    """
    done = {"kills": 0, "lives": 0}
    while drawing.missing(cells, samples):
        alive = [started(cells, samples) for _ in range(rng.choice((1, 1, 2)))]
        done["lives"] += len(alive)
        if done["kills"] >= kills:
            for process in alive:
                os.waitpid(process, 0)
            continue
        for process in alive:
            time.sleep(rng.uniform(0.0, life / len(alive)))
            os.kill(process, signal.SIGKILL)
            _, status = os.waitpid(process, 0)
            done["kills"] += os.WIFSIGNALED(status)
    left = [
        p for p in samples.rglob("*") if p.is_file() and (p.suffix != ".png" or p.name[0] == ".")
    ]
    return done | {"left_behind": len([p for p in left if p.name != RECORD])}


def compared(cells: Sequence[Cell], one: Path, other: Path) -> dict[str, Any]:
    """Compare two folders of samples, cell by cell."""
    pairs = [(cell.path(one), cell.path(other)) for cell in cells]
    apart = [
        int(np.abs(read_image(a).astype(int) - read_image(b).astype(int)).max()) for a, b in pairs
    ]
    return {
        "pictures": len(pairs),
        "same_bytes": sum(a.read_bytes() == b.read_bytes() for a, b in pairs),
        "largest_difference": max(apart),
    }


@click.command()
@click.option("--kills", default=KILLS, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def main(kills: int, out: Path) -> None:
    """Kill, resume, compare, and write the table."""
    rng = random.Random(SEED)
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        file = folder / "noise.safetensors"
        in_a_process(lambda: write_lora_of_noise(file))
        cells = cells_of(file)
        began = time.monotonic()
        in_a_process(lambda: drawing.draw(cells, folder / "calm", batch=BATCH))
        life = min((time.monotonic() - began) / 4, LONGEST_LIFE_S)
        while (left := kills - sum(one["kills"] for one in rounds)) > 0:
            samples = folder / f"round-{len(rounds)}"
            found = besieged(cells, samples, rng, kills=left, life=life)
            rounds.append(found | compared(cells, folder / "calm", samples))
            click.echo(f"{rounds[-1]}")
    total = {name: sum(one[name] for one in rounds) for name in rounds[0]}
    total["largest_difference"] = max(one["largest_difference"] for one in rounds)
    result = {"cells": len(cells), "grids": len(rounds), **total, "rounds": rounds}
    storage.write_text(out, json.dumps(result, indent=1) + "\n")
    click.echo(json.dumps(total, indent=1))


def in_a_process(work: Callable[[], object]) -> None:
    """Do something in a process of its own: one that used its threads must not be forked again."""
    process = os.fork()
    if not process:
        work()
        os._exit(0)
    _, status = os.waitpid(process, 0)
    if status:
        raise SystemExit(f"a process failed: {status}")


if __name__ == "__main__":
    main()
