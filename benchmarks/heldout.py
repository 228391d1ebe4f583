"""The held-out loss beside what it cannot do without, and beside an oracle.

``python -m benchmarks.heldout RUN`` asks a checkpoint of a run (``lorascope demo`` makes one) in
turn with the bare U-Net's forwards on the same batches: the ratio is the overhead. Then it asks the
same checkpoints on many new drawings of the character, which only a drawn world can give: where
that curve turns is the oracle's answer, and what the run's few held-out images say is compared.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch

from lorascope import demo, storage
from lorascope.io.checkpoints import usable_checkpoints
from lorascope.io.dataset_file import read_dataset, write_dataset
from lorascope.io.lora_file import read_lora
from lorascope.io.scan import scan_images
from lorascope.metrics.curves import savitzky_golay
from lorascope.miniature.datasets import write_character
from lorascope.models.base import load_base
from lorascope.models.lora import Merger
from lorascope.records import Measured
from lorascope.run import Run
from lorascope.tools.held_out.questions import Asker, Item, Questions, stratified
from lorascope.tools.loss import loss
from lorascope.tools.vae import at_training_size

RESULTS = Path(__file__).parent / "results" / "heldout.json"
ROUNDS = 7
ORACLE_IMAGES = 96
FEW = (4, 6, 8, 12)  # images that are drawn out of them
DRAWS = 2000
ORACLE_SEED = 7919  # far from the seeds of datasets


def overhead(run: Run) -> dict[str, float]:
    """Time one checkpoint's questions, with and without all that is not the U-Net.

    Returns
    -------
    dict
        seconds: reading, merging, encoding, asking and summing up; bare: the forwards alone, on
        the same batches; ratio: median over alternating rounds.
    """
    base = load_base(run.base, dtype="fp32")
    dataset = read_dataset(run.input("dataset"))
    items = tuple(
        Item(
            kind=image.split,
            name=image.file,
            key=image.sha256,
            prompt=image.caption,
            latent=base.encode_images(at_training_size(dataset, image)[None])[0].float(),
        )
        for image in dataset.images
    )
    questions = Questions(items=items, timesteps=stratified(1000, 10, 0), draws=2, seed=0)
    asker, merger = Asker(base, questions), Merger(base)
    checkpoints, _ = usable_checkpoints(run.input("lora"))
    conditions = [base.encode_prompts(b.texts).take(b.which) for b in asker.batches]

    def ours() -> None:
        lora = read_lora(checkpoints[-1].path)
        merger.apply(lora)
        text = any(not name.startswith("lora_unet_") for name in lora.modules)
        for number in range(len(asker.batches)):
            asker.losses(number, own_text=text)

    @torch.no_grad()
    def bare() -> None:
        for number, cond in enumerate(conditions):
            mixed = asker.mixed(number)
            base.predict(mixed.noisy, mixed.timesteps, cond)

    pairs = [(_seconds(ours), _seconds(bare)) for _ in range(ROUNDS + 1)][1:]
    merger.restore()
    return {
        "forwards": asker.forwards(),
        "seconds": round(statistics.median(o for o, _ in pairs), 3),
        "bare": round(statistics.median(b for _, b in pairs), 3),
        "ratio": round(statistics.median(o / b for o, b in pairs), 3),
    }


def oracle(run: Run) -> dict[str, object]:
    """Compare where the loss turns on the run's held-out images and on many new drawings."""
    held = _turn(loss(_inputs(run, run.input("dataset")), kept=0))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_character(root / "new", trigger=demo.TRIGGER, images=ORACLE_IMAGES, seed=ORACLE_SEED)
        images = scan_images(root / "new", say=lambda _: None)
        dataset = read_dataset(run.input("dataset"))
        known = {image.sha256 for image in dataset.images}
        new = (replace(i, split="held-out") for i in images if i.sha256 not in known)
        many = replace(dataset, root=root / "new", images=tuple(new))
        write_dataset(root / "run" / "train" / "dataset.json", many)
        inputs = _inputs(run, root / "run" / "train" / "dataset.json")
        everyone = loss(inputs, kept=0)
    return {
        "held_out": held,
        "oracle": _turn(everyone),
        "few_of_many": _few_of_many(everyone),
    }


def _few_of_many(found: Measured) -> list[dict[str, float]]:
    """Draw some of the many images again and again: how often do they agree with all?"""
    with np.errstate(all="ignore"):
        values = np.log(found.arrays["losses"] / found.arrays["losses"][:1]).mean(axis=(2, 3)).T
    lowest = int(values.mean(axis=0).argmin())
    rng = np.random.default_rng(0)
    rows = []
    for count in FEW:
        some = [values[rng.choice(len(values), count, replace=False)] for _ in range(DRAWS)]
        raw = [int(v.mean(axis=0).argmin()) for v in some]
        smooth = [int(savitzky_golay(v.mean(axis=0)).argmin()) for v in some]
        within = {
            "lowest": np.mean([abs(place - lowest) <= 1 for place in raw]),
            "turn": np.mean([abs(place - lowest) <= 1 for place in smooth]),
        }
        rows.append({"images": count} | {k: round(float(v), 3) for k, v in within.items()})
    return rows


def _turn(found: Measured) -> dict[str, object]:
    row = next(r for r in found.tables["turns"] if r["set"] == "held-out")
    curve = [round(float(r["held_out"] or 0), 4) for r in found.tables["epochs"]]
    keys = (
        "images",
        "turn_epoch",
        "turn_first",
        "turn_last",
        "lowest_epoch",
        "earliest_epoch",
        "set_first",
        "set_last",
        "turned",
    )
    return {**{key: row[key] for key in keys}, "curve": curve}


def _inputs(run: Run, dataset: Path) -> dict[str, Path]:
    return {"lora": run.input("lora"), "dataset": dataset, "base": Path(run.base)}


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
def main(run: Path) -> None:
    """Measure both and write the table."""
    opened = Run(run)
    found = {
        "threads": torch.get_num_threads(),
        "overhead": overhead(opened),
        "turn": oracle(opened),
    }
    click.echo(json.dumps(found, indent=1))
    storage.write_text(RESULTS, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
