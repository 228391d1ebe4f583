"""Weights: are the LoRA's weights sound, and how do they grow?"""

import altair as alt
import streamlit as st

from dashboards import charts, parts

GROWTH = {
    "norm": "Norm of the whole update (Frobenius)",
    "effective_rank": "Effective rank, directions (median of the modules)",
    "update_cosine": "Update against the one before, cosine",
    "text_encoder_share": "Share of the text encoder in the squared norm",
}

page = parts.open_page("Weights", "weights")
found = parts.evidence_or_stop(
    page,
    "weights",
    shows="Size, used rank and soundness of every saved checkpoint, and how they grow.",
    why="Broken or dead modules, blown-up sizes and unused rank show here before a picture is "
    "drawn, for any LoRA file and without its base model.",
    costs="Seconds; needs nothing but the files.",
)
parts.numbers(
    found,
    {
        "norm": "Size of the last epoch",
        "effective_rank": "Rank in use",
        "rank": "Rank",
        "nan_modules": "Broken (NaN or infinity)",
        "dead_modules": "Never trained",
    },
)
epochs, modules = found.table("epochs"), found.table("modules")
for row in epochs:
    if row.get("nan_modules"):
        st.warning(f"▲ Epoch {row['epoch']}: NaN or infinity, modules: {row['nan_modules']}.")
    if row.get("identical_to_previous"):
        st.info(f"◆ Epoch {row['epoch']} is the same update as the epoch before.")
parts.caveats(found)
parts.epoch_charts(page, epochs, GROWTH)
blocks = [dict(r) | {"place": f"{r['block']}, {r['part']}"} for r in found.table("blocks")]
if blocks:
    st.subheader("Where the update sits")
    ordered = sorted(blocks, key=lambda r: float(r["share"] or 0), reverse=True)[:24]
    charts.show(
        charts.bars(ordered, "share", "place", title="Share of the squared norm"),
        caption=f"The last epoch, n = {len(modules)} modules.",
    )
if modules:
    st.subheader("How much of the rank is used")
    chart = (
        charts.chart(modules)
        .mark_point(filled=True, opacity=0.7, size=50, color=charts.BLUE)
        .encode(
            x=alt.X("effective_rank:Q", title="Effective rank, directions"),
            y=alt.Y("block:N", title=None, sort=None, axis=charts.names()),
            tooltip=charts.tips(modules),
        )
        .properties(height=charts.BAR * len({r["block"] for r in modules}) + charts.AXIS)
    )
    charts.show(chart, caption=f"One point a module of the last epoch, n = {len(modules)}.")
    with st.expander("All modules"):
        parts.table(modules, "module", "block", "part", "norm", "effective_rank", "rank")
parts.why(
    found,
    "Norms are taken of scale x up @ down, so another way to write the same update gives the same "
    "figures. Effective rank is the exponential of the entropy of the singular values: 1 when one "
    "direction carries all.",
)
