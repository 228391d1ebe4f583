"""Drawing a grid's cells beside the loop that is usually written: ``python -m benchmarks.drawing``.

Of one base model, two LoRA files, the same prompts, seeds, sampler and number of threads, in turn:

- ours: `lorascope.tools.drawing.draw`, with reading and merging the LoRAs and writing the PNGs;
- plain: a StableDiffusionPipeline as diffusers documents it: load_lora_weights, one prompt a call,
  save, unload_lora_weights; as it is loaded (float32), and once more under bfloat16 autocast;
- bare: nothing but the U-Net's forwards in full batches and the VAE's.

Last, the miniature's pictures are drawn alone, in batches, in another order and with another
number of threads, in both precisions: how many are the same to the bit, and how far the others lie.

Ratios are medians over rounds; seconds are of the machine that ran it. The second model has the
shape of SD 1.5 with random weights: small pictures and few steps, so that a processor can do it.
Its ratio to bare is an upper bound: swapping the LoRA, encoding the texts and lowering the weights
are paid once a LoRA or batch, and weigh four times less with the 20 steps of a usual picture.
"""

import json
import os
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.swapping import attention_layers, random_file
from lorascope import storage
from lorascope.io.images import read_image
from lorascope.io.lora_file import read_lora
from lorascope.models import sources
from lorascope.models.base import Base, load_base, shared_base
from lorascope.models.folder import quiet
from lorascope.models.lora import Merger, module_names
from lorascope.models.sampling import draw_shots, make_scheduler
from lorascope.models.shots import Shot
from lorascope.models.single_file import CONFIGS
from lorascope.tools.drawing.cells import Applied, Cell, Weights, make_cell
from lorascope.tools.drawing.draw import draw

RESULTS = Path(__file__).parent / "results" / "drawing.json"
BATCH, GUIDANCE, SAMPLER, LORAS = 16, 5.0, "dpm++2m", 2
LOOKS = ("pink", "blue", "green", "white", "black", "brown", "red", "blonde")
COMPANY = 41  # pictures: the last batch of 4, and of 16, is not full
TEXT_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of a model is drawn."""

    steps: int
    side: int  # px
    pictures: int  # of each LoRA
    rounds: int


SIZES = {
    "miniature": Size(steps=20, side=128, pictures=16, rounds=3),
    "SD 1.5 shape": Size(steps=5, side=128, pictures=8, rounds=1),
}


def random_pipeline(folder: Path) -> Path:
    """Write SD 1.5's shape with random weights in bfloat16, and the miniature's words."""
    configs = CONFIGS / "sd15"
    shutil.copytree(configs, folder)
    shutil.copytree(sources.find("miniature").path / "tokenizer", folder / "tokenizer")
    kinds = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}
    for part, kind in kinds.items():
        facts = json.loads((configs / part / "config.json").read_text())
        with torch.device("meta"):
            model = kind.from_config(facts)
        _fill(model).save_pretrained(folder / part)
    text = CLIPTextConfig(**json.loads((configs / "text_encoder" / "config.json").read_text()))
    with torch.device("meta"):
        encoder = CLIPTextModel(text)
    _fill(encoder).save_pretrained(folder / "text_encoder")
    return folder


def _fill(model: Any) -> Any:
    """Put random numbers into a model of no weights, norms at 1, without drawing each of them."""
    model = model.to(dtype=torch.bfloat16).to_empty(device="cpu")
    pool = torch.randn(2**20, generator=torch.Generator().manual_seed(0)).bfloat16() * 0.02
    for name, values in model.state_dict().items():
        flat = values.view(-1)
        if "position_ids" in name:
            flat.copy_(torch.arange(len(flat)))
        elif "norm" in name:
            flat.fill_(float(name.endswith("weight")))
        else:
            for start in range(0, len(flat), len(pool)):
                flat[start : start + len(pool)].copy_(pool[: len(flat) - start])
    return model


def lora_files(base: Base, folder: Path) -> list[Path]:
    """Write LoRAs of rank 32 for the U-Net's transformers and the text encoder."""
    shapes = list(attention_layers(base.unet)) + [
        (name, tuple(layer.weight.shape))  # type: ignore[arg-type]  # all have one
        for name, layer in module_names(base).items()
        if name.startswith("lora_te_") and name.endswith(TEXT_LAYERS)
    ]
    files = [folder / f"lora-{number}.safetensors" for number in range(LORAS)]
    for number, file in enumerate(files):
        random_file(file, shapes, number)
    return files


