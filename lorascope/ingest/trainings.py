"""Which of a folder's trainings is meant, and how it was set up."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lorascope.errors import BadInputError, LorascopeError
from lorascope.ingest.looking import Work
from lorascope.io.checkpoints import Checkpoint, TrainingGroup
from lorascope.io.foreign.layouts import (
    DIFFUSERS_FILES,
    ONETRAINER,
    config_time,
    named_state,
    printable,
    trainer_of,
)
from lorascope.io.foreign.metadata import from_metadata
from lorascope.io.foreign.settings import Settings, merged
from lorascope.io.lora_file import read_metadata
from lorascope.run import Run

LISTED = 40  # trainings, when a folder holds several
DAY_S = 86_400.0


def choose(work: Work, name: str) -> TrainingGroup:
    """Pick the training that was asked for, or the only one; list them where that is not clear."""
    groups = work.groups
    if not name and len(groups) == 1:
        return groups[0]
    for group in groups:
        if group.name == name:
            return group
    alike = [group for group in groups if name and group.name.partition("#")[0] == name]
    if len(alike) == 1:
        return alike[0]
    start = f"{printable(work.folder)} holds {len(groups)} trainings"
    if name and not alike:
        start = f"{printable(work.folder)} holds no training called {printable(name)}"
    elif name:
        start = f"{printable(work.folder)} holds {len(alike)} trainings called {printable(name)}"
    lines = [f"{start}; one run is made of one:"]
    shown = alike or groups
    for group in shown[:LISTED]:
        lines.append(f"  {_line(group, work.folder)}")
        lines.append(f"    {command_for(work, group.name)}")
    if len(shown) > LISTED:
        lines.append(f"  ... and {len(shown) - LISTED} more")
    raise BadInputError("\n".join(lines) + "\nFix: give one of these commands.")


def command_for(work: Work, name: str) -> str:
    """Give the command that makes a run of one of several trainings, in a folder of its own."""
    number, where = 1, work.out.parent / name
    while where.exists() and not _is_run_of(where, work.folder, name):
        number, where = number + 1, work.out.parent / f"{name}-{number + 1}"
    return (
        f"lorascope ingest {shlex.quote(printable(work.folder))} "
        f"--out {shlex.quote(printable(where))} --name {shlex.quote(printable(name))}"
    )


def _is_run_of(path: Path, folder: Path, name: str) -> bool:
    try:
        origin = Run(path).origin
    except LorascopeError:
        return False
    return (origin.get("folder"), origin.get("name")) == (str(folder.resolve()), name)


def _line(group: TrainingGroup, folder: Path) -> str:
    count = len(group.checkpoints)
    parts = ["1 checkpoint" if count == 1 else f"{count} checkpoints", span(group.checkpoints)]
    if group.rank:
        parts.append(f"rank {group.rank}")
    if group.base:
        parts.append(f"on {printable(group.base)}")
    home = home_of(group)
    where = f", in {printable(home.relative_to(folder))}" if "#" in group.name else ""
    where = where if home != folder and home.is_relative_to(folder) else ""
    return f"{printable(group.name)}{where}: {', '.join(parts)}"


def span(checkpoints: Sequence[Checkpoint]) -> str:
    """Say from where to where checkpoints reach."""
    first, last = checkpoints[0], checkpoints[-1]
    text = f"epoch {first.epoch}" if first is last else f"epochs {first.epoch} to {last.epoch}"
    if last.step:
        text += f" (step {last.step})" if first is last else f" (steps {first.step} to {last.step})"
    return text


def metadata_of(checkpoints: Sequence[Checkpoint]) -> dict[str, str]:
    """Read what the last checkpoint says; the last knows most."""
    for checkpoint in reversed(checkpoints):
        try:
            return read_metadata(checkpoint.path)
        except LorascopeError:
            continue
    return {}


def settings_of(work: Work, group: TrainingGroup, metadata: Mapping[str, str]) -> Settings:
    """Put together what is known of a training: its files count before its configs."""
    base_name = group.name.partition("#")[0]
    home = home_of(group)
    fitting = []
    for one in work.configs:
        if _is_dataset_config(one):
            continue
        near = one.path is not None and one.path.is_relative_to(home)
        named = bool(one.name) and one.name == base_name
        if named or (near and (not one.name or one.trainer in ("diffusers", ONETRAINER))):
            fitting.append(one)
    began = group.times[0][0] if group.times else 0.0
    if not began and group.checkpoints:
        began = written(group.checkpoints[0].path)
    fitting.sort(key=lambda one: _distance(one, home, began))
    whole = merged([from_metadata(metadata), *fitting, *_dataset_configs(work, group)])
    names = [named_state(c.path).trainer for c in group.checkpoints]
    trainer = whole.trainer or group.trainer or trainer_of(names, tuple(metadata))
    return replace(whole, trainer=trainer)


def _is_dataset_config(config: Settings) -> bool:
    return config.path is not None and config.dataset_config == str(config.path.resolve())


def _dataset_configs(work: Work, group: TrainingGroup) -> list[Settings]:
    """Give the dataset config that no training's config names, where it can be meant alone."""
    named = {one.dataset_config for one in work.configs if not _is_dataset_config(one)}
    loose = [
        one for one in work.configs if _is_dataset_config(one) and one.dataset_config not in named
    ]
    if len(work.groups) > 1:
        homes = [home_of(other) for other in work.groups if other is not group]
        loose = [one for one in loose if _lies_in(one, home_of(group))]
        loose = [one for one in loose if not any(_lies_in(one, home) for home in homes)]
    if len({one.subsets for one in loose}) > 1:
        names = ", ".join(printable(one.path) for one in loose[:3])
        work.note(
            f"Left out: {len(loose)} dataset configs, as nothing tells which was used: {names}"
        )
        return []
    return loose[:1]


def _lies_in(config: Settings, home: Path) -> bool:
    return config.path is not None and config.path.is_relative_to(home)


def _distance(config: Settings, home: Path, began: float) -> tuple[bool, float]:
    """Say how far a config is from a training: elsewhere or not, and by how many s.

    The time in its name outlives copying. One of no known time is neither near nor far.
    """
    if config.path is None:
        return False, 0.0
    when = config_time(config.path) or written(config.path)
    apart = abs(when - began) if when and began else DAY_S
    return not config.path.is_relative_to(home), apart


def stored_name(path: Path) -> str:
    """Name a checkpoint within a run: as it was, or by its folder where all have one name."""
    named = named_state(path)
    if path.stem in DIFFUSERS_FILES and named.by_step:
        return f"{named.name}-step{named.step:08}.safetensors"
    return f"{path.stem}.safetensors"


def home_of(group: TrainingGroup) -> Path:
    """Give the folder that a training kept everything in."""
    home = group.checkpoints[-1].path.parent
    if home.name == "save" or home.name.startswith("checkpoint-"):
        return home.parent
    return home


def written(path: Path) -> float:
    """Give when a file was written, in s since 1970; 0 where it went away."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def within(path: Path, group: TrainingGroup) -> bool:
    """Tell whether a file was written while a training ran, of several with one name."""
    times = group.times or (
        (written(group.checkpoints[0].path), written(group.checkpoints[-1].path)),
    )
    return any(start - 60 <= written(path) <= (end or start) + 60 for start, end in times)
