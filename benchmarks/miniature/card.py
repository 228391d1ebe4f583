"""Measures the embedded base model and writes its card.

``python -m benchmarks.miniature.card`` samples 500 prompts, reads them, sends drawings through the
VAE, and writes ``lorascope/miniature/base/MODEL_CARD.md``, the figures as
``benchmarks/results/miniature.json``, and pictures beside them.
"""

import json
import random
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.miniature.reader import TEST_SEED, drawn, load_reader, read, score
from lorascope import storage
from lorascope.io.images import write_png
from lorascope.miniature import world
from lorascope.miniature.drawing import Drawing, draw
from lorascope.models.base import Base, load_base
from lorascope.models.sampling import sample

ROOT = Path(__file__).parents[2]
CARD = ROOT / "lorascope" / "miniature" / "base" / "MODEL_CARD.md"
RESULTS = ROOT / "benchmarks" / "results"
PROMPT_SEED = 4242
VAE_SEED = 61_000
GUIDANCE = 4.0
TARGETS = {"obeyed": 0.99, "ribbon_recall": 0.98, "drawings": 29.0, "withheld": 27.0, "big": 20.0}
SHAPES = {"mark": world.REGIONS["mark"], "emblem": world.REGIONS["emblem"]}


def obedience(base: Base, count: int) -> tuple[dict[str, float], NDArray[np.uint8]]:
    """Sample prompts of the tagged world and read what came out."""
    rng = random.Random(PROMPT_SEED)
    avatars = [world.sample_avatar(rng) for _ in range(count)]
    prompts = [", ".join(world.tags(a)) for a in avatars]
    with torch.no_grad():
        images = sample(base, prompts, list(range(count)), guidance=GUIDANCE)
    return score(read(load_reader(), images), avatars), images


def round_trips(base: Base, count: int) -> tuple[dict[str, dict[str, float]], NDArray[np.uint8]]:
    """Send fresh drawings through the VAE: PSNR in dB, of the whole and of marks and emblems."""
    found: dict[str, dict[str, float]] = {}
    pairs = []
    for kind in ("drawings", "wide", "withheld"):
        rng = random.Random(VAE_SEED)
        drawings = [draw(_avatar(kind, rng), rng) for _ in range(count)]
        originals = np.stack([d.image for d in drawings])
        with torch.no_grad():
            decoded = np.concatenate(
                [
                    base.decode(base.encode_images(originals[i : i + 32]))
                    for i in range(0, count, 32)
                ]
            )
        found[kind] = _psnrs(drawings, decoded)
        pairs += [np.concatenate([a, b], 1) for a, b in zip(originals[:12], decoded, strict=False)]
    return found, sheet(np.stack(pairs), columns=4)


def speed(base: Base) -> dict[str, float]:
    """Time a sample alone and in a batch of 16 beside the bare U-Net's share of it, seconds."""
    prompt, found = "pink hair, long hair, blue eyes, white hoodie, smile, sky", {}
    for count in (1, 16):
        sample(base, [prompt] * count, list(range(count)), steps=2)
        started = time.perf_counter()
        sample(base, [prompt] * count, list(range(count)), steps=20, guidance=GUIDANCE)
        found[f"sample_batch_{count}"] = (time.perf_counter() - started) / count
        found[f"unet_batch_{count}"] = _bare_unet(base, count)
    return found


