"""Grid: what does each epoch draw from the same prompts and the same noise?"""

import streamlit as st

from dashboards import cells, components, parts, strip
from lorascope.records import Row

KEY = "grid"
MEASURES = {
    "likeness": "Likeness: 0 base model, 1 training images",
    "class_likeness": "Likeness without the trigger, beyond the base model's",
    "diversity": "Diversity, beside the base model's",
    "seed_diversity": "Diversity of one prompt's seeds, beside the base model's",
    "drift": "Drift of pictures without the trigger, beside their usual spread",
    "copy_ratio": "Distance to the nearest training image over the next; low is a copy",
    "saturation": "Saturation, 0 to 1",
}
PLACE = ("epoch", "step", "strength", "prompt", "group", "seed", "row", "column")


def take() -> None:
    """Follow a click on an epoch."""
    if chosen := st.session_state[KEY].chosen:
        strip.choose(int(chosen))


@st.dialog("A picture of the grid", width="large")
def open_cell(row: Row, base: Row | None) -> None:
    """Show one cell large, beside what the base model draws there, with all that is known."""
    sides = st.columns(2 if base else 1)
    with sides[0]:
        parts.picture(
            cells.file_of(page.run.path, row), cells.name_of(int(cells.number(row, "epoch")))
        )
    if base:
        with sides[1]:
            parts.picture(cells.file_of(page.run.path, base), "The base model, same noise")
    st.markdown(parts.plain(str(row["prompt"])))
    known = {k: v for k, v in row.items() if v not in (None, "") and k != "prompt"}
    parts.table(
        [
            {"what": k, "value": f"{v:.4g}" if isinstance(v, float) else str(v)}
            for k, v in sorted(known.items(), key=lambda i: i[0] not in PLACE)
        ]
    )


page = parts.open_page("Grid", "grid")
found = parts.evidence_or_stop(
    page,
    "grid",
    shows="One row an epoch, one column a prompt, all from the same noise; the base model on top.",
    why="What the eye sees first: when the subject appears, when prompts stop being obeyed, when "
    "pictures begin to look like the training images.",
    costs="Every picture is drawn once; a second call draws only what is new.",
)
table = found.table("cells")
drawn = cells.strengths(table)
strength = cells.usual(drawn)
if len(drawn) > 1:
    strength = st.segmented_control(
        "Strength", drawn, default=strength, required=True, format_func=lambda s: f"{s:g}"
    )
data = cells.layout(page.run.path, table, strength, chosen=page.epoch, fits=page.verdict.epochs)
answer = components.draw(KEY, data, key=KEY, on_chosen_change=take, on_opened_change=lambda: None)
st.caption(
    "Click a picture to open it. Arrows walk, space shows the base model's picture instead, "
    f"D shows the difference. {len(table)} pictures at all strengths."
)
if answer.opened:
    rows = {str(row["file"]): row for row in table}
    opened = rows.get(str(answer.opened))
    if opened:
        at = cells.by_place(table, strength)
        same = [r for (e, c), r in at.items() if e == 0 and c == cells.column_of(opened)]
        open_cell(opened, same[0] if same and opened["epoch"] else None)
by_epoch = [
    r for r in found.table("epochs") if not r["epoch"] or r.get("strength", strength) == strength
]
parts.epoch_charts(page, by_epoch, MEASURES)
st.caption(f"n = {len(cells.columns(table))} pictures an epoch, at strength {strength:g}.")
parts.caveats(found)
parts.why(found, "Pictures of one column share their noise, so what differs is the epoch alone.")
