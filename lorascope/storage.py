"""Writing so that nothing is ever torn: temporary file, fsync, rename."""

import contextlib
import errno
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lorascope.errors import StorageError

PARTIAL = ".partial-"  # how a file begins that is not whole yet
ABANDONED_S = 3600.0
WHY = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "there are no rights to write there",
    errno.EPERM: "there are no rights to write there",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a part of the path is a file",
}


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file, or leave what was there as it was.

    Raises
    ------
    StorageError
        The folder cannot be written to, or the disk is full.
    """
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a whole text file as UTF-8, or leave what was there as it was."""
    write_bytes(path, content.encode())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside ``path`` that takes its place when the block ends well.

    The temporary file keeps the ending of ``path``, because some writers go by it.

    Raises
    ------
    StorageError
        The folder cannot be written to, or the disk is full.
    """
    partial: Path | None = None
    try:
        make_folder(path.parent)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=PARTIAL, suffix=path.suffix)
        os.close(handle)
        partial = Path(name)
        partial.chmod(0o644)
        yield partial
        with partial.open("rb+") as written:
            os.fsync(written.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


def sweep(folder: Path, *, older_s: float = ABANDONED_S) -> int:
    """Delete what killed processes were writing: temporary files that nobody has touched lately.

    Returns
    -------
    int
        How many were deleted.
    """
    count = 0
    for partial in folder.glob(f"{PARTIAL}*"):
        with contextlib.suppress(OSError):  # another process may sweep, too
            if time.time() - partial.stat().st_mtime > older_s:
                partial.unlink()
                count += 1
    return count


def make_folder(path: Path) -> Path:
    """Make a folder and its parents.

    Raises
    ------
    StorageError
        There are no rights to, or a file is in the way.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error
    return path


def storage_error(path: Path, error: OSError) -> StorageError:
    """Say in one sentence why a write failed, and what to do."""
    why = WHY.get(error.errno or 0, error.strerror or str(error))
    return StorageError(
        f"Cannot write {path}: {why}. Nothing that was already written is lost.\n"
        "Fix: make room or choose another folder, then give the same command again."
    )


def _sync_folder(path: Path) -> None:
    """Make a rename last through a power cut, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
