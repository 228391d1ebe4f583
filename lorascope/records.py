"""The records everything else is made of: frozen, plain, written as JSON."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import RecordError

Scalar = str | int | float | bool | None
Inputs = Mapping[str, Path]  # role ("lora", "dataset", "base") -> file, folder or model name
Row = Mapping[str, Scalar]  # one module, image, step
Table = Sequence[Row]

SCHEMA = 1  # of run.json, of evidence and of the verdict's JSON


class Severity(StrEnum):
    """How bad a finding is."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Confidence(StrEnum):
    """How far a finding can be trusted."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Outcome(StrEnum):
    """What a verdict says."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Fit(StrEnum):
    """Where an epoch stands between too little and too much training."""

    UNDERFIT = "underfit"
    GOOD = "good"
    OVERFIT = "overfit"
    UNCERTAIN = "uncertain"


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One number, with what a reader needs in order to doubt it."""

    name: str
    value: float  # always finite; what was not measured is left out
    unit: str  # "cosine", "px", "steps"; "1" when dimensionless
    n: int  # independent items behind the value
    interval: tuple[float, float] | None = None  # 95 %, bootstrap over those items

    def __post_init__(self) -> None:
        """Refuse a number nobody could use."""
        if not math.isfinite(self.value):
            raise RecordError(f"{self.name} is {self.value}; leave out what was not measured")


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What a tool returns: numbers, the rows behind them, arrays, pictures, and its doubts."""

    numbers: tuple[Measurement, ...]
    tables: Mapping[str, Table] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Tool:
    """One question a user can ask by name."""

    name: str
    asks: str
    reads: tuple[str, ...]
    measure: Callable[..., Measured]
    may_read: tuple[str, ...] = ()  # taken into account where the run has it
    writes: tuple[str, ...] = ()  # folders of the run that it fills
    page: str = ""  # of the dashboard, where it has another name than the tool
    named: Callable[[Mapping[str, Scalar]], Mapping[str, str]] | None = None  # by options: digests
    holds: Callable[[Inputs, Measured], bool] | None = None  # is what it wrote still there?
    version: int = 1  # raised whenever the same question would give other numbers


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evidence:
    """What one tool measured, once, and from what. No thresholds and no opinions.

    Two of them are never equal: what rules make of one can be remembered by it.
    """

    tool: str
    version: int
    params: Mapping[str, Scalar]
    inputs: Mapping[str, str]  # role -> sha256 of the bytes that were read
    measured: Measured

    def __getitem__(self, name: str) -> Measurement:
        """Look a number up by name; KeyError where it was not measured."""
        found = self.get(name)
        if found is None:
            raise KeyError(name)
        return found

    def get(self, name: str) -> Measurement | None:
        """Look a number up by name; None where it was not measured."""
        return next((m for m in self.measured.numbers if m.name == name), None)

    def table(self, name: str) -> Table:
        """Give the rows behind the numbers; none where there are none."""
        return self.measured.tables.get(name, ())

    @property
    def id(self) -> str:
        """Name this evidence by its question."""
        return question_id(self.tool, self.version, self.params, self.inputs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a rule makes of evidence: an opinion, with what is needed to doubt it."""

    code: str  # stable, like a linter's: "TAG-ACT-MISSING"
    severity: Severity
    confidence: Confidence
    text: str
    n: int  # images, modules or samples behind it
    numbers: Mapping[str, float] = field(default_factory=dict)
    subject: Mapping[str, Scalar] = field(default_factory=dict)  # {"epoch": 7}, {"image": "..."}
    because: tuple[str, ...] = ()  # evidence ids
    fix: str = ""
    command: str = ""  # reproduces or mends it


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochFit:
    """Where one epoch stands."""

    epoch: int
    step: int
    file: str
    fit: Fit
    probability: float  # of that fit
    likeness: float | None = None  # 0 the base model, 1 as near as training images to each other


@dataclass(frozen=True, kw_only=True, slots=True)
class Best:
    """The epoch to take, and how sure."""

    epoch: int
    step: int
    probability: float  # that it is the best of the saved ones
    set: tuple[int, ...]  # epochs that cannot be told from it
    strength: float  # that it was measured at; others were not compared
    likeness_first: int
    flexibility_first: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """A question nobody asked yet."""

    tool: str
    why: str
    command: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The answer, the findings that decided it, and what nobody looked at."""

    run: str
    tier: str  # "A" weights only ... "E"; what the evidence allows to be said
    outcome: Outcome
    summary: str
    best: Best | None
    epochs: tuple[EpochFit, ...]
    findings: tuple[Finding, ...]
    not_measured: tuple[Gap, ...]


def question_id(
    tool: str, version: int, params: Mapping[str, Scalar], inputs: Mapping[str, str]
) -> str:
    """Hash the question, not the answer, so that asking twice is free."""
    question = [tool, version, dict(params), dict(inputs)]
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:12]


def seed_from(*parts: object) -> int:
    """Turn names and numbers into one seed: the same on every machine, whatever the order of calls.

    Returns
    -------
    int
        63 bits.
    """
    text = "\0".join(str(p) for p in parts).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def finite(values: NDArray[Any]) -> bool:
    """Tell whether an array holds numbers only."""
    return bool(np.isfinite(values).all())


def cell(value: float) -> float | None:
    """Turn a number into a table's cell; what is not finite was not measured."""
    return float(value) if math.isfinite(value) else None
