"""The few kinds of chart that every page uses, in one set of colours and shapes."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from lorascope.records import EpochFit, Fit, Row, Scalar, Table

# Readable on white and on near-black; the last only where three are not enough.
BLUE, ORANGE, GREY, GREEN = "#3b8ad0", "#e0790b", "#8b93a0", "#2f9e83"
SHAPES = {Fit.UNDERFIT: "▽", Fit.GOOD: "●", Fit.OVERFIT: "△", Fit.UNCERTAIN: "?"}
COLOURS = {Fit.UNDERFIT: GREY, Fit.GOOD: BLUE, Fit.OVERFIT: ORANGE, Fit.UNCERTAIN: GREY}
MARKS = {
    Fit.UNDERFIT: "triangle-down",
    Fit.GOOD: "circle",
    Fit.OVERFIT: "triangle-up",
    Fit.UNCERTAIN: "cross",
}
WIDE = 260  # px, the height of a chart that stands alone
BAR, AXIS = 22, 70  # px: one bar; the axis under them
MANY_POINTS = 200  # above it a line has no points
GUTTER = 48  # px for the labels of a y axis, so that charts above each other line up


def show(drawn: Any, *, title: str = "", caption: str = "") -> None:
    """Draw a chart over the full width: above it what it is, under it how many stand behind."""
    if title:
        st.markdown(f"**{title}**")
    st.altair_chart(drawn, width="stretch")
    if caption:
        st.caption(caption)


def chart(rows: Table) -> alt.Chart:
    """Begin a chart of a table's rows."""
    return alt.Chart(pd.DataFrame([dict(row) for row in rows]))


def by_epoch(
    rows: Table,
    column: str,
    *,
    chosen: int | None,
    fits: Sequence[EpochFit] = (),
    x: str = "epoch",
    domain: tuple[float, float] | None = None,
    height: int = WIDE,
) -> alt.LayerChart:
    """Draw one column of a table against the epochs, the chosen one marked.

    Its 95 % interval is drawn too where the table has ``COLUMN_low`` and ``COLUMN_high``.

    Parameters
    ----------
    rows : table
        One row an epoch; rows without the column are left out.
    column : str
        What is drawn.
    chosen : int, optional
        The epoch that is marked.
    fits : sequence of EpochFit
        Where known, the points take the shape and colour of their epoch's fit.
    x : str
        ``epoch``, or ``step`` where it shares its axis with the log.
    domain : pair of float, optional
        The ends of that axis.
    height : int
        In px.
    """
    known = {e.epoch: e.fit.value for e in fits}
    data = [
        dict(row) | {"fit": known.get(_epoch(row), "")}
        for row in rows
        if is_number(row.get(column)) and is_number(row.get(x))
    ]
    base = chart(data).encode(x=_steps(x, data, domain))
    y, low, high = axis_y(column), f"{column}_low", f"{column}_high"
    layers: list[alt.Chart] = []
    if any(is_number(row.get(low)) for row in data):
        area = base.mark_area(opacity=0.18, color=BLUE)
        layers.append(area.encode(y=axis_y(low), y2=alt.Y2(high)))
    layers.append(base.mark_line(color=BLUE, strokeWidth=2).encode(y=y))
    point = base.mark_point(filled=True, size=90, opacity=1, color=BLUE).encode(
        y=y, tooltip=tips(data)
    )
    if known:
        point = point.encode(color=_fit_colour(), shape=_fit_shape())
    layers.append(point)
    at = next((row[x] for row in data if _epoch(row) == chosen), None)
    if at is not None:
        layers.append(marker(at, x))
    return alt.layer(*layers).properties(height=height)


def marker(at: Scalar, x: str) -> alt.Chart:
    """Draw a thin line where the chosen epoch is."""
    return chart([{x: at}]).mark_rule(color=GREY, strokeDash=[4, 4]).encode(x=alt.X(f"{x}:Q"))


def bars(rows: Table, column: str, name: str, *, title: str, mark: str = "") -> alt.Chart:
    """Draw one bar a row, longest first; the rows whose ``mark`` column is true in orange.

    Parameters
    ----------
    rows : table
        One bar each.
    column : str
        Its length.
    name : str
        The column with its name.
    title : str
        What the length is, with its unit.
    mark : str
        The column of true and false that colours it; none where empty.
    """
    colour = (
        alt.condition(f"datum['{mark}']", alt.value(ORANGE), alt.value(BLUE))
        if mark
        else alt.value(BLUE)
    )
    label = names(limit=220)
    return (
        chart(rows)
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            x=alt.X(f"{column}:Q", title=title),
            y=alt.Y(f"{name}:N", title=None, sort=None, axis=label),
            color=colour,
            tooltip=tips(rows),
        )
        .properties(height=BAR * len(rows) + AXIS)
    )


