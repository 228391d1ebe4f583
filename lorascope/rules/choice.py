"""How far the choice of an epoch can be trusted: turns, leaks, too few images."""

from collections.abc import Mapping, Sequence

from lorascope.records import Confidence, Evidence, Finding, Row, Severity
from lorascope.rules.rule import Rule, Seen, number

FEW_IMAGES = 4  # below it a single picture may decide: design value, methods of the bootstrap
MEMORY_GAP = 0.05  # log-ratio; design value, an exact caption or image does better by 5 %
SET_WORDS = {"held-out": "held-out images", "composition": "held-out compositions"}


def no_turn(seen: Seen) -> Sequence[Finding]:
    """Say that the held-out loss was never seen to fall and rise again."""
    loss = seen["loss"]
    row = next((r for r in loss.table("turns") if r["set"] == "held-out"), None)
    if row is None or row["turned"] or int(row["images"] or 0) < FEW_IMAGES:
        return []
    epochs = [r for r in loss.table("epochs") if r["epoch"]]
    last = epochs[-1]["epoch"]
    if row["lowest_epoch"] == last:
        why, fix = (
            f"it is lowest at the last epoch ({last}), and the best one may lie beyond.",
            "Train on for as many epochs again.",
        )
    elif row["p_falls"] is None:
        why, fix = (
            f"too few epochs lie on one side of epoch {row['lowest_epoch']}, the lowest.",
            "Save more often, or train on.",
        )
    else:
        why, fix = (
            f"from epoch {row['lowest_epoch']}, the lowest, to the last it keeps level, as far as "
            "these images tell.",
            "To know better, hold out more images, or ask with --preset thorough.",
        )
    return [
        Finding(
            code="SEL-NO-TURN",
            severity=Severity.INFO,
            confidence=Confidence.MEDIUM,
            subject={"epoch": row["lowest_epoch"]},
            numbers=_numbers(row, "p_falls", "p_rises", "lowest"),
            n=int(row["images"] or 0),
            text=f"No turn of the held-out loss was seen: {why}",
            fix=fix,
            because=(loss.id,),
        )
    ]


def leaked(seen: Seen) -> Sequence[Finding]:
    """Name held-out images that the training saw, or almost saw."""
    loss = seen["loss"]
    held = loss.get("images")
    return [
        Finding(
            code="SET-LEAK",
            severity=Severity.ERROR,
            confidence=Confidence.HIGH if row["same"] else Confidence.MEDIUM,
            subject={"image": row["image"], "other": row["other"]},
            numbers=_numbers(row, "distance"),
            n=int(held.value) if held else 0,
            text=f"{row['image']} is held out, and {row['other']} is trained on: "
            + ("the same file." if row["same"] else "almost the same picture."),
            fix="It was left out of the held-out loss. Keep near-duplicates on one side.",
            because=(loss.id,),
        )
        for row in loss.table("leaks")
    ]


def uncertain(seen: Seen) -> Sequence[Finding]:
    """Say that too few images were held out for a choice, and what weak evidence there is."""
    loss = seen["loss"]
    images = loss.get("images")
    if not loss.table("epochs") or images is None or images.value >= FEW_IMAGES:
        return []
    count = int(images.value)
    held = "No image was held out" if not count else f"Only {count} image(s) were held out"
    return [
        Finding(
            code="FIT-UNCERTAIN",
            severity=Severity.INFO,
            confidence=Confidence.LOW,
            numbers=_last_memory(loss),
            n=count,
            text=f"{held}: no epoch can be chosen by its loss. {_weak_words(loss)}".strip(),
            fix="Give four or more images of the subject that were not trained on: "
            "lorascope add dataset RUN FOLDER --as held-out",
            command="lorascope loss RUN",
            because=(loss.id,),
        )
    ]


def _weak_words(loss: Evidence) -> str:
    """Say from when on training images do better by heart than they should."""
    said = []
    for name, what in (("caption_gap", "exact captions"), ("augment_gap", "exact pictures")):
        rows = [
            r for r in loss.table("memory") if number(r, f"{name}_low", float("-inf")) > MEMORY_GAP
        ]
        if rows:
            gap = number(loss.table("memory")[-1], name)
            said.append(
                f"from epoch {rows[0]['epoch']} on {what} of the training do better than changed "
                f"ones ({gap:.0%} at the last)"
            )
    return f"Weak evidence of learning by heart: {'; '.join(said)}." if said else ""


def _last_memory(loss: Evidence) -> Mapping[str, float]:
    rows = loss.table("memory")
    return _numbers(rows[-1], "caption_gap", "augment_gap") if rows else {}


def _numbers(row: Row, *names: str) -> dict[str, float]:
    return {n: float(v) for n in names if isinstance(v := row.get(n), int | float)}


NO_TURN = Rule(
    code="SEL-NO-TURN",
    uses=("loss",),
    judge=no_turn,
    means="The held-out loss was not seen to fall and then rise again.",
    evidence="A straight line before the lowest epoch and one after it (two-lines test), the base "
    "model as epoch 0; and at least four held-out images.",
    sure="Medium: the test is careful, and calls fewer than 5 % of level curves turned.",
    do="Where it is lowest at the end, train longer. The epochs may be good all the same.",
)
LEAK = Rule(
    code="SET-LEAK",
    uses=("loss",),
    judge=leaked,
    means="A held-out image is also trained on, as the same file or a near-duplicate.",
    evidence="The bytes, and the distance of the pictures blurred to 16 x 16, in units of the "
    "usual distance between training images.",
    sure="Certain for the same bytes; near-duplicates may be two frames of one scene.",
    do="Keep near-duplicates on one side of the split. The leaked image was not measured.",
)
UNCERTAIN = Rule(
    code="FIT-UNCERTAIN",
    uses=("loss",),
    judge=uncertain,
    means="Fewer than four images were held out: which epoch is best cannot be told by the loss.",
    evidence="The number of held-out images; beside it how much better exact captions and exact "
    "pictures of the training do than changed ones.",
    sure="Low: by heart may also mean well learnt.",
    do="Add four or more unseen images of the subject with --as held-out; no training is needed.",
)
