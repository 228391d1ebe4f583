"""Curves over the strength, and what is said of them in words."""

from collections.abc import Sequence

import altair as alt

from dashboards import charts
from lorascope.metrics.strengths import SPOILT, USUAL
from lorascope.records import Row, Scalar

MARKS = {"best": "best", "saturation": "spoilt from", "break_even": "break-even"}


def artefact_curve(rows: Sequence[Row], derived: Row) -> alt.LayerChart:
    """Draw the artefacts against the strength: where they spoil, and the room from 1 to there."""
    column = "artefact_z"
    drawn = curve(rows, column, marked(derived, "best", "saturation"))
    limit = charts.chart([{column: SPOILT}]).mark_rule(color=charts.ORANGE, strokeWidth=1.5)
    layers = [limit.encode(y=_y(column))]
    if derived["headroom"] is not None:
        ends = {"strength": USUAL, "end": derived["saturation"], column: SPOILT}
        room = charts.chart([ends]).mark_bar(color=charts.ORANGE, opacity=0.6, height=5)
        tip = alt.value(f"headroom {float(derived['headroom'] or 0):+.2f}")
        layers.append(room.encode(x="strength:Q", x2="end:Q", y=_y(column), tooltip=tip))
    return alt.layer(drawn, *layers)


def curve(rows: Sequence[Row], column: str, marks: Sequence[Row]) -> alt.LayerChart:
    """Draw one column against the strength, with its interval, and marks that are named."""
    data = [dict(row) for row in rows if charts.is_number(row.get(column))]
    axis = alt.Axis(grid=False, values=[row["strength"] for row in data], format=".4~g")
    base = charts.chart(data).encode(x=alt.X("strength:Q", title="strength", axis=axis))
    y, low, high = _y(column), f"{column}_low", f"{column}_high"
    layers = []
    if any(charts.is_number(row.get(low)) for row in data):
        area = base.mark_area(opacity=0.18, color=charts.BLUE)
        layers.append(area.encode(y=_y(low), y2=alt.Y2(high)))
    layers.append(base.mark_line(color=charts.BLUE, strokeWidth=2).encode(y=y))
    point = base.mark_point(filled=True, size=80, opacity=1, color=charts.BLUE)
    layers.append(point.encode(y=y, tooltip=charts.tips(data)))
    for place, mark in enumerate(marks):  # one name under the other: two may lie close together
        rule = charts.chart([mark]).encode(x=alt.X("strength:Q"))
        layers.append(rule.mark_rule(color=charts.GREY, strokeDash=[4, 4]))
        text = rule.mark_text(align="right", dx=-4, color=charts.GREY, fontSize=12)
        layers.append(text.encode(y=alt.value(14 * place), text="name:N"))
    return alt.layer(*layers).properties(height=charts.WIDE)


def marked(row: Row, *wanted: str) -> list[Row]:
    """Name the strengths that are marked, of those wanted and known."""
    return [
        {"strength": row[name], "name": MARKS[name]} for name in wanted if row.get(name) is not None
    ]


def sentences(row: Row) -> list[str]:
    """Say what the curve of one epoch comes to."""
    said = []
    highest = value(row["highest"])
    if row["saturation"] is None:
        said.append(f"Up to strength {highest} its usual picture is not spoilt.")
    else:
        headroom = float(row["headroom"] or 0)
        room = f"{abs(headroom):.2f} {'above' if headroom >= 0 else 'below'} strength 1"
        said.append(
            f"Its usual picture is spoilt from strength {value(row['saturation'])} on "
            f"({between(row, 'saturation')}), {room}."
        )
    if row["best"] is not None:
        said.append(f"It works best at {value(row['best'])} ({between(row, 'best')}).")
    if row["half"] is not None:
        said.append(f"Half of what it gives at strength 1 is there at {value(row['half'])}.")
    if row["break_even"] is not None:
        said.append(
            f"From {value(row['break_even'])} on it knows the dataset's images worse than the "
            "base model does."
        )
    return said


def between(row: Row, name: str) -> str:
    """Write an interval; one that runs off the curve has no upper end."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if low is None:
        return "one item, no interval"
    if name == "saturation" and row["saturation_open"]:
        return f"95 % from {value(low)}, its end was not reached"
    return f"95 % {value(low)} to {value(high)}"


def value(one: Scalar) -> str:
    """Write a strength."""
    return f"{float(one):.2f}" if isinstance(one, int | float) else "unknown"


def _y(column: str) -> alt.Y:
    """Give a y axis with room for its labels, which may reach from hundredths to tens."""
    axis = alt.Axis(minExtent=charts.GUTTER, maxExtent=charts.GUTTER, format=".3~g", tickCount=5)
    return alt.Y(f"{column}:Q", title=None, axis=axis, scale=alt.Scale(zero=False, nice=True))
