"""Logs: what a training log can tell, and what it cannot."""

from collections.abc import Sequence

from lorascope.records import Confidence, Finding, Row, Severity
from lorascope.rules.rule import Rule, Seen, number

DIVERGED = 0.25  # rise of the logged loss; design value: four sound real logs moved by 8 % at most
SPIKES_NAMED = 3  # in one sentence


def not_a_number(seen: Seen) -> Sequence[Finding]:
    """Say that the log holds values that are no numbers."""
    loss = seen["loss"]
    rows = _events(seen, "nan")
    if not rows:
        return []
    first = min(rows, key=lambda row: (row["step"] is None, number(row, "step")))
    others = f" So is {len(rows) - 1} other tag." if len(rows) == 2 else ""
    others = f" So are {len(rows) - 1} other tags." if len(rows) > 2 else others
    return [
        Finding(
            code="LOG-NAN",
            severity=Severity.ERROR,
            confidence=Confidence.HIGH,
            subject=_place(first),
            numbers={"values": sum(number(row, "value") for row in rows)},
            n=_steps(seen),
            text=f"{first['text']}{others}",
            fix="Take an epoch saved before that step and look whether its weights are sound. "
            "Train again with a lower learning rate, bf16 instead of fp16, and a VAE that is safe "
            "in half precision.",
            command="lorascope weights RUN",
            because=(loss.id,),
        )
    ]


def diverging(seen: Seen) -> Sequence[Finding]:
    """Say that the logged loss climbs, and by how much."""
    rows = [row for row in _events(seen, "diverging") if number(row, "value") >= DIVERGED]
    return [
        Finding(
            code="LOG-DIVERGE",
            severity=Severity.ERROR,
            confidence=Confidence.MEDIUM,
            subject=_place(row),
            numbers={"rise": number(row, "value"), "null": 0.0},
            n=_steps(seen),
            text=str(row["text"]),
            fix="Take an epoch saved before the rise. Train again with a lower learning rate or a "
            "longer warm-up.",
            because=(seen["loss"].id,),
        )
        for row in rows
    ]


def spiking(seen: Seen) -> Sequence[Finding]:
    """Name the steps whose loss jumped out of all proportion."""
    rows = _events(seen, "spike")
    if not rows:
        return []
    top = max(rows, key=lambda row: number(row, "value"))
    steps = ", ".join(str(row["step"]) for row in rows[:SPIKES_NAMED])
    more = f" and {len(rows) - SPIKES_NAMED} more" if len(rows) > SPIKES_NAMED else ""
    return [
        Finding(
            code="LOG-SPIKE",
            severity=Severity.WARNING,
            confidence=Confidence.MEDIUM,
            subject=_place(top),
            numbers={
                "spikes": float(len(rows)),
                "highest": number(top, "value"),
                "usual_below": number(top, "threshold"),
            },
            n=_steps(seen),
            text=f"The logged loss jumps at step {steps}{more}. {top['text']}",
            fix="Look at the images of those steps (unreadable, empty, of another size), and at "
            "gradient clipping; lower the learning rate if the loss does not come back.",
            because=(seen["loss"].id,),
        )
    ]


def not_comparable(seen: Seen) -> Sequence[Finding]:
    """List why the validation numbers of this log do not mean what they seem to."""
    rows = _events(seen, "trap")
    if not any("validation" in str(row["tag"]) for row in rows):
        return []
    texts = list(dict.fromkeys(str(row["text"]) for row in rows))
    return [
        Finding(
            code="LOG-VAL-NOT-COMPARABLE",
            severity=Severity.INFO,
            confidence=Confidence.HIGH,
            subject={"tag": str(rows[0]["tag"])},
            numbers={"traps": float(len(texts))},
            n=len(texts),
            text="The validation loss in the log is not what it seems. " + " ".join(texts),
            fix="Measure the held-out loss here: the same noise and timesteps for every epoch, "
            "beside the base model, on images that no training saw.",
            command="lorascope loss RUN",
            because=(seen["loss"].id,),
        )
    ]


