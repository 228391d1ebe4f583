"""Weights: are the LoRA's weights sound, and how do they grow?"""

import altair as alt
import streamlit as st

from dashboards import charts, parts
from lorascope.records import Table

TEXT_SHARE = "text_encoder_share"
GROWTH = {
    "norm": "Norm of the whole update (Frobenius)",
    "effective_rank": "Effective rank, directions (median of the modules)",
    "update_norm": "How far the weights moved in the epoch (norm)",
    "update_cosine": "Update against the one before, cosine",
    TEXT_SHARE: "Share of the text encoder in the squared norm",
    "relative_norm": "Norm against the weights that it changes",
}
MODULE_COLUMNS = ("module", "block", "part", "kind", "norm", "effective_rank", "rank")


def by_block(rows: Table) -> alt.Chart:
    """Draw the norm of each stage of the model as one row of fields, an epoch each."""
    blocks = sorted({str(r["block"]) for r in rows}, key=lambda b: (b.startswith("text"), b))
    colour = alt.Color("norm:Q", title="Norm", scale=alt.Scale(scheme="viridis"))
    return (
        charts.chart(rows)
        .mark_rect()
        .encode(
            x=alt.X("epoch:O", title="epoch", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
            y=alt.Y("block:N", title=None, sort=blocks, axis=charts.names()),
            color=colour,
            tooltip=charts.tips(rows),
        )
        .properties(height=charts.BAR * len(blocks) + charts.AXIS)
    )


page = parts.open_page("Weights", "weights")
found = parts.evidence_or_stop(
    page,
    "weights",
    shows="Size, used rank and soundness of every saved checkpoint, how they grow and where, and "
    "what the file says of its training.",
    why="Broken or dead modules, blown-up sizes and unused rank show here before a picture is "
    "drawn, for any LoRA file and without its base model.",
    costs="Seconds; needs nothing but the files.",
)
parts.numbers(
    found,
    {
        "norm": "Size of the last epoch",
        "energy_rank": "Directions that carry it",
        "effective_rank": "Rank in use",
        "rank": "Rank",
        "nan_modules": "Broken (NaN or infinity)",
        "dead_modules": "Dead",
        "at_cap_share": "Modules at the cap",
        "relative_norm": "Against the base model",
    },
)
epochs, modules, growth = found.table("epochs"), found.table("modules"), found.table("growth")
for row in found.table("broken"):
    st.warning(
        f"▲ {parts.plain(str(row['file']))} cannot be opened: {parts.plain(str(row['why']))}"
    )
for row in epochs:
    if row.get("nan_modules"):
        st.warning(f"▲ Epoch {row['epoch']}: NaN or infinity, modules: {row['nan_modules']}.")
    if row.get("identical_to_previous"):
        st.info(f"◆ Epoch {row['epoch']} is the same update as the epoch before.")
parts.caveats(found)
text = any(r.get(TEXT_SHARE) for r in epochs)  # flat at 0 where it was not trained
parts.epoch_charts(page, epochs, {k: v for k, v in GROWTH.items() if text or k != TEXT_SHARE})
if growth:
    charts.show(
        by_block(growth),
        title="Where it grows: norm of each stage, epoch by epoch",
        caption=f"n = {len({r['epoch'] for r in growth})} checkpoints.",
    )
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
        parts.table(modules, *MODULE_COLUMNS)
if relative := found.table("relative"):
    with st.expander("Against the base model's own weights"):
        parts.table(relative, "module", "block", "relative_norm", "base_cosine")
        st.caption(
            "intruders: how many of the ten strongest directions of the changed weight the base "
            "model does not have, by cosine below 0.3, 0.5, 0.7."
        )
if words := found.table("words"):
    st.subheader("What the file says of its training")
    for row in words:
        mark = "▲ " if row["heading"] == "Caution" else ""
        st.markdown(
            f"{mark}**{parts.plain(str(row['heading']))}.** {parts.plain(str(row['sentence']))}"
        )
    with st.expander("All of its metadata, and its hashes"):
        parts.table(found.table("hashes"), "file", "autov2", "autov3", "legacy")
        parts.table(found.table("metadata"), "key", "value", "theirs")
parts.why(
    found,
    "Norms are taken of scale x up @ down, so another way to write the same update gives the same "
    "figures. Effective rank is the exponential of the entropy of the singular values: 1 when one "
    "direction carries all; the directions that carry the size are counted by their squares.",
)
