"""Class capture: the subject appears in pictures that never asked for it."""

from collections.abc import Sequence

from lorascope.records import Confidence, Finding, Row, Severity
from lorascope.rules.rule import Rule, Seen, number

CAPTURED = 0.3  # of the way from the base model to the training images; methods 3.3, start value
FEW, ENOUGH = 2, 6  # pictures without the trigger: below the first nothing is said


def captured(seen: Seen) -> Sequence[Finding]:
    """Find the epoch from which on pictures without the trigger show the subject."""
    drift = seen["drift"]
    rows = [row for row in drift.table("epochs") if row["kind"] == "lora" and _counts(row)]
    taken = [row for row in rows if number(row, "class_likeness") > CAPTURED]
    if not taken:
        return []
    first = taken[0]
    epochs = sorted({int(number(row, "epoch")) for row in taken})
    gained, low = number(first, "class_likeness"), number(first, "class_likeness_low", CAPTURED)
    sure = low > CAPTURED and number(first, "counted") >= ENOUGH
    where = f"From epoch {epochs[0]} on pictures" if len(epochs) > 1 else f"Epoch {epochs[0]}'s"
    where += "" if len(epochs) > 1 else " pictures"
    return [
        Finding(
            code="FIT-CLASS-CAPTURE",
            severity=Severity.WARNING,
            confidence=Confidence.MEDIUM if sure else Confidence.LOW,
            subject={"epoch": epochs[0]},
            numbers={"class_likeness": round(gained, 3), "epochs": float(len(epochs))},
            n=int(number(first, "counted")),
            text=f"{where} without the trigger come {gained:.0%} of the way from the base model "
            "to the training images: the LoRA took the class, not the trigger alone.",
            fix="Take an earlier epoch. To train again: regularisation images of the class, fewer "
            "steps, or no class word in the captions.",
            command="lorascope drift RUN",
            because=(drift.id,),
        )
    ]


def _counts(row: Row) -> bool:
    return row.get("class_likeness") is not None and number(row, "counted") >= FEW


CLASS_CAPTURE = Rule(
    code="FIT-CLASS-CAPTURE",
    uses=("drift",),
    judge=captured,
    means="Pictures whose prompt lacks the trigger look like the subject: the LoRA has taken the "
    "whole class, or everything.",
    evidence="Likeness of such pictures beyond the base model's of the same prompt and noise, from "
    "0 (nothing gained) to 1 (as near as the training images are to one another).",
    sure="Medium where the whole interval agrees over six pictures or more, low otherwise. A style "
    "that was meant to act without a trigger does the same.",
    do="Take an earlier epoch, train with regularisation images, or for fewer steps.",
)
