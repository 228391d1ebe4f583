"""`lorascope grid`: the plan, the pictures, what they measure, and the page to look at them."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lorascope.cli import asking

if TYPE_CHECKING:
    from lorascope.records import Evidence, Row, Scalar, Tool
    from lorascope.run import Run

TRIGGER_OFF = "trigger-off"  # rows that are a repetition
PAGE = "grid.html"  # in the run's samples
EXTRA = [
    click.Option(
        ["--dry-run"], is_flag=True, help="Say what would be drawn and what it costs, and stop."
    ),
    click.Option(["--draw-only"], is_flag=True, help="Measure nothing after drawing."),
    click.Option(
        ["--gif"],
        type=click.Choice(["epoch", "strength"]),
        default=None,
        help="Also write an animation along this axis.",
    ),
]


def call(
    run: "Run",
    tool: "Tool",
    params: Mapping[str, Any],
    *,
    pictures: str,
    dry_run: bool,
    draw_only: bool,
    gif: str | None,
    as_json: bool,
) -> None:
    """Draw a grid, measure it, and write its page; or do so with a trainer's own samples."""
    if pictures != asking.GRID_PICTURES:
        if dry_run or draw_only or gif:
            raise click.UsageError(
                "--pictures measures what is there: --dry-run, --draw-only and --gif draw a grid."
            )
        _of_others(run, pictures, as_json=as_json)
        return
    params = {**params, "epochs": asking.meant_epochs(run, str(params["epochs"]))}
    if dry_run:
        from lorascope.tools.grid import plan

        places = run.inputs(tool) | {role: run.place(role) for role in tool.writes}
        click.echo(plan(places, **params))
        return
    drawn = run.measure(tool, **params)
    if int(os.environ.get("RANK", "0")):  # one of several processes measures for all
        return
    given = run.pictures(drawn)
    measured = {} if draw_only else asking.measure_pictures(run, given)
    pages = [write_page(run, drawn, measured)]
    if gif:
        pages.append(_write_gif(run, drawn, gif))
    _say(run, drawn, measured, pages, as_json=as_json)


def _of_others(run: "Run", pictures: str, *, as_json: bool) -> None:
    """Measure and show pictures that are there already: a trainer's samples, an older grid."""
    from lorascope.io.dataset_file import read_dataset
    from lorascope.run import PICTURES
    from lorascope.tools.pictures.sets import read_pictures
    from lorascope.viewer import write_viewer_of

    given = asking.pictures_of(run, pictures)
    found = read_pictures(given[PICTURES], read_dataset(run.input("dataset")))
    measured = asking.measure_pictures(run, given)
    name = f"{pictures}.html" if found.by_trainer else f"grid-{pictures}.html"
    page = write_viewer_of(found, measured, run.place("samples") / name)
    _say(run, None, measured, [page], as_json=as_json)


def write_page(run: "Run", drawn: "Evidence", measured: Mapping[str, "Evidence"]) -> Path:
    """Write the page of a grid."""
    from lorascope.viewer import write_viewer

    return write_viewer(run, drawn, measured, run.place("samples") / PAGE)


def _write_gif(run: "Run", drawn: "Evidence", axis: str) -> Path:
    """Animate the grid's rows along an axis: each frame is one row, all prompts side by side."""
    from lorascope.viewer import write_gif

    rows: dict[Scalar, list[Row]] = {}
    for cell in drawn.table("cells"):
        rows.setdefault(cell["row"], []).append(cell)
    wanted = [row for row in rows.values() if row[0]["kind"] != TRIGGER_OFF]
    steps = {row[0][axis]: row for row in wanted if _on_the_way(row[0], wanted[-1][0], axis)}
    frames = [[run.path / str(cell["file"]) for cell in row] for row in steps.values()]
    labels = [f"{axis} {value:g}" if value else "base model" for value in steps]
    return write_gif(frames, labels, run.place("samples") / f"grid-{axis}.gif")


def _on_the_way(row: "Row", last: "Row", axis: str) -> bool:
    """Tell whether a row differs from the last one along an axis alone, or is its base model's."""
    fixed = {"epoch": ("strength", "text_strength"), "strength": ("epoch",)}[axis]
    same = all(row[name] == last[name] for name in ("base", "companions"))
    return same and (not row["epoch"] or all(row[name] == last[name] for name in fixed))


def _say(
    run: "Run",
    drawn: "Evidence | None",
    measured: Mapping[str, "Evidence"],
    pages: Sequence[Path],
    *,
    as_json: bool,
) -> None:
    from lorascope import report

    if as_json:
        told = report.evidence_as_dict(drawn) if drawn else {}
        more = {name: report.evidence_as_dict(one) for name, one in measured.items()}
        click.echo(json.dumps(told | {"measures": more, "pages": [*map(str, pages)]}, indent=2))
        return
    if drawn:
        click.echo(report.evidence_as_text(drawn))
        click.echo(f"Stored in {run.evidence_file(drawn, 'json')}")
    click.echo(report.measures_as_text(measured, grid=drawn))
    for page in pages:
        click.echo(f"To look at: {page}")
