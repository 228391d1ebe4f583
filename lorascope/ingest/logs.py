"""Event files of another trainer: where they lie, and which of them belong to one training."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorascope.errors import LorascopeError
from lorascope.ingest.carry import Carrier, safe_name
from lorascope.io.checkpoints import TrainingGroup
from lorascope.io.foreign.folder import event_files
from lorascope.io.foreign.layouts import LOG_FOLDERS, log_start

EARLY_S = 300.0  # a log begun so long before any start that is known may still be of the first
ROUNDED_S = 1.0  # the time in a log's name has whole seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Log:
    """One event file, and the folder that it was looked for in."""

    path: Path
    root: Path
    inside: bool  # that folder is the one that is taken over


def find_logs(folder: Path, inside: Sequence[Path], named: Iterable[str]) -> list[Log]:
    """List event files: in the folder, in log folders beside it, and where configs say.

    Parameters
    ----------
    folder : Path
    inside : sequence of Path
        Those in the folder itself.
    named : iterable of str
        Folders that configs name.
    """
    found = {path.resolve(): Log(path=path, root=folder, inside=True) for path in inside}
    beside = [folder.parent / name for name in LOG_FOLDERS]
    told = [base / name for name in named for base in (folder, folder.parent)]
    for root in (*told, *beside):  # an absolute name stays what it is
        for path in event_files(root):
            found.setdefault(path.resolve(), Log(path=path, root=root, inside=False))
    return list(found.values())


def logs_of(
    logs: Sequence[Log], group: TrainingGroup, groups: Sequence[TrainingGroup]
) -> list[Log]:
    """Pick the logs of one training: by time where its files say when it ran.

    A log is that of the training which started last before it, so that trainings which ran one
    after the other into one folder keep theirs. Without times, the name of the log's folder
    tells (``NAME_date``), else all that lie in the folder where it is the only training there.

    Parameters
    ----------
    logs : sequence of Log
    group : TrainingGroup
    groups : sequence of TrainingGroup
        All whose files lie in the folder.
    """
    if group.times:
        return [log for log in logs if _owner(log, groups) == group.name]
    free = free_logs(logs, groups)
    name = group.name.partition("#")[0]
    by_name = [log for log in free if log.path.parent.name.startswith(f"{name}_")]
    if by_name:
        return by_name
    inside = [log for log in free if log.inside]
    alone = len(groups) == 1
    if alone and inside:
        return inside
    return free if alone and len(folders_of(free)) == 1 else []


def free_logs(logs: Iterable[Log], groups: Sequence[TrainingGroup]) -> list[Log]:
    """List the logs that no training of known time wrote."""
    return [log for log in logs if not _owner(log, groups)]


def folders_of(logs: Iterable[Log]) -> list[Path]:
    """List the folders that logs lie in, each once."""
    return list(dict.fromkeys(log.path.parent for log in logs))


def bring_logs(carrier: Carrier, logs: Sequence[Log]) -> None:
    """Copy event files, each under the folders that tell it from others."""
    place = carrier.run.place("events")
    pairs = {}
    for log in logs:
        path, root = log.path, log.root
        inside = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
        folders = [safe_name(part) for part in inside.parts[:-1]]
        if folders and folders[0] in {safe_name(name) for name in LOG_FOLDERS}:
            folders = folders[1:]
        pairs[path] = place.joinpath(*folders, path.name)
    carrier.bring_all(pairs, label="taking over logs", grows=True)


def tags_of(folder: Path) -> tuple[tuple[str, ...], str]:
    """List the tags in event files, and what is wrong with them: a sentence or ""."""
    from lorascope.io.event_file import read_events

    try:
        events = read_events(folder)
    except (LorascopeError, OSError) as error:
        return (), str(error).splitlines()[0]
    damage = f"{events.damage[0]}" if events.damage else ""
    return tuple(events.series), damage


def _owner(log: Log, groups: Sequence[TrainingGroup]) -> str:
    """Name the training that ran when a log was begun; "" where none is known to have."""
    begun = log_start(log.path)
    if begun is None:
        return ""
    spans = [(*span, group.name) for group in groups for span in group.times]
    before = [span for span in spans if span[0] <= begun + ROUNDED_S]
    if before:
        _, ended, name = max(before)
        return name if not ended or begun <= ended + ROUNDED_S else ""
    started, _, name = min(spans, default=(math.inf, 0.0, ""))
    return name if begun >= started - EARLY_S else ""
