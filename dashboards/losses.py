"""What the loss page draws: the log, the curves of each set, the images."""

from collections.abc import Iterator, Sequence

import streamlit as st

from dashboards import cells, charts, parts
from lorascope.records import Evidence, Row, Table

AGAINST_BASE = "Log-ratio to the base model; below 0 is better"
IMAGE_ROWS = 200
SETS = {  # column of the epochs -> the set in a legend's words
    "held_out": "held-out images",
    "composition": "held-out compositions",
    "kept": "prompts without the trigger",
    "train": "training images",
}
GAINED, LOST = ("held_out", "composition", "train"), ("kept",)
ABOUT_SETS = {  # name of a set -> what it is
    "held-out": "Held-out images, of the kind that was trained on",
    "composition": "Held-out compositions, a background or outfit that was kept out whole",
    "kept": "Prompts without the trigger, what the base model must keep",
}
CURVES = {  # kind of a logged tag, what its chart is called
    "learning rate": "Learning rates",
    "adaptive learning rate": "Adaptive learning rates (d x lr)",
    "norm": "Average norm of the modules",
    "largest norm": "Largest norm of a module",
    "scaled modules": "Modules held at the max-norm limit",
    "validation loss": "Validation loss, as the trainer logged it",
    "mean loss": "Mean loss, as the trainer logged it",
}


def draw_log(found: Evidence, domain: tuple[float, float], at: float | None) -> None:
    """Draw the training log with its dips."""
    log, dips = found.table("log"), found.table("dips")
    if log:
        charts.show(
            charts.log_curve(log, dips, domain, at),
            title="The training log: loss, mean square",
            caption=f"n = {len(log)} rows, thinned: mean and span in grey, smoothed in blue. Dips "
            f"marked △: {len(dips)}. A dip alone does not make an epoch the best.",
        )


def draw_epochs(page: parts.Page, found: Evidence, domain: tuple[float, float]) -> None:
    """Draw the held-out loss, and the sets that turn at different times."""
    epochs, images = found.table("epochs"), found.get("images")
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
    for sentence in turns(found.table("turns")):
        st.markdown(sentence)
    left, right = st.columns(2)
    gained, lost = (list(by_set(epochs, columns)) for columns in (GAINED, LOST))
    with left:
        if len({row["set"] for row in gained}) > 1:
            title = f"What is gained, each set apart. {AGAINST_BASE}"
            charts.show(charts.lines(gained, "value", "set", height=charts.WIDE), title=title)
    with right:
        if lost:
            title = "What is lost without the trigger: log-ratio, 0 is the base model"
            charts.show(charts.lines(lost, "value", "set", height=charts.WIDE), title=title)


def by_set(epochs: Table, columns: Sequence[str]) -> Iterator[Row]:
    """Write one row for each epoch and set."""
    for row in epochs:
        for column in columns:
            if charts.is_number(row.get(column)):
                yield {"epoch": row["epoch"], "set": SETS[column], "value": row[column]}


def turns(rows: Table) -> Iterator[str]:
    """Say in words where each set is lowest, and whether it turned."""
    for row in rows:
        who = f"- **{ABOUT_SETS[str(row['set'])]}** (n = {row['images']})"
        lowest = row["lowest_epoch"]
        if row["set"] == "kept":
            yield f"{who}: least changed at epoch {lowest}."
            continue
        turned = "No turn was seen."
        if row["turned"]:
            turned = f"It fell, turned at about epoch {row['turn_epoch']} and rose again."
        yield f"{who}: lowest at epoch {lowest}{_as_good(row)}. {turned}"


def _as_good(row: Row) -> str:
    """Say which epochs cannot be told from the lowest."""
    first, last = row["set_first"], row["set_last"]
    if first is None:
        return "; too few images to say which others are as good"
    if first == last:
        return "; no other epoch is as good"
    return (
        f"; what this loss alone cannot tell from it lies in {first} to {last}, and "
        f"{row['earliest_epoch']} is the earliest within one standard error"
    )


def draw_logged(found: Evidence) -> None:
    """Show everything else that the trainer logged."""
    events = [r for r in found.table("log_events") if r["event"] != "trap"]
    for row in found.table("log_events"):
        if row["event"] == "trap":
            st.markdown(f"▲ {parts.plain(str(row['text']))}")
    for kind, title in CURVES.items():
        rows = [r for r in found.table("log_curves") if (r["kind"], r["axis"]) == (kind, "step")]
        if rows:
            charts.show(charts.lines(rows, "value", "tag", x="step", height=160), title=title)
    parts.table(events, "event", "step", "epoch", "text")
    parts.table(found.table("log_tags"), "tag", "kind", "points")
    if not found.table("log_tags"):
        st.caption("The log holds the loss alone.")


def draw_images(found: Evidence, epoch: int | None) -> None:
    """Show the hardest images of one epoch, and how each was learnt."""
    here = [r for r in found.table("images") if r["epoch"] == epoch][:IMAGE_ROWS]
    parts.table(
        sorted(here, key=lambda r: cells.number(r, "value"), reverse=True),
        "image",
        "split",
        "value",
    )
    st.caption(f"Epoch {epoch}, the hardest images first. {AGAINST_BASE}.")
    learnt = sorted(found.table("trajectories"), key=lambda r: cells.number(r, "gain"))
    parts.table(learnt[:IMAGE_ROWS], "image", "split", "gain", "lowest_epoch", "half_epoch", "rise")
    if learnt:
        st.caption("How each image was learnt, the least learnt first: best gain and its epoch.")


def tabs(found: Evidence) -> Sequence[str]:
    """Name the tabs that have something to show."""
    named = ["Training against held-out", "Noise levels", "Images"] * bool(found.table("epochs"))
    named += ["By heart"] * bool(found.table("memory"))
    return [*named, "What was logged"]
