"""Does adherence say what an independent reader sees? How many timesteps, and which?

``python -m benchmarks.adherence RUN`` (``lorascope demo`` makes one) draws prompts of the drawn
world with the base model: as asked, with one attribute changed, with all of them changed. The
attribute reader says which attributes are there; the base model says how much the right text
tells it. Then the run's checkpoints draw prompts with the trigger, and the same is compared over
pictures and over epochs. Texts without a meaning say how often a prompt is wrongly called testable.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from benchmarks.miniature.reader import Reader, load_reader, read
from lorascope import storage
from lorascope.io.checkpoints import usable_checkpoints
from lorascope.io.dataset_file import read_dataset
from lorascope.io.lora_file import read_lora
from lorascope.metrics.adherence import PromptScale, gain, middles
from lorascope.miniature import world
from lorascope.models.base import Base, load_base
from lorascope.models.likelihood import Likelihood
from lorascope.models.lora import merged
from lorascope.models.sampling import sample
from lorascope.progress import track
from lorascope.run import Run
from lorascope.tools import adherence
from lorascope.tools.pictures.obeying import OTHERS

Array = NDArray[Any]
Wanted = Mapping[str, str]  # attribute -> tag

RESULTS = Path(__file__).parent / "results" / "adherence.json"
GROUPS: Mapping[str, Sequence[str]] = {
    "hair": tuple(world.HAIR_COLOURS),
    "hair_style": world.HAIR_STYLES,
    "eyes": tuple(world.EYE_COLOURS),
    "expression": world.EXPRESSIONS,
    "background": world.BACKGROUNDS,
    "clothes": tuple(f"{c} {o}" for o in world.OUTFITS for c in world.OUTFIT_COLOURS),
}
ASKED = (1, 2, 3, 4, 6)  # attributes in a prompt
NONSENSE = ("blorfle quindix", "zyxarp", "vantos, mirelle")
USUAL = 8  # the tool's default
FINE = 20  # timesteps that are asked; the choices are made among them
STRATA = (2, 4, 8)
BANDS = ((0.0, 1.0), (0.0, 0.5), (0.1, 0.8), (0.3, 0.9), (0.5, 1.0))
STEPS, GUIDANCE, SEED = 10, 5.0, 11
DRAWS = 500
TESTED = 24  # prompts
ROUNDED = 16  # pictures asked in float32 too


@dataclass(frozen=True, kw_only=True)
class Item:
    """One picture, what it was asked for, and what there is."""

    prompt: int
    wanted: Wanted
    changed: int  # attributes that were drawn otherwise on purpose
    epoch: int
    seen: float  # share of the wanted attributes that the reader sees
    gains: Array  # (timesteps,)


class Bench:
    """The base model, the reader, and one way to ask both."""

    def __init__(self, base: Base) -> None:
        self.base, self.reader = base, load_reader()
        steps = int(base.noise.config.num_train_timesteps)
        self.fine = Likelihood(base, timesteps=middles(steps, FINE, (0, 1)).tolist(), seed=SEED)
        self.usual = self.at(adherence.BAND)

    def gains(
        self, pictures: Array, texts: Sequence[Sequence[str]], likelihood: Likelihood
    ) -> list[Array]:
        """Ask what texts tell about pictures: (texts, timesteps) each."""
        found = []
        for start in track(range(0, len(pictures), 8), label="asking"):
            latents = self.base.encode_images(pictures[start : start + 8]).float().cpu()
            told = [["", *several] for several in texts[start : start + 8]]
            found += [
                gain(np.repeat(rows[:1], len(rows) - 1, axis=0), rows[1:])
                for rows in likelihood.losses(list(latents), told)
            ]
        return found

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> Array:
        """Draw pictures with whatever is merged into the base model."""
        return sample(self.base, prompts, seeds, steps=STEPS, guidance=GUIDANCE, batch=16)

    def at(self, band: tuple[float, float]) -> Likelihood:
        """Ask as the tool does, in a band of timesteps."""
        steps = int(self.base.noise.config.num_train_timesteps)
        return Likelihood(self.base, timesteps=middles(steps, USUAL, band).tolist(), seed=0)


def drawn_by_base(bench: Bench, prompts: int) -> list[Item]:
    """Draw prompts as asked, with one attribute changed, and with all of them changed."""
    rng = random.Random(SEED)
    jobs: list[tuple[int, Wanted, int, Wanted]] = []
    for number in range(prompts):
        wanted = some_wanted(rng, rng.choice(ASKED))
        for changed in sorted({0, 1, len(wanted)}):
            jobs.append((number, wanted, changed, _changed(rng, wanted, changed)))
    pictures = bench.draw([_text(drawn) for *_, drawn in jobs], [100 + n for n, *_ in jobs])
    gains = bench.gains(pictures, [[_text(wanted)] for _, wanted, _, _ in jobs], bench.fine)
    shares = seen(bench.reader, pictures, [wanted for _, wanted, _, _ in jobs])
    return [
        Item(prompt=n, wanted=wanted, changed=changed, epoch=0, seen=share, gains=rows[0])
        for (n, wanted, changed, _), share, rows in zip(jobs, shares, gains, strict=True)
    ]


def drawn_by_run(bench: Bench, run: Run, prompts: int) -> tuple[list[Item], list[PromptScale]]:
    """Draw prompts with the trigger, with the base model and every second checkpoint."""
    rng = random.Random(SEED + 1)
    trigger = read_dataset(run.input("dataset")).trigger
    asked = [some_wanted(rng, rng.choice((1, 2, 3))) for _ in range(prompts)]
    texts = [_text(wanted) for wanted in asked]
    checkpoints, _ = usable_checkpoints(run.input("lora"))
    items: list[Item] = []
    scales: list[PromptScale] = []
    for checkpoint in [None, *checkpoints[::2]]:
        with merged(bench.base, read_lora(checkpoint.path) if checkpoint else None, strength=1.0):
            pictures = bench.draw(
                [f"{trigger}, {text}" for text in texts], [500 + n for n in range(prompts)]
            )
        if checkpoint is None:
            gains, scales = own_and_scales(bench, pictures, asked, bench.usual)
        else:
            told = bench.gains(pictures, [[text] for text in texts], bench.usual)
            gains = [rows[0] for rows in told]
        shares = seen(bench.reader, pictures, asked)
        epoch = checkpoint.epoch if checkpoint else 0
        items += [
            Item(prompt=n, wanted=asked[n], changed=0, epoch=epoch, seen=share, gains=row)
            for n, (share, row) in enumerate(zip(shares, gains, strict=True))
        ]
    return items, scales


def choices(items: Sequence[Item]) -> Iterator[dict[str, object]]:
    """Compare bands and numbers of timesteps on the base model's pictures."""
    shares = np.array([item.seen for item in items])
    prompts = np.array([item.prompt for item in items])
    changed = np.array([item.changed for item in items])
    for band in BANDS:
        for count in STRATA:
            values = np.array([item.gains[places(count, band)].mean() for item in items])

            def told(rows: Array, values: Array = values) -> float:
                return auc(values[rows], shares[rows] == 1)

            def agrees(rows: Array, values: Array = values) -> float:
                return _correlation(stats.spearmanr, values[rows], shares[rows])

            def paired(rows: Array, values: Array = values) -> float:
                return right_over_changed(values[rows], prompts[rows], changed[rows])

            yield {
                "band": list(band),
                "strata": count,
                "forwards_a_picture": 2 * count,
                "spearman": _with_interval(agrees, prompts),
                "auc_all_there": _with_interval(told, prompts),
                "right_over_one_changed": _with_interval(paired, prompts),
            }


