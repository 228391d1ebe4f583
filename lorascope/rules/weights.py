"""Weights that went wrong on their way: lost to half precision, stuck, blown up, swinging.

What weights alone can say is that a file is broken, dead or blown up; never that it is good. The
thresholds are start values (design, "Weight-only diagnostics"); a real training that went from
underfit to overfit on the miniature stays silent under all of them.
"""

import itertools
import statistics
from collections.abc import Sequence

from lorascope.records import Confidence, Evidence, Finding, Row, Severity
from lorascope.rules.rule import Rule, Seen, number

LOST_SHARE = 0.10  # of the entries; some 20 % were seen where alpha / rank = 1/16 was folded in
HALF = "F16"
FEWEST_EPOCHS = 4  # below it nothing is said of a way
JUMP = 3.0  # a move this many times the longest before; start value, sound runs stay below 1.2
SETTLED = 1 / 3  # of the checkpoints; before, warm-up and Prodigy speed up
BURST = 1.5  # growth of the norm that makes a jump a blow-up
RUNAWAY = 2.0  # log norm over log step; 1 is a straight way at one speed
RUNAWAY_EPOCHS = 6
BACKWARDS = -0.2  # cosine of one move with the one before
BACKWARDS_SHARE = 0.25  # of the moves, and at least two of them
EFFICIENCY = 0.2  # size of the end over the length of the way
OF_CHANCE = 0.8  # a random walk of E checkpoints comes to 1 / sqrt(E); less is swinging
TEXT_SHARE = 0.5  # of the squared norm
CAPPED_SHARE = 0.2  # of the modules at the cap
LARGE_RANK = 32
USED_SHARE = 0.15  # of the rank, by the energy of the singular values
PLAIN = ("LoRA", "LoCon", "DoRA")


def lost_in_half(seen: Seen) -> Sequence[Finding]:
    """Name the last checkpoint when half precision swallowed a part of it, or would."""
    weights = seen["weights"]
    last = _last(weights)
    if last is None or last.get("dtype") != HALF:
        return []
    zeros, folded = number(last, "zero_share"), number(last, "underflow_share")
    if zeros > LOST_SHARE:
        return [
            Finding(
                code="WGT-UNDERFLOW",
                severity=Severity.ERROR,
                confidence=Confidence.HIGH,
                subject={"epoch": last["epoch"], "file": last["file"]},
                numbers={"zero_share": zeros},
                n=int(number(last, "modules")),
                text=f"{zeros:.0%} of the numbers in {last['file']} are exactly 0: they were too "
                "small for half precision, and what they had learnt is gone.",
                fix="Save as bf16 or fp32. To train again: a higher alpha (nearer to the rank) or "
                "a higher learning rate, so that the stored numbers are larger.",
                because=(weights.id,),
            )
        ]
    if folded - zeros > LOST_SHARE:
        return [
            Finding(
                code="WGT-UNDERFLOW",
                severity=Severity.WARNING,
                confidence=Confidence.HIGH,
                subject={"epoch": last["epoch"], "file": last["file"]},
                numbers={"underflow_share": folded},
                n=int(number(last, "modules")),
                text=f"{folded:.0%} of {last['file']} would become 0 if a program folded alpha "
                "into the weights in half precision, as converters and mergers do.",
                fix="Keep alpha as it is when converting; merge in fp32.",
                because=(weights.id,),
            )
        ]
    return []