def cells_of(name: str, files: list[Path], size: Size) -> list[list[Cell]]:
    """List the cells of each LoRA."""
    return [
        [
            make_cell(
                Weights(base=name, loras=(Applied(path=file),)),
                _shot(i, size.side, steps=size.steps),
            )
            for i in range(size.pictures)
        ]
        for file in files
    ]


def _shot(number: int, side: int, *, steps: int) -> Shot:
    """Ask for the looks in turn, each turn with another seed."""
    return Shot(
        prompt=f"{LOOKS[number % len(LOOKS)]} hair, smile, sky",
        seed=number // len(LOOKS),
        width=side,
        height=side,
        steps=steps,
        guidance=GUIDANCE,
        sampler=SAMPLER,
    )


def draw_plain(pipeline: Any, rows: list[list[Cell]], out: Path) -> None:
    """Draw as diffusers' documentation does: a LoRA loaded, one prompt a call."""
    for row in rows:
        file = row[0].weights.loras[0].path
        pipeline.load_lora_weights(str(file.parent), weight_name=file.name)
        for cell in row:
            shot = cell.shot
            picture = pipeline(
                shot.prompt,
                width=shot.width,
                height=shot.height,
                num_inference_steps=shot.steps,
                guidance_scale=shot.guidance,
                generator=torch.Generator("cpu").manual_seed(shot.seed),
            ).images[0]
            picture.save(out / f"{cell.name}.png")
        pipeline.unload_lora_weights()


