"""Every opinion lorascope holds, one file per diagnosis."""

from lorascope.rules import broken, captions, fidelity, fit
from lorascope.rules.rule import Rule

__all__ = ["RULES", "Rule"]

RULES = (
    broken.NAN,
    broken.DEAD,
    fit.UNDER,
    fit.UNDER_RUN,
    fit.OVER,
    captions.ACT_MISSING,
    fidelity.DETAIL_LOSS,
)
