"""Memorisation: pictures that are training images, or are put together from several of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lorascope.records import Confidence, Evidence, Finding, Row, Severity
from lorascope.rules.rule import Rule, Seen, number

# Chosen on four trainings and tried on four others: benchmarks/results/copies.json
COPIED = 0.38  # of a picture's patches in one training image, for a copy that is also this near:
NEAR = 0.09  # root mean square difference of the blurred pictures, from 0 to 1
CERTAIN = 0.65  # of its patches, for a copy whatever its brightness and background
PUT_TOGETHER = 0.45  # of its patches in any training image, for a collage, and of them:
SECOND = 0.2  # what a second training image adds
# Of a hundred pictures that cannot be copies one passes for one, so one alone says nothing.
FEWEST = 2  # pictures
SOME, MANY = 0.1, 0.25  # of an epoch's pictures: a warning, an error; methods 3.5, appendix A
USUAL = 0.95  # quantile of held-out images' and the base model's pictures, that a copy lies above
ENOUGH, FEW = 12, 6  # pictures with the trigger in one epoch: for high and for medium confidence
KNOWN = 4  # held-out images, below which what is usual is not known well


@dataclass(frozen=True, slots=True)
class _Epoch:
    """What one epoch's pictures with the trigger show."""

    epoch: int
    found: tuple[Row, ...]  # those that are copies, or collages; the worst first
    pictures: int

    @property
    def share(self) -> float:
        return len(self.found) / self.pictures

    @property
    def counts(self) -> bool:
        return len(self.found) >= FEWEST and self.share >= SOME


def is_copy(row: Row, usual: float = 0.0) -> bool:
    """Tell whether one training image is in most of a picture; ``usual`` as of `usual_share`."""
    share, distance = number(row, "source_share"), number(row, "nearest_distance", empty=1.0)
    alike = share > CERTAIN or (share > COPIED and distance < NEAR)
    return alike and share > usual and not is_collage(row)


def is_collage(row: Row) -> bool:
    """Tell whether a picture is put together from two training images or more."""
    return number(row, "patch_share") > PUT_TOGETHER and number(row, "second_share") > SECOND


def usual_share(copies: Evidence) -> float:
    """Say how much of one training image pictures may have that cannot be copies.

    Held-out images, and what the base model drew with the trigger. Where the training images are
    nearly alike, that is much. One held-out image that is a training image as well does not count.
    """
    drawn = [row for row in copies.table("cells") if row["kind"] == "base" and row["asks"]]
    rows = [*copies.table("held_out"), *drawn]
    if not rows:
        return 0.0
    values = [number(row, "source_share") for row in rows]
    return float(np.quantile(values, USUAL, method="lower"))


def copied(seen: Seen) -> Sequence[Finding]:
    """Name the epochs whose pictures are training images."""
    usual = usual_share(seen["copies"])
    epochs = _epochs(seen["copies"], lambda row: is_copy(row, usual), "source_share")
    if not (known := [epoch for epoch in epochs if epoch.counts]):
        return []
    most = max(known, key=lambda epoch: epoch.share)
    worst = max((epoch.found[0] for epoch in known), key=lambda row: number(row, "source_share"))
    return [
        Finding(
            code="IMG-COPY",
            severity=Severity.ERROR if most.share >= MANY else Severity.WARNING,
            confidence=_confidence(seen["copies"], most),
            subject=_subject(known, worst),
            numbers={
                "copied_share": round(most.share, 3),
                "source_share": round(number(worst, "source_share"), 3),
                "usual": round(usual, 3),
            },
            n=most.pictures,
            text=f"{_when(epochs, known)} pictures are copies of training images: at epoch "
            f"{most.epoch} {len(most.found)} of {most.pictures} with the trigger. The worst is "
            f"{worst['file']}: {number(worst, 'source_share'):.0%} of it is in {worst['source']}.",
            fix=_fix(known, "more different images, fewer repeats or a lower rank"),
            because=(seen["copies"].id,),
        )
    ]


