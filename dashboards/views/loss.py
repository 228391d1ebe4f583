"""Loss: the curve of the training log, and what every epoch does on images it never saw."""

import streamlit as st

from dashboards import cells, charts, parts

AGAINST_BASE = "Log-ratio to the base model; below 0 is better"
BANDS = "Held-out loss by noise level"
IMAGE_ROWS = 200


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
epochs, log, dips = found.table("epochs"), found.table("log"), found.table("dips")
parts.numbers(
    found,
    {
        "best_epoch": "Lowest held-out loss at epoch",
        "depth": "Depth below the base model, log-ratio",
        "rise_last": "Rise from there to the last epoch, in depths",
        "images": "Held out",
    },
)
domain = (0.0, max((cells.number(row, "step") for row in (*epochs, *log)), default=1.0))
at = next((cells.number(r, "step") for r in epochs if r["epoch"] == page.epoch), None)
if log:
    charts.show(
        charts.log_curve(log, dips, domain, at),
        title="The training log: loss, mean square",
        caption=f"n = {len(log)} rows, thinned: mean and span in grey, smoothed in blue. Dips "
        f"marked △: {len(dips)}. A dip alone does not make an epoch the best.",
    )
images = found.get("images")
count = images.n if images else 0
curve = charts.by_epoch(
    epochs,
    "held_out" if count else "train",
    chosen=page.epoch,
    fits=page.verdict.epochs,
    x="step",
    domain=domain,
)
charts.show(
    curve,
    title=f"{'Held-out' if count else 'Training'} loss of every epoch. {AGAINST_BASE}",
    caption=f"n = {count} held-out images, with the 95 % band."
    if count
    else "Nothing was held out: this curve falls even while images are learnt by heart.",
)
parts.caveats(found)
more = st.tabs(["Training against held-out", "Noise levels", "Images", "Drift"])
with more[0]:
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
with more[1]:
    if found.table("bands"):
        charts.show(charts.bands(found.table("bands")), title=f"{BANDS}. {AGAINST_BASE}")
with more[2]:
    here = [r for r in found.table("images") if r["epoch"] == page.epoch][:IMAGE_ROWS]
    parts.table(
        sorted(here, key=lambda r: cells.number(r, "value"), reverse=True),
        "image",
        "split",
        "value",
    )
    st.caption(f"Epoch {page.epoch}, the hardest images first. {AGAINST_BASE}.")
with more[3]:
    drift = {
        "drift": "Change of the prediction without the trigger, relative",
        "empty": "Change of the prediction without any caption, relative",
    }
    parts.epoch_charts(page, found.table("drift"), drift)
parts.why(
    found,
    "Every epoch sees the same images under the same noise at the same timesteps, so the "
    "difference is the epoch, not luck. Each value is the mean over images of the logarithm of "
    "the loss over that of the base model.",
)