def stuck(seen: Seen) -> Sequence[Finding]:
    """Name every stretch of checkpoints that are the same update as the one before."""
    weights = seen["weights"]
    rows = weights.table("epochs")
    found: list[Finding] = []
    stretches = itertools.groupby(rows, key=lambda row: row.get("identical_to_previous") is True)
    for same, group in stretches:
        stretch = list(group)
        if not same:
            continue
        epochs = ", ".join(str(row["epoch"]) for row in stretch)
        one = len(stretch) == 1
        found.append(
            Finding(
                code="WGT-STALE",
                severity=Severity.ERROR,
                confidence=Confidence.HIGH,
                subject={
                    "epoch": stretch[0]["epoch"],
                    "file": stretch[0]["file"],
                    "epochs": epochs,
                },
                numbers={"identical_files": float(len(stretch))},
                n=len(rows),
                text=f"Epoch{'' if one else 's'} {epochs} hold{'s' if one else ''} the same update "
                "as the epoch before: nothing was learnt in between, or the wrong file was saved.",
                fix="Look for a learning rate that reached 0, for a file copied twice, or for a "
                "trainer that saved before it stepped.",
                because=(weights.id,),
            )
        )
    return found


def blown_up(seen: Seen) -> Sequence[Finding]:
    """Name the epoch from which the weights ran away."""
    weights = seen["weights"]
    rows = weights.table("epochs")
    jump = _jump(rows)
    if jump is not None:
        row, times = jump
        growth = number(row, "growth")
        return [
            _blow_up(
                weights,
                row,
                {"times": times, "growth": growth},
                f"In epoch {row['epoch']} the weights moved {times:.0f} times as far as in any "
                f"epoch before, and their size grew {growth:.1f}-fold: the training blew up there.",
            )
        ]
    slope, last = weights.get("late_slope"), _last(weights)
    if slope is None or last is None or len(rows) < RUNAWAY_EPOCHS or slope.value <= RUNAWAY:
        return []
    return [
        _blow_up(
            weights,
            last,
            {"late_slope": slope.value},
            f"In the second half of the training the size of the weights grew with the "
            f"{slope.value:.1f}th power of the steps: each epoch adds more than the one before.",
        )
    ]


def swinging(seen: Seen) -> Sequence[Finding]:
    """Tell a training whose moves undo each other."""
    weights = seen["weights"]
    rows, last = weights.table("epochs"), _last(weights)
    if last is None or len(rows) < FEWEST_EPOCHS:
        return []
    cosines = [v for row in rows if isinstance(v := row.get("update_cosine"), float)]
    back = sum(cosine < BACKWARDS for cosine in cosines)
    efficiency, capped = weights.get("path_efficiency"), weights.get("at_cap_share")
    free = capped is None or capped.value < CAPPED_SHARE  # a cap bends every way into a curve
    short = min(EFFICIENCY, OF_CHANCE / len(rows) ** 0.5)
    crooked = free and efficiency is not None and efficiency.value < short
    turned = back >= 2 and back >= BACKWARDS_SHARE * len(cosines)
    if not (crooked or turned):
        return []
    numbers = {"turned_back": float(back)}
    numbers |= {"path_efficiency": efficiency.value} if efficiency is not None else {}
    what = f"{back} of {len(cosines)} epochs undid a part of the epoch before"
    if not turned and efficiency is not None:
        what = f"only {efficiency.value:.0%} of the way that the weights went led anywhere"
    return [
        Finding(
            code="WGT-OSCILLATE",
            severity=Severity.WARNING,
            confidence=Confidence.MEDIUM if turned and crooked else Confidence.LOW,
            subject={"epoch": last["epoch"], "file": last["file"]},
            numbers=numbers,
            n=len(rows),
            text=f"The weights swing: {what}. The learning rate is probably too high.",
            fix="Train with a lower learning rate, a larger batch, or a schedule that falls "
            "(cosine).",
            because=(weights.id,),
        )
    ]


def text_heavy(seen: Seen) -> Sequence[Finding]:
    """Tell a LoRA that changes its text encoder more than its U-Net."""
    weights = seen["weights"]
    last = _last(weights)
    share = number(last or {}, "text_encoder_share")
    if last is None or not TEXT_SHARE < share < 1.0:  # 1: nothing else was trained
        return []
    text, unet = weights.get("text_lr"), weights.get("unet_lr")
    known = text is not None and unet is not None
    if text is not None and unet is not None and text.value < unet.value:
        return []
    why = ", and its learning rate is not lower than the U-Net's" if known else ""
    return [
        Finding(
            code="WGT-TE-HEAVY",
            severity=Severity.WARNING,
            confidence=Confidence.MEDIUM if known else Confidence.LOW,
            subject={"epoch": last["epoch"], "file": last["file"]},
            numbers={"text_encoder_share": share},
            n=int(number(last, "modules")),
            text=f"{share:.0%} of the update sits in the text encoder{why}: other words are "
            "likely to be bent along with the trigger.",
            fix="Train with a text encoder learning rate of half the U-Net's or less, or with the "
            "U-Net alone.",
            because=(weights.id,),
        )
    ]


