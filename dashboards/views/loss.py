"""Loss: the curve of the training log, and what every epoch does on images it never saw."""

import streamlit as st

from dashboards import cells, charts, losses, parts

page = parts.open_page("Loss", "loss")
found = parts.evidence_or_stop(
    page,
    "loss",
    shows="The loss that the training logged, with its dips; and the loss of every saved epoch on "
    "images held out of training, on the same noise and timesteps, beside the base model.",
    why="A training log cannot tell learning from memorising: it is noise about one level. The "
    "held-out loss falls while the LoRA learns and rises when it begins to memorise.",
    costs="One pass of the model over the held-out images for each epoch; minutes on a graphics "
    "card and for the embedded model.",
)
epochs = found.table("epochs")
parts.numbers(
    found,
    {
        "best_epoch": "Lowest held-out loss at epoch",
        "depth": "Depth below the base model, log-ratio",
        "rise_last": "Rise from there to the last epoch, in depths",
        "images": "Held out",
    },
)
steps = [cells.number(row, "step") for row in (*epochs, *found.table("log"))]
at = next((cells.number(r, "step") for r in epochs if r["epoch"] == page.epoch), None)
losses.draw_log(found, (0.0, max(steps, default=1.0)), at)
if epochs:
    losses.draw_epochs(page, found, (0.0, max(steps, default=1.0)))
parts.caveats(found)
names = losses.tabs(found)
for name, place in zip(names, st.tabs(names), strict=True):
    with place:
        if name == "Training against held-out":
            parts.epoch_charts(
                page,
                epochs,
                {
                    "train": "Loss on training images, log-ratio to the base model",
                    "gap": "Held-out minus training, log-ratio",
                    "rise": "Rise above the lowest epoch, in depths",
                    "p_best": "Probability to be the best epoch",
                },
            )
        elif name == "Noise levels":
            bands = [r for r in found.table("bands") if charts.is_number(r["held_out"])]
            title = f"Held-out loss by noise level. {losses.AGAINST_BASE}"
            charts.show(charts.lines(bands, "held_out", "band"), title=title)
        elif name == "Images":
            losses.draw_images(found, page.epoch)
        elif name == "By heart":
            gaps = {
                "caption_gap": "Exact captions against the same tags in another order, log-ratio",
                "augment_gap": "Exact pictures against the same ones moved a little, log-ratio",
            }
            parts.epoch_charts(page, found.table("memory"), gaps)
            st.caption("Weak evidence: what grows here may be well learnt or learnt by heart.")
        else:
            losses.draw_logged(found)
parts.why(
    found,
    "Every epoch sees the same images under the same noise at the same timesteps, so the "
    "difference is the epoch, not luck. Each value is the mean over images of the logarithm of "
    "the loss over that of the base model.",
)
