"""Stress: how strong can the LoRA be set before pictures spoil, and where does it work best?"""

from collections.abc import Sequence

import streamlit as st

from dashboards import charts, parts
from dashboards.strengths import artefact_curve, curve, marked, sentences
from lorascope.records import Row

FORMS = {
    "sampled": "Drawn pictures",
    "x0": "Single forwards on images of the dataset (x0)",
}
GAINS = {
    "sampled": ("gain", "Likeness: 0 the base model, 1 the training images"),
    "x0": ("removed", "Error of the base model that is gone (share)"),
}
LINES = {
    "change": "Change of the prediction, over its size",
    "bend": "How far that leaves a straight line",
    "saturation": "Saturation of the colours (mean S of HSV)",
    "clipped_colour": "Clipped colours (share of the pixels)",
    "quiet_contrast": "Contrast where the picture should be quiet (grey levels)",
    "colourfulness": "Colourfulness (grey levels)",
}


def one_form(found: Sequence[Row], derived: Row, form: str) -> None:
    """Draw the curves of one epoch in one form."""
    st.markdown(" ".join(parts.plain(text) for text in sentences(derived)))
    behind = f"n = {derived['items']} {'pictures' if form == 'sampled' else 'images'}"
    left, right = st.columns(2)
    with left:
        charts.show(
            artefact_curve(found, derived),
            title="Artefacts of the usual picture (z; 3 is spoilt)",
            caption=f"Median with its 95 % interval, {behind} at each strength. The thick line is "
            "the headroom: from strength 1 to where it spoils.",
        )
    gain, title = GAINS[form]
    with right:
        if any(charts.is_number(row.get(gain)) for row in found):
            charts.show(
                curve(found, gain, marked(derived, "best", "break_even")),
                title=title,
                caption=f"Mean with its 95 % interval, {behind}.",
            )
    with st.expander("What changes in the pictures"):
        present = [c for c in LINES if any(charts.is_number(r.get(c)) for r in found)]
        for start in range(0, len(present), 2):
            for place, column in zip(st.columns(2), present[start:], strict=False):
                with place:
                    charts.show(curve(found, column, []), title=LINES[column])


page = parts.open_page("Stress", "stress")
evidence = parts.evidence_or_stop(
    page,
    "stress",
    shows="The same pictures at rising strength of the LoRA, with the strength at which they "
    "spoil, the one that works best, and the room between it and 1.",
    why="A LoRA that spoils just above 1 is overtrained or was trained too hot; one that still "
    "gains at 1.5 could be trained longer. And one learns at which strength to use it.",
    costs="Seconds to a minute; --form sampled draws pictures and takes ten times as long.",
)
curves, derived = evidence.table("curve"), evidence.table("strengths")
epochs = sorted({int(str(row["epoch"])) for row in derived})
shown = page.epoch if page.epoch in epochs else epochs[-1]
if len(epochs) > 1:
    chosen = st.selectbox("Epoch", epochs, index=epochs.index(shown))
    shown = epochs[-1] if chosen is None else chosen
elif page.epoch not in (None, shown):
    st.info(f"◆ Epoch {shown} was tested, not epoch {page.epoch}. This tests it:")
    parts.command(f"lorascope stress {page.run.shell} --epochs {page.epoch}")
forms = [form for form in FORMS if any(row["form"] == form for row in derived)]
for form in forms:
    rows = [row for row in curves if (row["epoch"], row["form"]) == (shown, form)]
    ends = next(row for row in derived if (row["epoch"], row["form"]) == (shown, form))
    st.subheader(f"{FORMS[form]}, epoch {shown}")
    one_form(rows, ends, form)
if len(epochs) > 1:
    st.subheader("Epoch by epoch")
    for form in forms:
        of_form = [row for row in derived if row["form"] == form]
        names = {"saturation": "spoilt from", "best": "works best at"}
        points: list[Row] = [
            {"epoch": row["epoch"], "strength": row[name], "what": label}
            for name, label in names.items()
            for row in of_form
            if row[name] is not None
        ]
        if points:
            charts.show(charts.lines(points, "strength", "what"), title=FORMS[form])
st.subheader("The pictures")
samples = page.run.place("samples")
parts.picture(
    samples / "stress.png",
    "Strengths down, pictures across; what was tested last. Click to enlarge."
    if "sampled" in forms
    else "Strengths down: what the model takes noised images of the dataset for, at one timestep.",
)
if len(forms) > 1:
    with st.expander("What the model takes noised images for"):
        parts.picture(samples / "stress-x0.png", "The x0 form; strengths down.")
parts.caveats(evidence)
parts.why(
    evidence,
    "Artefacts are measured by colours, noise, blocks and contrast of each picture, beside the "
    "base model's of the same noise and beside the training images; only what stands out from "
    "both counts, in usual spreads. The best strength weighs what is gained against that: "
    "a spoilt picture has lost as much as full likeness is worth. The x0 form asks the model in "
    "one forward what a noised image of the dataset looks like, and draws nothing.",
)