def draw_plain_lower(pipeline: Any, rows: list[list[Cell]], out: Path) -> None:
    """Do the same under bfloat16 autocast."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        draw_plain(pipeline, rows, out)


@torch.no_grad()
def run_bare(base: Base, rows: list[list[Cell]]) -> None:
    """Do the forwards that cannot be done without, and nothing else."""
    side = rows[0][0].shot.width // base.pixels_per_latent
    for row in rows:
        for start in range(0, len(row), BATCH):
            count = len(row[start : start + BATCH])
            cond = base.encode_prompts([row[0].shot.prompt]).take([0] * (2 * count))
            noisy = torch.zeros(2 * count, base.latent_channels, side, side)
            timesteps = torch.full((2 * count,), 500)
            for _ in range(row[0].shot.steps):
                base.predict(noisy, timesteps, cond)
            base.vae.decode(noisy[:count].to(base.vae.dtype))


def measure(name: str, label: str, size: Size, folder: Path) -> dict[str, object]:
    """Time all ways in turn on one base model, and compare what they drew."""
    base = shared_base(name)
    rows = cells_of(name, lora_files(base, folder), size)
    cells = [cell for row in rows for cell in row]
    pipeline = _pipeline(base, size.steps)
    for way in ("ours", "plain", "plain_bf16"):
        (folder / way).mkdir()
    ways: dict[str, Callable[[Path], object]] = {
        "plain": lambda out: draw_plain(pipeline, rows, out),
        "ours": lambda out: draw(cells, out, batch=BATCH, label=label),
        "plain_bf16": lambda out: draw_plain_lower(pipeline, rows, out),
        "bare": lambda _out: run_bare(base, rows),
    }
    first = [row[:1] for row in rows]  # so that no way pays for what a process does only once
    run_bare(base, first)
    draw_plain(pipeline, first, folder / "plain")
    draw([cell for row in first for cell in row], folder / "ours", label=label)
    times: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(size.rounds):
        for way, work in ways.items():
            if way == "ours":  # pictures that are there would not be drawn again
                shutil.rmtree(folder / way)
            times[way].append(_seconds(partial(work, folder / way)))
            click.echo(f"{label}, round {turn + 1}: {way} {times[way][-1]:.2f} s", err=True)
    ours = times["ours"]
    return {
        "what": label,
        "pictures": len(cells),
        "loras": len(rows),
        "steps": size.steps,
        "size": f"{size.side} x {size.side}",
        "batch": BATCH,
        "rounds": size.rounds,
        "images_per_second": round(len(cells) / statistics.median(ours), 3),
        "seconds": {way: round(statistics.median(t), 2) for way, t in times.items()},
        "ours_over_plain": _ratio(times["plain"], ours),
        "ours_over_plain_bf16": _ratio(times["plain_bf16"], ours),
        "time_over_bare": _ratio(ours, times["bare"]),
        "mean_difference_to_plain": _differences(cells, folder),
        "swap": _swaps(base, rows, pipeline),
    }


def company(threads: int) -> list[dict[str, object]]:
    """Draw the same pictures alone, in batches, in another order, and count what differs."""
    found: list[dict[str, object]] = []
    order = np.random.default_rng(0).permutation(COMPANY)
    for dtype in ("bf16", "fp32"):
        base = load_base("miniature", dtype=dtype, device="cpu")
        shots = [_shot(i, base.size, steps=20) for i in range(COMPANY)]
        alone = _drawn(base, shots, 1)
        for what, several, batch, with_threads in (
            ("batches of 4", range(COMPANY), 4, threads),
            ("batches of 16", range(COMPANY), 16, threads),
            ("another order", order, 16, threads),
            ("another number of threads", range(COMPANY), 16, 1 if threads > 1 else 2),
        ):
            torch.set_num_threads(with_threads)
            pictures = _drawn(base, [shots[i] for i in several], batch)
            torch.set_num_threads(threads)
            apart = np.abs(pictures.astype(int) - alone[list(several)])
            equal = int((apart.reshape(COMPANY, -1).max(axis=1) == 0).sum())
            found.append(
                {"computed_in": dtype, "beside_alone": what, "pictures": COMPANY,
                 "equal_to_the_bit": equal, "largest_difference": int(apart.max())}
            )  # fmt: skip
            click.echo(f"company: {found[-1]}", err=True)
    return found


def _drawn(base: Base, shots: list[Shot], batch: int) -> Any:
    drawn: dict[int, Any] = {}
    for places, latents in draw_shots(base, shots, batch=batch):
        drawn |= dict(zip(places, base.decode(latents), strict=True))
    return np.stack([drawn[place] for place in range(len(shots))])


def _pipeline(base: Base, steps: int) -> Any:
    """Make a pipeline of the same parts: a LoRA that is unloaded leaves them as they were."""
    pipeline = StableDiffusionPipeline(
        unet=base.unet,
        vae=base.vae,
        text_encoder=base.text_encoders[0],
        tokenizer=base.tokenizers[0],
        scheduler=make_scheduler(base, SAMPLER, steps),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _swaps(base: Base, rows: list[list[Cell]], pipeline: Any) -> dict[str, float]:
    """Time what changing to another LoRA takes, reading included."""
    files = [row[0].weights.loras[0].path for row in rows]
    merger = Merger(base)
    ours, theirs = [], []
    for file in files * 2:
        ours.append(_seconds(partial(_swap, merger, file)))
    merger.restore()
    for file in files:
        theirs.append(_seconds(partial(_reload, pipeline, file)))
    own, other = statistics.median(ours), statistics.median(theirs)
    return {"seconds": round(own, 3), "plain": round(other, 3), "ratio": round(other / own, 2)}


def _swap(merger: Merger, file: Path) -> None:
    merger.apply(read_lora(file))


def _reload(pipeline: Any, file: Path) -> None:
    pipeline.load_lora_weights(str(file.parent), weight_name=file.name)
    pipeline.unload_lora_weights()


def _differences(cells: list[Cell], folder: Path) -> dict[str, float]:
    """Say how far both ways in bfloat16 lie from the plain loop in float32; in steps of 255."""

    def apart(other: Callable[[Cell], Path]) -> float:
        pairs = [(folder / "plain" / f"{cell.name}.png", other(cell)) for cell in cells]
        means = [np.abs(read_image(a).astype(int) - read_image(b)).mean() for a, b in pairs]
        return round(float(np.mean(means)), 2)

    return {
        "ours": apart(lambda cell: cell.path(folder / "ours")),
        "plain_bf16": apart(lambda cell: folder / "plain_bf16" / f"{cell.name}.png"),
    }


def _ratio(one: list[float], other: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(one, other, strict=True)), 3)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@click.command()
@click.option("--threads", default=os.cpu_count(), show_default=True)
@click.option("--rounds", type=int, help="Instead of the rounds of each model.")
@click.option("--only", type=click.Choice(list(SIZES)), help="One model; nothing is written.")
def main(threads: int, rounds: int | None, only: str | None) -> None:
    """Time all ways on both models and write the table."""
    torch.set_num_threads(threads)
    found = []
    with tempfile.TemporaryDirectory() as folder, quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, (label, size) in enumerate(SIZES.items()):
            if only not in (None, label):
                continue
            if rounds is not None:
                size = Size(**{**vars(size), "rounds": rounds})
            place = Path(folder) / str(number)
            place.mkdir()
            name = label if label == "miniature" else str(random_pipeline(place / "base"))
            found.append(measure(name, label, size, place))
    table: dict[str, object] = {"threads": threads, "rows": found}
    if only is None:
        table["company"] = company(threads)
    click.echo(json.dumps(table, indent=2))
    if only is None:
        storage.write_text(RESULTS, json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
