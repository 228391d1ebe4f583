"""Sample pictures of another trainer: which saved state each of them shows, and its prompt."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lorascope import storage, tables
from lorascope.errors import LorascopeError
from lorascope.ingest.carry import Carrier, targets
from lorascope.io.checkpoints import Checkpoint
from lorascope.io.foreign.layouts import ONETRAINER, NamedSample, named_sample, named_state
from lorascope.io.foreign.prompts import SamplePrompt, read_sample_prompts
from lorascope.io.lora_facts import facts_of
from lorascope.io.sample_list import COLUMNS, LIST, read_sample_list
from lorascope.records import Row


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One picture, with what its name says of it."""

    path: Path
    named: NamedSample | None


def samples_of(pictures: Iterable[Path]) -> list[Sample]:
    """Pick out the pictures that are named as a trainer names its samples.

    Of a moment drawn twice, with the weights' moving average and without, the first is taken.
    """
    found = [(path, named_sample(path)) for path in pictures]
    return [Sample(path=p, named=n) for p, n in found if n is not None and not n.raw]


def find_prompts(files: Iterable[Path]) -> tuple[SamplePrompt, ...]:
    """Read the first file that holds prompts; none where no file does."""
    for file in files:
        try:
            if file.is_file() and (prompts := read_sample_prompts(file)):
                return prompts
        except (LorascopeError, OSError):  # an OSError: a name too long to be one
            continue
    return ()


def bring_samples(
    carrier: Carrier,
    samples: Sequence[Sample],
    checkpoints: Sequence[Checkpoint],
    prompts: Sequence[SamplePrompt],
) -> list[Row]:
    """Take samples over, and write down what each of them shows.

    Parameters
    ----------
    carrier : Carrier
    samples : sequence of Sample
    checkpoints : sequence of Checkpoint
        The run's own; a sample has the epoch of the state that it was drawn with.
    prompts : sequence of SamplePrompt
        In the order of the samples' index.

    Returns
    -------
    list of Row
        Every sample that the run has now, by epoch, step and index.
    """
    folder = carrier.run.place("drawn")
    placed = targets([s.path for s in samples], folder, _target_name)
    carrier.bring_all(placed, label="taking over samples")
    rows = {str(row["file"]): row for row in read_sample_list(folder)}
    for sample in samples:
        target = placed[sample.path]
        if target.exists():
            rows[target.name] = _row(target, sample.named, checkpoints, prompts)
    ordered = sorted(rows.values(), key=_order)
    if ordered:
        storage.write_text(folder / LIST, tables.as_csv(ordered))
    return ordered


def _target_name(path: Path) -> str:
    """Name a sample; OneTrainer has one name for all prompts of a moment, in folders by prompt."""
    named = named_sample(path)
    if named is not None and named.trainer == ONETRAINER and named.index is not None:
        return f"{path.stem}-{named.index:02}{path.suffix.lower()}"
    return path.name


def _row(
    target: Path,
    named: NamedSample | None,
    checkpoints: Sequence[Checkpoint],
    prompts: Sequence[SamplePrompt],
) -> Row:
    epoch, step = _place(named, checkpoints) if named else (None, None)
    index = named.index if named else None
    asked = (
        prompts[index] if index is not None and index < len(prompts) else SamplePrompt(prompt="")
    )
    if named and named.prompt and not _same_prompt(asked.prompt, named.prompt):
        asked = SamplePrompt(prompt=named.prompt)  # the list has changed since
    seed = named.seed if named and named.seed is not None else asked.seed
    width, height = _size(target) or (asked.width, asked.height)
    values = (target.name, epoch, step, index, asked.prompt, asked.negative, seed, width, height,
              named.taken if named else "")  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def _place(named: NamedSample, checkpoints: Sequence[Checkpoint]) -> tuple[int | None, int | None]:
    """Find the saved state that a sample shows: (epoch, step), None where it shows none."""
    if named.step == 0 or (named.epoch == 0 and not named.step):
        return 0, 0  # drawn before the first step: the base model
    if named.step is not None:
        same = [c for c in checkpoints if c.step == named.step]
        if same:
            return same[-1].epoch, named.step
    if named.epoch is not None:
        for checkpoint in checkpoints:
            if _own_epoch(checkpoint) == named.epoch:
                return checkpoint.epoch, named.step or checkpoint.step or None
        numbered = [_own_epoch(c) for c in checkpoints]
        if checkpoints and all(n == c.epoch for n, c in zip(numbered, checkpoints, strict=True)):
            return named.epoch, named.step  # an epoch that was sampled and not saved
    return None, named.step


def _own_epoch(checkpoint: Checkpoint) -> int | None:
    """Give the epoch that the file itself states, where the run counts in its own way."""
    told, named = facts_of(checkpoint.path).epoch, named_state(checkpoint.path)
    if told is None and named.by_step:
        return named.epoch  # its number in the run counts saved states, not epochs
    return checkpoint.epoch if told is None else told


def _same_prompt(full: str, cut: str) -> bool:
    letters = re.compile(r"[^\w]+")
    return letters.sub("", full).startswith(letters.sub("", cut)[:28])


def _size(path: Path) -> tuple[int, int] | None:
    try:
        with Image.open(path) as opened:
            return opened.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _order(row: Mapping[str, object]) -> tuple[float, float, float, str]:
    numbers = [row[key] for key in ("epoch", "step", "index")]
    a, b, c = (float(n) if isinstance(n, int) else float("inf") for n in numbers)
    return a, b, c, str(row["file"])
