"""Asking tools of a run, from the command line: words become values, pictures are handed on."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorascope.errors import BadInputError, LorascopeError, MissingInputError, StorageError

if TYPE_CHECKING:
    from lorascope.records import Evidence, Tool
    from lorascope.run import Run

MEASURES = ("likeness", "adherence", "diversity", "drift", "copies", "artefacts")  # of pictures
GRID_PICTURES, TRAINER_PICTURES = "grid", "trainer"  # what --pictures takes beside a grid's id
AROUND_PICK = 1  # epochs on either side of the recommended ones that "pick" stands for


def load_tool(name: str) -> "Tool":
    """Load a tool by its name."""
    module = importlib.import_module(f"lorascope.tools.{name}")
    found: Tool = getattr(module, name.upper())
    return found


def ask(run: "Run", tool: "Tool", *, pictures: str = GRID_PICTURES, **params: Any) -> "Evidence":
    """Ask a tool; one that measures pictures is handed those of the grid, unless told otherwise.

    Raises
    ------
    MissingInputError
        The run lacks what the tool reads.
    """
    params = dict(params)
    if "epochs" in params:
        params["epochs"] = meant_epochs(run, str(params["epochs"]))
    given = pictures_of(run, pictures) if "pictures" in tool.reads else {}
    return run.measure(tool, given=given, **params)


def pictures_of(run: "Run", which: str) -> Mapping[str, Path]:
    """Find the pictures that are to be measured.

    Parameters
    ----------
    run : Run
    which : str
        "grid": those of the grid that counts; "trainer": what another trainer drew; else the id
        of a grid, as in the name of its file of evidence.

    Raises
    ------
    MissingInputError, BadInputError
        There are none.
    """
    from lorascope.run import PICTURES

    grid = load_tool("grid")
    if which == GRID_PICTURES:
        return run.pictures(run.chosen(grid))
    if which == TRAINER_PICTURES:
        if not run.has("drawn"):
            raise MissingInputError(
                f"{run.path} has no pictures of a trainer.\n"
                f"Fix: lorascope add samples {run.shell} PATH"
            )
        return {PICTURES: run.place("drawn")}
    known = {evidence.id: evidence for evidence in run.all(grid.name)}
    if which not in known:
        raise BadInputError(
            f"{run.path} has no grid {which}; it has {', '.join(known) or 'none'}.\n"
            f"Fix: --pictures {next(iter(known), GRID_PICTURES)}"
        )
    return run.pictures(known[which])


def said_of_pictures(run: "Run", which: str) -> str:
    """Say which pictures were measured."""
    if which == TRAINER_PICTURES:
        return f"what was drawn while training, in {run.place('drawn')}"
    found = run.chosen(load_tool("grid"))
    asked = found.id if found and which == GRID_PICTURES else which
    return f"of the grid {asked}"


def measure_pictures(run: "Run", given: Mapping[str, Path]) -> dict[str, "Evidence"]:
    """Measure pictures in every way; what cannot be measured is said and passed over."""
    from lorascope.cli.shared import remark

    found: dict[str, Evidence] = {}
    for name in MEASURES:
        try:
            found[name] = run.measure(load_tool(name), given=given)
        except StorageError:
            raise
        except LorascopeError as error:
            remark(f"{name} could not be measured: {error}")
    return found


def meant_epochs(run: "Run", text: str) -> str:
    """Put numbers in the place of "dips" (of the logged loss) and "pick" (and its neighbours).

    Raises
    ------
    MissingInputError
        What would tell them was not measured yet, or tells none.
    """
    words = {"dips": _dips, "pick": _around_pick}
    parts = [part.strip() for part in text.split(",")]
    return ",".join(words[part](run) if part in words else part for part in parts)


def _dips(run: "Run") -> str:
    loss = run.chosen(load_tool("loss"))
    rows = loss.table("dips") if loss else ()
    found = sorted({int(row["epoch"]) for row in rows if row.get("file") and row["epoch"]})
    if not found:
        why = "no saved epoch lies at a dip of its logged loss" if loss else "no loss was measured"
        raise MissingInputError(f"{run.path}: {why}.\nFix: lorascope loss {run.shell}")
    return ",".join(map(str, found))


def _around_pick(run: "Run") -> str:
    from lorascope.verdict import verdict

    best = verdict(run).best
    if best is None:
        raise MissingInputError(
            f"{run.path}: no epoch is recommended yet.\nFix: lorascope diagnose {run.shell}"
        )
    chosen = (best.epoch, *best.set)
    return f"{max(1, min(chosen) - AROUND_PICK)}-{max(chosen) + AROUND_PICK}"
