"""The pictures that another trainer drew, on the grid page: the same grid, the same measures."""

import shlex
from collections.abc import Mapping

import streamlit as st

from dashboards import cells, grids, measures, parts, samples, strip
from lorascope.records import Evidence
from lorascope.run import PICTURES, Run

LISTED = 12  # epochs that a sentence names
PAGE = "trainer.html"  # in the run's samples


def draw(page: parts.Page) -> None:
    """Draw what the trainer drew, and say what is missing there; nothing where it drew nothing."""
    found = samples.read(page.run)
    if found.cells:
        _draw_grid(page)
    for sentence in about(page.run, found):
        st.caption(sentence)
    origin = page.run.origin.get("folder", "")
    if found.unread and origin:
        parts.command(f"lorascope ingest {shlex.quote(origin)} --out {page.run.shell}")


def about(run: Run, found: samples.Samples) -> list[str]:
    """Say in words how many samples there are, and what is not shown."""
    said = [f"n = {counted(len(found.cells))}."] if found.cells else []
    gone = sum(not cells.file_of(run.path, row).is_file() for row in found.cells)
    if gone:
        said.append(f"▲ {counted(gone)} of the list cannot be found.")
    if found.between:
        said.append(
            f"{counted(found.between)} drawn between two saved epochs: left out, no checkpoint "
            "belongs to them."
        )
    known = {c.epoch for group in strip.saved(run) for c in group}
    loose = sorted({int(cells.number(row, "epoch")) for row in found.cells} - known - {0})
    if loose:
        named = ", ".join(map(str, loose[:LISTED])) + (" …" if len(loose) > LISTED else "")
        said.append(f"Drawn and not saved, so not to be had: {named}.")
    if found.unread:
        lines = "1 line" if found.unread == 1 else f"{found.unread} lines"
        said.append(f"▲ {lines} of the list of samples cannot be read and were left out.")
    return said


def counted(count: int) -> str:
    """Count pictures in words."""
    return "1 picture" if count == 1 else f"{count} pictures"


def lacks(run: Run) -> list[str]:
    """List what the tools that measure samples need and the run does not have."""
    needed = {role for tool in measures.tools() for role in tool.reads} - {PICTURES}
    return sorted(role for role in needed if not run.has(role))


def _draw_grid(page: parts.Page) -> None:
    st.subheader(strip.BY_TRAINER)
    measured = _measured(page.run)
    pictures = grids.Pictures(key="samples", sheet=samples.sheet(page.run), measured=measured)
    rows = grids.draw(page, pictures)
    st.caption(
        "Drawn with the trainer's own settings while it trained. Click a picture to open it; "
        "arrows walk. Pictures of one column compare where their seed is the same."
    )
    grids.draw_page_file(page.run.place("samples") / PAGE)
    measures.draw_charts(page, measured, rows)
    if missing := lacks(page.run):
        st.caption(f"They cannot be measured yet: the run has no {' and no '.join(missing)}.")
    else:
        command = f"lorascope grid {page.run.shell} --pictures trainer"
        measures.draw_missing(page.run, measured, command=command)
    measures.why(measured)


def _measured(run: Run) -> Mapping[str, Evidence]:
    given = {PICTURES: run.place("drawn")} if run.has("drawn") else {}
    return measures.measured(run, given)
