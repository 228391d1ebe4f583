"""Copies and collages that are known to be such: are they found, and is nothing else?

``python -m benchmarks.copies FOLDER`` trains LoRAs to memorise six drawings each, and a sound one
on 24; what is in FOLDER already is used. Samples count as copies by a judgement that shares
nothing with the measure: the independent reader sees every attribute of one training image, and
SSIM to it is above that of 100 other drawings with the same attributes, which have another pose and
scenery. The control cannot be copies: fresh drawings of the character, half of them with the
attributes of training images. Collages are planted: halves of two training images, and the figure
of one before the scenery of another, through the base model's VAE.

The measure and the thresholds in ``lorascope.rules.copying`` were chosen on some trainings and
tried on others (`FITTED`).
"""

import functools
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from benchmarks.miniature.reader import Reading, load_reader, read
from lorascope import storage
from lorascope.io.checkpoints import list_checkpoints
from lorascope.io.dataset_file import read_dataset
from lorascope.io.images import read_image, resize_crop
from lorascope.io.lora_file import read_lora
from lorascope.metrics.copies import SIDE, Prepared, nearest, patch_matches
from lorascope.metrics.fidelity import ssim
from lorascope.metrics.similarity import gist
from lorascope.miniature.canvas import SUPERSAMPLING, Canvas
from lorascope.miniature.datasets import character_avatar, write_character
from lorascope.miniature.drawing import draw
from lorascope.miniature.scenery import draw_background
from lorascope.miniature.world import REGIONS, Avatar
from lorascope.models.base import Base, load_base
from lorascope.models.lora import merged
from lorascope.models.sampling import sample
from lorascope.records import Row
from lorascope.rules.copying import CERTAIN, COPIED, NEAR, PUT_TOGETHER, SECOND, is_collage, is_copy
from lorascope.run import Run
from trainer.config import config_from
from trainer.loop import train

Pictures = NDArray[np.uint8]

RESULTS = Path(__file__).parent / "results" / "copies.json"
TRIGGER = "zyxfern"
MEMORISED = 6  # drawings
FITTED = (1, 2, 3, 6)  # seeds that were looked at while measure and thresholds were chosen
EPOCHS_OF: Mapping[int, int] = {  # seed of the drawings -> epochs
    **{1: 25, 2: 40, 3: 25, 6: 20},
    **{4: 25, 5: 25, 7: 25, 8: 25},
}
HEART: Mapping[str, Any] = {
    **{"base": "miniature", "name": "fern", "trigger": TRIGGER, "held_out": 0.0},
    **{"batch_size": 6, "rank": 64, "alpha": 64.0, "unet_lr": 4e-3, "warmup_steps": 20},
}
REPEATS = 20
SOUND_IMAGES, SOUND_SEED = 24, 11
SOUND = {**HEART, "epochs": 5, "batch_size": 8, "rank": 16, "alpha": 16.0, "unet_lr": 1e-3}
OTHERS = ("", "smile, forest", "open mouth, night", "frown, beach")  # beside training captions
PER_CAPTION, PER_OTHER = 6, 3
GUIDANCE, STEPS = 2.0, 16  # what is known by heart is drawn best at a low guidance scale
SAME_ATTRIBUTES = 100  # other drawings that a copy has to be nearer than
CONTROL = 300  # fresh drawings for each training
NOT_SAID = ("hair",)  # a colour that no tag and no reader knows
THRESHOLDS = {
    **{"COPIED": COPIED, "NEAR": NEAR, "CERTAIN": CERTAIN},
    **{"PUT_TOGETHER": PUT_TOGETHER, "SECOND": SECOND},
}
LOOSE_SHIFTS = (-1, 0, 1)  # px at `SIDE`, for the comparison with a looser search
LOOSE_SCALES = (0.95, 1.0, 1.05)


