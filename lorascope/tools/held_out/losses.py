"""What the losses of all checkpoints come to: by epoch, by set, by image, by noise level."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.io.checkpoints import Checkpoint
from lorascope.metrics import intervals
from lorascope.records import Measured, Measurement, Row, cell, finite

Array = NDArray[Any]

HELD_OUT, COMPOSITION, TRAIN, KEPT = "held-out", "composition", "train", "kept"
SHUFFLED, AUGMENTED = "shuffled", "augmented"  # training images asked about in another way
TURNING = (HELD_OUT, COMPOSITION, KEPT)  # sets apart: they turn at different times
BANDS = {"composition": (0.6, 0.9), "structure": (0.2, 0.6), "detail": (0.0, 0.2)}  # of T


@dataclass(frozen=True)
class Answers:
    """What every checkpoint answered; the first is the base model."""

    checkpoints: tuple[Checkpoint, ...]
    kinds: Array  # (items,) str: the set of each
    names: tuple[str, ...]  # of images, or prompts
    losses: Array  # (checkpoints, items, strata, draws) float64
    timesteps: Array  # (strata,) int
    share: Array  # (strata,) timestep / number of timesteps
    weights: Array  # (strata,) of min-SNR
    forwards: int  # behind all of them, in latents

    def of(self, kind: str) -> Array:
        """(items,) bool: which ones belong to a set."""
        return np.asarray(self.kinds == kind)

    def values_of(self, kind: str) -> Array:
        """(checkpoints, items of the set): mean log-ratio to the base model."""
        return self.values[:, self.of(kind)]

    @property
    def values(self) -> Array:
        """(checkpoints, items): mean log-ratio to the base model, NaN where one broke."""
        values: Array = self.ratios.mean(axis=(2, 3))
        return values

    @property
    def ratios(self) -> Array:
        """(checkpoints, items, strata, draws): log-ratio to the base model."""
        with np.errstate(all="ignore"):
            ratios = np.log(self.losses / self.losses[:1])
        return np.where(np.isfinite(ratios), ratios, np.nan)

    @property
    def saved(self) -> Array:
        """Places of the checkpoints, without the base model, that gave finite numbers."""
        whole = [finite(row) for row in self.values]
        return np.array([c for c in range(1, len(whole)) if whole[c]], dtype=int)


def sum_up(asked: Answers, *, leaked: int = 0) -> Measured:
    """Put numbers, tables and caveats together.

    Parameters
    ----------
    asked : Answers
    leaked : int
        Held-out images that were left out because the training saw them.
    """
    return Measured(
        numbers=tuple(_numbers(asked)),
        tables={
            "epochs": _epochs(asked),
            "turns": list(_turns(asked)),
            "images": _images(asked),
            "trajectories": list(_trajectories(asked)),
            "bands": _bands(asked),
            "memory": list(_memory(asked)),
        },
        arrays={"losses": asked.losses, "timesteps": asked.timesteps},
        caveats=tuple(_caveats(asked, leaked)),
    )


def _epochs(asked: Answers) -> list[Row]:
    """Sum up every checkpoint over the images of each set."""
    held = asked.values_of(HELD_OUT)
    absolute = (asked.losses.mean(axis=3) * asked.weights).mean(axis=2)  # (checkpoints, items)
    shares, within = _choice(asked)
    rise = _rise(asked)
    means = {kind: _means(asked.values_of(kind)) for kind in (*TURNING, TRAIN)}
    bounds = {kind: _bounds(asked.values_of(kind)) for kind in TURNING}
    rows: list[dict[str, Any]] = []
    for c, checkpoint in enumerate(asked.checkpoints):
        row: dict[str, Any] = {
            "epoch": checkpoint.epoch,
            "step": checkpoint.step,
            "file": checkpoint.path.name,
        }
        for kind in TURNING:
            name, (low, high) = _column(kind), bounds[kind]
            row |= {
                name: cell(means[kind][c]),
                f"{name}_low": cell(low[c]),
                f"{name}_high": cell(high[c]),
            }
        rows.append(
            row
            | {
                "train": cell(means[TRAIN][c]),
                "gap": cell(means[HELD_OUT][c] - means[TRAIN][c]),
                "rise": cell(rise[c]),
                "p_best": float(shares[c]) if _enough(held) else None,
                "in_set": bool(within[c]) if _enough(held) else None,
                "held_out_loss": cell(_means(absolute[c : c + 1, asked.of(HELD_OUT)])[0]),
                "train_loss": cell(_means(absolute[c : c + 1, asked.of(TRAIN)])[0]),
            }
        )
    return list(rows)


def _numbers(asked: Answers) -> Iterator[Measurement]:
    """Sum up the whole run: how much was asked, the last checkpoint, the best one."""
    counts = {kind: int(asked.of(kind).sum()) for kind in (*TURNING, TRAIN)}
    for name, kind in (("images", HELD_OUT), ("train_images", TRAIN), ("kept", KEPT)):
        yield Measurement(name=name, value=counts[kind], unit="images", n=counts[kind])
    if counts[COMPOSITION]:
        n = counts[COMPOSITION]
        yield Measurement(name="composition_images", value=n, unit="images", n=n)
    items = len(asked.names)
    yield Measurement(name="forwards", value=asked.forwards, unit="forwards", n=items)
    for kind in (*TURNING, TRAIN):
        last = _means(asked.values_of(kind))[-1]
        if math.isfinite(last):
            name = f"{_column(kind)}_last"
            yield Measurement(name=name, value=float(last), unit="1", n=counts[kind])
    gap = _means(asked.values_of(HELD_OUT))[-1] - _means(asked.values_of(TRAIN))[-1]
    for name, value in (("rise_last", _rise(asked)[-1]), ("gap_last", gap)):
        if math.isfinite(value):
            yield Measurement(name=name, value=float(value), unit="1", n=counts[HELD_OUT])
    if _enough(asked.values_of(HELD_OUT)) and len(asked.saved):
        yield from _best(asked)


def _best(asked: Answers) -> Iterator[Measurement]:
    """Describe the checkpoint with the lowest held-out value, and how sure that is."""
    saved, held = asked.saved, asked.values_of(HELD_OUT)
    count = held.shape[1]
    shares, within = _choice(asked)
    best = int(saved[held[saved].mean(axis=1).argmin()])
    earliest = int(saved[intervals.earliest_within(held[saved].T)])
    line = np.concatenate([[0], saved])
    at = np.array([asked.checkpoints[c].epoch for c in line])
    found = [
        ("best_epoch", asked.checkpoints[best].epoch, "epochs", None),
        ("best_step", asked.checkpoints[best].step, "steps", None),
        ("earliest_epoch", asked.checkpoints[earliest].epoch, "epochs", None),
        ("first_in_set", asked.checkpoints[int(np.flatnonzero(within)[0])].epoch, "epochs", None),
        ("set_size", int(within.sum()), "epochs", None),
        ("p_best", shares[best], "1", None),
        ("depth", 0.0 - held[best].mean(), "1", intervals.interval(0.0 - held[best])),
        ("depth_halves", -intervals.split_best(held[saved].T), "1", None),
        ("turned_p", intervals.above_share(held[saved[-1]] - held[best]), "1", None),
        ("slope_p", intervals.falling_share(held[line].T, at), "1", None),
    ]
    for name, value, unit, between in found:
        yield Measurement(name=name, value=float(value), unit=unit, n=count, interval=between)


def _turns(asked: Answers) -> Iterator[Row]:
    """Say for each set where it is lowest, and whether it fell and then rose."""
    saved = asked.saved
    line = np.concatenate([[0], saved]).astype(int)
    at = np.array([asked.checkpoints[c].epoch for c in line], dtype=float)
    for kind in TURNING:
        values = asked.values_of(kind)
        if not values.shape[1] or not len(saved):
            continue
        means = values[line].mean(axis=1)
        lines = intervals.two_lines(means, at)
        place = int(means[1:].argmin()) + 1
        inside: Array = np.zeros(len(line), dtype=bool)
        if _enough(values):
            inside[1:] = intervals.confidence_set(values[saved].T)
        known = np.flatnonzero(inside)
        turn, (first, last) = intervals.turning_place(values[line].T)
        yield {
            "set": kind,
            "images": values.shape[1],
            "lowest_epoch": int(at[place]),
            "lowest": float(means[place]),
            "earliest_epoch": int(at[intervals.earliest_within(values[saved].T) + 1])
            if _enough(values)
            else None,
            "set_first": int(at[known[0]]) if len(known) else None,
            "set_last": int(at[known[-1]]) if len(known) else None,
            "turn_epoch": int(at[turn]),
            "turn_first": int(at[first]) if _enough(values) else None,
            "turn_last": int(at[last]) if _enough(values) else None,
            "turned": lines is not None and lines.turned(),
            "p_falls": lines.p_falls if lines else None,
            "p_rises": lines.p_rises if lines else None,
            "rises_p": intervals.above_share(values[line[-1]] - values[line[place]])
            if _enough(values)
            else None,
        }


def _images(asked: Answers) -> list[Row]:
    values = asked.values
    return [
        {
            "epoch": checkpoint.epoch,
            "image": name,
            "split": str(asked.kinds[i]),
            "value": cell(values[c, i]),
        }
        for c, checkpoint in enumerate(asked.checkpoints)
        for i, name in enumerate(asked.names)
    ]


def _trajectories(asked: Answers) -> Iterator[Row]:
    """Describe how each image was learnt over the epochs."""
    saved = asked.saved
    if not len(saved):
        return
    with np.errstate(all="ignore"):
        hardness = np.log(asked.losses[0]).mean(axis=(1, 2))
    epochs = [asked.checkpoints[c].epoch for c in saved]
    for i, name in enumerate(asked.names):
        if asked.kinds[i] not in (HELD_OUT, COMPOSITION, TRAIN):
            continue
        values = asked.values[saved, i]
        lowest = int(values.argmin())
        half = next((k for k, v in enumerate(values) if v <= values[lowest] / 2), lowest)
        yield {
            "image": name,
            "split": str(asked.kinds[i]),
            "gain": float(-values[lowest]),
            "lowest_epoch": epochs[lowest],
            "half_epoch": epochs[half],
            "last": float(values[-1]),
            "rise": float(values[-1] - values[lowest]),
            "spread": float(values.std()),
            "base_log_loss": cell(hardness[i]),
        }


def _bands(asked: Answers) -> list[Row]:
    """Sum up every checkpoint over the images, in three bands of timesteps."""
    rows: list[Row] = []
    for c, checkpoint in enumerate(asked.checkpoints):
        for band, (start, stop) in BANDS.items():
            inside = (asked.share >= start) & (asked.share < stop)
            if not inside.any():
                continue
            values = asked.ratios[c][:, inside].mean(axis=(1, 2))[None]
            held, train, kept = (
                _means(values[:, asked.of(kind)])[0] for kind in (HELD_OUT, TRAIN, KEPT)
            )
            rows.append(
                {
                    "epoch": checkpoint.epoch,
                    "band": band,
                    "held_out": cell(held),
                    "train": cell(train),
                    "gap": cell(held - train),
                    "kept": cell(kept),
                    "timesteps": int(inside.sum()),
                }
            )
    return rows


def _memory(asked: Answers) -> Iterator[Row]:
    """Say how far training images are known by heart, where nothing else can tell.

    Caption gap: how much better the exact caption does than its tags in another order, beyond
    what it does for the base model. Augment gap: how much better the exact image does than the
    same one shifted and scaled a little. Pairs of one image, so an interval needs few of them.
    """
    train = {n: i for i, n in enumerate(asked.names) if asked.kinds[i] == TRAIN}
    pairs = {
        kind: [(train[asked.names[i]], int(i)) for i in np.flatnonzero(asked.of(kind))]
        for kind in (SHUFFLED, AUGMENTED)
    }
    if not any(pairs.values()):
        return
    values = asked.values
    for c, checkpoint in enumerate(asked.checkpoints):
        row: dict[str, Any] = {"epoch": checkpoint.epoch}
        for kind, name in ((SHUFFLED, "caption_gap"), (AUGMENTED, "augment_gap")):
            gaps = np.array([values[c, other] - values[c, own] for own, other in pairs[kind]])
            row |= {name: None, f"{name}_low": None, f"{name}_high": None, f"{name}_n": len(gaps)}
            if len(gaps) and finite(gaps):
                low, high = intervals.interval(gaps)
                row |= {name: float(gaps.mean()), f"{name}_low": low, f"{name}_high": high}
        yield row


def _caveats(asked: Answers, leaked: int) -> Iterator[str]:
    held = asked.values_of(HELD_OUT)
    count = held.shape[1]
    if not count:
        why = "No image was held out"
        if leaked:
            why = f"All held-out images ({leaked}) are among the training images too"
        yield (
            f"{why}: the values are of training images only, which get better "
            "even while they are learnt by heart. The gaps in `memory` are weak evidence in their "
            "place."
        )
    elif not _enough(held):
        yield (
            f"Only {count} held-out image(s): a single picture may decide, so no best epoch is "
            f"named. {_each_minimum(asked)}"
        )
    for checkpoint, row in zip(asked.checkpoints, asked.values, strict=True):
        if not finite(row):
            yield f"Epoch {checkpoint.epoch} does not give finite numbers; it was left out."
    if not asked.of(KEPT).any():
        yield "What the base model must keep was not measured: no prompt without the trigger."


def _each_minimum(asked: Answers) -> str:
    """Say where each held-out image is lowest, when there are too few to speak for all."""
    saved = asked.saved
    if not len(saved):
        return ""
    lowest = asked.values_of(HELD_OUT)[saved].argmin(axis=0)
    at = ", ".join(str(asked.checkpoints[saved[c]].epoch) for c in lowest)
    return f"The lowest epoch of each: {at}."


def _choice(asked: Answers) -> tuple[Array, Array]:
    """Probability to be best, and membership in the confidence set, of every checkpoint."""
    held, saved = asked.values_of(HELD_OUT), asked.saved
    shares, within = np.zeros(len(held)), np.zeros(len(held), dtype=bool)
    if _enough(held) and len(saved):
        shares[saved] = intervals.best_shares(held[saved].T)
        within[saved] = intervals.confidence_set(held[saved].T)
    return shares, within


def _rise(asked: Answers) -> Array:
    """How far each checkpoint lies above the lowest held-out value, in depths of that value."""
    means, saved = _means(asked.values_of(HELD_OUT)), asked.saved
    depth = -float(means[saved].min()) if len(saved) else math.nan
    if not depth > 0:
        return np.full(len(means), np.nan)
    rise: Array = (means + depth) / depth
    return rise


def _bounds(values: Array) -> tuple[Array, Array]:
    """95 % interval of each checkpoint's mean over the images of a set."""
    if not values.shape[1]:
        return np.full(len(values), np.nan), np.full(len(values), np.nan)
    return intervals.intervals(values.T)


def _enough(values: Array) -> bool:
    """Tell whether there are images enough to speak of a best epoch."""
    return bool(values.shape[1] >= intervals.FEWEST)


def _column(kind: str) -> str:
    return kind.replace("-", "_")


def _means(values: Array) -> Array:
    """Mean over the images; NaN where there are none."""
    return values.mean(axis=1) if values.shape[1] else np.full(len(values), math.nan)
