"""The saved states of one training: which file is which epoch and step, and which can be opened."""

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorascope.errors import BadInputError, LorascopeError, MissingInputError
from lorascope.io.lora_file import read_metadata

NUMBERED = re.compile(r"^(?P<name>.+?)-(?P<epoch>\d{4,})$")
STEPPED = re.compile(r"^(?P<name>.+?)-step(?P<step>\d+)$")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One saved state of a training."""

    path: Path
    epoch: int
    step: int  # 0 where the file does not say


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """List the saved states of a training, first to last.

    The epoch and the step come from the metadata (``ss_epoch``, ``ss_steps``), else from the name:
    ``NAME-000004.safetensors`` is epoch 4, ``NAME.safetensors`` is the last. A state saved twice,
    as the last epoch often is, counts once. A damaged file is listed by its name.

    Parameters
    ----------
    folder : Path
        A folder of .safetensors files, or one such file.

    Raises
    ------
    MissingInputError
        There is no such folder or file.
    """
    folder = Path(folder)
    if not folder.exists():
        raise MissingInputError(f"{folder} does not exist.\nFix: name a folder of LoRA files.")
    found = [folder] if folder.is_file() else sorted(folder.glob("*.safetensors"))
    placed = {path: _place(path) for path in found if path.name[0] != "."}
    last = max((epoch for epoch, _ in placed.values() if epoch is not None), default=0)
    checkpoints = [
        Checkpoint(path, last + 1 if epoch is None else epoch, step)
        for path, (epoch, step) in placed.items()
    ]
    return sorted(_once(checkpoints), key=lambda c: (c.epoch, c.step, c.path.name))


def readable_checkpoints(folder: Path) -> tuple[list[Checkpoint], dict[Checkpoint, str]]:
    """List the saved states that can be opened, and why the others cannot.

    One torn file, left by a full disk or a broken download, must not hide the others.

    Returns
    -------
    sound : list of Checkpoint
        First to last.
    broken : dict of Checkpoint to str
        The first line of what is wrong with each.

    Raises
    ------
    MissingInputError
        There is no checkpoint at all.
    """
    saved = list_checkpoints(folder)
    if not saved:
        raise MissingInputError(
            f"{folder} has no checkpoint (.safetensors).\nFix: lorascope train CONFIG.toml"
        )
    broken: dict[Checkpoint, str] = {}
    for checkpoint in saved:
        try:
            read_metadata(checkpoint.path)
        except LorascopeError as error:
            broken[checkpoint] = str(error).splitlines()[0]
    return [c for c in saved if c not in broken], broken


def usable_checkpoints(folder: Path) -> tuple[list[Checkpoint], tuple[str, ...]]:
    """List the saved states that can be opened, and a sentence for each that cannot.

    Raises
    ------
    MissingInputError
        There is no checkpoint at all.
    BadInputError
        None can be opened.
    """
    sound, broken = readable_checkpoints(folder)
    if not sound:
        first = next(iter(broken.values()))
        raise BadInputError(f"{first}\nFix: copy the files again; no checkpoint can be opened.")
    return sound, tuple(f"Epoch {c.epoch} was left out: {why}" for c, why in broken.items())


def _place(path: Path) -> tuple[int | None, int]:
    """Find out epoch (None: the last) and step (0: unknown) of one file."""
    metadata: dict[str, str] = {}
    with contextlib.suppress(LorascopeError):
        metadata = read_metadata(path)
    epoch, step = _number(metadata.get("ss_epoch")), _number(metadata.get("ss_steps")) or 0
    if found := STEPPED.match(path.stem):
        step = step or int(found["step"])
    if epoch is None and (found := NUMBERED.match(path.stem)):
        epoch = int(found["epoch"])
    return epoch, step


def _once(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Drop ``NAME.safetensors`` where ``NAME-000010.safetensors`` is the same state."""
    numbered = {
        (found["name"], c.epoch, c.step)
        for c in checkpoints
        if (found := NUMBERED.match(c.path.stem))
    }
    return [c for c in checkpoints if (c.path.stem, c.epoch, c.step) not in numbered]


def _number(text: str | None) -> int | None:
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None
