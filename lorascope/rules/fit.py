"""Fit: which epochs learnt too little, enough, or too much, and which one to take.

A scorecard. Each item maps one measurement to a mark from 0 to 1 for the one side that it can speak
for, underfit or overfit; a side's marks are averaged by weight, and the score is overfit minus
underfit, from -1 to 1. The held-out loss is resampled over its images, and an epoch is called by
the side that most resamples fall on. The maps are published here, as constants.
"""

import functools
from collections.abc import Collection, Mapping, Sequence
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
    finite,
)
from lorascope.rules.rule import Rule, Seen, ramp

Array = NDArray[Any]

# (where a mark begins, where it is full). Starting values, read off one character on the miniature
# (`make demo`); no benchmark has fitted them.
TO_GO = (0.05, 0.3)  # share of the held-out depth that is still to go before the minimum
LIKENESS = (0.85, 0.5)  # 1 = as near as training images are to each other
RISE = (0.05, 0.3)  # of the held-out loss over its minimum, in depths
GAP = (0.5, 1.0)  # held-out minus training loss, in depths: what is learnt by heart
LEAK = (0.5, 0.9)  # change of unrelated pictures, in usual distances of the base model's pictures
CAPTURE = (0.2, 0.5)  # likeness of pictures whose prompt lacks the trigger, beyond the base's
COPY = (0.8, 0.33)  # nearest training image : second nearest, beside held-out images; Favero 2025
UNDER = {"to_go": 3.0, "likeness": 2.0}  # weights of the items that speak for underfit
OVER = {"rise": 3.0, "gap": 3.0, "leak": 2.0, "capture": 1.0, "copy": 1.0}  # for overfit

OF_PICTURES = ("likeness", "drift", "copies")  # tools that measured the grid

DECIDED = 0.33  # a mark beyond it takes a side
SURE = 0.7  # share of the resamples that an epoch is called by
STILL_FALLING = 0.95
FEW_IMAGES = 4  # the loss tool names no best epoch below it either
MANY_IMAGES = 10


@dataclass(frozen=True, slots=True)
class Scorecard:
    """The marks of every epoch: what the verdict, the rules and the pages share."""

    epochs: tuple[int, ...]
    steps: tuple[int, ...]
    files: tuple[str, ...]
    marks: Mapping[str, Array]  # item -> (epochs,) from 0 to 1, NaN where it was not measured
    scores: Array  # (draws, epochs)
    held_out: Array | None  # (held-out images, epochs) mean log-ratios; None without any
    likeness: tuple[float | None, ...]
    sound: tuple[bool, ...]  # whether the epoch gave numbers at all

    @property
    def images(self) -> int:
        """Held-out images behind the marks."""
        return 0 if self.held_out is None else len(self.held_out)

    def fit(self, place: int) -> tuple[Fit, float]:
        """Call one epoch, with the share of the resamples that agree."""
        scores = self.scores[:, place]
        if not self.sound[place] or not finite(scores):  # what nobody saw cannot be ruled out
            return Fit.UNCERTAIN, 0.0
        shares = {
            Fit.UNDERFIT: float((scores < -DECIDED).mean()),
            Fit.OVERFIT: float((scores > DECIDED).mean()),
        }
        shares[Fit.GOOD] = 1 - sum(shares.values())
        called = max(shares, key=lambda fit: shares[fit])
        sure = self.at_most(shares[called])
        return (called if shares[called] >= SURE else Fit.UNCERTAIN), sure

    def at_most(self, share: float) -> float:
        """Hold a share of resamples back: n images cannot make anybody surer than n / (n + 1).

        Resampling a few images that agree by chance gives 1; the rule of succession does not.
        """
        return min(share, self.images / (self.images + 1))


def scorecard(seen: Seen) -> Scorecard | None:
    """Mark every epoch; None without the held-out loss, and so without any opinion on fit."""
    return _scorecard(seen["loss"], *map(seen.get, OF_PICTURES)) if "loss" in seen else None


