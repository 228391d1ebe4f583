"""Small copies of pictures for a page: as large as its budget allows, each made once and kept."""

import io
import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lorascope import storage
from lorascope.errors import LorascopeError, MissingInputError
from lorascope.io.images import read_image
from lorascope.progress import track
from lorascope.run import digest

MISSING, DAMAGED = "missing", "damaged"
TRIED = 12  # pictures that tell how large the others will be
MARGIN = 1.08  # the others may pack worse than those
HEADER = 12  # bytes of a WebP file's beginning: RIFF, length, WEBP
NAMES = re.compile(r"[0-9a-f]{8,64}")  # what names content


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A picture that is wanted on the page."""

    path: Path
    content: str  # names what is in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One way to make a picture small."""

    name: str
    longer: int | None  # px of the longer side; None: whole
    least: float  # bytes a pixel that no picture falls below: what cannot fit is not even tried
    quality: int = 82
    lossless: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """A small copy, or why there is none."""

    path: Path | None
    size: int = 0  # bytes
    state: str = ""  # "", missing or damaged


LADDER = (
    Rung(name="lossless", longer=None, least=0.2, lossless=True),
    Rung(name="whole", longer=None, least=0.02, quality=90),
    *(
        Rung(name=str(side), longer=side, least=0.02)
        for side in (1024, 768, 640, 512, 448, 384, 320, 256, 224, 192, 160, 128, 112, 96, 80, 64)
    ),
)


def source(path: Path, *, named: bool) -> Source:
    """Name a picture by its content.

    Parameters
    ----------
    path : Path
    named : bool
        The file's own name tells what is in it, as those of a grid's cells do.
    """
    if named and NAMES.fullmatch(path.stem):
        return Source(path=path, content=path.stem)
    try:
        return Source(path=path, content=digest(path))
    except OSError:
        return Source(path=path, content="")


def small_copies(
    sources: Sequence[Source], folder: Path, *, budget: int, label: str, largest: int | None = None
) -> tuple[Rung, tuple[Thumbnail, ...]]:
    """Make small copies as large as they fit, or find them where they were made before.

    Parameters
    ----------
    sources : sequence of Source
    folder : Path
        Where they are kept, each under the name of its content and its size.
    budget : int
        Bytes of all together. Where even the smallest copies are more, they are taken all the
        same: a page without pictures is of no use.
    label : str
        What the work is called while it lasts.
    largest : int, optional
        The most px that the longer side may have.

    Returns
    -------
    (Rung, tuple of Thumbnail)
        How they were made, and one for each source. Only so many pictures are in memory at once
        as there are processors.

    Raises
    ------
    StorageError
        The folder cannot be written to.
    """
    storage.make_folder(folder)
    longest = _longest(sources)
    rungs = [
        r
        for r in LADDER
        if (largest is None or (r.longer or longest) <= largest) and (r.longer or 0) < longest
    ] or list(LADDER[-1:])
    found: tuple[Thumbnail, ...] = ()
    for rung in rungs:
        last = rung is rungs[-1]
        if not last and not _promises(rung, sources, folder, budget):
            continue
        found = tuple(_all(sources, folder, rung, label))
        if last or sum(one.size for one in found) <= budget:
            return rung, found
    return rungs[-1], found


def _some(sources: Sequence[Source]) -> Sequence[Source]:
    """Choose the pictures that tell about all, evenly spread."""
    return sources[:: max(1, len(sources) // TRIED)][:TRIED]


def _longest(sources: Sequence[Source]) -> int:
    """Give the px of the longest side among some; what is larger would only copy them whole."""
    return max((max(_sides(one.path)) for one in _some(sources)), default=0)


def _promises(rung: Rung, sources: Sequence[Source], folder: Path, budget: int) -> bool:
    """Try some of the pictures: will all of them fit?"""
    some = _some(sources)
    areas = [_area(one.path, rung.longer) for one in some]
    if not some or rung.least * sum(areas) / len(some) * len(sources) > budget:
        return not some
    made = [_copy(one, folder, rung) for one in some]
    return sum(one.size for one in made) / len(made) * len(sources) * MARGIN <= budget


def _area(path: Path, longer: int | None) -> float:
    """Count the pixels a copy would have."""
    width, height = _sides(path)
    shrunk = min(1.0, (longer or max(width, height, 1)) / max(width, height, 1))
    return width * height * shrunk**2


def _sides(path: Path) -> tuple[int, int]:
    """Give width and height; 0 where the picture cannot be opened."""
    try:
        with Image.open(path) as opened:
            return opened.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0, 0


def _all(sources: Sequence[Source], folder: Path, rung: Rung, label: str) -> Iterator[Thumbnail]:
    def copy(one: Source) -> Thumbnail:
        return _copy(one, folder, rung)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from track(pool.map(copy, sources), label=label, total=len(sources))


def _copy(one: Source, folder: Path, rung: Rung) -> Thumbnail:
    """Find or make one copy; one that is older than its picture is made anew."""
    try:
        changed = one.path.stat().st_mtime_ns
    except OSError:
        return Thumbnail(path=None, state=MISSING)
    path = folder / f"{one.content}-{rung.name}.webp"
    size = _kept(path, changed)
    if size:
        return Thumbnail(path=path, size=size)
    try:
        content = _packed(one.path, rung)
    except MissingInputError:
        return Thumbnail(path=None, state=MISSING)
    except LorascopeError:
        return Thumbnail(path=None, state=DAMAGED)
    _keep(path, content)
    return Thumbnail(path=path, size=len(content))


def _kept(path: Path, changed: int) -> int:
    """Give the bytes of a copy made before; 0 where there is none, or it is torn or too old."""
    try:
        with path.open("rb") as opened:
            state, header = os.fstat(opened.fileno()), opened.read(HEADER)
    except OSError:
        return 0
    told = int.from_bytes(header[4:8], "little") + 8
    whole = header[:4] == b"RIFF" and header[8:] == b"WEBP" and told == state.st_size
    return state.st_size if whole and state.st_mtime_ns >= changed else 0


def _packed(path: Path, rung: Rung) -> bytes:
    image = Image.fromarray(read_image(path))
    if rung.longer is not None:
        image.thumbnail((rung.longer, rung.longer), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "WEBP", lossless=rung.lossless, quality=rung.quality, method=3)
    return out.getvalue()


def _keep(path: Path, content: bytes) -> None:
    """Write a copy in one piece. It may be lost in a power cut, so nobody waits for the disk."""
    partial = path.with_name(f".partial-{os.getpid()}-{threading.get_ident()}.webp")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise storage.storage_error(path, error) from error


def unique(sources: Iterable[Source]) -> tuple[list[Source], list[int]]:
    """Take each content once: the sources that differ, and the place of each given one in them."""
    places: dict[str, int] = {}
    listed: list[Source] = []
    indices = []
    for one in sources:
        key = one.content or str(one.path)
        if key not in places:
            places[key] = len(listed)
            listed.append(one)
        indices.append(places[key])
    return listed, indices