def memorised(folder: Path, seed: int, epochs: int) -> Run:
    """Train a LoRA until it knows six drawings by heart."""
    settings = {**HEART, "epochs": epochs, "save_every_epochs": epochs // 5}
    return _trained(folder / f"memorised-{seed}", settings, images=MEMORISED, seed=seed)


def sound(folder: Path) -> Run:
    """Train a LoRA that has enough drawings, and stops in time."""
    return _trained(folder / "sound", SOUND, images=SOUND_IMAGES, seed=SOUND_SEED)


def samples(base: Base, run: Run) -> Pictures:
    """Draw with the last checkpoint: each training caption, and other prompts; kept in the run."""
    kept = run.path.with_name(f"{run.path.name}-samples.npz")
    if not kept.exists():
        captions = dict.fromkeys(i.caption for i in read_dataset(run.place("dataset")).train)
        others = [f"{TRIGGER}, {other}".rstrip(", ") for other in OTHERS]
        prompts = [c for c in captions for _ in range(PER_CAPTION)]
        prompts += [c for c in others for _ in range(PER_OTHER)]
        with merged(base, read_lora(list_checkpoints(run.place("lora"))[-1].path)):
            seeds = range(3000, 3000 + len(prompts))
            drawn = sample(base, prompts, seeds, steps=STEPS, guidance=GUIDANCE)
        np.savez(kept, pictures=drawn)
    found: Pictures = np.load(kept)["pictures"]
    return found


class Truth:
    """Says which samples are copies, without the measure that is judged."""

    def __init__(self, training: Sequence[Pictures], captions: Sequence[str], seed: int) -> None:
        self.training, self.reader = training, load_reader()
        self.readings = [_said(one) for one in read(self.reader, np.stack(training))]
        self.least = [
            max(ssim(one, other) for other in same_attributes(caption, f"{seed}/{place}"))
            for place, (one, caption) in enumerate(zip(training, captions, strict=True))
        ]

    def copies(self, pictures: Pictures) -> NDArray[np.bool_]:
        """Tell for every picture."""
        found = []
        for picture, reading in zip(pictures, read(self.reader, pictures), strict=True):
            over = [
                said == _said(reading) and ssim(picture, one) > least
                for one, said, least in zip(self.training, self.readings, self.least, strict=True)
            ]
            found.append(any(over))
        return np.array(found)


def same_attributes(caption: str, name: str, count: int = SAME_ATTRIBUTES) -> list[Pictures]:
    """Draw the character anew, with the attributes of a caption."""
    _, expression, background = (part.strip() for part in caption.split(","))
    drawn = []
    for number in range(count):
        rng = random.Random(f"same/{name}/{number}")
        avatar = replace(character_avatar(rng), expression=expression, background=background)
        drawn.append(draw(avatar, rng).image)
    return drawn


def control(captions: Sequence[str], seed: int, count: int = CONTROL) -> Pictures:
    """Draw the character anew: any attributes, then those of the training images."""
    drawn = []
    for number in range(count // 2):
        rng = random.Random(f"control/{seed}/{number}")
        drawn.append(draw(character_avatar(rng), rng).image)
    each = count // 2 // len(captions)
    for place, caption in enumerate(captions):
        drawn += same_attributes(caption, f"control/{seed}/{place}", each)
    return np.stack(drawn)


def collages(base: Base, training: Sequence[Pictures], seed: int) -> dict[str, Pictures]:
    """Put training images together: two halves, and one's figure before another's scenery."""
    pairs = [(i, j) for i in range(len(training)) for j in range(len(training)) if i != j]
    parts = [_parts(seed, place) for place in range(len(training))]
    half = training[0].shape[1] // 2
    halves = [np.hstack([training[i][:, :half], training[j][:, half:]]) for i, j in pairs]
    behind = [np.where(parts[i][0][:, :, None], training[i], parts[j][1]) for i, j in pairs]
    made = {"halves": np.stack(halves), "figure_and_scenery": np.stack(behind)}
    return {name: _through_vae(base, pictures) for name, pictures in made.items()}


def measured(pictures: Pictures, training: Sequence[Pictures]) -> list[Row]:
    """Measure as the tool does."""
    small = [resize_crop(one, SIDE, SIDE) for one in training]
    prepared, gists = [Prepared(one) for one in small], np.stack([gist(one) for one in small])
    rows: list[Row] = []
    for picture in pictures:
        here = resize_crop(picture, SIDE, SIDE)
        near, found = nearest(gist(here), gists), patch_matches(here, prepared)
        assert found is not None
        rows.append(
            {
                "nearest_distance": near.distance,
                "copy_ratio": near.ratio,
                "patch_share": found.share,
                "source_share": found.largest,
                "second_share": (*found.shares, 0.0, 0.0)[1],
            }
        )
    return rows


def loose(pictures: Pictures, training: Sequence[Pictures]) -> list[Row]:
    """Measure with training images that may be moved and scaled as a whole."""
    variants = [one for original in training for one in _variants(original)]
    return [
        {"source_share": found.largest}
        for picture in pictures
        if (found := patch_matches(resize_crop(picture, SIDE, SIDE), variants)) is not None
    ]


def judged(folder: Path, base: Base, seed: int) -> dict[str, Any]:
    """Ask everything of one training that knows its images by heart."""
    run = memorised(folder, seed, EPOCHS_OF[seed])
    dataset = read_dataset(run.place("dataset"))
    training = [read_image(dataset.path(image)) for image in dataset.train]
    captions = [image.caption for image in dataset.train]
    drawn = samples(base, run)
    copies = Truth(training, captions, seed).copies(drawn)
    fresh = control(captions, seed)
    of_copies, of_control = measured(drawn[copies], training), measured(fresh, training)
    planted = {
        name: _share(is_collage, measured(made, training))
        for name, made in collages(base, training, seed).items()
    }
    return {
        "epochs": EPOCHS_OF[seed],
        "samples": len(drawn),
        "copies_found": _share(is_copy, of_copies),
        "control_called_copies": _share(is_copy, of_control),
        "collages_found": planted,
        "control_called_collages": _share(is_collage, of_control),
        "copies_called_collages": _share(is_collage, of_copies),
        "found_at_2_percent_false": {
            "copy_ratio": _at_two(of_copies, of_control, "copy_ratio", -1),
            "nearest_distance": _at_two(of_copies, of_control, "nearest_distance", -1),
            "source_share": _at_two(of_copies, of_control, "source_share", 1),
            "source_share_moved_and_scaled": _at_two(
                loose(drawn[copies], training), loose(fresh, training), "source_share", 1
            ),
        },
    }


def judged_sound(folder: Path, base: Base) -> dict[str, Any]:
    """Ask a sound LoRA's samples."""
    run = sound(folder)
    dataset = read_dataset(run.place("dataset"))
    training = [read_image(dataset.path(image)) for image in dataset.train]
    rows = measured(samples(base, run), training)
    return {
        "called_copies": _share(is_copy, rows),
        "called_collages": _share(is_collage, rows),
    }


def pooled(parts: Sequence[Mapping[str, Any]]) -> dict[str, float | int]:
    """Add shares of several trainings up."""
    return _counted(sum(part["count"] for part in parts), sum(part["n"] for part in parts))


def speed(folder: Path) -> dict[str, float]:
    """Time one picture against twenty training images, in ms of one core."""
    paths = sorted((folder / "sound-dataset").rglob("*.png"))[:20]
    training = [Prepared(resize_crop(read_image(path), SIDE, SIDE)) for path in paths]
    found = {}
    for side in (128, 512):
        picture = resize_crop(read_image(paths[0]), side, side)
        spent = []
        for _ in range(9):
            started = time.process_time()
            patch_matches(resize_crop(picture, SIDE, SIDE), training)
            spent.append(time.process_time() - started)
        found[f"ms_{side}_px"] = round(1000 * float(np.median(spent)), 1)
    return found


def _trained(path: Path, settings: Mapping[str, Any], *, images: int, seed: int) -> Run:
    dataset = path.with_name(f"{path.name}-dataset")
    if not dataset.exists():
        write_character(dataset, trigger=TRIGGER, images=images, repeats=REPEATS, seed=seed)
    wanted = {**settings, "dataset": str(dataset), "seed": seed}
    if path.exists() and list_checkpoints(path / "lora")[-1].epoch == settings["epochs"]:
        return Run(path)
    return train(config_from(wanted), path)


def _said(reading: Reading) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    kept = {k: v for k, v in reading.attributes.items() if k not in NOT_SAID}
    return tuple(sorted(kept.items())), reading.accessories


@functools.cache
def _parts(seed: int, place: int) -> tuple[NDArray[np.bool_], Pictures]:
    """Where a training image's figure is, and its scenery alone."""

    def begun() -> tuple[Avatar, random.Random]:
        rng = random.Random(f"{seed}/fern/{place}")
        return character_avatar(rng), rng

    avatar, rng = begun()
    figure = draw(avatar, rng).regions != REGIONS["background"]
    avatar, rng = begun()
    canvas = Canvas(figure.shape[0], avatar.look)
    draw_background(canvas, avatar, rng)
    return figure, np.asarray(canvas.picture.reduce(SUPERSAMPLING))


def _through_vae(base: Base, pictures: Pictures) -> Pictures:
    parts = [pictures[i : i + 8] for i in range(0, len(pictures), 8)]
    return np.concatenate([base.decode(base.encode_images(part)) for part in parts])


def _variants(original: Pictures) -> list[Prepared]:
    """Move and scale a training image about the middle of the frame."""
    small = Image.fromarray(resize_crop(original, SIDE, SIDE))
    return [
        Prepared(
            np.asarray(
                small.transform(
                    (SIDE, SIDE),
                    Image.Transform.AFFINE,
                    (1 / scale, 0, middle - right, 0, 1 / scale, middle - down),
                    Image.Resampling.BICUBIC,
                )
            )
        )
        for scale in LOOSE_SCALES
        for middle in (SIDE / 2 * (1 - 1 / scale),)
        for down in LOOSE_SHIFTS
        for right in LOOSE_SHIFTS
    ]


def _share(test: Callable[[Row], bool], rows: Sequence[Row]) -> dict[str, Any]:
    return _counted(sum(map(test, rows)), len(rows))


def _counted(count: int, total: int) -> dict[str, Any]:
    """Give a share with its 95 % interval (Clopper and Pearson)."""
    ends = stats.binomtest(count, total).proportion_ci() if total else None
    return {
        "share": round(count / total, 4) if total else None,
        "count": count,
        "n": total,
        "interval": [round(float(ends.low), 4), round(float(ends.high), 4)] if ends else None,
    }


def _at_two(copies: Sequence[Row], others: Sequence[Row], name: str, sign: int) -> float:
    """Share of the copies beyond what 2 % of the control reach."""
    wrong = np.array([float(row[name] or 0) * sign for row in others])
    right = np.array([float(row[name] or 0) * sign for row in copies])
    return round(float((right > np.quantile(wrong, 0.98)).mean()), 3)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Train, sample, judge, and write the table."""
    base = load_base("miniature", dtype="fp32")
    folder.mkdir(parents=True, exist_ok=True)
    seeds = {seed: judged(folder, base, seed) for seed in EPOCHS_OF}
    tried = [found for seed, found in seeds.items() if seed not in FITTED]
    found = {
        "thresholds": THRESHOLDS,
        "fitted_on": list(FITTED),
        "tried_on_others": {
            name: pooled([one[name] for one in tried])
            for name in ("copies_found", "control_called_copies", "control_called_collages")
        },
        "collages_found": {
            name: pooled([one["collages_found"][name] for one in tried])
            for name in ("halves", "figure_and_scenery")
        },
        "sound": judged_sound(folder, base),
        "seeds": seeds,
        "speed": speed(folder),
    }
    click.echo(json.dumps(found, indent=1))
    storage.write_text(RESULTS, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