def log_curve(
    log: Table, dips: Table, domain: tuple[float, float], at: float | None
) -> alt.LayerChart:
    """Draw the logged loss as an envelope, its mean, and its dips."""
    base = chart(log)
    span = alt.Scale(domain=list(domain), nice=False)
    x = alt.X("step:Q", title=None, axis=alt.Axis(labels=False, grid=False), scale=span)
    area = base.mark_area(opacity=0.3, color=GREY)
    line = base.mark_line(color=BLUE, strokeWidth=2)
    # LOWESS, where there is one, does not lag behind the curve as a running average does.
    smooth = "lowess" if any(is_number(row.get("lowess")) for row in log) else "smooth"
    layers = [
        area.encode(x=x, y=axis_y("low"), y2="high:Q"),
        base.mark_line(color=GREY, strokeWidth=1).encode(x=x, y=axis_y("loss")),
        line.encode(x=x, y=axis_y(smooth)),
    ]
    if dips:
        marks = chart(dips)
        mark = marks.mark_point(shape="triangle-up", filled=True, size=90, color=ORANGE)
        layers.append(mark.encode(x=x, y=axis_y("loss"), tooltip=tips(dips)))
    if at is not None:
        layers.append(marker(at, "step"))
    return alt.layer(*layers).properties(height=190)


def lines(rows: Table, column: str, name: str, *, x: str = "epoch", height: int = 220) -> alt.Chart:
    """Draw one line for each name: by colour, dash and shape, so that none needs its colour.

    Parameters
    ----------
    rows : table
        One row a point.
    column : str
        The height of the point.
    name : str
        The column with the line's name.
    x : str
        ``epoch`` or ``step``.
    height : int
        In px.
    """
    order = list(dict.fromkeys(str(row[name]) for row in rows))
    scale = alt.Scale(domain=order, range=[BLUE, ORANGE, GREY, GREEN][: len(order)])
    legend = alt.Legend(orient="top", labelLimit=400)
    return (
        chart(rows)
        .mark_line(point=len(rows) < MANY_POINTS, strokeWidth=2)
        .encode(
            x=alt.X(f"{x}:Q", axis=alt.Axis(tickMinStep=1, format="d", grid=False)),
            y=axis_y(column),
            color=alt.Color(f"{name}:N", title=None, legend=legend, scale=scale, sort=order),
            strokeDash=alt.StrokeDash(f"{name}:N", legend=None, sort=order),
            tooltip=tips(rows),
        )
        .properties(height=height)
    )


def axis_y(column: str) -> alt.Y:
    """Give a y axis that takes the same room on every chart; its title stands above the chart."""
    axis = alt.Axis(minExtent=GUTTER, maxExtent=GUTTER, format=".3~g", tickCount=5)
    return alt.Y(f"{column}:Q", title=None, axis=axis, scale=alt.Scale(zero=False, nice=True))


def is_number(value: object) -> bool:
    """Tell a figure from an empty cell, which may be None or an empty text."""
    return isinstance(value, int | float)


def names(*, limit: int = 160) -> alt.Axis:
    """Give an axis of names: each one shown, none moved."""
    return alt.Axis(labelLimit=limit, labelOverlap=False, labelFlush=False, labelBound=False)


def tips(rows: Table) -> list[alt.Tooltip]:
    """List what a pointer over a mark shows: every column of its row."""
    kinds: dict[str, str] = {}
    for name in rows[0] if rows else ():
        first = next((row[name] for row in rows if row.get(name) is not None), None)
        kinds[name] = "Q" if isinstance(first, float) else "N"
    return [
        alt.Tooltip(f"{name}:{kind}", format=".3~g") if kind == "Q" else alt.Tooltip(f"{name}:N")
        for name, kind in kinds.items()
    ]


def _steps(x: str, data: Sequence[Mapping[str, Any]], domain: tuple[float, float] | None) -> alt.X:
    most = max((row[x] for row in data), default=1)
    axis = alt.Axis(tickMinStep=1, format="d", tickCount=min(20, int(most) + 1), grid=False)
    scale = (
        alt.Scale(domain=list(domain), nice=False) if domain else alt.Scale(nice=False, padding=12)
    )
    return alt.X(f"{x}:Q", title=x, axis=axis, scale=scale)


def _epoch(row: Row) -> int:
    value = row.get("epoch")
    return int(value) if isinstance(value, int | float) else -1


def _fit_colour() -> alt.Color:
    scale = alt.Scale(domain=["", *(f.value for f in COLOURS)], range=[GREY, *COLOURS.values()])
    return alt.Color("fit:N", scale=scale, legend=None)


def _fit_shape() -> alt.Shape:
    scale = alt.Scale(domain=["", *(f.value for f in MARKS)], range=["circle", *MARKS.values()])
    return alt.Shape("fit:N", scale=scale, legend=None)
