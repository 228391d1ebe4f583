"""Training folders as people have them: ``10_fern/`` beside ``2_other/``, or plain pictures."""

import re
from collections import Counter
from itertools import islice
from pathlib import Path

from lorascope.errors import BadInputError
from lorascope.io.images import ENDINGS, find_images, list_folder

LOOKED_AT = 10_000  # entries, when a message says what a folder holds instead
NUMBERED = re.compile(r"(\d+)_.*")


def scan_training_folder(root: Path) -> list[tuple[Path, int]]:
    """List the pictures of a training folder, each with its repeats.

    Parameters
    ----------
    root : Path
        A folder of ``<repeats>_<name>/`` folders, or of pictures (repeats 1). Where there are
        numbered folders only they count, as in other trainers; `left_out` lists the rest.

    Returns
    -------
    list of (Path, int)
        Sorted by path. A folder ``0_name`` is switched off.

    Raises
    ------
    MissingInputError
        There is no such folder.
    BadInputError
        It may not be read, or holds no pictures; the message says what it holds instead.
    """
    numbered = _numbered(root)
    found = [(image, n) for folder, n in numbered if n > 0 for image in find_images(folder)]
    if not numbered:
        found = [(image, 1) for image in find_images(root)]
    if not found:
        raise BadInputError(_no_images(root))
    return found


def left_out(root: Path) -> list[Path]:
    """List the pictures that lie beside numbered folders and are therefore not used."""
    numbered = _numbered(root)
    used = {folder for folder, n in numbered if n > 0}
    others = [p for p in list_folder(root) if p.is_dir() and p not in used]
    beside = find_images(root) if numbered else []
    return beside + [image for folder in others for image in find_images(folder)]


def _numbered(root: Path) -> list[tuple[Path, int]]:
    return [
        (path, int(match[1]))
        for path in list_folder(root)
        if (match := NUMBERED.fullmatch(path.name)) and path.is_dir()
    ]


def _no_images(root: Path) -> str:
    """Say what a folder without pictures holds, and what to do."""
    inside = [p for p in islice(root.rglob("*"), LOOKED_AT) if p.is_file()]
    kinds = Counter(p.suffix.lower().removeprefix(".") or "nameless" for p in inside)
    images = [p for p in inside if p.suffix.lower() in ENDINGS]
    held = ", ".join(f"{n} {_kind(kind, n)}" for kind, n in kinds.most_common(3)) or "nothing"
    fix = f"put pictures ({' '.join(e[1:] for e in ENDINGS)}) into {root / '1_subject'}"
    if images and (folder := images[0].parent) != root:
        name = folder.name.lstrip("0").removeprefix("_")
        fix = f"rename {folder} to {root / ('1_' + name)} (1 = its repeats)"
    return f"{root} has no images where they are looked for; it holds {held}.\nFix: {fix}."


def _kind(ending: str, count: int) -> str:
    word = "text file" if ending == "txt" else f"{ending} file"
    return word if count == 1 else f"{word}s"
