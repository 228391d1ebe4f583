"""Broken files: weights that no picture can be made with, or that do nothing."""

from collections.abc import Sequence

from lorascope.records import Confidence, Finding, Severity
from lorascope.rules.rule import Rule, Seen, number

DEAD_SHARE = 0.05  # of the modules; design value, one dead block of a U-Net is about this much


def nan_weights(seen: Seen) -> Sequence[Finding]:
    """Name every checkpoint that holds NaN or infinity."""
    return [
        Finding(
            code="WGT-NAN",
            severity=Severity.ERROR,
            confidence=Confidence.HIGH,
            subject={"epoch": row["epoch"], "file": row["file"]},
            numbers={"nan_modules": number(row, "nan_modules")},
            n=int(number(row, "modules")),
            text=f"{row['file']} holds NaN or infinity in {row['nan_modules']} of "
            f"{row['modules']} modules: it makes black or broken pictures.",
            fix="Take an earlier epoch. Train again with a lower learning rate, or with bf16 "
            "instead of fp16.",
            because=(seen["weights"].id,),
        )
        for row in seen["weights"].table("epochs")
        if number(row, "nan_modules") > 0
    ]


def unreadable(seen: Seen) -> Sequence[Finding]:
    """Name every checkpoint that cannot be opened."""
    weights = seen["weights"]
    rows = weights.table("broken")
    return [
        Finding(
            code="WGT-BROKEN",
            severity=Severity.ERROR,
            confidence=Confidence.HIGH,
            subject={"epoch": row["epoch"], "file": row["file"]},
            n=len(rows) + len(weights.table("epochs")),
            text=f"{row['file']} cannot be opened: {row['why']}",
            fix="Copy or download the file again; a full disk while saving tears files too.",
            because=(weights.id,),
        )
        for row in rows
    ]


def dead_weights(seen: Seen) -> Sequence[Finding]:
    """Name the last checkpoint when modules of it were never trained."""
    rows = seen["weights"].table("epochs")
    if not rows:
        return []
    last = rows[-1]
    dead, modules = number(last, "dead_modules"), number(last, "modules")
    if not modules or dead / modules <= DEAD_SHARE:
        return []
    return [
        Finding(
            code="WGT-DEAD",
            severity=Severity.ERROR,
            confidence=Confidence.HIGH,
            subject={"epoch": last["epoch"], "file": last["file"]},
            numbers={"dead_modules": dead, "modules": modules},
            n=int(modules),
            text=f"{dead:.0f} of {modules:.0f} modules of {last['file']} are zero: they were "
            "never trained and do nothing.",
            fix="Look at the learning rates (one may be 0) and at gradient checkpointing with a "
            "frozen text encoder; then train again.",
            because=(seen["weights"].id,),
        )
    ]


NAN = Rule(
    code="WGT-NAN",
    uses=("weights",),
    judge=nan_weights,
    means="A checkpoint holds values that are not numbers. One is enough to spoil every picture.",
    evidence="Every tensor of every file, looked at directly.",
    sure="Certain: it is in the file.",
    do="Use an epoch from before. Lower the learning rate; prefer bf16; look for a bad image.",
)
BROKEN = Rule(
    code="WGT-BROKEN",
    uses=("weights",),
    judge=unreadable,
    means="A checkpoint is cut short, or is no safetensors file. No program can load it.",
    evidence="The header of every file in the run's lora folder, read and compared with its size.",
    sure="Certain: it is in the file.",
    do="Copy or download the file again, or take another epoch.",
)
DEAD = Rule(
    code="WGT-DEAD",
    uses=("weights",),
    judge=dead_weights,
    means="More than 5 % of the modules are exactly zero, so they change nothing.",
    evidence="`up` or `down` of a module is all zero in the last checkpoint.",
    sure="Certain about the file; the reason is a guess.",
    do="Check that no learning rate is 0 and that the part was meant to be trained.",
)
