"""What the grid page draws: one component for the grid's cells and for a trainer's samples."""

import shlex
from collections.abc import Mapping

import streamlit as st

from dashboards import cells, components, parts, samples, strip, thumbs
from lorascope.records import Row, Table

FIRST = ("epoch", "step", "strength", "group", "seed", "own seed", "row", "column")  # of a picture
LISTED = 12  # epochs that a sentence names


def draw(page: parts.Page, table: Table, strength: float, *, key: str) -> None:
    """Draw epochs down and prompts across; follow a click on an epoch, open a clicked picture.

    Parameters
    ----------
    page : Page
        Where the reader stands.
    table : table
        The cells.
    strength : float
        Which of them are shown.
    key : str
        The place of the answers in the session's memory.
    """
    data = cells.layout(page.run.path, table, strength, chosen=page.epoch, fits=page.verdict.epochs)

    def take() -> None:
        if chosen := st.session_state[key].chosen:
            strip.choose(int(chosen))

    listeners = {"on_chosen_change": take, "on_opened_change": lambda: None}
    answer = components.draw("grid", data, key=key, **listeners)
    opened = {str(row["file"]): row for row in table}.get(str(answer.opened))
    if opened:
        at = cells.by_place(table, strength)
        base = at.get((0, cells.column_of(opened))) if opened["epoch"] else None
        open_picture(page, opened, base)


@st.dialog("A picture", width="large")
def open_picture(page: parts.Page, row: Row, base: Row | None) -> None:
    """Show one picture large, beside what the base model draws there, with all that is known."""
    left, right = st.columns(2)
    with left:
        picture(page, row, cells.name_of(int(cells.number(row, "epoch"))))
    if base:
        with right:
            same = "The base model, same noise" if "strength" in row else "The base model"
            picture(page, base, same)
    known = {k: v for k, v in row.items() if v not in (None, "") and k != "prompt"}
    with st.container() if base else right:
        st.markdown(parts.plain(str(row["prompt"])))
        parts.table(
            [
                {"what": k, "value": f"{v:.4g}" if isinstance(v, float) else str(v)}
                for k, v in sorted(known.items(), key=lambda i: i[0] not in FIRST)
            ]
        )


def picture(page: parts.Page, row: Row, caption: str) -> None:
    """Draw one picture large; say so where it is gone, and what can be done about it."""
    path = cells.file_of(page.run.path, row)
    if "strength" in row or thumbs.url(path, size=thumbs.LARGE):
        parts.picture(path, caption)
    else:  # drawn by another program, so that no command of ours draws it again
        st.caption(parts.plain(f"The picture {path.name} is missing or damaged."))


def draw_samples(page: parts.Page) -> None:
    """Draw what the trainer drew, and say what is missing there; nothing where it drew nothing."""
    found = samples.read(page.run)
    if found.cells:
        st.subheader(strip.BY_TRAINER)
        strength = cells.usual(cells.strengths(found.cells))
        draw(page, found.cells, strength, key="samples")
        st.caption(
            "Drawn with the trainer's own settings while it trained. Click a picture to open it; "
            "arrows walk. Pictures of one column compare where their seed is the same."
        )
    for sentence in about(page, found):
        st.caption(sentence)
    origin = page.run.origin.get("folder", "")
    if found.unread and origin:
        parts.command(f"lorascope ingest {shlex.quote(origin)} --out {page.run.shell}")


def about(page: parts.Page, found: samples.Samples) -> list[str]:
    """Say in words how many samples there are, and what is not shown."""
    said = [f"n = {counted(len(found.cells))}."] if found.cells else []
    gone = sum(not cells.file_of(page.run.path, row).is_file() for row in found.cells)
    if gone:
        said.append(f"▲ {counted(gone)} of the list cannot be found.")
    if found.between:
        said.append(
            f"{counted(found.between)} drawn between two saved epochs: left out, no checkpoint "
            "belongs to them."
        )
    known = {c.epoch for group in strip.saved(page.run) for c in group}
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


def measures(page: parts.Page, rows: Table, titles: Mapping[str, str], strength: float) -> None:
    """Draw the figures of every epoch at one strength."""
    fitting = [r for r in rows if not r["epoch"] or r.get("strength", strength) == strength]
    parts.epoch_charts(page, fitting, titles)
