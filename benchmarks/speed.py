"""Speed beside the bare U-Net: ``python -m benchmarks.speed``.

Sampling is timed in turn with the U-Net calls that it cannot do without, several times over; a
training step, measured inside a whole training, beside the U-Net's forward and backward after it.
The ratio is the figure; seconds are of the machine that ran it.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch

from lorascope import demo, storage
from lorascope.miniature.datasets import write_character
from lorascope.models.base import Base, load_base
from lorascope.models.sampling import sample

RESULTS = Path(__file__).parent / "results" / "speed.json"
PROMPT = "pink hair, long hair, blue eyes, white hoodie, smile, sky"
STEPS, GUIDANCE = 20, 5.0
TRAIN_BATCH = 4


def sampling(base: Base, count: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Give the program's way to draw ``count`` pictures, and the bare U-Net's part of it."""
    conditioning = base.encode_prompts([PROMPT] * (2 * count))
    side = base.size // 8
    noisy = torch.randn(2 * count, base.latent_channels, side, side)
    timesteps = torch.full((2 * count,), 500)

    def ours() -> object:
        seeds = list(range(count))
        return sample(base, [PROMPT] * count, seeds, steps=STEPS, guidance=GUIDANCE, batch=count)

    @torch.no_grad()
    def bare() -> object:
        return [base.predict(noisy, timesteps, conditioning) for _ in range(STEPS)]

    return ours, bare


def bare_training_step(base: Base) -> Callable[[], object]:
    """Give forward and backward of the bare U-Net, its weights frozen, at the training's batch."""
    side = base.size // 8
    noisy = torch.randn(TRAIN_BATCH, base.latent_channels, side, side, requires_grad=True)
    conditioning = base.encode_prompts([PROMPT] * TRAIN_BATCH)
    timesteps = torch.full((TRAIN_BATCH,), 500)

    def bare() -> object:
        base.predict(noisy, timesteps, conditioning).square().mean().backward()
        return None

    return bare


def training_step_seconds() -> float:
    """Train the demo's character for one epoch; seconds a step, loading left out."""
    from trainer.config import config_from
    from trainer.loop import train

    with tempfile.TemporaryDirectory() as folder:
        times: list[float] = []
        for epochs in (1, 3):
            out = Path(folder) / str(epochs)
            dataset = Path(folder) / f"{epochs}-dataset"
            write_character(
                dataset, trigger=demo.TRIGGER, images=demo.IMAGES, repeats=demo.REPEATS, seed=0
            )
            settings = {**demo.SETTINGS, "dataset": str(dataset), "epochs": epochs}
            started = time.perf_counter()
            run = train(config_from(settings), out)
            times.append(time.perf_counter() - started)
            steps = len(run.place("log").read_text().splitlines()) - 1
        return (times[1] - times[0]) / (steps * 2 / 3)


def timed(call: Callable[[], object]) -> float:
    """Time one call, in seconds."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def alternating(
    ours: Callable[[], object], bare: Callable[[], object], rounds: int
) -> tuple[float, float]:
    """Time two calls in turn; the medians, in seconds."""
    ours(), bare()
    pairs = [(timed(ours), timed(bare)) for _ in range(rounds)]
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--threads", default=os.cpu_count(), show_default=True)
def main(rounds: int, threads: int) -> None:
    """Time sampling and training beside the bare U-Net and write the table."""
    torch.set_num_threads(threads)
    base = load_base("miniature")
    rows = {}
    for count in (1, 16):
        ours, bare = alternating(*sampling(base, count), rounds)
        rows[f"sample, 20 steps, batch {count}"] = (ours / count, bare / count)
    step = training_step_seconds()
    bare_step = statistics.median(timed(bare_training_step(base)) for _ in range(rounds * 4))
    rows["LoRA training step, batch 4"] = (step, bare_step)
    table = [
        {"what": what, "seconds": round(ours, 4), "bare_unet": round(bare, 4),
         "ratio": round(ours / bare, 2)}
        for what, (ours, bare) in rows.items()
    ]  # fmt: skip
    for row in table:
        click.echo(
            f"{row['what']:<32}{row['seconds']:>8} s  bare {row['bare_unet']:>8} s  "
            f"x {row['ratio']}"
        )
    found = {"threads": threads, "rows": table}
    storage.write_text(RESULTS, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