def over_a_run(items: Sequence[Item], scales: Sequence[PromptScale]) -> dict[str, object]:
    """Compare adherence with what the reader sees, over pictures and over epochs."""
    gains = np.array([item.gains.mean() for item in items])
    placed = np.array([float(scales[i.prompt].place(g)) for i, g in zip(items, gains, strict=True)])
    shares = np.array([item.seen for item in items])
    prompts = np.array([item.prompt for item in items])
    epochs = np.array([item.epoch for item in items])

    def pictures(values: Array) -> Callable[[Array], float]:
        def agrees(rows: Array) -> float:
            rows = rows[np.isfinite(values[rows])]
            return _correlation(stats.spearmanr, values[rows], shares[rows])

        return agrees

    def curve(values: Array, rows: Array) -> Array:
        rows = rows[np.isfinite(placed[rows])]
        return np.array([values[rows[epochs[rows] == e]].mean() for e in np.unique(epochs)])

    def over_epochs(rows: Array) -> float:
        return _correlation(stats.pearsonr, curve(placed, rows), curve(shares, rows))

    everything = np.arange(len(items))
    return {
        "pictures": len(items),
        "prompts": len(scales),
        "testable": sum(scale.known for scale in scales),
        "spearman_gain": _with_interval(pictures(gains), prompts),
        "spearman_adherence": _with_interval(pictures(placed), prompts),
        "auc_all_there": _with_interval(lambda rows: auc(placed[rows], shares[rows] == 1), prompts),
        "epochs": np.unique(epochs).tolist(),
        "adherence": np.round(curve(placed, everything), 3).tolist(),
        "seen": np.round(curve(shares, everything), 3).tolist(),
        "pearson_over_epochs": _with_interval(over_epochs, prompts),
    }


