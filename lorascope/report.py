"""A verdict becomes words: for a terminal, for a machine."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lorascope.records import (
    SCHEMA,
    Evidence,
    Finding,
    Fit,
    Measurement,
    Scalar,
    Severity,
    Table,
    Verdict,
)

WIDTH = 96
SENTENCES = ("text", "sentence")
MOST_ROWS = 40  # of a table on a terminal
# What a grid's measures say in one column each: tool -> columns of its table `epochs`.
# Columns that tell rows of a grid apart, shown where they differ.
APART = ("strength", "text_strength", "base", "companions", "kind")
MEASURED: Mapping[str, tuple[str, ...]] = {
    "likeness": ("likeness",),
    "adherence": ("adherence",),
    "diversity": ("diversity",),
    "drift": ("drift", "class_likeness"),
    "copies": ("copy_ratio", "patch_share"),
    "artefacts": ("artefact_z",),
}
# Tables that a terminal shows under a tool's numbers, and the columns that say most.
SHOWN: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "loss": {
        "epochs": ("epoch", "step", "held_out", "composition", "kept", "train", "rise", "p_best"),
        "turns": ("set", "images", "turn_epoch", "turn_first", "turn_last", "lowest_epoch",
                  "earliest_epoch", "set_first", "set_last", "turned"),
        "memory": ("epoch", "caption_gap", "augment_gap"),
        "leaks": ("image", "other", "distance"),
        "dips": ("step", "epoch", "loss", "prominence", "noise", "p_noise", "saved"),
        "log_events": ("text",),
    },
    "weights": {
        "epochs": ("epoch", "step", "file", "norm", "spectral_norm", "effective_rank", "rank",
                   "update_cosine", "growth"),
        "words": ("file", "heading", "sentence"),
        "differences": ("key", "file", "value"),
        "hashes": ("file", "autov2", "autov3", "legacy"),
        "broken": ("file", "why"),
    },
    **{
        tool: {"epochs": ("epoch", *APART,
                          *(f"{name}{end}" for name in names for end in ("", "_low", "_high")))}
        for tool, names in MEASURED.items()
    },
}  # fmt: skip
SHAPES = {Fit.UNDERFIT: "▽", Fit.GOOD: "●", Fit.OVERFIT: "△", Fit.UNCERTAIN: "?"}
MARKS = {Severity.ERROR: "✗", Severity.WARNING: "▲", Severity.INFO: "·"}
ORDER = (Severity.ERROR, Severity.WARNING, Severity.INFO)


def by_weight(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings: errors first, then warnings, then what is only worth knowing."""
    return sorted(findings, key=lambda f: ORDER.index(f.severity))


def as_text(answer: Verdict) -> str:
    """Write a verdict for a terminal: sentences first, the epochs, then the findings."""
    lines = [f"{answer.run}: {answer.outcome.upper()}", *_wrapped(answer.summary), ""]
    if answer.epochs:
        lines += [_strip(answer), ""]
    if answer.findings:
        lines.append(findings_as_text(answer.findings))
    if answer.not_measured:
        lines += ["Not measured:"]
        lines += [f"  {gap.tool}: {gap.why}\n    {gap.command}" for gap in answer.not_measured]
    return "\n".join(lines).rstrip()


def as_dict(answer: Verdict) -> dict[str, Any]:
    """Write a verdict for machines: the contract of ``lorascope diagnose --json``."""
    raw = asdict(answer)
    return {
        "schema": SCHEMA,
        "run": raw["run"],
        "tier": raw["tier"],
        "outcome": raw["outcome"],
        "summary": raw["summary"],
        "best": raw["best"],
        "epochs": list(raw["epochs"]),
        "findings": list(raw["findings"]),
        "not_measured": list(raw["not_measured"]),
    }


def findings_as_text(findings: Iterable[Finding]) -> str:
    """Write findings for a terminal, the worst first."""
    return "\n".join(line for finding in by_weight(findings) for line in _finding(finding))


def evidence_as_text(evidence: Evidence) -> str:
    """Write a tool's numbers and doubts for a terminal."""
    lines = [_number(m) for m in evidence.measured.numbers]
    for name, columns in SHOWN.get(evidence.tool, {}).items():
        lines += table_as_lines(name, evidence.table(name), columns)
    lines += [f"  {line}" for caveat in evidence.measured.caveats for line in _wrapped(caveat)]
    return "\n".join(lines)


