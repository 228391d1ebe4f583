"""A picture that was opened: beside the base model's, with all that is known of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from dashboards import cells, measures, parts, thumbs
from lorascope.errors import LorascopeError
from lorascope.io.dataset_file import Dataset, read_dataset
from lorascope.records import Evidence, Row
from lorascope.viewer.data import text_of
from lorascope.viewer.overlays import Overlays

NEAREST = "nearest_train"  # in the cells of the tool copies
AT = "opened_at"  # the picture that the reader walked to
STEPS = (("Up", -1, 0), ("Down", 1, 0), ("Left", 0, -1), ("Right", 0, 1))  # rows, columns
INSIDE = ("cell", "row", "column", "baseline", "shown", "shown_group", "prompt", "taken")
FIRST = ("kind", "epoch", "step", "strength", "text_strength", "group", "seed", "own seed")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Shown:
    """What can be opened: the rows and columns in sight, and what was measured of them."""

    sheet: cells.Sheet
    rows: Sequence[Row]
    columns: Sequence[Row]
    over: Overlays
    copies: Evidence | None = None  # of the tool ``copies``: its marks

    def beside(self, cell: Row, down: int, across: int) -> Row | None:
        """Find the next picture in a direction; None where there is none."""
        rows, columns = [r["row"] for r in self.rows], [c["column"] for c in self.columns]
        if cell["row"] not in rows or cell["column"] not in columns:
            return None
        row, column = rows.index(cell["row"]) + down, columns.index(cell["column"]) + across
        if not (0 <= row < len(rows) and 0 <= column < len(columns)):
            return None
        return self.sheet.placed.get((rows[row], columns[column]))


def draw(page: parts.Page, shown: Shown, cell: Row) -> None:
    """Open one picture; from there the reader can walk to others.

    Parameters
    ----------
    page : Page
        Where the reader stands.
    shown : Shown
        The pictures around it.
    cell : Row
        The picture.
    """
    st.session_state[AT] = cell["cell"]
    _draw(page, shown)


@st.dialog("A picture", width="large")
def _draw(page: parts.Page, shown: Shown) -> None:
    """Show one picture large, beside what the base model and the dataset have like it."""
    row = shown.sheet.known[st.session_state[AT]]
    _draw_steps(shown, row)
    base = shown.sheet.baseline(row)
    nearest = shown.over.texts.get(NEAREST, {}).get(_number(row), "")
    places = iter(st.columns(3 if base and nearest else 2))
    with next(places):
        picture(page, row, _name(row))
    if base:
        with next(places):
            same = "The base model, same noise" if "strength" in row else "The base model"
            picture(page, base, same)
    if nearest:
        with next(places):
            _draw_nearest(page, nearest, shown, row)
    st.markdown(parts.plain(str(row["prompt"])))
    if row.get("negative"):
        st.caption(parts.plain(f"Negative prompt: {row['negative']}"))
    if said := measures.of_cell(shown.over, row, base):
        st.markdown("\n".join(f"- {one}" for one in said))
    if text := text_of(cells.file_of(page.run.path, row)):
        st.caption("Its parameters, as A1111 and Civitai read them out of the file:")
        st.code(text, language=None, wrap_lines=True)
    with st.expander("All that is known of it", expanded=not text):
        parts.table(_facts(row, shown.over))
        parts.table(measures.every_number(shown.over, row, base))


def _draw_steps(shown: Shown, row: Row) -> None:
    """Draw the buttons that lead to the pictures around; arrow keys press them."""

    def go(to: Row) -> None:
        st.session_state[AT] = to["cell"]

    with st.container(horizontal=True):
        for key, down, across in STEPS:
            to = shown.beside(row, down, across)
            st.button(
                key,
                shortcut=key,
                disabled=to is None,
                on_click=go,
                args=(to,),
                key=f"step_{key}",
            )


def picture(page: parts.Page, row: Row, caption: str) -> None:
    """Draw one picture large; say so where it is gone, and what can be done about it."""
    path = cells.file_of(page.run.path, row)
    if "strength" in row or thumbs.url(path, size=thumbs.LARGE):
        parts.picture(path, caption)
    else:  # drawn by another program, so that no command of ours draws it again
        st.caption(parts.plain(f"The picture {path.name} is missing or damaged."))


def distance(name: str, ratio: float | None, *, mirrored: bool = False, marks: str = "") -> str:
    """Say in words how near the nearest training image is.

    Parameters
    ----------
    name : str
        Of that image.
    ratio : float or None
        Distance to it over the distance to the second nearest.
    mirrored : bool
        Whether it is nearest with left and right changed.
    marks : str
        What the same comes to elsewhere, in words: for held-out images.
    """
    said = f"The nearest training image, {name}{', mirrored' if mirrored else ''}"
    if ratio is not None:
        said += f": {ratio:.0%} as far away as the next nearest one"
    return f"{said}. {marks}".strip() if marks else f"{said}."


def _draw_nearest(page: parts.Page, name: str, shown: Shown, row: Row) -> None:
    """Draw the training image that a picture is nearest to, from where the dataset lies."""
    dataset = _dataset(page)
    path = dataset.root / name if dataset and name in {i.file for i in dataset.images} else None
    if path and thumbs.url(path, size=thumbs.LARGE):
        st.image(str(path), width="stretch")
    else:
        st.caption(parts.plain(f"The training image {name} cannot be read any more."))
    of = _number(row)
    found = (one for one in shown.over.numbers if one.key == "copy_ratio")
    ratio = next((one.values.get(of) for one in found), None)
    mirrored = shown.over.texts.get("mirrored", {}).get(of) == "yes"
    said = distance(name, ratio, mirrored=mirrored, marks=_marks(shown.copies))
    st.caption(parts.plain(said))


def _marks(copies: Evidence | None) -> str:
    usual = copies.get("copy_ratio_held_out") if copies else None
    return f"Of held-out images {usual.value:.0%} (n = {usual.n})." if usual else ""


def _dataset(page: parts.Page) -> Dataset | None:
    try:
        return read_dataset(page.run.input("dataset"))
    except LorascopeError:
        return None


def _name(row: Row) -> str:
    name, strength = cells.name_of(row), row.get("strength")
    return f"{name}, strength {strength:g}" if strength and row["epoch"] else name


def _number(row: Row) -> int:
    return int(cells.number(row, "cell"))


def _facts(row: Row, over: Overlays) -> list[Row]:
    told = {name: of.get(_number(row), "") for name, of in over.texts.items()}
    known = {k: v for k, v in {**row, **told}.items() if v not in (None, "") and k not in INSIDE}
    return [
        {"what": k.replace("_", " "), "value": f"{v:.4g}" if isinstance(v, float) else str(v)}
        for k, v in sorted(known.items(), key=lambda i: i[0] not in FIRST)
    ]
