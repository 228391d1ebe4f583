"""What every page shares: its run, the strip on top, its evidence, its words."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from dashboards import charts, strip, thumbs
from lorascope.errors import LorascopeError
from lorascope.records import Evidence, Measurement, Row, Table, Tool, Verdict
from lorascope.run import Run
from lorascope.tools import TOOLS
from lorascope.verdict import standing, verdict

SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$:&=])")
LINKS = re.compile(r"(?<=:)//|(?<=www)\.|@", re.IGNORECASE)  # what else becomes a link
JOINER = "\u2060"  # takes no room
WATCHED = (
    "run.json",
    "evidence/*/*.json",
    "lora/*",
    "train/*.*",
    "samples/*.html",
    "samples/trainer/images.csv",
)
ORDINALS = ("best_epoch", "best_step", "first_in_set")  # which one, not how many


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Where the reader stands: which run, which epoch, and what is known of it."""

    run: Run
    verdict: Verdict
    epoch: int | None


def open_page(title: str, name: str = "") -> Page:
    """Draw a page's top, the epoch strip and its heading.

    Parameters
    ----------
    title : str
        The heading.
    name : str
        The tool whose question stands under it; none where empty.
    """
    run = current_run()
    answer = _verdict(str(run.path), fingerprint(run))
    epoch = strip.draw(run, answer, lambda name: evidence(run, name))
    st.header(plain(title))
    if name:
        st.caption(plain(tool(name).asks))
    return Page(run=run, verdict=answer, epoch=epoch)


def current_run() -> Run:
    """Open the run that was chosen; say why where it cannot be."""
    if "run" not in st.session_state:
        st.info("No run is open yet. This makes one to try, in minutes and offline:")
        st.code("lorascope demo", language="sh")
        st.stop()
    try:
        return Run(Path(st.session_state["run"]))
    except LorascopeError as error:
        st.error(plain(str(error)))
        st.stop()


def evidence(run: Run, name: str) -> Evidence | None:
    """Give the evidence that the verdict stands on; without any, the newest there is."""
    found = _standing(str(run.path), fingerprint(run)).get(name)
    return found or _latest(str(run.path), name, fingerprint(run))


def evidence_or_stop(page: Page, name: str, *, shows: str, why: str, costs: str) -> Evidence:
    """Give the newest evidence of a tool; without any, teach what it is for and stop the page.

    Parameters
    ----------
    page : Page
        Where the reader stands.
    name : str
        The tool.
    shows, why, costs : str
        What the page will show, why one wants it, what it takes to measure it.
    """
    found = evidence(page.run, name)
    if found is None:
        st.subheader("Not measured yet")
        st.markdown(f"**What it shows.** {shows}\n\n**Why one wants it.** {why}\n\n{costs}")
        command(f"lorascope {name} {page.run.shell}")
        st.caption("This page fills itself as soon as the answer is there.")
        st.stop()
    if name not in _standing(str(page.run.path), fingerprint(page.run)):
        st.info("◆ The run has changed since this was measured. This measures it again:")
        command(f"lorascope {name} {page.run.shell}")
    return found


def command(text: str) -> None:
    """Show something to type, ready to be copied."""
    st.code(text, language="sh", wrap_lines=True)


def numbers(found: Evidence, labels: Mapping[str, str]) -> None:
    """Draw some of a tool's numbers side by side: each with its unit, interval and n.

    Parameters
    ----------
    found : Evidence
        What was measured.
    labels : mapping
        Name of a number to what stands above it; what was not measured is left out.
    """
    with st.container(horizontal=True, gap="large"):
        for name, label in labels.items():
            one = found.get(name)
            if one is not None:
                stands = f"n = {one.n}"
                if one.interval:
                    stands += (
                        f", 95 % {figure(one, one.interval[0])} to {figure(one, one.interval[1])}"
                    )
                st.metric(
                    label,
                    f"{figure(one, one.value)} {unit(one)}",
                    delta=stands,
                    delta_color="off",
                    delta_arrow="off",
                    width="content",
                )