def measures_as_text(measured: Mapping[str, Evidence], *, grid: Evidence | None = None) -> str:
    """Write what was measured of pictures for a terminal: a line per row, a column per measure.

    Parameters
    ----------
    measured : mapping of str to Evidence
        By tool.
    grid : Evidence, optional
        Whose pictures they are: its table ``rows`` tells the rows apart.
    """
    facts = {row["row"]: row for row in grid.table("rows")} if grid else {}
    rows: dict[Scalar, dict[str, Scalar]] = {}
    for tool, columns in MEASURED.items():
        for row in measured[tool].table("epochs") if tool in measured else ():
            about = {**row, **facts.get(row["row"], {})}
            line = rows.setdefault(row["row"], {k: about.get(k) for k in ("epoch", *APART)})
            line |= {name: row[name] for name in columns if name in row}
    found = list(rows.values())
    apart = [name for name in APART if len({row[name] for row in found}) > 1]
    values = (name for names in MEASURED.values() for name in names)
    lines = table_as_lines("measured, row by row", found, ("epoch", *apart, *values))
    for tool, evidence in measured.items():
        for caveat in evidence.measured.caveats:
            lines += _wrapped(f"{tool}: {caveat}", "  ")
    return "\n".join(lines)


def table_as_lines(name: str, table: Table, columns: Sequence[str]) -> list[str]:
    """Write some columns of a table for a terminal; those without any value are left out.

    Parameters
    ----------
    name : str
        What stands above it.
    table : table
        At most `MOST_ROWS` are written; nothing where there are none.
    columns : sequence of str
        A table of texts becomes sentences, any other one columns as wide as they need to be.
    """
    filled = [c for c in columns if any(row.get(c) not in (None, "") for row in table)]
    rows = [[_cell(row.get(column)) for column in filled] for row in table[:MOST_ROWS]]
    if not filled:
        return []
    lines = ["", name]
    if filled[-1] in SENTENCES:
        lines += [part for row in rows if row[-1] for part in _wrapped(f"- {': '.join(row)}")]
    else:
        widths = [max(len(cell) for cell in column) for column in zip(filled, *rows, strict=True)]
        for row in (filled, *rows):
            cells = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  ".join(cells))
    if len(table) > MOST_ROWS:
        lines.append(f"... {len(table) - MOST_ROWS} more rows: --json")
    return lines


def _cell(value: Scalar) -> str:
    """Write one value short, and nothing that could steer a terminal."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))


def evidence_as_dict(evidence: Evidence) -> dict[str, Any]:
    """Write a tool's evidence for machines: numbers, tables, doubts; arrays by name alone."""
    return {
        "schema": SCHEMA,
        "id": evidence.id,
        "tool": evidence.tool,
        "version": evidence.version,
        "params": dict(evidence.params),
        "inputs": dict(evidence.inputs),
        "numbers": [asdict(m) for m in evidence.measured.numbers],
        "tables": {name: list(rows) for name, rows in evidence.measured.tables.items()},
        "arrays": sorted(evidence.measured.arrays),
        "caveats": list(evidence.measured.caveats),
    }


def _strip(answer: Verdict) -> str:
    """One mark an epoch; the pick starred, its confidence set in brackets."""
    inside = set(answer.best.set) if answer.best else set()
    cells = []
    for e in answer.epochs:
        star = "★" if answer.best and e.epoch == answer.best.epoch else ""
        cell = f"{e.epoch}{SHAPES[e.fit]}{star}"
        cells.append(f"[{cell}]" if e.epoch in inside else f" {cell} ")
    legend = "▽ underfit  ● good  △ overfit  ? uncertain  ★ pick  [ ] as good as the pick"
    return "\n".join([*_wrapped(" ".join(cells), "  "), f"  {legend}"])


def _finding(finding: Finding) -> list[str]:
    about = f"{finding.confidence} confidence, n = {finding.n}"
    lines = _wrapped(f"{MARKS[finding.severity]} {finding.code}: {finding.text} ({about})")
    if finding.fix:
        lines += _wrapped(f"Fix: {finding.fix}", "    ")
    if finding.command:
        lines.append(f"    {finding.command}")
    return lines


def _number(m: Measurement) -> str:
    unit = "" if m.unit == "1" else f" {m.unit}"
    span = f", 95 % {m.interval[0]:.3g} to {m.interval[1]:.3g}" if m.interval else ""
    return f"{m.name:<28}{m.value:>10.4g}{unit}  (n = {m.n}{span})"


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
