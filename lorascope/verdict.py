"""Findings in, verdict out: a pure function of the stored evidence."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from lorascope.records import (
    Best,
    EpochFit,
    Evidence,
    Finding,
    Fit,
    Gap,
    Outcome,
    Severity,
    Tool,
    Verdict,
)
from lorascope.rules import RULES
from lorascope.rules.fit import Scorecard, best_epoch, epoch_fits, scorecard
from lorascope.run import PICTURES, Run
from lorascope.tools import TOOLS

NEEDED = ("loss", "grid", "tags", "vae", "weights")  # without one of these nothing passes
WANTED = {"loss": ("dataset", "base")}  # without these it only describes the log
NOTHING: Mapping[str, str] = MappingProxyType({})
WORDS = {
    Fit.UNDERFIT: "underfit",
    Fit.GOOD: "usable",
    Fit.OVERFIT: "overfit",
    Fit.UNCERTAIN: "uncertain",
}


def verdict(run: Run, *, failed: Mapping[str, str] = NOTHING) -> Verdict:
    """Judge all that a run knows.

    Parameters
    ----------
    run : Run
    failed : mapping
        Tools that were asked just now and could not answer, and why: said of the gaps.
    """
    seen = standing(run)
    findings = judge(seen)
    answered = _answered(seen)
    gaps = tuple(
        _gap(run, t, failed.get(t.name, ""))
        for t in TOOLS
        if t.name in NEEDED and t.name not in answered
    )
    card = scorecard(seen)
    broken = {f.subject.get("epoch") for f in findings if f.code == "WGT-NAN"}
    best = best_epoch(card, broken=broken) if card else None
    epochs = epoch_fits(card) if card else ()
    return Verdict(
        run=run.name,
        tier=_tier(seen, answered),
        outcome=_outcome(findings, gaps),
        summary=_summary(card, best, epochs, findings),
        best=best,
        epochs=epochs,
        findings=tuple(_named(finding, run) for finding in findings),
        not_measured=gaps,
    )


def judge(seen: Mapping[str, Evidence]) -> tuple[Finding, ...]:
    """Ask every rule whose evidence is there; each sees only what it listens to."""
    return tuple(
        finding
        for rule in RULES
        if all(tool in seen for tool in rule.uses)
        for finding in rule.judge({t: seen[t] for t in rule.listens if t in seen})
    )


def standing(run: Run) -> Mapping[str, Evidence]:
    """Choose, for every tool, the evidence that counts (`Run.chosen`).

    Of the tools that measure pictures, only what they say of the grid that counts.
    """
    seen: dict[str, Evidence] = {}
    for tool in TOOLS:
        given = run.pictures(seen.get("grid")) if PICTURES in tool.reads else {}
        if (found := run.chosen(tool, given=given)) is not None:
            seen[tool.name] = found
    return seen


def _answered(seen: Mapping[str, Evidence]) -> set[str]:
    """Name the tools that answered their question; a described log is no held-out loss."""
    silent = {"loss"} if "loss" in seen and not seen["loss"].table("epochs") else set()
    return set(seen) - silent


def _tier(seen: Mapping[str, Evidence], answered: set[str]) -> str:
    """Say what the evidence allows: D base model, C dataset, B log, A weights alone."""
    if "loss" in answered:
        return "D"
    if "tags" in answered:
        return "C"
    return "B" if "loss" in seen else "A"


def _outcome(findings: Sequence[Finding], gaps: Sequence[Gap]) -> Outcome:
    """Worst finding wins; a gap is never a pass."""
    if any(f.severity is Severity.ERROR for f in findings):
        return Outcome.FAIL
    if gaps:
        return Outcome.INCONCLUSIVE
    if any(f.severity is Severity.WARNING for f in findings):
        return Outcome.WARN
    return Outcome.PASS


def _gap(run: Run, tool: Tool, failed: str) -> Gap:
    """Say why a question has no answer, and what to type."""
    missing = [role for role in (*tool.reads, *WANTED.get(tool.name, ())) if not run.has(role)]
    if missing:
        why = f"the run has no {' and no '.join(missing)}"
        what = {"base": "NAME_OR_PATH"}.get(missing[0], "PATH")
        command = f"lorascope add {missing[0]} {run.shell} {what}"
        return Gap(tool=tool.name, why=why, command=command)
    why, _, fix = failed.partition("\nFix: ")
    command = fix if fix.startswith("lorascope ") else f"lorascope {tool.name} {run.shell}"
    return Gap(tool=tool.name, why=why or "it was not measured, or could not be", command=command)


def _named(finding: Finding, run: Run) -> Finding:
    """Put the run's own path into the command."""
    return dataclasses.replace(finding, command=finding.command.replace("RUN", run.shell))


def _summary(
    card: Scorecard | None,
    best: Best | None,
    epochs: Sequence[EpochFit],
    findings: Sequence[Finding],
) -> str:
    """Say it in three sentences: which epoch, what surrounds it, what is wrong."""
    if card is None:
        first = "Which epoch is best was not measured."
        second = "The held-out loss has to be measured first."
    else:
        first = _first_sentence(card, best)
        second = _stretches(epochs)
    errors = [f for f in findings if f.severity is Severity.ERROR]
    warnings = [f for f in findings if f.severity is Severity.WARNING]
    if errors:
        third = f"Wrong: {', '.join(sorted({f.code for f in errors}))}."
    elif warnings:
        third = f"Worth mending: {', '.join(sorted({f.code for f in warnings}))}."
    else:
        third = "No rule found a fault."
    return " ".join([first, second, third])


def _first_sentence(card: Scorecard, best: Best | None) -> str:
    if best is None and card.held_out is None:
        return "No epoch can be recommended: fewer than four images were held out."
    if best is None and len(card.epochs) < 2:
        return "There is one checkpoint: nothing to choose from."
    if best is None:
        return "No epoch can be recommended."
    others = [e for e in best.set if e != best.epoch]
    same = f"; {_spans(others)} cannot be told from it" if others else ""
    return (
        f"Epoch {best.epoch} is the one to take ({best.probability:.0%} sure, "
        f"{card.images} held-out images{same})."
    )


def _stretches(epochs: Sequence[EpochFit]) -> str:
    """Say which epochs are underfit, usable, overfit."""
    parts: list[str] = []
    for fit in (Fit.UNDERFIT, Fit.GOOD, Fit.OVERFIT, Fit.UNCERTAIN):
        here = [e.epoch for e in epochs if e.fit is fit]
        if here:
            parts.append(f"{_spans(here)} {'' if parts else 'are '}{WORDS[fit]}")
    return f"Epochs {'; '.join(parts)}."


def _spans(numbers: Sequence[int]) -> str:
    """Write 1, 2, 3, 7 as "1-3, 7"."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][-1] + 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    return ", ".join(str(s[0]) if len(s) == 1 else f"{s[0]}-{s[-1]}" for s in spans)
