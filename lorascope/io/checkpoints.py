"""The saved states of one training: which file is which epoch and step, and which can be opened."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.foreign.layouts import (
    DIFFUSERS,
    DIFFUSERS_FILES,
    ONETRAINER,
    trainer_of,
)
from lorascope.io.lora_facts import DAMAGED, LORA, UNKNOWN, Facts, facts_of
from lorascope.io.saved_states import (
    State,
    once,
    ordered,
    state_of,
    unplaced_sentence,
    written,
)

ENDING = ".safetensors"
OWN_FOLDERS = (DIFFUSERS, ONETRAINER)  # trainers that keep states in folders of their own
NO_NAMES: Mapping[Path, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One saved state of a training."""

    path: Path
    epoch: int  # its key: no other state of the training has it
    step: int  # 0 where the file does not say


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingGroup:
    """The saved states of one training, found among those of others."""

    name: str
    checkpoints: tuple[Checkpoint, ...]  # first to last
    rank: int  # 0: not known
    base: str  # what its files say of the base model; may be empty
    trainer: str  # may be empty
    sessions: tuple[str, ...]  # starts of the trainer, first to last
    times: tuple[tuple[float, float], ...]  # beginning and end of each, s since 1970, where known
    unplaced: str = ""  # a sentence on files that were left out; see `unplaced`


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """List the saved states of a training, first to last, each with a key of its own.

    The epoch is the one that the metadata states (``ss_epoch``), else the name
    (``NAME-000004.safetensors``); ``NAME.safetensors`` without either is the last. A training
    saved by steps alone is numbered 1 to n in the order of its steps, and so is one in which two
    states claim the same epoch: several saves of one epoch must not hide each other. Where some
    files name only an epoch and others only a step, and neither a file that states both nor the
    times of writing tell their order, those saved at steps are left out; `unplaced` says so.

    A state saved twice, as the last epoch often is, counts once. A damaged file is listed by its
    name. Hidden files and what is no LoRA (a base model, a VAE, an embedding, an optimizer's
    state) are left out; so are states to resume from, which lie in folders of their own.

    Parameters
    ----------
    folder : Path
        A folder of .safetensors files or of ``checkpoint-N`` folders; or one such file.

    Raises
    ------
    MissingInputError
        There is no such folder or file.
    BadInputError
        The folder may not be read.
    """
    return _looked_at(folder)[0]


def unplaced(folder: Path) -> str:
    """Say which saved states `list_checkpoints` leaves out, as nothing tells where they lie.

    Returns
    -------
    str
        One sentence; "" where all have their place.

    Raises
    ------
    MissingInputError, BadInputError
        As for `list_checkpoints`.
    """
    return _looked_at(folder)[1]


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
    broken = {c: why for c in saved if (why := facts_of(c.path).damage)}
    return [c for c in saved if c not in broken], broken


def usable_checkpoints(folder: Path) -> tuple[list[Checkpoint], tuple[str, ...]]:
    """List the saved states that can be opened, and a sentence for each that was left out.

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
    told = [f"Epoch {c.epoch} was left out: {why}" for c, why in broken.items()]
    return sound, tuple(filter(None, [*told, unplaced(folder)]))


def group_runs(
    files: Iterable[Path], *, names: Mapping[Path, str] = NO_NAMES
) -> tuple[TrainingGroup, ...]:
    """Tell apart the trainings whose files lie together.

    Files belong together when they have the same name (``ss_output_name``, else the file's name
    without its number), rank and base model. Of one name, a later start of the trainer goes on
    with the same training when its epochs come after those before it, as a resumed one's do;
    when they overlap it is another training, whose files lie there from an earlier try. Files that
    do not say when they were made are of several trainings where two folders hold the same name.

    Parameters
    ----------
    files : iterable of Path
        LoRA files; what cannot be read is passed over.
    names : mapping, optional
        The training's name where neither the file nor its name tells.

    Returns
    -------
    tuple of TrainingGroup
        By name, then by time. Where several have one name they are called ``NAME#1``, ``NAME#2``.
    """
    alike: dict[tuple[object, ...], list[State]] = {}
    for path in files:
        state = state_of(path, names)
        if state.facts.kind != DAMAGED:
            facts = state.facts
            key = (state.name, facts.rank, facts.base.lower(), facts.version)
            alike.setdefault(key, []).append(state)
    trainings = [one for states in alike.values() for one in _trainings(states)]
    trainings.sort(key=lambda states: (states[0].name, _began(states), str(states[0].path)))
    groups = []
    for name, same in itertools.groupby(trainings, key=lambda states: states[0].name):
        of_name = list(same)
        for number, states in enumerate(of_name, start=1):
            groups.append(_group(f"{name}#{number}" if len(of_name) > 1 else name, states))
    return tuple(groups)


def _looked_at(folder: Path) -> tuple[list[Checkpoint], str]:
    folder = Path(folder)
    if not folder.exists():
        raise MissingInputError(f"{folder} does not exist.\nFix: name a folder of LoRA files.")
    found = _files(folder) if folder.is_dir() else [folder]
    states = [state_of(path, NO_NAMES) for path in found]
    return _numbered([s for s in states if s.facts.kind in (LORA, UNKNOWN, DAMAGED)])


def _files(folder: Path) -> list[Path]:
    """List a folder's .safetensors files, and those in its ``checkpoint-N`` folders."""
    try:
        inside = sorted(folder.iterdir())
        within = [p for sub in inside if sub.name.startswith("checkpoint-") and sub.is_dir()
                  for p in sorted(sub.iterdir()) if p.stem in DIFFUSERS_FILES]  # fmt: skip
    except OSError as error:
        raise BadInputError(
            f"{folder} cannot be read: {error.strerror}.\nFix: chmod u+rx '{folder}'"
        ) from error
    return [
        path
        for path in [*inside, *within]
        if path.suffix.lower() == ENDING and path.name[0] != "." and _is_file_or_was(path)
    ]


