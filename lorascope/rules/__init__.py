"""Every opinion lorascope holds, one file per diagnosis."""

from lorascope.rules import (
    broken,
    captions,
    capture,
    choice,
    copying,
    fidelity,
    fit,
    images,
    logs,
    strength,
    weights,
)
from lorascope.rules.rule import Rule

__all__ = ["RULES", "Rule"]

RULES = (
    broken.BROKEN,
    broken.NAN,
    broken.DEAD,
    weights.UNDERFLOW,
    weights.STALE,
    weights.BLOWUP,
    weights.OSCILLATE,
    weights.TE_HEAVY,
    weights.MAXNORM,
    weights.RANK_UNUSED,
    strength.OVERSTRONG,
    strength.SATURATED,
    fit.UNDERFIT,
    fit.UNDERFIT_RUN,
    fit.OVERFIT,
    capture.CLASS_CAPTURE,
    copying.COPY,
    copying.COLLAGE,
    *logs.RULES_OF_LOGS,
    choice.UNCERTAIN,
    choice.NO_TURN,
    choice.LEAK,
    images.NEVER_LEARNED,
    images.LEARNED_FIRST,
    images.UNLEARNED,
    captions.ACT_MISSING,
    fidelity.DETAIL_LOSS,
)
