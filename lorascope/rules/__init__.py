"""Every opinion lorascope holds, one file per diagnosis."""

from lorascope.rules import broken, captions, choice, fidelity, fit, images, logs, weights
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
    fit.UNDERFIT,
    fit.UNDERFIT_RUN,
    fit.OVERFIT,
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
