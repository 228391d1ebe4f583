"""Grid: what does each epoch draw from the same prompts and the same noise?"""

import streamlit as st

from dashboards import cells, grids, parts, samples

MEASURES = {
    "likeness": "Likeness: 0 base model, 1 training images",
    "class_likeness": "Likeness without the trigger, beyond the base model's",
    "diversity": "Diversity, beside the base model's",
    "seed_diversity": "Diversity of one prompt's seeds, beside the base model's",
    "drift": "Drift of pictures without the trigger, beside their usual spread",
    "copy_ratio": "Distance to the nearest training image over the next; low is a copy",
    "saturation": "Saturation, 0 to 1",
}
GRID, SAMPLES = "The grid", "Drawn by the trainer"

page = parts.open_page("Grid", "grid")
top, below = st.container(), st.container()
if parts.evidence(page.run, "grid") is None:
    with below:  # before the page is stopped for want of a grid
        grids.draw_samples(page)
with top:
    found = parts.evidence_or_stop(
        page,
        "grid",
        shows="One row an epoch, one column a prompt, all from the same noise; the base model on "
        "top.",
        why="What the eye sees first: when the subject appears, when prompts stop being obeyed, "
        "when pictures begin to look like the training images.",
        costs="Every picture is drawn once; a second call draws only what is new.",
    )
seen = GRID
if samples.read(page.run).cells:
    seen = st.segmented_control(
        "Pictures", [GRID, SAMPLES], default=GRID, required=True, label_visibility="collapsed"
    )
if seen == SAMPLES:
    grids.draw_samples(page)
    st.stop()
table = found.table("cells")
drawn = cells.strengths(table)
strength = cells.usual(drawn)
if len(drawn) > 1:
    strength = st.segmented_control(
        "Strength", drawn, default=strength, required=True, format_func=lambda s: f"{s:g}"
    )
grids.draw(page, table, strength, key="grid")
st.caption(
    "Click a picture to open it. Arrows walk, space shows the base model's picture instead, "
    f"D shows the difference. {len(table)} pictures at all strengths."
)
grids.measures(page, found.table("epochs"), MEASURES, strength)
st.caption(f"n = {len(cells.columns(table))} pictures an epoch, at strength {strength:g}.")
parts.caveats(found)
parts.why(found, "Pictures of one column share their noise, so what differs is the epoch alone.")
