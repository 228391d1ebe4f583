"""The three things Streamlit has no widget for: the epoch strip, the grid, the slider over two.

Every text reaches the browser as data and is put there as text, never as HTML.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import streamlit as st

STATIC = Path(__file__).parent / "static"
Component = Callable[..., Any]
made: dict[str, Component] = {}


def draw(name: str, data: Mapping[str, Any], *, key: str, **listeners: Callable[[], None]) -> Any:
    """Put a component on the page.

    Parameters
    ----------
    name : str
        ``strip``, ``grid`` or ``compare``: its files in ``static/``.
    data : mapping
        What it shows.
    key : str
        Its place in the session's memory, where its answers are.
    **listeners : function
        ``on_NAME_change``: called before the next run of the page.
    """
    if name not in made:
        made[name] = st.components.v2.component(
            f"lorascope_{name}",
            html='<div class="root"></div>',
            css=(STATIC / f"{name}.css").read_text(),
            js=(STATIC / f"{name}.js").read_text(),
        )
    return made[name](data=dict(data), key=key, **listeners)
