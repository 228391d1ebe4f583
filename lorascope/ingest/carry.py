"""Taking files over into a run: linked where the disk allows it, else copied, each noted down."""

import contextlib
import filecmp
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from lorascope import storage, tables
from lorascope.errors import StorageError
from lorascope.io.foreign.layouts import printable
from lorascope.progress import track
from lorascope.records import Row
from lorascope.run import Run

Say = Callable[[str], None]
Convert = Callable[[Path, Path], None]
COLUMNS = {"file": "str", "source": "str", "size": "int", "mtime_ns": "int"}


class Taken(StrEnum):
    """What became of one file."""

    NEW = "new"
    SAME = "same"
    CHANGED = "changed"
    GONE = "gone"


@dataclass(kw_only=True)
class Carrier:
    """Takes files over into one run, and remembers from where and in which state.

    Attributes
    ----------
    run : Run
    say : callable
        Takes a sentence for each file that changed or could not be had.
    copy : bool
        Copy even where a link would do.
    counts : dict
        How many files became what.
    """

    run: Run
    say: Say
    copy: bool = False
    counts: dict[Taken, int] = field(default_factory=lambda: dict.fromkeys(Taken, 0))
    _known: dict[str, Row] = field(default_factory=dict)

    def __enter__(self) -> Self:
        """Read what was taken over before."""
        self._known = taken_before(self.run)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write down what was taken over, also when not everything was."""
        rows = [self._known[file] for file in sorted(self._known)]
        if rows:
            storage.write_text(self.run.place("origin"), tables.as_csv(rows))

    def bring_all(
        self,
        pairs: Mapping[Path, Path],
        *,
        label: str,
        grows: bool = False,
        convert: Convert | None = None,
    ) -> None:
        """Take files over: source -> target inside the run."""
        for source, target in track(pairs.items(), label=label):
            self.bring(source, target, grows=grows, convert=convert)

    def bring(
        self, source: Path, target: Path, *, grows: bool = False, convert: Convert | None = None
    ) -> Taken:
        """Take one file over.

        Parameters
        ----------
        source : Path
        target : Path
            Its place inside the run.
        grows : bool
            Its writer appends to it, so that it must be copied.
        convert : callable, optional
            Writes the target from the source, whole or not at all, where the bytes may not stay.

        Raises
        ------
        StorageError
            The run cannot be written to.
        """
        name = target.relative_to(self.run.path).as_posix()
        try:
            source = source.resolve(strict=True)
            stat = source.stat()
            before = self._known.get(name)
            seen = before is not None and (before["size"], before["mtime_ns"]) == (
                stat.st_size,
                stat.st_mtime_ns,
            )
            if seen and target.exists():
                return self._count(Taken.SAME)
            taken = Taken.NEW
            if target.exists():
                linked = target.samefile(source)
                same = not (linked or convert) and filecmp.cmp(source, target, shallow=False)
                # a linked file of another time than it was taken at was written over in place
                taken = Taken.SAME if same or (linked and before is None) else Taken.CHANGED
            if taken is not Taken.SAME:
                if convert is not None:
                    convert(source, target)
                else:
                    self._place(source, target, grows=grows)
        except StorageError:
            raise
        except OSError as error:
            why = "is not there any more" if isinstance(error, FileNotFoundError) else (
                f"cannot be read ({error.strerror})"
            )  # fmt: skip
            self.say(f"{printable(source.name)} {why}; it was left out.")
            return self._count(Taken.GONE)
        self._known[name] = {
            "file": name,
            "source": printable(source),
            "size": stat.st_size,
            "mtime_ns": stat.st_mtime_ns,
        }
        if taken is Taken.CHANGED and not grows:
            self.say(f"{printable(target.name)} has changed since; the run has the new file now.")
        return self._count(taken)

    def _place(self, source: Path, target: Path, *, grows: bool) -> None:
        """Link or copy, whole or not at all.

        A hard link is a second name of the same bytes, so it costs neither room nor time. It is
        safe for the folder it came from: lorascope writes a file beside and renames it, which
        takes our name off the shared bytes and never changes them. The other way round, a trainer
        that writes over its own old file in place would change ours too; its time then differs
        from the one noted down, which is said, and evidence is known by content, so none is
        believed of other bytes. Who wants the run to keep the old file says ``copy``.
        """
        storage.make_folder(target.parent)
        if not grows and not self.copy and _link(source, target):
            return
        with source.open("rb") as opened, storage.replacing(target) as partial:
            with partial.open("wb") as written:
                shutil.copyfileobj(opened, written, 1 << 22)
            stat = os.fstat(opened.fileno())
            os.utime(partial, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    def _count(self, taken: Taken) -> Taken:
        self.counts[taken] += 1
        return taken


def taken_before(run: Run) -> dict[str, Row]:
    """Read what was taken over before: the file in the run -> its row; empty where it is lost."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        rows = tables.from_csv(run.place("origin").read_text(encoding="utf-8"), COLUMNS)
        return {str(row["file"]): row for row in rows}
    return {}


def targets(sources: Iterable[Path], folder: Path, name_of: Callable[[Path], str]) -> dict[
    Path, Path
]:  # fmt: skip
    """Give every file a place of its own in a folder: source -> target."""
    found: dict[Path, Path] = {}
    used: set[str] = set()
    for source in sources:
        name = safe_name(name_of(source))
        if name.lower() in used:
            name = f"{safe_name(source.parent.name)}-{name}"
        stem, ending, number = Path(name).stem, Path(name).suffix, 2
        while name.lower() in used:
            name, number = f"{stem}-{number}{ending}", number + 1
        used.add(name.lower())
        found[source] = folder / name
    return found


def safe_name(name: str) -> str:
    """Make a file's name of any name: nothing unprintable, no separators, not hidden."""
    plain = "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in name)
    plain = plain.encode("utf-8", "replace").decode().replace("\ufffd", "_").strip()
    return plain.lstrip(".") or "nameless"


def _link(source: Path, target: Path) -> bool:
    """Give a file a second name; False where the disk or the system does not allow it."""
    partial = target.with_name(f".partial-{os.getpid()}{target.suffix}")
    try:
        partial.unlink(missing_ok=True)
        partial.hardlink_to(source)
        partial.replace(target)
    except FileNotFoundError:
        raise
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return True
