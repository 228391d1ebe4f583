"""Fit: which epochs learnt too little, enough, or too much, and which one to take.

A scorecard. Each item maps one measurement to a mark from -1 (underfit) over 0 (good) to +1
(overfit); the mean of the marks, by weight, is resampled over the images behind it, and an epoch is
called by the side that most resamples fall on. The maps are published here, as constants.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.metrics import intervals
from lorascope.records import (
    Best,
    Confidence,
    EpochFit,
    Evidence,
    Finding,
    Fit,
    Row,
    Scalar,
    Severity,
)
from lorascope.rules.rule import Rule, Seen, ramp

Array = NDArray[Any]

# Starting values of the methods document, appendix A, but for drift, which has none there: it was
# read off one character on the miniature (`make demo`) and has not been fitted on a benchmark.
HELD_OUT_TO_GO = (0.1, 0.6)  # share of the depth still to go, before the minimum: 0 .. -1
HELD_OUT_RISE = (1.0, 2.5)  # rise over the minimum in depths, after it: 0 .. +1
LIKENESS_LOW = (0.75, 0.3)  # 1 = as near as training images to each other: 0 .. -1
DRIFT_HIGH = (0.15, 0.5)  # change of prompts without the trigger, in spreads of the base: 0 .. +1
COPY_LOW = (0.5, 0.33)  # of the ratio that held-out images have: 0 .. +1; Favero 2025: 1/3 copies
WEIGHTS = {"held_out": 3.0, "likeness": 3.0, "drift": 2.0, "copy": 1.0}

DECIDED = 0.33  # a mark beyond it takes a side
SURE = 0.7  # share of the resamples that an epoch is called by
STILL_FALLING = 0.95
FEW_IMAGES = 4
MANY_IMAGES = 10


@dataclass(frozen=True, slots=True)
class Scorecard:
    """The marks of every epoch: what the verdict, the rules and the pages share."""

    epochs: tuple[int, ...]
    steps: tuple[int, ...]
    files: tuple[str, ...]
    marks: Mapping[str, Array]  # item -> (epochs,), NaN where it was not measured
    scores: Array  # (draws, epochs)
    held_out: Array | None  # (held-out images, epochs) mean log-ratios; None without any
    likeness: tuple[float | None, ...]

    @property
    def images(self) -> int:
        """Held-out images behind the marks."""
        return 0 if self.held_out is None else len(self.held_out)

    def fit(self, place: int) -> tuple[Fit, float]:
        """Call one epoch, with the share of the resamples that agree."""
        scores = self.scores[:, place]
        shares = {
            Fit.UNDERFIT: float((scores < -DECIDED).mean()),
            Fit.OVERFIT: float((scores > DECIDED).mean()),
        }
        shares[Fit.GOOD] = 1 - sum(shares.values())
        called = max(shares, key=lambda fit: shares[fit])
        if shares[called] < SURE:
            return Fit.UNCERTAIN, shares[called]
        return called, shares[called]


def scorecard(seen: Seen) -> Scorecard | None:
    """Mark every epoch; None without the held-out loss, and so without any opinion on fit."""
    if "loss" not in seen:
        return None
    rows = [row for row in seen["loss"].table("epochs") if row["epoch"]]
    if not rows:
        return None
    held_out = held_out_values(seen["loss"])
    drawn = _by_epoch(seen["grid"].table("epochs")) if "grid" in seen else {}
    grid = [drawn.get(int(row["epoch"] or 0), {}) for row in rows]
    marks = {
        "likeness": _marked(grid, "likeness", LIKENESS_LOW, side=-1),
        "drift": _marked(grid, "drift", DRIFT_HIGH, side=1),
        "copy": _copy_marks(seen, grid),
    }
    means = intervals.resampled_means(held_out) if held_out is not None else None
    sampled = np.stack([_held_out_marks(m) for m in means]) if means is not None else None
    if held_out is not None:
        marks["held_out"] = _held_out_marks(held_out.mean(axis=0))
    return Scorecard(
        epochs=tuple(int(row["epoch"] or 0) for row in rows),
        steps=tuple(int(row["step"] or 0) for row in rows),
        files=tuple(str(row["file"]) for row in rows),
        marks=marks,
        scores=_scores(marks, sampled, len(rows)),
        held_out=held_out,
        likeness=tuple(_number(row, "likeness") for row in grid),
    )


def held_out_values(loss: Evidence) -> Array | None:
    """Mean log-ratio to the base model of every held-out image at every saved epoch.

    Returns
    -------
    (images, epochs) array or None
        None where no image was held out. An epoch without finite numbers counts as the worst.
    """
    rows = [r for r in loss.table("images") if r["epoch"] and r["split"] == "held-out"]
    epochs: list[Scalar] = [row["epoch"] for row in loss.table("epochs") if row["epoch"]]
    images = list(dict.fromkeys(row["image"] for row in rows))
    if not images:
        return None
    values = np.full((len(images), len(epochs)), np.nan)
    for row in rows:
        if row["value"] is not None:
            values[images.index(row["image"]), epochs.index(row["epoch"])] = row["value"]
    worst = np.nanmax(values) if np.isfinite(values).any() else 0.0
    return np.where(np.isfinite(values), values, worst)


def epoch_fits(card: Scorecard) -> tuple[EpochFit, ...]:
    """Call every saved epoch."""
    calls = [card.fit(place) for place in range(len(card.epochs))]
    return tuple(
        EpochFit(
            epoch=card.epochs[i],
            step=card.steps[i],
            file=card.files[i],
            fit=fit,
            probability=round(probability, 3),
            likeness=card.likeness[i],
        )
        for i, (fit, probability) in enumerate(calls)
    )


def best_epoch(card: Scorecard) -> Best | None:
    """Choose the epoch to take: the earliest of those whose score lies nearest to good.

    In every resample the epoch with the smallest distance to 0 wins; ties, common among good
    epochs, go to the lower held-out loss. None where every epoch is called underfit or overfit.
    """
    calls = [card.fit(i)[0] for i in range(len(card.epochs))]
    usable = [i for i, fit in enumerate(calls) if fit in (Fit.GOOD, Fit.UNCERTAIN)]
    if not usable or card.held_out is None:
        return None
    means = intervals.resampled_means(card.held_out)
    cost = np.abs(card.scores) + 0.1 * (means - means.min(axis=1, keepdims=True))
    cost = cost[:, usable]
    wins = np.bincount(cost.argmin(axis=1), minlength=len(usable)) / len(cost)
    near = cost - cost.min(axis=1, keepdims=True)
    within = (near.mean(axis=0) <= near.std(axis=0)) | (wins >= 0.05)
    pick = int(wins.argmax())
    inside = [usable[i] for i in np.flatnonzero(within | (np.arange(len(usable)) == pick))]
    chosen = usable[pick]
    return Best(
        epoch=card.epochs[chosen],
        step=card.steps[chosen],
        probability=round(float(wins[pick]), 3),
        set=tuple(card.epochs[i] for i in inside),
        strength=1.0,
        likeness_first=card.epochs[_most_like(card, inside)],
        flexibility_first=card.epochs[min(inside)],
    )


def confidence_of(card: Scorecard) -> Confidence:
    """How far calls of fit can be trusted, from the number of images and of kinds of evidence."""
    kinds = sum(bool(np.isfinite(m).any()) for m in card.marks.values())
    if card.images < FEW_IMAGES:
        return Confidence.LOW
    return Confidence.HIGH if card.images >= MANY_IMAGES and kinds >= 3 else Confidence.MEDIUM


def undertrained(seen: Seen) -> Sequence[Finding]:
    """Say that no epoch learnt enough, or that the run ended while it still got better."""
    card = scorecard(seen)
    if card is None:
        return []
    calls = [card.fit(i)[0] for i in range(len(card.epochs))]
    falling = seen["loss"].get("slope_p")
    at_edge = seen["loss"].get("best_epoch")
    last = card.epochs[-1]
    ended_early = (
        falling is not None
        and at_edge is not None
        and falling.value >= STILL_FALLING
        and at_edge.value == last
    )
    if any(fit in (Fit.GOOD, Fit.OVERFIT) for fit in calls) or not (
        ended_early or all(fit is Fit.UNDERFIT for fit in calls)
    ):
        return []
    code = "FIT-UNDER-RUN" if ended_early else "FIT-UNDER"
    why = (
        f"the held-out loss still falls at the last epoch ({last})"
        if ended_early
        else f"epoch {last}, the last, is still far from the training images"
    )
    return [
        Finding(
            code=code,
            severity=Severity.WARNING,
            confidence=confidence_of(card),
            subject={"epoch": last},
            numbers=_marks_at(card, len(card.epochs) - 1),
            n=card.images,
            text=f"No epoch has learnt enough: {why}.",
            fix="Train longer (twice the epochs), or raise the learning rate by half.",
            command="lorascope train CONFIG.toml",
            because=_ids(seen),
        )
    ]


def overtrained(seen: Seen) -> Sequence[Finding]:
    """Say from which epoch on the LoRA is overtrained."""
    card = scorecard(seen)
    if card is None:
        return []
    calls = [card.fit(i)[0] for i in range(len(card.epochs))]
    over = [i for i, fit in enumerate(calls) if fit is Fit.OVERFIT]
    if not over:
        return []
    everything = len(over) == len(calls)
    first = over[0]
    who = "Every epoch" if everything else f"From epoch {card.epochs[first]} on the LoRA"
    reasons = [name for name, m in card.marks.items() if np.isfinite(m[first]) and m[first] > 0]
    return [
        Finding(
            code="FIT-OVER",
            severity=Severity.ERROR if everything else Severity.WARNING,
            confidence=confidence_of(card),
            subject={"epoch": card.epochs[first]},
            numbers=_marks_at(card, first),
            n=card.images,
            text=f"{who} is overtrained: {_because(reasons)}.",
            fix="Take an earlier epoch. To train again: fewer epochs, a lower learning rate, or "
            "more varied images.",
            command=f"lorascope grid RUN --epochs {card.epochs[max(first - 1, 0)]}-"
            f"{card.epochs[-1]}",
            because=_ids(seen),
        )
    ]


def _scores(marks: Mapping[str, Array], sampled: Array | None, epochs: int) -> Array:
    """Weigh the marks of every resample; an item that was not measured has no weight."""
    draws = len(sampled) if sampled is not None else 1
    total, weight = np.zeros((draws, epochs)), np.zeros((draws, epochs))
    for name, values in marks.items():
        here = sampled if name == "held_out" and sampled is not None else values[None]
        known = np.isfinite(here)
        total += np.where(known, here, 0.0) * WEIGHTS[name]
        weight += known * WEIGHTS[name]
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)


def _held_out_marks(means: Array) -> Array:
    """Mark epochs by their distance to the minimum: before it to go, after it the rise."""
    best = int(means.argmin())
    depth = -float(means[best])
    if depth <= 0:  # nothing got better than the base model
        return np.where(np.arange(len(means)) == 0, -1.0, np.where(means > 0, 1.0, -1.0))
    rise = (means - means[best]) / depth
    marks = [
        -ramp(r, *HELD_OUT_TO_GO) if i < best else ramp(r, *HELD_OUT_RISE)
        for i, r in enumerate(rise)
    ]
    return np.array(marks)


def _marked(rows: Sequence[Row], name: str, between: tuple[float, float], *, side: int) -> Array:
    values = [_number(row, name) for row in rows]
    return np.array([np.nan if v is None else side * ramp(v, *between) for v in values])


def _copy_marks(seen: Seen, rows: Sequence[Row]) -> Array:
    """Mark pictures that lie nearer to one training image than pictures that cannot be copies."""
    usual = seen["grid"].get("copy_ratio_held_out") if "grid" in seen else None
    values = [_number(row, "copy_ratio") for row in rows]
    if usual is None:
        return np.full(len(rows), np.nan)
    return np.array(
        [np.nan if v is None else ramp(v / usual.value, *COPY_LOW) for v in values]
    )


def _by_epoch(rows: Sequence[Row]) -> dict[int, Row]:
    """Take one row an epoch: the one at strength 1 where there are several."""
    found: dict[int, Row] = {}
    for row in rows:
        epoch = int(row["epoch"] or 0)
        if epoch and (epoch not in found or row["strength"] == 1.0):
            found[epoch] = row
    return found


def _number(row: Row, name: str) -> float | None:
    value = row.get(name)
    return float(value) if isinstance(value, int | float) else None


def _most_like(card: Scorecard, inside: Sequence[int]) -> int:
    """Of some epochs, the one most like the training images; the latest where nothing tells."""
    return max(inside, key=lambda i: (card.likeness[i] or 0.0, i))


def _marks_at(card: Scorecard, place: int) -> dict[str, float]:
    found = {f"mark_{k}": round(float(m[place]), 3) for k, m in card.marks.items()}
    return {k: v for k, v in found.items() if np.isfinite(v)}


def _because(reasons: Sequence[str]) -> str:
    words = {
        "held_out": "the held-out loss has risen well over its minimum",
        "drift": "prompts without the activation tag no longer give what the base model gives",
        "copy": "pictures come close to single training images",
    }
    return "; ".join(words[r] for r in reasons if r in words) or "the marks together say so"


def _ids(seen: Seen) -> tuple[str, ...]:
    return tuple(seen[name].id for name in ("loss", "grid") if name in seen)


UNDER = Rule(
    code="FIT-UNDER",
    uses=("loss",),
    may_use=("grid",),
    judge=lambda seen: [f for f in undertrained(seen) if f.code == "FIT-UNDER"],
    means="No epoch has learnt enough of what the images show.",
    evidence="Held-out loss against the base model, and likeness of the grid's pictures.",
    sure="By the number of held-out images: low under 4, medium under 10, else high.",
    do="Train longer or with a higher learning rate; look at the rank last.",
)
UNDER_RUN = Rule(
    code="FIT-UNDER-RUN",
    uses=("loss",),
    may_use=("grid",),
    judge=lambda seen: [f for f in undertrained(seen) if f.code == "FIT-UNDER-RUN"],
    means="The run ended while the held-out loss was still falling: the best epoch lies beyond.",
    evidence="Slope of the held-out loss over the last epochs, resampled over the images.",
    sure="By the number of held-out images: low under 4, medium under 10, else high.",
    do="Train on: twice the epochs, the same settings.",
)
OVER = Rule(
    code="FIT-OVER",
    uses=("loss",),
    may_use=("grid",),
    judge=overtrained,
    means="Later epochs fit the training images at the cost of everything else.",
    evidence="Rise of the held-out loss over its minimum; change of prompts without the activation "
    "tag; nearness of pictures to single training images.",
    sure="By the number of held-out images and the kinds of evidence that were measured.",
    do="Take an epoch from before. Train again shorter, slower, or on more varied images.",
)
