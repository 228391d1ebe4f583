"""Tags: what do the captions teach?"""

import streamlit as st

from dashboards import charts, parts

MOST = 40  # bars; the table holds the rest

page = parts.open_page("Tags", "tags")
found = parts.evidence_or_stop(
    page,
    "tags",
    shows="How often each tag occurs, which tags always come together, which images lack the "
    "trigger.",
    why="What is in every image and has no tag of its own flows into the trigger; what is tagged "
    "can be changed by a prompt. Most faults of a LoRA begin in its captions.",
    costs="Seconds; needs the captions only, no model.",
)
parts.numbers(
    found,
    {
        "images": "Training",
        "tags": "Different",
        "trigger_share": "Images with the trigger",
        "trigger_first_share": "Images with the trigger first",
    },
)
parts.caveats(found)
tags, images, pairs = found.table("tags"), found.table("images"), found.table("pairs")
trained = [r for r in images if r.get("split") != "held-out"]
if tags:
    st.subheader("How often")
    charts.show(
        charts.bars(tags[:MOST], "images", "tag", title="Images", mark="trigger"),
        caption=f"{min(MOST, len(tags))} of {len(tags)} tags, n = {len(trained)} training images. "
        "The trigger in orange.",
    )
lacking = [r for r in trained if not r["has_trigger"]]
st.subheader("Images without the trigger")
if lacking:
    st.markdown(f"{len(lacking)} of {len(trained)} training images do not teach the trigger:")
    parts.table([{"image": r["image"], "caption": r["caption"]} for r in lacking])
else:
    st.markdown(f"None: all {len(trained)} training images have it.")
if pairs:
    st.subheader("Tags that come together")
    st.markdown("Tags that never part cannot be told apart by the model.")
    parts.table(pairs[:100], "tag", "other", "images", "npmi")
    st.caption("npmi: 1 always together, 0 by chance, -1 never; images: how many have both.")
with st.expander("All tags and captions"):
    parts.table(tags, "tag", "images", "share", "exposure", "position")
    parts.table(images, "image", "caption", "has_trigger", "trigger_position")
parts.why(
    found,
    "Counts are of training images; held-out images teach nothing. Exposure weighs every image "
    "with its repeats: how much of an epoch shows the tag.",
)