def log_only(seen: Seen) -> Sequence[Finding]:
    """Say that nothing but a training log speaks about which epoch is best."""
    loss = seen["loss"]
    measured = any(
        row.get("epoch") and row.get("held_out") is not None for row in loss.table("epochs")
    )
    steps = loss.get("log_steps")
    if measured or steps is None:
        return []
    dips = loss.table("dips")
    signal = [row for row in dips if _is_number(row, "p_noise") and number(row, "p_noise") < 0.05]
    return [
        Finding(
            code="SEL-LOG-ONLY",
            severity=Severity.INFO,
            confidence=Confidence.LOW,
            numbers={"dips": float(len(dips)), "dips_beyond_noise": float(len(signal))},
            n=steps.n,
            text=f"Only the training log speaks about which epoch is best: {len(dips)} dip(s), "
            f"{len(signal)} of them deeper than noise makes them. Such dips choose no better than "
            "chance, so none is recommended.",
            fix="Keep two to five images out of training, or give some that it never saw, and the "
            "base model; then measure the held-out loss.",
            command="lorascope add dataset RUN PATH",
            because=(loss.id,),
        )
    ]


def _events(seen: Seen, event: str) -> list[Row]:
    return [row for row in seen["loss"].table("log_events") if row["event"] == event]


def _place(row: Row) -> dict[str, str | int | float | bool | None]:
    return {name: row[name] for name in ("tag", "step", "epoch") if row.get(name) is not None}


def _steps(seen: Seen) -> int:
    """Count the logged steps behind a finding."""
    steps = seen["loss"].get("log_steps")
    if steps is not None:
        return steps.n
    return sum(int(number(row, "points")) for row in seen["loss"].table("log_tags"))


def _is_number(row: Row, name: str) -> bool:
    return isinstance(row.get(name), int | float)


NAN = Rule(
    code="LOG-NAN",
    uses=("loss",),
    judge=not_a_number,
    means="The training logged values that are not numbers. Most trainers go on and save all the "
    "same; what they save afterwards is often broken.",
    evidence="Every value of every known tag of the log.",
    sure="Certain about the log. Whether the weights broke too is told by the weights tool.",
    do="Use an epoch from before. Lower the learning rate; prefer bf16; look for a bad image and "
    "for a VAE that overflows in fp16.",
)
DIVERGE = Rule(
    code="LOG-DIVERGE",
    uses=("loss",),
    judge=diverging,
    means="The logged training loss climbs, over the whole run or towards its end, by a quarter or "
    "more: the training runs away instead of learning.",
    evidence="Median of all slopes (Theil and Sen) above 0 and Kendall's p below .01, on the "
    "logarithm of 60 means of steps; of the whole, the last half and the last quarter.",
    sure="Medium: the rise is there, but a change of the images or of the timesteps makes one too.",
    do="Use an epoch from before the rise. Lower the learning rate, warm up longer, clip the "
    "gradient.",
)
SPIKE = Rule(
    code="LOG-SPIKE",
    uses=("loss",),
    judge=spiking,
    means="Single steps have a loss far beyond anything around them.",
    evidence="Logarithm of a step's loss above the running median by more than 8 median absolute "
    "deviations (401 steps).",
    sure="Medium: the jump is real; whether it did harm is not in the log.",
    do="Look at the images of those steps; clip the gradient; lower the learning rate.",
)
VALIDATION = Rule(
    code="LOG-VAL-NOT-COMPARABLE",
    uses=("loss",),
    judge=not_comparable,
    means="The log has validation numbers that are easily misread: they come from training "
    "images, from few timesteps, from a mean that never forgets, or are a difference of unlike "
    "things.",
    evidence="The tags of the log and the settings in the checkpoints' metadata, against what "
    "these trainers are known to do.",
    sure="High for the trainer's versions that were read; others may have mended it.",
    do="Do not choose an epoch by these numbers. Measure the held-out loss.",
)
LOG_ONLY = Rule(
    code="SEL-LOG-ONLY",
    uses=("loss",),
    judge=log_only,
    means="There is a training log and no held-out loss, so nothing tells which epoch is best.",
    evidence="The loss tool described a log and measured no held-out image.",
    sure="Low, always: on four real runs the dips of a log chose no better than drawing an epoch.",
    do="Add a dataset with images that were never trained on, and the base model.",
)
RULES_OF_LOGS = (NAN, DIVERGE, SPIKE, VALIDATION, LOG_ONLY)