def figure(m: Measurement, value: float) -> str:
    """Write a value of a measurement: shares in percent, counts whole, the rest short."""
    if m.unit == "1" and m.name.endswith(("share", "retention")):
        return f"{value:.0%}"
    return f"{value:.0f}" if value == int(value) else f"{value:.3g}"


def why(found: Evidence, explanation: str) -> None:
    """Give the reasons behind a page one click away: how it was measured, on what, its doubts."""
    with st.popover("Why? How was this measured?"):
        st.markdown(explanation)
        for doubt in found.measured.caveats:
            st.markdown(f"▲ {plain(doubt)}")
        rows: list[Row] = [
            {"what": m.name, "value": f"{figure(m, m.value)} {unit(m)}", "n": m.n}
            for m in found.measured.numbers
        ]
        table(rows)
        table([{"setting": k, "value": str(v)} for k, v in found.params.items() if v != ""])
        st.caption(f"Evidence {found.id}, version {found.version} of the tool.")


def caveats(found: Evidence) -> None:
    """Draw a tool's doubts in words, under what they doubt."""
    for doubt in found.measured.caveats:
        st.caption(f"▲ {plain(doubt)}")


def table(rows: Table, *first: str) -> None:
    """Draw rows as a table, some columns first; nothing where there are none."""
    if rows:
        names = dict.fromkeys(name for row in rows for name in row)
        order = [*(name for name in first if name in names), *(n for n in names if n not in first)]
        st.dataframe(
            [dict(row) for row in rows], column_order=order, hide_index=True, width="stretch"
        )


def picture(path: Path, caption: str) -> None:
    """Draw one picture large; say so where it is gone."""
    address = thumbs.url(path, size=thumbs.LARGE)
    if not address:
        st.caption(
            f"The picture {plain(path.name)} is missing or damaged; measure again to draw it."
        )
        return
    st.image(str(path), width="stretch")
    st.caption(plain(caption))


def epoch_charts(page: Page, rows: Table, titles: Mapping[str, str], *, per_row: int = 2) -> None:
    """Draw the columns that the table has, small and side by side, each against the epochs.

    Parameters
    ----------
    page : Page
        Where the reader stands.
    rows : table
        One row an epoch.
    titles : mapping
        Column to what it is, with its unit.
    per_row : int
        How many charts stand side by side on a wide screen.
    """
    present = [c for c in titles if any(charts.is_number(row.get(c)) for row in rows)]
    for start in range(0, len(present), per_row):
        for place, column in zip(st.columns(per_row), present[start:], strict=False):
            with place:
                drawn = charts.by_epoch(
                    rows, column, chosen=page.epoch, fits=page.verdict.epochs, height=180
                )
                charts.show(drawn, title=titles[column])


def tool(name: str) -> Tool:
    """Find a tool by its name."""
    return next(t for t in TOOLS if t.name == name)


def fingerprint(run: Run) -> str:
    """Tell one state of a run's evidence and inputs from another."""
    files = [f for of in WATCHED for f in run.path.glob(of)]
    return f"{len(files)} {max((f.stat().st_mtime_ns for f in files if f.exists()), default=0)}"


def plain(text: str) -> str:
    """Write text from outside so that Markdown leaves it alone, and makes no link of it."""
    return SPECIAL.sub(r"\\\1", LINKS.sub(lambda found: f"{JOINER}{found[0]}", text))


def unit(m: Measurement) -> str:
    """Write a measurement's unit; nothing for a bare ratio, or for a number that names an epoch."""
    return "" if m.unit == "1" or m.name in ORDINALS else m.unit


@st.cache_resource(max_entries=256, show_spinner=False)
def _latest(path: str, name: str, state: str) -> Evidence | None:
    return Run(Path(path)).latest(name)


@st.cache_resource(max_entries=32, show_spinner=False)
def _standing(path: str, state: str) -> Mapping[str, Evidence]:
    return standing(Run(Path(path)))


@st.cache_resource(max_entries=32, show_spinner=False)
def _verdict(path: str, state: str) -> Verdict:
    return verdict(Run(Path(path)))
