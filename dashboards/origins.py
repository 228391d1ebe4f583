"""What the overview says of a run that another trainer left behind: what it has, what it lacks."""

from collections.abc import Iterator

import streamlit as st

from dashboards import parts, samples, strip
from lorascope.errors import LorascopeError
from lorascope.io.checkpoints import Checkpoint
from lorascope.io.dataset_file import Dataset, read_dataset
from lorascope.records import Scalar
from lorascope.run import Run


def draw(run: Run) -> None:
    """Draw where a run came from; nothing for a training of our own."""
    if not run.origin:
        return
    st.subheader("Where it came from")
    st.markdown(parts.plain(source(run)))
    st.markdown("\n".join(f"- {parts.plain(sentence)}" for sentence in found(run)))
    lacks = list(missing(run))
    if lacks:
        st.markdown("**Missing**")
        st.markdown("\n".join(f"- {parts.plain(why)}" for why, _ in lacks))
        parts.command("\n".join(command for _, command in lacks))


def source(run: Run) -> str:
    """Say in one sentence who trained it, and where its files were taken from."""
    folder, name = run.origin.get("folder", ""), run.origin.get("name", "")
    trainer = run.origin.get("trainer", "") or "a trainer that is not known"
    if not folder:
        return "Its files were added one by one with lorascope add."
    training = f"The training {name}" if name else "A training"
    return f"{training} by {trainer}, taken over from {folder}, where nothing was changed."


def found(run: Run) -> Iterator[str]:
    """Say what the run has, a sentence each."""
    sound, torn = strip.saved(run)
    if sound:
        yield f"{_counted(len(sound), 'checkpoint')}: {_span(sound)}."
    for checkpoint in torn:
        yield f"▲ {checkpoint.path.name} cannot be opened and is left out."
    if run.base:
        yield f"Base model: {run.base}."
    dataset = _dataset(run)
    if dataset:
        trained = _counted(len(dataset.train), "training image")
        others = len(dataset.held_out), len(dataset.of("composition"))
        held = f", {others[0]} held out" if others[0] else ""
        held += f", {others[1]} of a composition held out whole" if others[1] else ""
        trigger = f"; the trigger is {dataset.trigger}" if dataset.trigger else ""
        yield f"{trained}{held}; all below {dataset.root}{trigger}."
    if logs := _logs(run):
        yield f"{_counted(logs, 'event file')} of the training log."
    drawn = samples.read(run)
    if drawn.cells:
        epochs = {row["epoch"] for row in drawn.cells}
        columns: set[tuple[Scalar, Scalar]] = {(r["prompt"], r["group"]) for r in drawn.cells}
        yield (
            f"{_counted(len(drawn.cells), 'picture')} that the trainer drew: "
            f"{_counted(len(epochs), 'epoch')}, {_counted(len(columns), 'prompt')}."
        )


def missing(run: Run) -> Iterator[tuple[str, str]]:
    """Say what the run lacks and why one wants it, each with the command that adds it."""
    dataset = _dataset(run)
    if not any(strip.saved(run)):
        yield "Checkpoints: there is nothing to judge.", f"lorascope add lora {run.shell} PATH"
    if not run.base:
        yield (
            "The base model: without it nothing can be drawn or measured beside it.",
            f"lorascope add base {run.shell} NAME_OR_PATH",
        )
    if dataset is None or not dataset.train:
        why = "The training images: without them captions and copies cannot be looked at."
        if dataset is None and run.has("dataset"):
            why = "The training images: their list, train/dataset.json, is damaged."
        yield why, f"lorascope add dataset {run.shell} FOLDER"
    if dataset is None or not dataset.held_out:
        yield (
            "Held-out images, never trained on: only they tell learning from memorising.",
            f"lorascope add dataset {run.shell} FOLDER --as held-out",
        )
    if not _logs(run) and not run.has("log"):
        yield "The training log (event files).", f"lorascope add logs {run.shell} PATH"
    if samples.read(run) == samples.Samples():
        yield (
            "Pictures that were drawn while training.",
            f"lorascope add samples {run.shell} PATH",
        )


def _dataset(run: Run) -> Dataset | None:
    try:
        return read_dataset(run.input("dataset"))
    except LorascopeError:
        return None


def _logs(run: Run) -> int:
    """Count the event files that were taken over."""
    if not run.has("events"):
        return 0
    return sum(p.is_file() for p in run.place("events").rglob("*tfevents*"))


def _span(saved: list[Checkpoint]) -> str:
    first, last = saved[0], saved[-1]
    steps = f" (step {last.step})" if last.step else ""
    if first is last:
        return f"epoch {last.epoch}{steps}"
    steps = f" (steps {first.step} to {last.step})" if last.step else ""
    return f"epochs {first.epoch} to {last.epoch}{steps}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
