"""What was measured of pictures: numbers on single ones, means of rows, and how they were got."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import streamlit as st

from dashboards import cells, charts, parts
from lorascope.records import Evidence, Measurement, Row, Scalar, Table, Tool
from lorascope.run import PICTURES, Run
from lorascope.tools import TOOLS
from lorascope.tools.pictures.sets import LORA, TRIGGER_OFF
from lorascope.viewer.overlays import MEANINGS, Overlay, Overlays, overlays_of

FIRST = (
    "likeness", "adherence", "copy_ratio", "source_share", "artefact_z", "moved", "apart"
)  # fmt: skip  # of the numbers that are laid over pictures
CHARTS: Mapping[str, Mapping[str, str]] = {
    "likeness": {"likeness": "Likeness: 0 base model, 1 training images"},
    "adherence": {"adherence": "Adherence to the prompt"},
    "diversity": {
        "diversity": "Diversity, beside the base model's",
        "seed_diversity": "Diversity of one prompt's seeds, beside the base model's",
    },
    "drift": {
        "class_likeness": "Likeness without the trigger, beyond the base model's",
        "unrelated_drift": "Drift of pictures that have nothing to do with the subject",
    },
    "copies": {
        "copy_ratio": "Distance to the nearest training image over the next; low is a copy",
    },
    "artefacts": {"artefact_z": "Artefacts, in spreads of base model and training images"},
}
ENDS = ("", "_low", "_high")  # of the columns of a mean
FACTS = (
    "row", "kind", "epoch", "step", "strength", "text_strength", "pictures", "counted", "unrelated"
)  # fmt: skip  # which row, not what was measured of it


def tools() -> list[Tool]:
    """List the tools that measure pictures."""
    return [tool for tool in TOOLS if PICTURES in tool.reads and tool.page == "grid"]


def measured(run: Run, given: Mapping[str, Path]) -> Mapping[str, Evidence]:
    """Find what was measured of some pictures, as they and the dataset are now.

    Parameters
    ----------
    run : Run
    given : mapping
        Which pictures: ``run.pictures(grid)``, or the folder of a trainer's samples.
    """
    if PICTURES not in given:
        return {}
    return _measured(str(run.path), str(given[PICTURES]), parts.fingerprint(run))


@st.cache_resource(max_entries=32, show_spinner=False)
def _measured(path: str, pictures: str, state: str) -> Mapping[str, Evidence]:
    run, given = Run(Path(path)), {PICTURES: Path(pictures)}
    found = {tool.name: run.chosen(tool, given=given) for tool in tools()}
    return {name: evidence for name, evidence in found.items() if evidence is not None}


def overlays(found: Mapping[str, Evidence]) -> Overlays:
    """Arrange all that was measured to be laid over the pictures, the usual ones first."""
    return _overlays(tuple(found), tuple(found.values()))


@functools.lru_cache(maxsize=8)
def _overlays(names: tuple[str, ...], evidence: tuple[Evidence, ...]) -> Overlays:
    every = overlays_of(dict(zip(names, evidence, strict=True)), ())
    ordered = sorted(every.numbers, key=lambda one: _rank(one.key))
    return Overlays(numbers=tuple(ordered), texts=every.texts, caveats=every.caveats)


def of_cell(over: Overlays, cell: Row, base: Row | None) -> list[str]:
    """Say the main numbers of one picture in words, beside those of the base model's picture.

    Returns
    -------
    list of str
        Markdown, a sentence each.
    """
    said = []
    for one in over.numbers:
        value, usual = _value(one, cell), _value(one, base)
        if value is None or one.key not in FIRST:
            continue
        beside = "" if usual is None else f" (base model {figure(usual)})"
        text = parts.plain(f"{beside}: {_explained(one)}.")
        said.append(f"**{parts.plain(one.name)} {parts.plain(figure(value))}**{text}")
    return said


def every_number(over: Overlays, cell: Row, base: Row | None) -> list[Row]:
    """List every number of one picture."""
    return [
        {
            "measure": one.name,
            "picture": _value(one, cell),
            "base model": _value(one, base),
            "what it is": one.meaning,
        }
        for one in over.numbers
        if _value(one, cell) is not None
    ]


def figure(value: float) -> str:
    """Write a number of a picture."""
    return f"{value:.3g}"


def draw_charts(page: parts.Page, found: Mapping[str, Evidence], rows: Sequence[Row]) -> None:
    """Draw the means of rows against the epochs: the main ones, the rest one click away."""
    of_tools = {name: _of_rows(evidence.table("epochs"), rows) for name, evidence in found.items()}
    titles = {column: title for of in CHARTS.values() for column, title in of.items()}
    parts.epoch_charts(page, _joined(of_tools), titles)
    more = {
        (name, column): title
        for name, table in of_tools.items()
        for column, title in _other_columns(table, CHARTS.get(name, {})).items()
    }
    if not more:
        return
    chosen = st.selectbox(
        "Another measure",
        [None, *more],
        format_func=lambda one: f"{one[0]}: {_words(one[1])}" if one else "None",
        key="another_measure",
        width=320,
    )
    if chosen:
        parts.epoch_charts(page, of_tools[chosen[0]], {chosen[1]: more[chosen]})


def draw_trigger_off(found: Mapping[str, Evidence], rows: Sequence[Row]) -> None:
    """Compare the rows without the trigger with the same epoch and strength with it."""
    rows = _beside_trigger_off(found, rows)
    if rows:
        st.markdown("**With the trigger left out**")
        parts.table(rows)
        st.caption("Means over the pictures of a row, beside the same row with the trigger.")


def draw_missing(run: Run, found: Mapping[str, Evidence], *, command: str = "") -> None:
    """Say what nobody measured of these pictures, and what does.

    Parameters
    ----------
    run : Run
    found : mapping
        What was measured, by tool.
    command : str
        Measures all of it; where empty, each tool has its own.
    """
    missing = [tool.name for tool in tools() if tool.name not in found]
    if missing:
        st.caption(f"Not measured of these pictures: {', '.join(missing)}.")
        parts.command(command or "\n".join(f"lorascope {one} {run.shell}" for one in missing))


def why(found: Mapping[str, Evidence]) -> None:
    """Give how every number was got, its doubts and what it is to be compared with."""
    if not found:
        return
    with st.popover("Why? How were these measured?"):
        asked = {tool.name: tool.asks for tool in tools()}
        for name, evidence in found.items():
            st.markdown(f"**{name}** {parts.plain(asked.get(name, ''))}")
            for doubt in evidence.measured.caveats:
                st.markdown(f"▲ {parts.plain(doubt)}")
            parts.table([_number(one) for one in evidence.measured.numbers])
            settings = ", ".join(f"{k} {v}" for k, v in evidence.params.items() if v != "")
            about = f"Evidence {evidence.id}, version {evidence.version} of the tool"
            st.caption(parts.plain(f"{about}; {settings}." if settings else f"{about}."))


def settings(rows: Sequence[Row]) -> str:
    """Say at which strength the rows are that the charts show."""
    found = {row["strength"]: None for row in rows if row["kind"] == LORA and "strength" in row}
    return f", at strength {' and '.join(f'{s:g}' for s in found)}" if found else ""


def meaning(overlay: Overlay) -> str:
    """Say what the numbers on the pictures are."""
    return f"{overlay.name}: {_explained(overlay)}."


def _explained(overlay: Overlay) -> str:
    return "; ".join([overlay.meaning or "as measured", *overlay.numbers])


def _value(overlay: Overlay, cell: Row | None) -> float | None:
    number = cell["cell"] if cell else None
    return overlay.values.get(number) if isinstance(number, int) else None


def _rank(key: str) -> int:
    return FIRST.index(key) if key in FIRST else len(FIRST)


def _of_rows(table: Table, rows: Sequence[Row]) -> Table:
    """Keep what is said of some rows, with the pictures' trigger."""
    shown = {row["row"] for row in rows if row["kind"] != TRIGGER_OFF}
    return [row for row in table if row["row"] in shown]