def testable(bench: Bench, items: Sequence[Item], band: tuple[float, float]) -> dict[str, object]:
    """Say how often texts with and without a meaning are called testable."""
    asked, likelihood = [i.wanted for i in items if i.changed == 0][:TESTED], bench.at(band)
    texts = [_text(wanted) for wanted in asked]
    pictures = bench.draw(texts, list(range(100, 100 + len(texts))))
    _, scales = own_and_scales(bench, pictures, asked, likelihood)
    told = np.array(bench.gains(pictures, [NONSENSE] * len(texts), likelihood))
    rng = np.random.default_rng(SEED)
    empty = []
    for gains in told.swapaxes(0, 1):  # of one text: (pictures, timesteps)
        for own in range(len(gains)):
            strange = np.delete(gains, own, axis=0)
            others = rng.permutation(strange)[:OTHERS]
            empty.append(PromptScale.between(others, gains[own][None], floor=0.0).known)
    return {
        "band": list(band),
        "prompts": len(scales),
        "known_called_testable": round(float(np.mean([s.known for s in scales])), 3),
        "nonsense_cases": len(empty),
        "nonsense_called_testable": round(float(np.mean(empty)), 3),
    }


def rounding(bench: Bench, items: Sequence[Item]) -> dict[str, object]:
    """Say how far bfloat16 moves a gain, beside the spread of gains."""
    some = [item for item in items if item.changed == 0][:ROUNDED]
    pictures = bench.draw([_text(i.wanted) for i in some], [100 + i.prompt for i in some])
    texts = [[_text(i.wanted)] for i in some]
    found = []
    kept = bench.base.compute_dtype
    for dtype in (torch.bfloat16, torch.float32):
        bench.base.compute_dtype = dtype
        told = bench.gains(pictures, texts, bench.usual)
        found.append(np.array([rows[0].mean() for rows in told]))
    bench.base.compute_dtype = kept
    return {
        "pictures": len(some),
        "largest_difference": round(float(np.abs(found[0] - found[1]).max()), 5),
        "spread_of_gains": round(float(found[1].std()), 5),
    }


def places(count: int, band: tuple[float, float]) -> Array:
    """Find the timesteps among those asked that are nearest to the middles of a band's parts."""
    asked = (np.arange(FINE) + 0.5) / FINE
    return np.array([int(np.abs(asked - m / 1000).argmin()) for m in middles(1000, count, band)])


def seen(reader: Reader, pictures: Array, wanted: Sequence[Wanted]) -> list[float]:
    """Say which share of what was asked is there."""
    shares = []
    for reading, asked in zip(read(reader, pictures), wanted, strict=True):
        there = dict(reading.attributes)
        there["clothes"] = f"{there['outfit_colour']} {there['outfit']}"
        shares.append(float(np.mean([there[group] == tag for group, tag in asked.items()])))
    return shares


