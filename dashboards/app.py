"""Router: choose a run, then a page per tool."""

import sys
from pathlib import Path

import streamlit as st

from dashboards import components, parts
from dashboards.folders import find_runs
from lorascope.errors import LorascopeError
from lorascope.run import Run
from lorascope.tools import TOOLS

VIEWS = Path(__file__).parent / "views"
ICON = components.STATIC / "icon.png"  # drawn by a page icon, it would be fetched from afar
SECTIONS = {
    "Decide": ("overview", "grid", "loss", "stress"),
    "Understand": ("heatmap", "tags"),
    "Data": ("vae",),
    "Model": ("weights",),
}
TITLES = {"vae": "VAE", "heatmap": "Heatmaps"}
ICONS = {
    "overview": ":material/verified:",
    "grid": ":material/grid_view:",
    "loss": ":material/show_chart:",
    "stress": ":material/speed:",
    "heatmap": ":material/blur_on:",
    "tags": ":material/sell:",
    "vae": ":material/compare:",
    "weights": ":material/bar_chart:",
}
REFRESH_S = 5  # between two looks for new evidence


def main() -> None:
    """Draw the sidebar and the page that was asked for."""
    st.set_page_config(page_title="LoraScope", page_icon=str(ICON), layout="wide")
    with st.sidebar:
        path = _choose_run(find_runs([Path(a) for a in sys.argv[1:]]))
    page = st.navigation(_pages())
    if path is not None:
        with st.sidebar:
            _watch(str(path), _state(path))
    page.run()


def _choose_run(runs: list[Path]) -> Path | None:
    """Let the reader choose a run; it lives in the address, like the epoch."""
    if not runs:
        st.session_state.pop("run", None)
        return None
    labels = _labels(runs)
    asked = [st.query_params.get("run", ""), st.session_state.get("run_name", "")]
    name = next((a for a in asked if a in labels), next(iter(labels)))
    st.session_state["run_name"] = name
    if len(labels) > 1:
        st.selectbox("Run", list(labels), key="run_name", on_change=_changed)
    else:
        st.subheader(parts.plain(name))
    st.query_params["run"] = name
    st.session_state["run"] = str(labels[name])
    return labels[name]


def _changed() -> None:
    """Follow the new run; its own epoch is remembered, the old one's is not asked for."""
    st.query_params["run"] = st.session_state["run_name"]
    st.query_params.pop("epoch", None)


def _labels(runs: list[Path]) -> dict[str, Path]:
    """Name the runs by their folders, the ones that share a name by the folder above too."""
    names = [r.name for r in runs]
    return {r.name if names.count(r.name) == 1 else f"{r.parent.name}/{r.name}": r for r in runs}


def _pages() -> dict[str, list[st.Page]]:
    """Give every tool that has a view its page, the overview first."""
    listed = {name for names in SECTIONS.values() for name in names}
    more = tuple(t.name for t in TOOLS if t.name not in listed)
    sections = SECTIONS | ({"More": more} if more else {})
    pages = {
        title: [_page(n) for n in names if _view(n).is_file()] for title, names in sections.items()
    }
    return {title: found for title, found in pages.items() if found}


def _page(name: str) -> st.Page:
    title = TITLES.get(name, name.title())
    icon = ICONS.get(name)
    return st.Page(_view(name), title=title, icon=icon, default=name == "overview")


def _view(name: str) -> Path:
    return VIEWS / f"{name}.py"


def _state(path: Path) -> str:
    try:
        return parts.fingerprint(Run(path))
    except LorascopeError:
        return ""


@st.fragment(run_every=REFRESH_S)
def _watch(path: str, seen: str) -> None:
    """Draw the page anew when evidence arrives."""
    if _state(Path(path)) != seen:
        st.rerun(scope="app")
