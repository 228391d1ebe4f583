"""One look through a folder of another trainer: nothing is opened, nothing is written."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.foreign.config_file import ENDINGS as CONFIG_ENDINGS
from lorascope.io.foreign.layouts import LOG_FOLDERS, is_state_folder, log_start, printable
from lorascope.io.images import ENDINGS as PICTURES

DEEPEST = 6  # folders below the one that is named
MOST = 200_000  # files; a folder with more is no training's
TOOLS_FOLDERS = {"node_modules", "site-packages", "__pycache__", "venv", "cache"}
PROMPT_FILES = {
    f"{name}{ending}"
    for name in ("prompt", "prompts", "sample_prompts")
    for ending in (".txt", ".toml", ".json")
} | {"samples.json"}


@dataclass(kw_only=True)
class Survey:
    """What lies in a folder, by the endings of the names; in the order of their paths."""

    root: Path
    weights: list[Path] = field(default_factory=list)
    backups: list[Path] = field(default_factory=list)  # checkpoints kept with states to resume
    pictures: list[Path] = field(default_factory=list)
    events: list[Path] = field(default_factory=list)
    configs: list[Path] = field(default_factory=list)
    prompts: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    runs: list[Path] = field(default_factory=list)  # of our own; not looked into
    closed: list[str] = field(default_factory=list)  # a sentence for each folder not read
    cut: bool = False  # there was more than anybody looks at

    @property
    def empty(self) -> bool:
        """Whether there was nothing at all."""
        kinds = (self.weights, self.backups, self.pictures, self.events, self.configs)
        return not any((*kinds, self.prompts, self.others, self.runs, self.closed))


def survey(root: Path) -> Survey:
    """List what a folder holds, in its subfolders too.

    Links to folders are not followed, hidden files and states to resume from are passed over.

    Raises
    ------
    MissingInputError
        There is no such folder.
    BadInputError
        It is a file, or may not be read.
    """
    root = Path(root)
    try:
        with os.scandir(root):
            pass
    except FileNotFoundError as error:
        raise MissingInputError(
            f"{printable(root)} does not exist.\nFix: name the folder that your trainer saves to."
        ) from error
    except NotADirectoryError as error:
        fix = "name the folder it lies in"
        if root.suffix.lower() == ".safetensors":
            fix = "for one LoRA alone: lorascope add lora RUN FILE"
        raise BadInputError(f"{printable(root)} is a file, not a folder.\nFix: {fix}.") from error
    except OSError as error:
        raise BadInputError(
            f"{printable(root)} cannot be read: {error.strerror}.\nFix: check its rights."
        ) from error
    found = Survey(root=root)
    for number, path in enumerate(_walk(root, DEEPEST, found)):
        if number >= MOST:
            found.cut = True
            break
        _sort(path, found)
    return found


def event_files(root: Path) -> list[Path]:
    """List the event files in a folder and below it; none where it is not there."""
    found = Survey(root=root)
    if root.is_dir():
        for number, path in enumerate(_walk(root, DEEPEST, found)):
            if number >= MOST:
                break
            _sort(path, found)
    return found.events


def places(root: Path, name: str) -> Iterator[Path]:
    """Give where a name in a foreign config may lie: in the folder, then beside it.

    A whole path stays what it is. The user's current directory is never meant.
    """
    path = Path(name.replace("\\", "/"))
    with contextlib.suppress(RuntimeError):  # ~ of somebody who is not here
        path = path.expanduser()
    yield root / path
    if not path.is_absolute():
        yield root.parent / path


def _walk(folder: Path, depth: int, found: Survey) -> Iterator[Path]:
    """Give the files below a folder, in order; what may not be read is named and passed over."""
    try:
        with os.scandir(folder) as opened:
            entries = sorted(opened, key=lambda entry: entry.name)
    except OSError as error:
        found.closed.append(
            f"{printable(folder)} cannot be read ({error.strerror}) and was passed over."
        )
        return
    folders = []
    for entry in entries:
        path = Path(entry.path)
        try:
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif entry.name[0] == ".":
                continue
            elif entry.is_file() or (entry.is_symlink() and not path.exists()):
                yield path
            elif not entry.is_symlink():  # opening a pipe would wait for its other end
                found.closed.append(f"{printable(path)} is no regular file and was passed over.")
        except OSError:  # it went away meanwhile
            continue
    for path in folders:
        if path.name in TOOLS_FOLDERS or (path.name[0] == "." and path.name not in LOG_FOLDERS):
            continue
        if (path / "run.json").is_file() and path != found.root:
            found.runs.append(path)
        elif path.name == "backup" or is_state_folder(path):
            found.backups += sorted(path.glob("lora/lora.safetensors"))
            if path.name == "backup":
                found.backups += sorted(path.glob("*/lora/lora.safetensors"))
        elif depth:
            yield from _walk(path, depth - 1, found)


def _sort(path: Path, found: Survey) -> None:
    ending = path.suffix.lower()
    if log_start(path) is not None or "tfevents" in path.name:
        found.events.append(path)
    elif ending == ".safetensors":
        found.weights.append(path)
    elif ending in PICTURES:
        found.pictures.append(path)
    elif path.name.lower() in PROMPT_FILES:
        found.prompts.append(path)
    elif ending in CONFIG_ENDINGS:
        found.configs.append(path)
    else:
        found.others.append(path)