def some_wanted(rng: random.Random, count: int) -> Wanted:
    """Ask for some attributes."""
    return {group: rng.choice(GROUPS[group]) for group in rng.sample(list(GROUPS), count)}


def auc(values: Array, positive: Array) -> float:
    """How often a positive lies above a negative; equal ones count half."""
    known = np.isfinite(values)
    above, below = values[known & positive], values[known & ~positive]
    if not len(above) or not len(below):
        return float("nan")
    apart = above[:, None] - below[None]
    return float((apart > 0).mean() + 0.5 * (apart == 0).mean())


def right_over_changed(values: Array, prompts: Array, changed: Array) -> float:
    """How often the picture of the right prompt lies above the one with one attribute changed."""
    wins = [
        values[(prompts == p) & (changed == 0)].mean() > values[(prompts == p) & (changed == 1)]
        for p in np.unique(prompts)
    ]
    return float(np.concatenate(wins).mean())


def _changed(rng: random.Random, wanted: Wanted, count: int) -> Wanted:
    other = dict(wanted)
    for group in rng.sample(list(wanted), count):
        other[group] = rng.choice([tag for tag in GROUPS[group] if tag != wanted[group]])
    return other


def own_and_scales(
    bench: Bench, pictures: Array, asked: Sequence[Wanted], likelihood: Likelihood
) -> tuple[list[Array], list[PromptScale]]:
    """Lay every prompt's scale as the tool does: beside the pictures with the least in common."""
    told = [set(wanted.values()) for wanted in asked]
    near = [
        sorted((len(tags & other), n) for n, other in enumerate(told) if not tags <= other)
        for tags in told
    ]
    others = [[n for _, n in found[:OTHERS]] for found in near]
    texts = [
        [_text(wanted), *(_text(asked[n]) for n in range(len(asked)) if place in others[n])]
        for place, wanted in enumerate(asked)
    ]
    every = bench.gains(pictures, texts, likelihood)
    answers = [dict(zip(said, rows, strict=True)) for said, rows in zip(texts, every, strict=True)]
    scales = [
        PromptScale.between(
            np.array([answers[n][_text(wanted)] for n in others[place]]),
            every[place][:1],
            floor=0.0,
        )
        for place, wanted in enumerate(asked)
    ]
    return [rows[0] for rows in every], scales


def _correlation(kind: Callable[..., Any], one: Array, other: Array) -> float:
    """Correlate two lists; NaN where one of them says nothing."""
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(kind(one, other)[0])


def _text(wanted: Wanted) -> str:
    return ", ".join(wanted.values())


def _with_interval(statistic: Callable[[Array], float], prompts: Array) -> dict[str, object]:
    """Give a statistic with its 95 % interval, resampling prompts."""
    rng = np.random.default_rng(0)
    rows_of = [np.flatnonzero(prompts == p) for p in np.unique(prompts)]
    drawn = [
        statistic(
            np.concatenate([rows_of[i] for i in rng.integers(len(rows_of), size=len(rows_of))])
        )
        for _ in range(DRAWS)
    ]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    value = statistic(np.arange(len(prompts)))
    return {"value": round(value, 3), "interval": [round(float(low), 3), round(float(high), 3)]}


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--prompts", default=60, show_default=True, help="Drawn by the base model.")
@click.option("--run-prompts", default=16, show_default=True, help="Drawn by each checkpoint.")
def main(run: Path, prompts: int, run_prompts: int) -> None:
    """Measure all of it and write the table."""
    bench = Bench(load_base("miniature"))
    items = drawn_by_base(bench, prompts)
    found: dict[str, object] = {
        "pictures": len(items),
        "prompts": prompts,
        "default": {"band": list(adherence.BAND), "strata": USUAL},
        "by_the_base_model": list(choices(items)),
        "over_a_run": over_a_run(*drawn_by_run(bench, Run(run), run_prompts)),
        "testable": [testable(bench, items, band) for band in ((0.0, 1.0), (0.1, 0.8))],
        "bfloat16": rounding(bench, items),
    }
    click.echo(json.dumps(found, indent=1))
    storage.write_text(RESULTS, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