@functools.lru_cache(maxsize=4)  # several rules and the verdict ask for the same one
def _scorecard(
    loss: Evidence, likeness: Evidence | None, drift: Evidence | None, copies: Evidence | None
) -> Scorecard | None:
    rows = [row for row in loss.table("epochs") if row["epoch"]]
    if not rows:
        return None
    held_out = held_out_values(loss)
    alike = _of_epochs(likeness, rows, "likeness")
    marks = {
        "likeness": _marked(alike, LIKENESS),
        "leak": _marked(_of_epochs(drift, rows, "unrelated_drift"), LEAK),
        "capture": _marked(_of_epochs(drift, rows, "class_likeness"), CAPTURE),
        "copy": _marked(_copy_ratios(copies, rows), COPY),
    }
    sampled: dict[str, Array] = {}
    if held_out is not None:
        train = [_number(row, "train") for row in rows]
        means = intervals.resampled_means(held_out)
        drawn_marks = [_held_out_marks(m, train) for m in means]
        sampled = {name: np.stack([d[name] for d in drawn_marks]) for name in drawn_marks[0]}
        marks |= _held_out_marks(held_out.mean(axis=0), train)
    return Scorecard(
        epochs=tuple(int(row["epoch"] or 0) for row in rows),
        steps=tuple(int(row["step"] or 0) for row in rows),
        files=tuple(str(row["file"]) for row in rows),
        marks=marks,
        scores=_side(OVER, marks, sampled) - _side(UNDER, marks, sampled),
        held_out=held_out,
        likeness=tuple(alike),
        sound=tuple(row["held_out"] is not None or held_out is None for row in rows),
    )


def held_out_values(loss: Evidence) -> Array | None:
    """Mean log-ratio to the base model of every held-out image at every saved epoch.

    Returns
    -------
    (images, epochs) array or None
        None where fewer than four images were held out: a single one may decide there. An epoch
        without finite numbers counts as the worst.
    """
    rows = [r for r in loss.table("images") if r["epoch"] and r["split"] == "held-out"]
    epochs: list[Scalar] = [row["epoch"] for row in loss.table("epochs") if row["epoch"]]
    images = list(dict.fromkeys(row["image"] for row in rows))
    if len(images) < FEW_IMAGES:
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


def best_epoch(card: Scorecard, *, broken: Collection[Scalar] = ()) -> Best | None:
    """Choose the epoch to take: the one whose score lies nearest to good; never a broken one.

    In every resample the epoch with the smallest distance to 0 wins; ties, common among good
    epochs, go to the lower held-out loss. None where every epoch is called underfit or overfit,
    and where there is one epoch only.
    """
    calls = [card.fit(i)[0] for i in range(len(card.epochs))]
    usable = [
        i
        for i, fit in enumerate(calls)
        if fit in (Fit.GOOD, Fit.UNCERTAIN) and card.epochs[i] not in broken
    ]
    if not usable or len(calls) < 2 or card.held_out is None or not finite(card.scores):
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
        probability=round(card.at_most(float(wins[pick])), 3),
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
    heard = [i for i in range(len(card.epochs)) if card.sound[i]]
    if not heard:
        return []
    calls = [card.fit(i)[0] for i in heard]
    falling = seen["loss"].get("slope_p")
    at_edge = seen["loss"].get("best_epoch")
    last = card.epochs[heard[-1]]
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
            numbers=_marks_at(card, heard[-1]),
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
    reasons = [name for name in OVER if card.marks.get(name, np.zeros(first + 1))[first] > 0.5]
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


def _side(
    weights: Mapping[str, float], marks: Mapping[str, Array], sampled: Mapping[str, Array]
) -> Array:
    """Weigh the marks of one side in every resample; what was not measured has no weight.

    Returns
    -------
    (draws, epochs) array
        From 0 to 1; NaN where nothing that speaks for this side was measured.
    """
    total, weight = np.zeros((1, 1)), np.zeros((1, 1))
    for name, share in weights.items():
        here = sampled.get(name, marks.get(name, np.full(1, np.nan))[None])
        known = np.isfinite(here)
        total = total + np.where(known, here, 0.0) * share
        weight = weight + known * share
    mean: Array = np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight > 0)
    return mean


