"""Images that stand out in how they were learnt: wrong captions, duplicates, foreign pictures."""

from collections.abc import Callable, Sequence

import numpy as np

from lorascope.records import Confidence, Finding, Row, Severity
from lorascope.rules.rule import Rule, Seen, number

FEWEST = 12  # training images, below which quartiles say nothing; design value
WHISKER = 1.5  # interquartile ranges beyond a quartile: Tukey, Exploratory Data Analysis, 1977


def never_learned(seen: Seen) -> Sequence[Finding]:
    """Name training images that no epoch learnt, while it learnt the others."""
    return [
        _finding(
            seen,
            "IMG-NEVER-LEARNED",
            Severity.WARNING,
            row,
            f"{row['image']} was hardly learnt ({number(row, 'gain'):+.2f} against "
            f"{_median(rows, 'gain'):+.2f} of the others): its caption may be wrong, or it shows "
            "something else.",
            "Look at the image and its caption; correct the one or drop the other.",
        )
        for rows in (_train(seen),)
        for row in _outside(rows, "gain", above=False)
    ]


def learned_first(seen: Seen) -> Sequence[Finding]:
    """Name training images that were learnt far better than all others."""
    return [
        _finding(
            seen,
            "IMG-LEARNED-FIRST",
            Severity.INFO,
            row,
            f"{row['image']} was learnt far better than the others ({number(row, 'gain'):+.2f} "
            f"against {_median(rows, 'gain'):+.2f}): a duplicate, shown too often, or very plain.",
            "Lower its repeats, and look for duplicates of it.",
        )
        for rows in (_train(seen),)
        for row in _outside(rows, "gain", above=True)
    ]


def unlearned(seen: Seen) -> Sequence[Finding]:
    """Name training images that were learnt and then lost again."""
    return [
        _finding(
            seen,
            "IMG-UNLEARNED",
            Severity.INFO,
            row,
            f"{row['image']} was learnt best at epoch {row['lowest_epoch']} and then lost "
            f"({number(row, 'rise'):+.2f}): it contradicts the other images.",
            "Compare its caption with those of images that look like it.",
        )
        for rows in (_train(seen),)
        for row in _outside(rows, "rise", above=True)
        if number(row, "rise") > 0.5 * number(row, "gain")
    ]


def _finding(seen: Seen, code: str, severity: Severity, row: Row, text: str, fix: str) -> Finding:
    numbers = {name: round(number(row, name), 4) for name in ("gain", "rise", "base_log_loss")}
    return Finding(
        code=code,
        severity=severity,
        confidence=Confidence.LOW,
        subject={"image": row["image"]},
        numbers=numbers,
        n=len(_train(seen)),
        text=text,
        fix=fix,
        because=(seen["loss"].id,),
    )


def _train(seen: Seen) -> list[Row]:
    rows = [r for r in seen["loss"].table("trajectories") if r["split"] == "train"]
    return rows if len(rows) >= FEWEST else []


def _outside(rows: Sequence[Row], name: str, *, above: bool) -> list[Row]:
    """Take the rows beyond the whisker of a box plot."""
    if not rows:
        return []
    low, high = np.quantile([number(row, name) for row in rows], [0.25, 0.75])
    reach = WHISKER * (high - low)
    beyond: Callable[[float], bool] = (
        (lambda v: v > high + reach) if above else (lambda v: v < low - reach)
    )
    return [row for row in rows if beyond(number(row, name))]


def _median(rows: Sequence[Row], name: str) -> float:
    return float(np.median([number(row, name) for row in rows]))


NEVER_LEARNED = Rule(
    code="IMG-NEVER-LEARNED",
    uses=("loss",),
    judge=never_learned,
    means="A training image got hardly better at any epoch while the others did.",
    evidence="Each training image's lowest log-ratio to the base model over the epochs, beside the "
    "quartiles of all (box plot).",
    sure="Low: twelve images or more, one kind of evidence. Look before you drop one.",
    do="Correct its caption, or drop it. To ask all images: lorascope loss RUN --train-images 0.",
)
LEARNED_FIRST = Rule(
    code="IMG-LEARNED-FIRST",
    uses=("loss",),
    judge=learned_first,
    means="A training image was learnt far better than the others.",
    evidence="Each training image's lowest log-ratio to the base model over the epochs, beside the "
    "quartiles of all (box plot).",
    sure="Low: plain pictures are easy too.",
    do="Look for duplicates and high repeats.",
)
UNLEARNED = Rule(
    code="IMG-UNLEARNED",
    uses=("loss",),
    judge=unlearned,
    means="A training image was learnt early and lost later.",
    evidence="Its rise from its lowest epoch to the last, beside the quartiles of all; and more "
    "than half of its gain.",
    sure="Low: a falling learning rate can do it too.",
    do="Compare its caption with those of like images; a contradiction between them is usual.",
)