def at_the_cap(seen: Seen) -> Sequence[Finding]:
    """Tell a LoRA whose size is decided by the cap on its norms."""
    weights = seen["weights"]
    last, cap, share = _last(weights), weights.get("max_norm"), weights.get("at_cap_share")
    if last is None or cap is None or share is None or share.value < CAPPED_SHARE:
        return []
    return [
        Finding(
            code="WGT-MAXNORM-SATURATED",
            severity=Severity.INFO,
            confidence=Confidence.HIGH,
            subject={"epoch": last["epoch"], "file": last["file"]},
            numbers={"max_norm": cap.value, "at_cap_share": share.value},
            n=share.n,
            text=f"{share.value:.0%} of the modules sit at the cap on their norm, {cap.value:.3g}: "
            "there the cap decides how much is learnt, not the training.",
            fix="If likeness is missing, raise the cap (scale weight norms) or train without it; "
            "otherwise nothing.",
            because=(weights.id,),
        )
    ]


def rank_unused(seen: Seen) -> Sequence[Finding]:
    """Tell a LoRA that has far more rank than it uses."""
    weights = seen["weights"]
    last = _last(weights)
    shares = [
        number(row, "energy_rank") / number(row, "rank")
        for row in weights.table("modules")
        if number(row, "rank") >= LARGE_RANK
        and number(row, "energy_rank") > 0
        and row.get("kind", PLAIN[0]) in PLAIN
    ]
    if last is None or not shares or statistics.median(shares) >= USED_SHARE:
        return []
    share = statistics.median(shares)
    rank = number(last, "rank")
    return [
        Finding(
            code="WGT-RANK-UNUSED",
            severity=Severity.INFO,
            confidence=Confidence.LOW,
            subject={"epoch": last["epoch"], "file": last["file"]},
            numbers={"used_share": share, "rank": rank},
            n=len(shares),
            text=f"The update needs some {max(1.0, share * rank):.0f} of the {rank:.0f} directions "
            "that its rank has room for: a lower rank would hold nearly the same in a smaller "
            "file.",
            fix="Next time a lower rank with the same alpha / rank; or resize this file.",
            because=(weights.id,),
        )
    ]


def _jump(rows: Sequence[Row]) -> tuple[Row, float] | None:
    """Find the first epoch that moved far more than any before it, after a third of them."""
    longest = 0.0
    for place, row in enumerate(rows):
        rate = _rate(rows, place)
        settled = place >= FEWEST_EPOCHS - 1 and place > SETTLED * len(rows)
        if settled and 0 < longest * JUMP < rate and number(row, "growth") > BURST:
            return row, rate / longest
        longest = max(longest, rate)
    return None


def _rate(rows: Sequence[Row], place: int) -> float:
    """Length of one move per step; per epoch where steps are not known."""
    before: Row = rows[place - 1] if place else {"epoch": 0, "step": 0}
    for key in ("step", "epoch"):
        apart = number(rows[place], key) - number(before, key)
        if apart > 0 and number(rows[0], key) > 0:
            return number(rows[place], "update_norm") / apart
    return 0.0


def _blow_up(weights: Evidence, row: Row, numbers: dict[str, float], text: str) -> Finding:
    return Finding(
        code="WGT-BLOWUP",
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM,
        subject={"epoch": row["epoch"], "file": row["file"]},
        numbers=numbers,
        n=len(weights.table("epochs")),
        text=text,
        fix="Take an epoch from before. To train again: a lower learning rate, gradients clipped, "
        "a longer warm-up, or a cap on the norms.",
        because=(weights.id,),
    )


