"""Event files of another trainer: where they lie, and which of them belong to one training."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorascope.errors import LorascopeError
from lorascope.ingest.carry import Carrier, safe_name
from lorascope.io.checkpoints import TrainingGroup
from lorascope.io.foreign.folder import event_files
from lorascope.io.foreign.layouts import LOG_FOLDERS, log_start

SLACK_S = 300.0  # a log is opened some time after its trainer has started


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


def logs_of(logs: Sequence[Log], group: TrainingGroup, *, alone: bool) -> list[Log]:
    """Pick the logs of one training: by time where its files say when it ran.

    Otherwise by the name of the log's folder (``NAME_date``), else all that lie in the folder
    where it is the only training there.

    Parameters
    ----------
    logs : sequence of Log
    group : TrainingGroup
    alone : bool
        No other training's files lie in the folder.
    """
    if group.times:
        return [log for log in logs if _while(log, group.times)]
    name = group.name.partition("#")[0]
    by_name = [log for log in logs if log.path.parent.name.startswith(f"{name}_")]
    if by_name:
        return by_name
    inside = [log for log in logs if log.inside]
    if alone and inside:
        return inside
    folders = {log.path.parent for log in logs}
    return list(logs) if alone and len(folders) == 1 else []


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


def _while(log: Log, times: Sequence[tuple[float, float]]) -> bool:
    """Tell whether a log was begun while a training ran; one without an end may still run."""
    start = log_start(log.path)
    return start is not None and any(
        began - SLACK_S <= start <= (ended or float("inf")) + SLACK_S for began, ended in times
    )
