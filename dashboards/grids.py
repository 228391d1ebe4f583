"""What the grid page draws: one component for the grid's cells and for a trainer's samples."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from dashboards import cells, components, layouts, measures, opened, parts, strip
from lorascope.records import Evidence, Row
from lorascope.tools.pictures.sets import BASE
from lorascope.viewer.axes import Kind
from lorascope.viewer.overlays import Overlay

ALL = "all"
FEW = 8  # values that stand side by side; more are a list
LEGEND = (
    "Click a picture to open it. Arrows walk, space shows the base model's picture instead, "
    "D shows the difference."
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pictures:
    """The pictures of a page, with what was measured of them."""

    key: str  # place of the answers in the session's memory
    sheet: cells.Sheet
    measured: Mapping[str, Evidence]


def draw(page: parts.Page, pictures: Pictures) -> list[Row]:
    """Draw epochs down and prompts across; follow a click on an epoch, open a clicked picture.

    Parameters
    ----------
    page : Page
        Where the reader stands.
    pictures : Pictures
        What is shown.

    Returns
    -------
    list of Row
        The rows that were chosen to be looked at, on this page of them or another.
    """
    sheet, key = pictures.sheet, pictures.key
    over = measures.overlays(pictures.measured)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        rows = _choose_rows(sheet, key)
        columns = _choose_columns(sheet, key)
        shown = _choose_part(page, layouts.pages(rows, len(columns)), key)
        overlay = _choose_overlay(over.numbers, key)
    marks = layouts.Marks(chosen=page.epoch, fits=page.verdict.epochs, overlay=overlay)
    data = layouts.layout(page.run.path, sheet, shown, columns, marks)

    def take() -> None:
        if chosen := st.session_state[key].chosen:
            strip.choose(int(chosen))

    listeners = {"on_chosen_change": take, "on_opened_change": lambda: None}
    answer = components.draw("grid", data, key=key, **listeners)
    if overlay:
        st.caption(parts.plain(measures.meaning(overlay)))
    if cell := sheet.known.get(answer.opened) if answer.opened is not None else None:
        copies = pictures.measured.get("copies")
        around = opened.Shown(sheet=sheet, rows=shown, columns=columns, over=over, copies=copies)
        opened.draw(page, around, cell)
    return rows


def draw_page_file(path: Path) -> None:
    """Offer the grid as one HTML file to keep and send; nothing where there is none yet."""
    if path.is_file():
        st.download_button(
            "Download as one HTML page",
            data=path.read_bytes,  # read when it is asked for
            file_name=path.name,
            mime="text/html",
            on_click="ignore",
            icon=":material/download:",
            help="The grid that was drawn last, in a file that needs nothing else: zoom, "
            "difference and flicker against the base model, all measures.",
        )


def _choose_rows(sheet: cells.Sheet, key: str) -> list[Row]:
    """Let the reader choose by what rows differ beside their epoch."""
    rows = list(sheet.rows)
    for kind in cells.variants(rows):
        found = cells.values(rows, kind)
        if len(found) > 1 and (value := _choose(kind, found, key)) != ALL:
            rows = cells.keep(rows, kind, value)
    return rows


def _choose(kind: Kind, found: Sequence[Hashable], key: str) -> Hashable:
    def said(value: Hashable) -> str:
        label = kind.label(value) if value != ALL else ALL
        return label.removeprefix(f"{kind.name.lower()} ")

    options, first, place = [*found, ALL], cells.usual(found), f"{key}_{kind.key}"
    if len(options) > FEW:
        return st.selectbox(
            kind.name, options, index=options.index(first), format_func=said, key=place, width=220
        )
    chosen: Hashable = st.segmented_control(
        kind.name, options, default=first, required=True, format_func=said, key=place
    )
    return chosen


def _choose_columns(sheet: cells.Sheet, key: str) -> list[Row]:
    """Let the reader choose prompts; all where none is chosen."""
    texts = list(dict.fromkeys(str(column["shown"]) for column in sheet.columns))
    if len(texts) == 1:
        return list(sheet.columns)
    chosen = st.multiselect("Prompts", texts, placeholder="All", key=f"{key}_prompts", width=320)
    return [column for column in sheet.columns if not chosen or column["shown"] in chosen]


def _choose_part(page: parts.Page, split: Sequence[list[Row]], key: str) -> list[Row]:
    """Let the reader turn pages where there are more rows than one bears."""
    if len(split) == 1:
        return split[0]
    here = [i for i, part in enumerate(split) if any(r["epoch"] == page.epoch for r in part)]
    number = st.selectbox(
        f"Rows, part of {len(split)}",
        range(len(split)),
        index=next(iter(here), 0),
        format_func=lambda number: _spans(split[number]),
        key=f"{key}_part_{page.epoch}_{len(split)}",  # another epoch opens its own part
        width=220,
    )
    return split[number]


def _spans(rows: Sequence[Row]) -> str:
    own = [row for row in rows if row["kind"] != BASE]
    first, last = cells.name_of(own[0]), cells.name_of(own[-1])
    return first if first == last else f"{first} to {last}"


def _choose_overlay(found: Sequence[Overlay], key: str) -> Overlay | None:
    """Let the reader choose a measure that is written on the pictures."""
    if not found:
        return None
    named = {one.key: one for one in found}
    chosen = st.selectbox(
        "Show",
        [None, *named],
        format_func=lambda name: named[name].name if name else "pictures alone",
        key=f"{key}_show",
        width=220,
    )
    return named.get(chosen or "")
