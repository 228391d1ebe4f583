"""What the losses of all checkpoints come to: by epoch, by image, by band of timesteps."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.io.checkpoints import Checkpoint
from lorascope.io.dataset_file import DatasetImage
from lorascope.metrics import intervals
from lorascope.records import Measured, Measurement, Row, cell, finite

Array = NDArray[Any]

HELD_OUT = "held-out"
BANDS = {"composition": (0.6, 0.9), "structure": (0.2, 0.6), "detail": (0.0, 0.2)}  # of T


@dataclass(frozen=True)
class Answers:
    """What every checkpoint answered; the first is the base model."""

    checkpoints: tuple[Checkpoint, ...]
    images: tuple[DatasetImage, ...]
    losses: Array  # (checkpoints, images, strata, draws) float64
    drifts: Array  # (checkpoints, images, 2): without the trigger, without any caption
    timesteps: Array  # (strata,) int
    share: Array  # (strata,) timestep / number of timesteps
    weights: Array  # (strata,) of min-SNR
    forwards: int

    @property
    def held(self) -> Array:
        """(images,) bool: which ones were held out."""
        return np.array([image.split == HELD_OUT for image in self.images])

    @property
    def values(self) -> Array:
        """(checkpoints, images): mean log-ratio to the base model, NaN where one broke."""
        values: Array = self.ratios.mean(axis=(2, 3))
        return values

    @property
    def ratios(self) -> Array:
        """(checkpoints, images, strata, draws): log-ratio to the base model."""
        with np.errstate(all="ignore"):
            ratios = np.log(self.losses / self.losses[:1])
        return np.where(np.isfinite(ratios), ratios, np.nan)


def sum_up(asked: Answers, *, trigger: str) -> Measured:
    """Put numbers, tables and caveats together."""
    epochs, numbers = _epochs(asked)
    drift, drift_numbers = _drift(asked)
    return Measured(
        numbers=(*numbers, *drift_numbers),
        tables={
            "epochs": epochs,
            "images": _images(asked),
            "bands": _bands(asked),
            "drift": drift,
        },
        arrays={"losses": asked.losses, "timesteps": asked.timesteps},
        caveats=tuple(_caveats(asked, trigger)),
    )


def _epochs(asked: Answers) -> tuple[list[Row], list[Measurement]]:
    """Sum up every checkpoint over the images, and find the best."""
    values, held = asked.values, asked.held
    whole = [finite(row) for row in values]
    absolute = (asked.losses.mean(axis=3) * asked.weights).mean(axis=2)  # (checkpoints, images)
    train = _means(values[:, ~held])
    count = int(held.sum())
    heldout = _means(values[:, held])
    low = high = np.full(len(values), np.nan)
    shares, within = np.zeros(len(values)), np.zeros(len(values), dtype=bool)
    rise = np.full(len(values), np.nan)
    others = len(held) - count
    numbers = [
        Measurement(name="images", value=count, unit="images", n=count),
        Measurement(name="train_images", value=others, unit="images", n=others),
        Measurement(name="forwards", value=asked.forwards, unit="forwards", n=len(held)),
    ]
    saved = np.array([c for c in range(1, len(values)) if whole[c]], dtype=int)
    if count and len(saved):
        low, high = intervals.intervals(values[:, held].T)
        shares[saved] = intervals.best_shares(values[saved][:, held].T)
        within[saved] = intervals.confidence_set(values[saved][:, held].T)
        best = saved[heldout[saved].argmin()]
        depth = -heldout[best]
        if depth > 0:
            rise = (heldout + depth) / depth
        numbers += _best(asked, values[:, held], saved, best, shares, within)
    last = len(values) - 1
    for name, of in (("held_out_last", heldout), ("train_last", train), ("rise_last", rise)):
        if np.isfinite(of[last]):
            n = others if name == "train_last" else count
            numbers.append(Measurement(name=name, value=float(of[last]), unit="1", n=n))
    if np.isfinite(gap := heldout[last] - train[last]):
        numbers.append(Measurement(name="gap_last", value=float(gap), unit="1", n=count))
    rows: list[Row] = [
        {
            "epoch": checkpoint.epoch,
            "step": checkpoint.step,
            "file": checkpoint.path.name,
            "held_out": cell(heldout[c]),
            "held_out_low": cell(low[c]),
            "held_out_high": cell(high[c]),
            "train": cell(train[c]),
            "gap": cell(heldout[c] - train[c]),
            "rise": cell(rise[c]),
            "p_best": float(shares[c]) if count else None,
            "in_set": bool(within[c]) if count else None,
            "held_out_loss": cell(_means(absolute[c : c + 1, held])[0]),
            "train_loss": cell(_means(absolute[c : c + 1, ~held])[0]),
        }
        for c, checkpoint in enumerate(asked.checkpoints)
    ]
    return rows, numbers


def _best(
    asked: Answers, held: Array, saved: Array, best: int, shares: Array, within: Array
) -> list[Measurement]:
    """Describe the checkpoint with the lowest held-out value, and how sure that is."""
    count = held.shape[1]
    low, high = intervals.interval(0.0 - held[best])
    first = asked.checkpoints[int(np.flatnonzero(within)[0])]
    numbers = [
        ("best_epoch", asked.checkpoints[best].epoch, "epochs", None),
        ("best_step", asked.checkpoints[best].step, "steps", None),
        ("first_in_set", first.epoch, "epochs", None),
        ("set_size", int(within.sum()), "epochs", None),
        ("p_best", shares[best], "1", None),
        ("depth", 0.0 - held[best].mean(), "1", (low, high)),
        ("turned_p", intervals.above_share(held[saved[-1]] - held[best]), "1", None),
    ]
    if count > 1:
        numbers.append(("depth_halves", -intervals.split_best(held[saved].T), "1", None))
    line = np.concatenate([[0], saved])
    at = np.array([asked.checkpoints[c].epoch for c in line])
    numbers.append(("slope_p", intervals.falling_share(held[line].T, at), "1", None))
    return [
        Measurement(name=name, value=float(value), unit=unit, n=count, interval=between)
        for name, value, unit, between in numbers
    ]


def _images(asked: Answers) -> list[Row]:
    values = asked.values
    return [
        {
            "epoch": checkpoint.epoch,
            "image": image.file,
            "split": image.split,
            "value": cell(values[c, i]),
        }
        for c, checkpoint in enumerate(asked.checkpoints)
        for i, image in enumerate(asked.images)
    ]


def _bands(asked: Answers) -> list[Row]:
    """Sum up every checkpoint over the images, in three bands of timesteps."""
    rows: list[Row] = []
    for c, checkpoint in enumerate(asked.checkpoints):
        for band, (start, stop) in BANDS.items():
            inside = (asked.share >= start) & (asked.share < stop)
            if not inside.any():
                continue
            values = asked.ratios[c][:, inside].mean(axis=(1, 2))[None]
            held, train = _means(values[:, asked.held])[0], _means(values[:, ~asked.held])[0]
            rows.append(
                {
                    "epoch": checkpoint.epoch,
                    "band": band,
                    "held_out": cell(held),
                    "train": cell(train),
                    "gap": cell(held - train),
                    "timesteps": int(inside.sum()),
                }
            )
    return rows


def _drift(asked: Answers) -> tuple[list[Row], list[Measurement]]:
    """Sum up how far the prediction moved where the trigger was not asked for."""
    rows: list[dict[str, Any]] = []
    numbers: list[Measurement] = []
    for c, checkpoint in enumerate(asked.checkpoints):
        row: dict[str, Any] = {"epoch": checkpoint.epoch}
        for which, name in enumerate(("drift", "empty")):
            values = asked.drifts[c, np.isfinite(asked.drifts[0, :, which]), which]
            row |= {name: None, f"{name}_low": None, f"{name}_high": None}
            if len(values) and np.isfinite(values).all():
                low, high = intervals.interval(values)
                row |= {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    for which, name in enumerate(("drift", "empty")):
        if rows[-1][name] is not None:
            between = (rows[-1][f"{name}_low"], rows[-1][f"{name}_high"])
            count = int(np.isfinite(asked.drifts[0, :, which]).sum())
            numbers.append(
                Measurement(
                    name=f"{name}_last", value=rows[-1][name], unit="1", n=count, interval=between
                )
            )
    return list(rows), numbers


def _caveats(asked: Answers, trigger: str) -> list[str]:
    caveats = []
    count = int(asked.held.sum())
    if not count:
        caveats.append(
            "No image was held out: the values are of training images only, which get better "
            "even while they are learnt by heart."
        )
    elif count < intervals.FEWEST:
        caveats.append(
            f"Only {count} held-out image(s): a single picture may decide, and the intervals "
            "are too narrow."
        )
    broken = [
        f"Epoch {checkpoint.epoch} does not give finite numbers; it was left out."
        for checkpoint, row in zip(asked.checkpoints, asked.values, strict=True)
        if not finite(row)
    ]
    caveats += broken
    if not trigger.strip():
        caveats.append("The dataset names no trigger: drift without it was not measured.")
    return caveats


def _means(values: Array) -> Array:
    """Mean over the images; NaN where there are none."""
    return values.mean(axis=1) if values.shape[1] else np.full(len(values), math.nan)
