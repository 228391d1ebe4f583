"""Heatmaps: where in the picture does each tag act, with the LoRA and without?"""

import numpy as np
import streamlit as st

from dashboards import cells, parts, pixels
from lorascope.records import Evidence
from lorascope.tools.heatmap import diverging, viridis

SIDE = 384  # px, the difference


def epoch_of(found: Evidence) -> int:
    """Tell which epoch was looked at."""
    return int(cells.number(next(iter(found.table("tags")), {}), "epoch"))


page = parts.open_page("Heatmaps", "heatmap")
found = parts.evidence_or_stop(
    page,
    "heatmap",
    shows="For every tag of a prompt, where the model looks while it draws: base model and LoRA "
    "beside each other, on one scale.",
    why="A tag whose attention leaves its own place may bleed; a tag without any place was not "
    "learnt.",
    costs="Two pictures are drawn while their attention is written down.",
)
of_epoch = [e for e in page.run.current(parts.tool("heatmap")) if epoch_of(e) == page.epoch]
if of_epoch:
    found = of_epoch[-1]
elif epoch_of(found):
    st.info(f"These maps are of epoch {epoch_of(found)}; those of epoch {page.epoch}:")
    parts.command(f"lorascope heatmap {page.run.shell} --epoch {page.epoch}")
maps = np.asarray(found.measured.arrays.get("maps", np.zeros((0, 0, 1, 1))), dtype=float)
tags = [str(row["tag"]) for row in found.table("tags")][: maps.shape[1]]
files = {str(r["which"]): cells.file_of(page.run.path, r) for r in found.table("pictures")}
if not tags or maps.shape[0] < 2:
    st.info("This evidence holds no map. Measure again.")
    st.stop()
tag = st.pills("Tag", tags, default=tags[0], required=True, format_func=parts.plain)
share = st.slider("How much of the map covers the picture", 0.0, 1.0, 0.55, 0.05)
both = maps[:, tags.index(tag)]
high = max(float(both.max()), 1e-12)
columns = st.columns(3)
for column, values, which in zip(columns, both, ("base", "lora"), strict=False):
    with column:
        st.markdown("**Base model**" if which == "base" else "**LoRA**")
        coloured = viridis(values / high)
        under = pixels.read(files[which]) if which in files else None
        if under is None:
            under = pixels.enlarge(coloured, SIDE, SIDE)
        st.image(pixels.overlay(under, coloured, share), width="stretch")
change = both[1] - both[0]
most = max(float(np.abs(change).max()), 1e-12)
with columns[2]:
    st.markdown("**LoRA minus base model**")
    under = pixels.read(files["lora"]) if "lora" in files else None
    height, width = under.shape[:2] if under is not None else (SIDE, SIDE)
    st.image(pixels.enlarge(diverging(change / most), width, height), width="stretch")
st.caption(
    f"Both maps on one scale, from 0 to {high:.3g}; the difference from {-most:.3g} (blue, less) "
    f"to {most:.3g} (red, more), in shares of attention. n = 1 picture each."
)
with st.expander("The pictures themselves"):
    for column, (which, path) in zip(st.columns(max(2, len(files))), files.items(), strict=False):
        with column:
            parts.picture(path, which)
st.subheader("Tags")
parts.table(found.table("tags"), "tag", "change", "area_base", "area_lora")
parts.caveats(found)
parts.why(
    found,
    "The cross-attention of every layer and step is brought to one size and averaged. Attention "
    "shows where a tag is read, which is not yet proof of what it causes: bleeding is measured by "
    "changing the tag and looking at the picture.",
)