def _joined(of_tools: Mapping[str, Table]) -> Table:
    """Put what the tools say of one row beside each other, the main columns alone."""
    rows: dict[Scalar, dict[str, Scalar]] = {}
    for name, table in of_tools.items():
        kept = {f"{column}{end}" for column in CHARTS.get(name, {}) for end in ENDS}
        for row in table:
            own = {k: v for k, v in row.items() if k in FACTS[:-2] or k in kept}
            rows.setdefault(row["row"], {}).update(own)
    return list(rows.values())


def _other_columns(table: Table, main: Iterable[str]) -> dict[str, str]:
    """Name the columns that the main charts do not show."""
    names = dict.fromkeys(name for row in table for name in row)
    ends = {f"{name}{end}" for name in names for end in ENDS[1:]}
    rest = [name for name in names if name not in {*FACTS, *main, *ends}]
    return {name: _titled(name) for name in rest if _has_numbers(table, name)}


def _has_numbers(table: Table, name: str) -> bool:
    return any(charts.is_number(row.get(name)) for row in table)


def _titled(name: str) -> str:
    known = MEANINGS.get(name, ("", ""))[1]
    words = _words(name).capitalize()
    return parts.plain(f"{words}: {known}" if known else words)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _beside_trigger_off(found: Mapping[str, Evidence], rows: Sequence[Row]) -> list[Row]:
    """Put each row without the trigger beside its like, one measure a line."""
    alike = {_like(row): row["row"] for row in rows if row["kind"] != TRIGGER_OFF}
    off = [row for row in rows if row["kind"] == TRIGGER_OFF and row["epoch"]]
    pairs = [(row, alike.get(_like(row))) for row in off]
    lines: list[Row] = []
    for name, titles in CHARTS.items():
        means = {row["row"]: row for row in found[name].table("epochs")} if name in found else {}
        lines += [
            {
                "epoch": row["epoch"],
                "measure": title,
                "trigger left out": means[row["row"]][column],
                "with trigger": means.get(like, {}).get(column),
            }
            for row, like in pairs
            for column, title in titles.items()
            if charts.is_number(means.get(row["row"], {}).get(column))
        ]
    return lines


def _like(row: Row) -> tuple[object, ...]:
    """Tell rows apart by all but the trigger."""
    return tuple(row.get(name) for name in ("epoch", *cells.CHOSEN))


def _number(one: Measurement) -> Row:
    unit = parts.unit(one)
    return {
        "what": _words(one.name),
        "value": f"{parts.figure(one, one.value)} {unit}".strip(),
        "n": one.n,
        "95 %": (
            f"{parts.figure(one, one.interval[0])} to {parts.figure(one, one.interval[1])}"
            if one.interval
            else ""
        ),
    }