def collaged(seen: Seen) -> Sequence[Finding]:
    """Name the epochs whose pictures are put together from training images."""
    epochs = _epochs(seen["copies"], is_collage, "second_share")
    if not (known := [epoch for epoch in epochs if epoch.counts]):
        return []
    most = max(known, key=lambda epoch: epoch.share)
    worst = max((epoch.found[0] for epoch in known), key=lambda row: number(row, "second_share"))
    return [
        Finding(
            code="IMG-COLLAGE",
            severity=Severity.WARNING,
            confidence=_confidence(seen["copies"], most),
            subject=_subject(known, worst),
            numbers={
                "collage_share": round(most.share, 3),
                "patch_share": round(number(worst, "patch_share"), 3),
                "second_share": round(number(worst, "second_share"), 3),
            },
            n=most.pictures,
            text=f"{_when(epochs, known)} pictures are put together from training images: at "
            f"epoch {most.epoch} {len(most.found)} of {most.pictures} with the trigger. The worst "
            f"is {worst['file']}, from {worst['source_names']}.",
            fix=_fix(known, "more different images, and captions that name what varies"),
            because=(seen["copies"].id,),
        )
    ]


def _epochs(copies: Evidence, test: Callable[[Row], bool], by: str) -> list[_Epoch]:
    """Put the pictures with the trigger together by epoch, at strength 1 where there are some."""
    rows = [
        row
        for row in copies.table("cells")
        if row["kind"] == "lora" and row["asks"] and row["source_share"] is not None
    ]
    found = []
    for epoch in sorted({int(number(row, "epoch")) for row in rows}):
        here = [row for row in rows if row["epoch"] == epoch]
        plain = [row for row in here if row["strength"] == 1.0] or here
        alike = sorted(filter(test, plain), key=lambda row: -number(row, by))
        found.append(_Epoch(epoch, tuple(alike), len(plain)))
    return found


def _when(epochs: Sequence[_Epoch], known: Sequence[_Epoch]) -> str:
    later = [epoch for epoch in epochs if epoch.epoch >= known[0].epoch]
    if len(later) == len(known) > 1:
        return f"From epoch {known[0].epoch} on,"
    return f"At epoch {', '.join(str(epoch.epoch) for epoch in known)}"


def _subject(known: Sequence[_Epoch], worst: Row) -> dict[str, str | int | float | bool | None]:
    return {"epoch": known[0].epoch, "picture": worst["file"], "image": worst["source"]}


def _fix(known: Sequence[_Epoch], remedy: str) -> str:
    return f"Take an epoch before {known[0].epoch}, or train again with {remedy}."


def _confidence(copies: Evidence, epoch: _Epoch) -> Confidence:
    if epoch.pictures >= ENOUGH and len(copies.table("held_out")) >= KNOWN:
        return Confidence.HIGH
    return Confidence.MEDIUM if epoch.pictures >= FEW else Confidence.LOW


COPY = Rule(
    code="IMG-COPY",
    uses=("copies",),
    judge=copied,
    means="Pictures repeat single training images, pose and scenery included.",
    evidence="The share of each picture's patches that one training image has at the same place, "
    "beside that of held-out images and of the base model's pictures.",
    sure="High with 12 pictures an epoch and 4 held-out images. On the drawn world more than 9 of "
    "10 copies are found, and 1 of 100 other drawings is taken for one "
    "(benchmarks/results/copies.json). A training image that is cropped, scaled or moved in the "
    "picture by more than 5 px at 512 is not found.",
    do="Take an earlier epoch; train on more different images, with fewer repeats or a lower rank.",
)
COLLAGE = Rule(
    code="IMG-COLLAGE",
    uses=("copies",),
    judge=collaged,
    means="Pictures are put together from parts of several training images.",
    evidence="The share of each picture's patches that any training image has at the same place, "
    "and what the second of them adds to the first.",
    sure="As for IMG-COPY. A plain background that is taken over shows nothing and is not found.",
    do="Take an earlier epoch; train on more different images, and caption what varies in them.",
)