def _last(weights: Evidence) -> Row | None:
    rows = weights.table("epochs")
    return rows[-1] if rows else None


UNDERFLOW = Rule(
    code="WGT-UNDERFLOW",
    uses=("weights",),
    judge=lost_in_half,
    means="Many numbers of a file in half precision are exactly 0, because they were too small to "
    "be written. As a warning: they would become 0 if alpha were folded into them.",
    evidence="More than 10 % of the stored entries of `up` and `down` are 0 in an fp16 file, "
    "modules that were never trained left out; or 10 % more of scale x up would be.",
    sure="Certain that the numbers are 0; what they would have been cannot be known.",
    do="Save as bf16 or fp32; train with an alpha nearer to the rank, or a higher learning rate.",
)
STALE = Rule(
    code="WGT-STALE",
    uses=("weights",),
    judge=stuck,
    means="Two checkpoints in a row are the same update: nothing was learnt between them.",
    evidence="The distance of two updates is below a millionth of their size. Another way to write "
    "the same update counts as the same.",
    sure="Certain: it is in the files. The reason is a guess.",
    do="Look for a learning rate that reached 0, and for a file that was copied or saved twice.",
)
BLOWUP = Rule(
    code="WGT-BLOWUP",
    uses=("weights",),
    judge=blown_up,
    means="The weights ran away: one epoch moved far more than the others, or every epoch of the "
    "second half more than the one before.",
    evidence="Length of each move per step against the longest before it (3 times), with "
    "the whole norm growing by half; or a slope of log norm over log step above 2.",
    sure="Medium: the start of a training is left out, for warm-up and Prodigy speed up there. "
    "The thresholds are start values.",
    do="Take an earlier epoch; lower the learning rate, clip gradients, warm up longer.",
)
OSCILLATE = Rule(
    code="WGT-OSCILLATE",
    uses=("weights",),
    judge=swinging,
    means="Moves undo each other: the weights swing around a place that they do not reach.",
    evidence="Cosine of each move with the one before below -0.2, twice and in a quarter of the "
    "epochs; or, where no cap holds the norms, an end nearer to the start than a random walk's.",
    sure="Low by one of the two, medium by both; it says nothing of the pictures.",
    do="Lower the learning rate, use a larger batch or a schedule that falls.",
)
TE_HEAVY = Rule(
    code="WGT-TE-HEAVY",
    uses=("weights",),
    judge=text_heavy,
    means="More than half of the update sits in the text encoder, which was trained at least as "
    "fast as the U-Net.",
    evidence="Its share of the squared norm, and the learning rates in the metadata.",
    sure="Low where the learning rates are unknown. It is a risk (other words bend too), no fault "
    "seen in pictures: `lorascope grid RUN` shows whether it came true.",
    do="Train the text encoder at half the U-Net's learning rate or less, or not at all.",
)
MAXNORM = Rule(
    code="WGT-MAXNORM-SATURATED",
    uses=("weights",),
    judge=at_the_cap,
    means="Many modules sit exactly at the cap that the training set on their norm.",
    evidence="Norms within 1 % of the cap in the metadata (scale weight norms), or of one value "
    "at which many of them pile up.",
    sure="High; whether it does harm depends on the likeness.",
    do="Raise the cap if the subject is not reached; otherwise leave it.",
)
RANK_UNUSED = Rule(
    code="WGT-RANK-UNUSED",
    uses=("weights",),
    judge=rank_unused,
    means="A rank of 32 or more, of which the update uses less than 15 %.",
    evidence="Directions that carry the squared norm (exponential of the entropy of the squared "
    "singular values) over the rank, median of the modules.",
    sure="Low: that a lower rank trains as well is contested; the small directions may matter.",
    do="Try a lower rank next time; resizing this file to it loses little.",
)
