"""Strength: a LoRA that is too strong at 1, and pictures that it has spoilt there."""

import math
from collections.abc import Sequence

from lorascope.records import Confidence, Finding, Row, Severity
from lorascope.rules.rule import Rule, Seen, number

EARLY_SATURATION = 1.2  # methods 3.6: spoilt at or below it is over-strong (starting value)
LOW_BEST = 0.8  # methods 3.6: a best strength below it (starting value)
LEAST_LOST = 0.25  # utility, at strength 1: near the best, curves are flat, and "best" is luck
SPOILT_SHARE = 0.5  # of an epoch's pictures: then its median picture is spoilt
NEARLY_ALL = 0.8
FEW, ENOUGH = 3, 8  # pictures: below the first nothing is said, from the second on it is sure
USUAL = 1.0  # the strength that most people generate with
FORMS = ("sampled", "x0")  # what was drawn speaks before what was only guessed


def overstrong(seen: Seen) -> Sequence[Finding]:
    """Find epochs whose pictures spoil before or soon after strength 1, or that work best below."""
    rows = seen["stress"].table("strengths")
    by_epoch: dict[int, Row] = {}
    for row in sorted(rows, key=lambda r: FORMS.index(str(r["form"])), reverse=True):
        by_epoch[int(number(row, "epoch"))] = row
    return [found for row in by_epoch.values() if (found := _overstrong(seen, row)) is not None]


def _overstrong(seen: Seen, row: Row) -> Finding | None:
    saturation, best = row.get("saturation"), row.get("best")
    early = isinstance(saturation, float) and saturation <= EARLY_SATURATION
    low = isinstance(best, float) and best < LOW_BEST and number(row, "lost") > LEAST_LOST
    if not (early or low):
        return None
    spoilt_by, best_by = (number(row, f"{name}_high", math.inf) for name in ("saturation", "best"))
    sure = (early and spoilt_by <= EARLY_SATURATION) or (
        low and best_by < LOW_BEST and number(row, "lost_low") > LEAST_LOST
    )
    drawn = row["form"] == "sampled"
    said = [f"pictures spoil from strength {number(row, 'saturation'):.2f} on"] if early else []
    said += [f"it works best at {number(row, 'best'):.2f}"] if low else []
    numbers = {
        name: round(number(row, name), 3)
        for name in ("saturation", "headroom", "best", "lost")
        if row.get(name) is not None
    }
    return Finding(
        code="WGT-OVERSTRONG",
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM if sure and drawn else Confidence.LOW,
        subject={"epoch": int(number(row, "epoch"))},
        numbers=numbers,
        n=int(number(row, "items")),
        text=f"Epoch {row['epoch']} is too strong: {' and '.join(said)}"
        + ("." if drawn else ", told by single forwards on images of the dataset."),
        fix=_fix(row),
        command="lorascope stress RUN"
        + ("" if drawn else f" --form sampled --epochs {row['epoch']}"),
        because=(seen["stress"].id,),
    )


def _fix(row: Row) -> str:
    best = row.get("best")
    use = (
        f"Use it at strength {best:.1f}"
        if isinstance(best, float) and best > 0.05
        else "Take an earlier epoch"
    )
    return f"{use}, or train with a lower learning rate, a lower alpha or fewer steps."


def saturated(seen: Seen) -> Sequence[Finding]:
    """Find the first epoch whose pictures are spoilt at strength 1."""
    rows = [row for row in seen["artefacts"].table("epochs") if _counts(row)]
    spoilt = [row for row in rows if number(row, "spoilt") > SPOILT_SHARE]
    if not spoilt:
        return []
    first = spoilt[0]
    epochs = sorted({int(number(row, "epoch")) for row in spoilt})
    shown = int(number(first, "counted"))
    share = number(first, "spoilt")
    sure = shown >= ENOUGH and share >= NEARLY_ALL
    others = f" (and {_later(len(epochs) - 1)})" if len(epochs) > 1 else ""
    return [
        Finding(
            code="IMG-SATURATED",
            severity=Severity.WARNING,
            confidence=Confidence.MEDIUM if sure else Confidence.LOW,
            subject={"epoch": epochs[0]},
            numbers={
                "spoilt": round(share, 3),
                "artefact_median": round(number(first, "artefact_median"), 2),
                "epochs": float(len(epochs)),
            },
            n=shown,
            text=f"At strength 1 epoch {epochs[0]}{others} spoils {share:.0%} of its {shown} "
            "pictures: colours, noise or blotches beyond what both the base model and the "
            "training images show.",
            fix="Take an earlier epoch or a lower strength; train with a lower learning rate.",
            command="lorascope artefacts RUN",
            because=(seen["artefacts"].id,),
        )
    ]


def _later(count: int) -> str:
    return f"{count} later epoch{'s' if count > 1 else ''}"


def _counts(row: Row) -> bool:
    return (
        row.get("kind") == "lora"
        and number(row, "strength") == USUAL
        and number(row, "counted") >= FEW
    )


OVERSTRONG = Rule(
    code="WGT-OVERSTRONG",
    uses=("stress",),
    judge=overstrong,
    means="The LoRA changes too much at strength 1: its pictures spoil there or soon above, or it "
    "works best well below.",
    evidence="The stress curve: the strength at which the median picture is spoilt (artefact z "
    "above 3), and the one at which gain and artefacts balance best.",
    sure="Medium where pictures were drawn at every strength and the whole interval agrees, low "
    "otherwise. High guidance, few-step base models and a wrong alpha look the same.",
    do="Use it at the strength that works best, or train with a lower learning rate or alpha.",
)
SATURATED = Rule(
    code="IMG-SATURATED",
    uses=("artefacts",),
    judge=saturated,
    means="More than half of an epoch's pictures are spoilt at strength 1: burnt colours, noise, "
    "blotches where the picture should be quiet.",
    evidence="Colours, noise, blocks and contrast of each picture, beside the base model's picture "
    "of the same prompt and noise and beside the training images; only what stands out from both "
    "counts.",
    sure="Medium from eight pictures on where nearly all are spoilt, low otherwise. A style that "
    "neither base model nor training images show would be called spoilt too.",
    do="Take an earlier epoch, generate at a lower strength, or train with a lower learning rate.",
)
