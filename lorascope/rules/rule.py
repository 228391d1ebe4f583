"""What a rule is: a stable code, an explanation, and a function from evidence to findings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lorascope.records import Evidence, Finding, Row

Seen = Mapping[str, Evidence]  # tool name -> the evidence that counts


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One diagnosis: the tools it listens to, and what `lorascope explain CODE` says of it."""

    code: str
    uses: tuple[str, ...]
    judge: Callable[[Seen], Sequence[Finding]]
    means: str
    evidence: str
    sure: str
    do: str
    may_use: tuple[str, ...] = ()  # listened to where it was measured

    @property
    def listens(self) -> tuple[str, ...]:
        """Every tool whose evidence it is shown; it is shown no other."""
        return (*self.uses, *self.may_use)


def number(row: Row, name: str, empty: float = 0.0) -> float:
    """Give a cell's number; ``empty`` where it holds none."""
    value = row.get(name)
    return float(value) if isinstance(value, int | float) else empty


def ramp(value: float, zero: float, one: float) -> float:
    """Map a value to 0 at ``zero``, 1 at ``one``, straight in between and flat beyond."""
    return min(1.0, max(0.0, (value - zero) / (one - zero)))
