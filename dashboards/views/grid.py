"""Grid: what does each epoch draw from the same prompts and the same noise?"""

import streamlit as st

from dashboards import cells, drawn, grids, measures, parts, samples

GRID, SAMPLES = "The grid", "Drawn by the trainer"
PAGE = "grid.html"  # in the run's samples: the grid that was drawn last

page = parts.open_page("Grid", "grid")
top, below = st.container(), st.container()
if parts.evidence(page.run, "grid") is None:
    with below:  # before the page is stopped for want of a grid
        drawn.draw(page)
with top:
    found = parts.evidence_or_stop(
        page,
        "grid",
        shows="One row an epoch, one column a prompt, all from the same noise; the base model on "
        "top, at the bottom the same prompts with the trigger left out. Likeness, adherence, "
        "copies, artefacts and more on every picture.",
        why="What the eye sees first: when the subject appears, when prompts stop being obeyed, "
        "when pictures begin to look like the training images.",
        costs="Every picture is drawn once; a second call draws only what is new. Add --dry-run "
        "to see first what would be drawn, and how many minutes it takes.",
    )
seen = GRID
if samples.read(page.run).cells:
    seen = st.segmented_control(
        "Pictures", [GRID, SAMPLES], default=GRID, required=True, label_visibility="collapsed"
    )
if seen == SAMPLES:
    drawn.draw(page)
    st.stop()
sheet = cells.sheet_of(found)
measured = measures.measured(page.run, page.run.pictures(found))
rows = grids.draw(page, grids.Pictures(key="grid", sheet=sheet, measured=measured))
st.caption(f"{grids.LEGEND} {len(sheet.known)} pictures in all.")
grids.draw_page_file(page.run.place("samples") / PAGE)
usual = cells.at_usual(rows)
measures.draw_charts(page, measured, usual)
if measured:
    st.caption(f"n = {len(sheet.columns)} pictures an epoch{measures.settings(usual)}.")
measures.draw_trigger_off(measured, sheet.rows)
measures.draw_missing(page.run, measured)
measures.why(measured)
parts.caveats(found)
parts.why(found, "Pictures of one column share their noise, so what differs is the epoch alone.")
