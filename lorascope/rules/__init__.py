"""Every opinion lorascope holds, one file per diagnosis."""

from lorascope.rules import broken, captions, fidelity, fit
from lorascope.rules.rule import Rule

__all__ = ["RULES", "Rule"]

RULES = (
    broken.BROKEN,
    broken.NAN,
    broken.DEAD,
    fit.UNDERFIT,
    fit.UNDERFIT_RUN,
    fit.OVERFIT,
    captions.ACT_MISSING,
    fidelity.DETAIL_LOSS,
)