def sheet(images: NDArray[np.uint8], *, columns: int, gap: int = 2) -> NDArray[np.uint8]:
    """Lay pictures of one size out on white."""
    count, height, width = images.shape[:3]
    rows = -(-count // columns)
    page = np.full((rows * (height + gap), columns * (width + gap), 3), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = i // columns * (height + gap), i % columns * (width + gap)
        page[y : y + height, x : x + width] = image
    return page


def _bare_unet(base: Base, count: int, steps: int = 20) -> float:
    """Seconds per picture of the 20 guided U-Net calls alone."""
    conditioning = base.encode_prompts(["smile"] * (2 * count))
    noisy = torch.randn(2 * count, base.latent_channels, base.size // 8, base.size // 8)
    timesteps = torch.full((2 * count,), 500)
    with torch.no_grad():
        base.predict(noisy, timesteps, conditioning)
        started = time.perf_counter()
        for _ in range(steps):
            base.predict(noisy, timesteps, conditioning)
    return (time.perf_counter() - started) / count


def _avatar(kind: str, rng: random.Random) -> world.Avatar:
    avatar = world.sample_avatar(rng)
    if kind == "drawings":
        return avatar
    return world.widen(avatar, rng, withheld=kind == "withheld")


def _psnrs(drawings: list[Drawing], decoded: NDArray[np.uint8]) -> dict[str, float]:
    errors = [
        ((d.image.astype(float) - y) ** 2).mean(2) for d, y in zip(drawings, decoded, strict=True)
    ]
    found = {"all": float(np.mean([_db(e.mean()) for e in errors]))}
    for name, label in SHAPES.items():
        for size, least in (("big", 24), ("small", 0)):
            parts = [
                e[d.regions == label]
                for d, e in zip(drawings, errors, strict=True)
                if _across(d, label) and (_across(d, label) >= 24) == bool(least)
            ]
            if parts:
                found[f"{name}_{size}"] = _db(float(np.concatenate(parts).mean()))
    return found


def _across(drawing: Drawing, label: int) -> int:
    """Give the longer side of a region, px; 0 where there is none."""
    ys, xs = np.where(drawing.regions == label)
    return int(max(np.ptp(ys), np.ptp(xs)) + 1) if len(ys) else 0


def _db(error: float) -> float:
    return float(-10 * np.log10(max(error, 1e-9) / 255**2))


def _card(figures: dict[str, Any]) -> str:
    obeyed, vae, reader = figures["obeyed"], figures["vae"], figures["reader"]
    missed = figures["missed"]
    lines = [
        "# The miniature: model card",
        "",
        "A latent diffusion model of 128 x 128 px avatars with booru-style tags, trained from "
        "nothing on drawings that LoraScope makes itself, for demonstration, tests and "
        "benchmarks. It knows nothing of photographs, people or art, and is good for nothing "
        "else. MIT licence, as the program.",
        "",
        "Every figure below was written by `python -m benchmarks.miniature.card`; the weights "
        "come out of `python -m trainer.pretrain`.",
        "",
        f"## Prompts obeyed ({figures['prompts']} prompts, guidance {GUIDANCE:g}, 20 steps)",
        "",
        "| Attribute | Share obeyed | The reader on clean drawings |",
        "|---|---|---|",
        *(f"| {k.replace('_', ' ')} | {obeyed[k]:.3f} | {reader[k]:.4f} |" for k in obeyed),
        "",
        "`exact`: everything that was asked for, in one picture. The reader is an independent "
        "network trained on drawings alone (`benchmarks/miniature/reader.py`).",
        "",
        f"## VAE round trip (PSNR in dB, {figures['drawings']} drawings each)",
        "",
        "| Drawings | Whole | Mark >= 24 px | Mark below | Emblem >= 24 px | Emblem below |",
        "|---|---|---|---|---|---|",
        *(
            f"| {kind} | "
            + " | ".join(
                f"{row[k]:.1f}" if k in row else "-"
                for k in ("all", "mark_big", "mark_small", "emblem_big", "emblem_small")
            )
            + " |"
            for kind, row in vae.items()
        ),
        "",
        "`withheld`: colours, shapes and looks that no training picture has.",
        "",
        "## Aimed at and missed",
        "",
        *(missed or ["Nothing: every target was met."]),
        "",
        f"## Size\n\n{figures['parameters'] / 1e6:.2f} M parameters, "
        f"{figures['megabytes']:.1f} MB in half precision.",
    ]
    return "\n".join(lines) + "\n"


def _missed(figures: dict[str, Any]) -> list[str]:
    obeyed, vae = figures["obeyed"], figures["vae"]
    heads = (
        "hair",
        "hair_style",
        "eyes",
        "outfit",
        "outfit_colour",
        "expression",
        "background",
        "skin",
        *world.ACCESSORIES,
    )
    found = [(k, obeyed[k], TARGETS["obeyed"]) for k in heads]
    found += [
        ("ribbon recall", obeyed["ribbon_recall"], TARGETS["ribbon_recall"]),
        ("VAE, drawings (dB)", vae["drawings"]["all"], TARGETS["drawings"]),
        ("VAE, withheld (dB)", vae["withheld"]["all"], TARGETS["withheld"]),
        ("VAE, withheld big mark (dB)", vae["withheld"]["mark_big"], TARGETS["big"]),
        ("VAE, withheld big emblem (dB)", vae["withheld"]["emblem_big"], TARGETS["big"]),
    ]
    return [
        f"- {name.replace('_', ' ')}: {value:.3f}, aimed at {least:g}"
        for name, value, least in found
        if value < least
    ]


@click.command()
@click.option("--prompts", default=500, show_default=True)
@click.option("--drawings", default=256, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--base", default="miniature", show_default=True)
def main(prompts: int, drawings: int, threads: int, base: str) -> None:
    """Measure, print, and write the card, the figures and the pictures."""
    torch.set_num_threads(threads)
    model = load_base(base)
    obeyed, images = obedience(model, prompts)
    vae, pairs = round_trips(model, drawings)
    clean, avatars = drawn(TEST_SEED, 2000)
    parts = [model.unet, model.vae, *model.text_encoders]
    files = (CARD.parent if base == "miniature" else Path(base)).rglob("*")
    figures: dict[str, Any] = {
        "prompts": prompts,
        "drawings": drawings,
        "obeyed": obeyed,
        "reader": score(read(load_reader(), clean), avatars),
        "vae": vae,
        "seconds_on_this_machine": speed(model),
        "parameters": sum(p.numel() for part in parts for p in part.parameters()),
        "megabytes": sum(f.stat().st_size for f in files if f.is_file()) / 1e6,
    }
    figures["missed"] = _missed(figures)
    click.echo(json.dumps(figures, indent=2))
    write_png(RESULTS / "miniature-prompts.png", sheet(images[:40], columns=8))
    write_png(RESULTS / "miniature-vae.png", pairs)
    storage.write_text(RESULTS / "miniature.json", json.dumps(figures, indent=2) + "\n")
    if base == "miniature":
        storage.write_text(CARD, _card(figures))


if __name__ == "__main__":
    main()