def _held_out_marks(means: Array, train: Sequence[float | None]) -> dict[str, Array]:
    """Mark epochs by the held-out curve: before its minimum to go, after it the rise and the gap.

    Parameters
    ----------
    means : (epochs,) array
        Mean log-ratios to the base model.
    train : (epochs,) sequence
        The same on training images.
    """
    best = int(means.argmin())
    depth = -float(means[best])
    before = np.arange(len(means)) < best
    if depth <= 0:  # nothing got better than the base model: too little, or all of it too much
        unknown = np.full(len(means), np.nan)
        return {"to_go": (means <= 0) * 1.0, "rise": (means > 0) * 1.0, "gap": unknown}
    risen = (means - means[best]) / depth
    gaps = [None if t is None else (m - t) / depth for m, t in zip(means, train, strict=True)]
    return {
        "to_go": np.where(before, _marked(list(risen), TO_GO), 0.0),
        "rise": np.where(before, 0.0, _marked(list(risen), RISE)),
        "gap": _marked(gaps, GAP),
    }


def _marked(values: Sequence[float | None], between: tuple[float, float]) -> Array:
    return np.array([np.nan if v is None else ramp(v, *between) for v in values])


def _copy_ratios(copies: Evidence | None, rows: Sequence[Row]) -> list[float | None]:
    """Nearness to single training images, beside that of held-out images: 1 is as usual."""
    usual = copies.get("copy_ratio_held_out") if copies else None
    values = _of_epochs(copies, rows, "copy_ratio")
    return [None if v is None or usual is None else v / usual.value for v in values]


def _of_epochs(measured: Evidence | None, rows: Sequence[Row], name: str) -> list[float | None]:
    """Find what was measured of each epoch's pictures: at strength 1 where there are several."""
    found: dict[Scalar, Row] = {}
    for row in measured.table("epochs") if measured else ():
        here = found.get(row["epoch"])
        if row["kind"] == "lora" and (here is None or (row["strength"] == 1.0 != here["strength"])):
            found[row["epoch"]] = row
    return [_number(found.get(row["epoch"], {}), name) for row in rows]


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
        "rise": "the held-out loss has risen over its minimum",
        "gap": "training images are learnt by heart (their loss goes on falling, that of held-out "
        "images does not)",
        "leak": "prompts that have nothing to do with it come out changed",
        "capture": "prompts without the activation tag show the subject too",
        "copy": "pictures come close to single training images",
    }
    return "; ".join(words[r] for r in reasons if r in words) or "the marks together say so"


def _ids(seen: Seen) -> tuple[str, ...]:
    return tuple(seen[name].id for name in ("loss", *OF_PICTURES) if name in seen)


UNDERFIT = Rule(
    code="FIT-UNDER",
    uses=("loss",),
    may_use=OF_PICTURES,
    judge=lambda seen: [f for f in undertrained(seen) if f.code == "FIT-UNDER"],
    means="No epoch has learnt enough of what the images show.",
    evidence="Held-out loss against the base model, and likeness of the grid's pictures.",
    sure="By the number of held-out images: low under 4, medium under 10, else high.",
    do="Train longer or with a higher learning rate; look at the rank last.",
)
UNDERFIT_RUN = Rule(
    code="FIT-UNDER-RUN",
    uses=("loss",),
    may_use=OF_PICTURES,
    judge=lambda seen: [f for f in undertrained(seen) if f.code == "FIT-UNDER-RUN"],
    means="The run ended while the held-out loss was still falling: the best epoch lies beyond.",
    evidence="Slope of the held-out loss over the last epochs, resampled over the images.",
    sure="By the number of held-out images: low under 4, medium under 10, else high.",
    do="Train on: twice the epochs, the same settings.",
)
OVERFIT = Rule(
    code="FIT-OVER",
    uses=("loss",),
    may_use=OF_PICTURES,
    judge=overtrained,
    means="Later epochs fit the training images at the cost of everything else.",
    evidence="Rise of the held-out loss over its minimum; change of prompts without the activation "
    "tag; nearness of pictures to single training images.",
    sure="By the number of held-out images and the kinds of evidence that were measured.",
    do="Take an epoch from before. Train again shorter, slower, or on more varied images.",
)
