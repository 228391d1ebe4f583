"""Files of another training, which a run must not take for its own."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from lorascope.errors import BadInputError
from lorascope.io.checkpoints import Checkpoint
from lorascope.io.foreign.layouts import printable
from lorascope.io.lora_facts import LORA, Facts, facts_of
from lorascope.io.lora_file import read_metadata
from lorascope.io.train_settings import settings
from lorascope.run import Run

# What one training has one of, whichever epoch is saved.
SETTINGS = ("alpha", "unet_lr", "text_lr", "optimizer", "batch_size", "resolution", "seed")


def refuse_strangers(run: Run, saved: Sequence[Checkpoint], files: Sequence[Path]) -> None:
    """Refuse files that were not made by the training whose checkpoints a run has.

    What a file does not state is not held against it: many tools drop the metadata.

    Raises
    ------
    BadInputError
        One has another name, rank or base model; or another start of the trainer made it, which
        did not go on where the others ended.
    """
    sound = [c for c in saved if facts_of(c.path).kind == LORA]
    known = [facts_of(c.path) for c in sound]
    for file in files:
        facts = facts_of(file)
        if facts.kind != LORA:  # a pickle, which says nothing of itself
            continue
        same = next((c for c in sound if facts.epoch == facts_of(c.path).epoch), None)
        why = _differences(facts, known) or (same and _other_settings(file, same.path)) or ""
        if why:
            new = shlex.quote(str(_free(run.path)))
            raise BadInputError(
                f"{printable(file)} is of another training than {printable(run.path)}: {why}. "
                "Nothing was added.\n"
                f"Fix: give it a run of its own: lorascope add lora {new} {shlex.quote(str(file))}"
            )


def _differences(facts: Facts, known: Sequence[Facts]) -> str:
    """Say in what a file differs from all checkpoints; "" where it may be one of them."""
    found = []
    for what, own, others in (
        ("name", facts.name, {one.name for one in known}),
        ("rank", facts.rank, {one.rank for one in known}),
        ("base model", facts.base.lower(), {one.base.lower() for one in known}),
        ("base version", facts.version, {one.version for one in known}),
    ):
        stated = sorted(str(other) for other in others if other)
        if own and stated and str(own) not in stated:
            theirs = ", ".join(stated)
            found.append(f"its {what} is {printable(own)}, not {printable(theirs)}")
    if not found and _another_start(facts, known):
        found.append("another start of the trainer made it, for epochs that the run has already")
    return "; ".join(found)


def _another_start(facts: Facts, known: Sequence[Facts]) -> bool:
    """Tell whether a file's session overlaps the others': a resumed one comes before or after."""
    sessions = {one.session for one in known}
    if not facts.session or facts.session in sessions:
        return False
    for session in sessions - {""}:
        epochs = [one.epoch for one in known if one.session == session and one.epoch is not None]
        if facts.epoch is not None and epochs and min(epochs) <= facts.epoch <= max(epochs):
            return True
    return False


def _other_settings(file: Path, saved: Path) -> str:
    """Compare settings with the checkpoint of the same epoch.

    Our own trainer names no session, as it writes nothing that depends on the clock.
    """
    if facts_of(file).epoch is None:
        return ""
    one, other = (settings(read_metadata(path)) for path in (file, saved))
    for name in SETTINGS:
        own, theirs = getattr(one, name), getattr(other, name)
        if own and theirs and own != theirs:
            what = name.replace("_", " ")
            return (
                "its folders of images are others"
                if name == "folders"
                else f"its {what} is {own}, not {theirs}"
            )
    if None not in (one.seed, other.seed) and one.seed != other.seed:
        return f"its seed is {one.seed}, not {other.seed}"
    return ""


def _free(path: Path) -> Path:
    """Name a run that is not there yet, beside another."""
    number = 2
    while (free := path.with_name(f"{path.name}-{number}")).exists():
        number += 1
    return free
