"""Captions: what the text taught."""

from collections.abc import Sequence

from lorascope.records import Confidence, Finding, Severity
from lorascope.rules.rule import Rule, Seen

FEW_MISSING = 1  # images from which on the error is reported: one wrong caption already teaches


def trigger_missing(seen: Seen) -> Sequence[Finding]:
    """Find training captions that lack the activation tag."""
    tags = seen["tags"]
    missing = tags.get("trigger_missing")
    if missing is None or missing.value < FEW_MISSING:
        return []
    guess = tags.get("trigger_guessed")
    guessed = guess is not None and guess.value > 0
    rows = [r for r in tags.table("images") if r["split"] == "train" and not r["has_trigger"]]
    named = ", ".join(str(r["image"]) for r in rows[:5]) + (" ..." if len(rows) > 5 else "")
    return [
        Finding(
            code="TAG-ACT-MISSING",
            severity=Severity.ERROR,
            confidence=Confidence.MEDIUM if guessed else Confidence.HIGH,
            subject={"image": str(rows[0]["image"])} if rows else {},
            numbers={"missing": missing.value, "share": missing.value / missing.n},
            n=missing.n,
            text=f"{missing.value:.0f} of {missing.n} training captions lack the activation tag"
            f"{' (which was guessed)' if guessed else ''}: {named}. What these images show binds "
            "to their other tags instead.",
            fix="Put the activation tag first in every caption of the subject, then train again.",
            command="lorascope tags RUN",
            because=(tags.id,),
        )
    ]


ACT_MISSING = Rule(
    code="TAG-ACT-MISSING",
    uses=("tags",),
    judge=trigger_missing,
    means="Training captions lack the tag that is meant to call the subject up. The subject then "
    "binds to the ordinary tags too, and leaks into prompts without the activation tag.",
    evidence="The captions as they were trained on.",
    sure="High when the activation tag is known, medium when it was guessed from the captions.",
    do="Put the activation tag first in every caption that shows the subject; train again.",
)