def _is_file_or_was(path: Path) -> bool:
    """Tell a file, or a link to one that is gone, from a folder, a pipe and other things."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _numbered(states: Sequence[State]) -> tuple[list[Checkpoint], str]:
    """Give every state a key of its own, and say which have none; see `list_checkpoints`."""
    found, loose = ordered(once(states))
    stated = [state.epoch for state in found]
    last = max((epoch for epoch in stated if epoch is not None), default=0)
    keys = [last + 1 if epoch is None else epoch for epoch in stated]
    steps_alone = any(s.named.by_step for s in found) and all(
        s.named.by_step or s.bare for s in found
    )
    if steps_alone or any(after <= before for before, after in itertools.pairwise([0, *keys])):
        keys = list(range(1, len(keys) + 1))
    numbered = [Checkpoint(s.path, key, s.step) for s, key in zip(found, keys, strict=True)]
    return numbered, unplaced_sentence(loose)


def _trainings(states: Sequence[State]) -> list[list[State]]:
    """Split states of one name into trainings, by the starts of their trainer."""
    silent = [s for s in states if not s.facts.session and s.named.trainer not in OWN_FOLDERS]
    apart = {s.path for s in silent} if len({s.path.stem for s in silent}) < len(silent) else set()
    starts: dict[object, list[State]] = {}
    for state in states:
        start = state.path.parent if state.path in apart else state.facts.session
        starts.setdefault(start, []).append(state)
    parts = [part for start in starts.values() for part in _restarts(start)]
    found: list[list[State]] = []
    for part in sorted(parts, key=_began):
        if found and _goes_on(found[-1], part):
            found[-1] += part
        else:
            found.append(list(part))
    return found


def _restarts(states: Sequence[State]) -> list[list[State]]:
    """Cut where the steps begin anew, among files whose names begin with their time."""
    if not all(state.named.trainer == ONETRAINER or state.bare for state in states):
        return [list(states)]
    dated = sorted(states, key=lambda s: (s.bare, s.path.name))
    parts: list[list[State]] = [[]]
    for state in dated:
        if parts[-1] and state.step and state.step <= parts[-1][-1].step:
            parts.append([])
        parts[-1].append(state)
    return parts


def _goes_on(before: Sequence[State], after: Sequence[State]) -> bool:
    """Tell whether a later start of the trainer went on where an earlier one ended."""
    epochs = [[s.epoch for s in part if s.epoch is not None] for part in (before, after)]
    if all(epochs):
        one, other = max(epochs[0]), min(epochs[1])
        midst = all(s.named.by_step or s.bare for s in [*before, *after])
        return other > one or (midst and other == one)
    steps = [[s.step for s in part if s.step] for part in (before, after)]
    return all(steps) and min(steps[1]) > max(steps[0])


def _began(states: Sequence[State]) -> float:
    """Give the time when a training began; where no file says, when the first was written."""
    told = [s.facts.started for s in states if s.facts.started]
    return min(told) if told else min((written(s.path) for s in states), default=0.0)


def _group(name: str, states: Sequence[State]) -> TrainingGroup:
    by_start: dict[str, list[Facts]] = {}
    for state in sorted(states, key=lambda s: s.facts.started):
        by_start.setdefault(state.facts.session, []).append(state.facts)
    times = [
        (facts[0].started, max(f.finished for f in facts))
        for facts in by_start.values()
        if facts[0].started
    ]
    first = states[0].facts
    checkpoints, unplaced = _numbered(states)
    return TrainingGroup(
        name=name,
        checkpoints=tuple(checkpoints),
        rank=first.rank,
        base=first.base or first.version,
        trainer=trainer_of([s.named.trainer for s in states], first.keys),
        sessions=tuple(session for session in by_start if session),
        times=tuple(times),
        unplaced=unplaced,
    )
