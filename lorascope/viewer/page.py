"""Pictures in rows and columns as one HTML file that asks nobody for anything."""

import base64
import hashlib
import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from types import MappingProxyType

from lorascope import storage
from lorascope.errors import BadInputError, LorascopeError, MissingInputError
from lorascope.io.dataset_file import Dataset, read_dataset
from lorascope.progress import track
from lorascope.records import Evidence, Row, Scalar
from lorascope.run import Run
from lorascope.tools.pictures.sets import PictureSet
from lorascope.viewer.axes import complete
from lorascope.viewer.data import (
    NEAREST,
    PARAMETERS,
    Album,
    as_json,
    block_starts,
    inside,
    page_data,
    picture_data,
    text_of,
)
from lorascope.viewer.overlays import Overlays, overlay, overlays_of
from lorascope.viewer.thumbnails import Source, Thumbnail, small_copies, source, unique

BUDGET = 12_000_000  # bytes of the file, as far as pictures can be made small enough
FOR_REFERENCES = 0.12  # of the budget, at most
REFERENCE_SIDE = 384  # px
PER_PICTURE = 16  # bytes that tell where one lies, and padding
THUMBS = "thumbs"  # in the run's samples
SCRIPTS = ("dom", "state", "data", "layout", "overlay", "grid", "zoom", "compare", "large", "play",
           "controls", "help", "main")  # fmt: skip
NOTHING: Mapping[str, Evidence] = MappingProxyType({})
NO_VALUES: Mapping[str, Mapping[int, Scalar]] = MappingProxyType({})


def write_viewer(
    run: Run,
    grid: Evidence,
    measures: Mapping[str, Evidence],
    path: Path,
    *,
    budget: int = BUDGET,
) -> Path:
    """Write a grid as one HTML file.

    Parameters
    ----------
    run : Run
    grid : Evidence
        Of the tool ``grid``: its table ``cells``.
    measures : mapping of str to Evidence
        What was measured of these pictures, by tool; may be empty.
    path : Path
        The file. In the run's samples, the full pictures open from beside it.
    budget : int
        Bytes that the file should not pass; pictures are made as small as that asks for.

    Returns
    -------
    Path
        ``path``; the same input gives the same bytes.

    Raises
    ------
    MissingInputError
        The grid lists no picture.
    StorageError
        The file cannot be written; what was there is as it was.
    """
    splits = {row["column"]: row.get("split") for row in grid.table("prompts") if row.get("split")}
    rows = [{**row, "split": splits.get(row.get("column"))} for row in grid.table("cells")]
    found = overlays_of({"grid": grid, **measures}, _numbered(rows))
    return _write(rows, run, run.name, found, path, budget, named=True)


def write_viewer_of(
    pictures: PictureSet,
    measures: Mapping[str, Evidence],
    path: Path,
    *,
    title: str = "",
    budget: int = BUDGET,
) -> Path:
    """Write any set of pictures as one HTML file: such as what another trainer drew.

    Parameters and errors as of `write_viewer`.
    """
    rows = [asdict(picture) for picture in pictures.pictures]
    run = Run(pictures.run)
    found = overlays_of(measures, rows)
    named = not pictures.by_trainer
    return _write(rows, run, title or run.name, found, path, budget, named=named)


def page_of(
    rows: Sequence[Row],
    path: Path,
    *,
    run: Run,
    title: str = "",
    values: Mapping[str, Mapping[int, Scalar]] = NO_VALUES,
    budget: int = BUDGET,
) -> Path:
    """Write plain rows as one HTML file.

    Parameters
    ----------
    rows : sequence of Row
        A picture each: ``file`` (relative to the run), ``epoch`` and ``prompt`` at least; more of
        the columns of a grid's cells become axes and facts.
    path : Path
        The file.
    run : Run
    title : str
        What stands above; the run's name where empty.
    values : mapping of str to mapping of int to scalar
        Name to ``cell`` to value: numbers can be laid over the pictures, texts are told.
    budget : int
        Bytes that the file should not pass.

    Raises
    ------
    MissingInputError
        There is no row.
    StorageError
        The file cannot be written; what was there is as it was.
    """
    found = overlays_of(NOTHING, _numbered(rows))
    made = [(name, told, overlay(name, told)) for name, told in values.items()]
    texts = {n: {c: str(v) for c, v in told.items()} for n, told, one in made if one is None}
    found = replace(
        found,
        numbers=(*found.numbers, *(one for _, _, one in made if one is not None)),
        texts={**found.texts, **texts},
    )
    return _write(rows, run, title or run.name, found, path, budget, named=True)


def _write(
    rows: Sequence[Row],
    run: Run,
    title: str,
    overlays: Overlays,
    path: Path,
    budget: int,
    *,
    named: bool,
) -> Path:
    if not rows:
        raise MissingInputError(
            f"{run.path} has no pictures to show yet.\nFix: lorascope grid {run.shell}"
        )
    full = complete(rows)
    files = [inside(run.path, str(row["file"])) for row in full]
    texts = _texts(full, files)
    data = page_data(full, run=run.path, page=path, title=title, overlays=overlays, texts=texts)
    words = len(as_json(data).encode()) + PER_PICTURE * len(full)
    words += sum(len(part) for part in _parts(title, "", ()))
    room = max(budget - words, budget // 4) * 3 // 4  # base64 takes four bytes for three
    album = _album(run, files, overlays, room, named=named)
    data |= picture_data(full, overlays, album)
    content = b"".join(_parts(title, as_json(data), album.all))
    if not (path.is_file() and path.read_bytes() == content):
        storage.write_bytes(path, content)
    return path


def _numbered(rows: Sequence[Row]) -> list[Row]:
    return [{"cell": place, **row} for place, row in enumerate(rows)]


def _album(
    run: Run, files: Sequence[Path | None], overlays: Overlays, room: int, *, named: bool
) -> Album:
    """Make the small copies of the pictures, and of the training images that are named."""
    folder = run.place("samples") / THUMBS
    images = _training_images(run, overlays)
    references: tuple[Thumbnail, ...] = ()
    if images:
        _, references = small_copies(
            list(images.values()),
            folder,
            budget=int(room * FOR_REFERENCES),
            label="Training images made small",
            largest=REFERENCE_SIDE,
        )
        room -= sum(one.size for one in references)
    nowhere = Path("no such picture")
    listed, places = unique(source(file or nowhere, named=named) for file in files)
    rung, cells = small_copies(listed, folder, budget=room, label="Pictures made small")
    return Album(
        rung=rung,
        cells=cells,
        cell_of=tuple(places),
        references=references,
        names=tuple(images),
    )


def _training_images(run: Run, overlays: Overlays) -> dict[str, Source]:
    """Find the training images that are the nearest to any picture."""
    wanted = set(overlays.texts.get(NEAREST, {}).values())
    dataset = _dataset(run) if wanted else None
    if dataset is None:
        return {}
    return {
        image.file: Source(path=dataset.path(image), content=image.sha256)
        for image in dataset.images
        if image.file in wanted and dataset.path(image).is_file()
    }


def _dataset(run: Run) -> Dataset | None:
    try:
        return read_dataset(run.place("dataset"))
    except LorascopeError:  # the pictures can be looked at without it
        return None


def _texts(rows: Sequence[Row], files: Sequence[Path | None]) -> list[str]:
    """Give what each picture says for other programs: its row knows, or the file itself."""
    told = [next((str(row[key]) for key in PARAMETERS if row.get(key)), "") for row in rows]
    if any(told):
        return told
    known: dict[Path, str] = {}
    for file in track(files, label="Pictures' settings read"):
        if file is not None and file not in known:
            known[file] = text_of(file)
    return [known[file] if file is not None else "" for file in files]


def _parts(title: str, data: str, pictures: Sequence[Thumbnail]) -> Iterator[bytes]:
    """Give the file piece by piece: no more than one block of pictures is in memory."""
    style = _asset("grid.css") + _asset("large.css")
    script = '"use strict";\n' + "\n".join(_asset(f"{name}.js") for name in SCRIPTS)
    filled = {
        "policy": _policy(style, script),
        "title": html.escape(title),
        "style": style,
        "data": data,
        "script": script,
    }
    before, after = _asset("grid.html").split("{{pictures}}")
    yield _fill(before, filled).encode()
    for number, block in enumerate(_blocks(pictures)):
        yield f'<script type="text/plain" id="pictures-{number}">'.encode()
        yield block
        yield b"</script>\n"
    yield after.encode()


def _fill(template: str, filled: Mapping[str, str]) -> str:
    """Put texts into their places, once: what is put in is never looked at again."""
    pieces = template.split("{{")
    done = [pieces[0]]
    for piece in pieces[1:]:
        name, rest = piece.split("}}", 1)
        done += [filled[name], rest]
    return "".join(done)


def _policy(style: str, script: str) -> str:
    """Forbid everything but what is in the file, and pictures that lie beside it."""
    return (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "img-src data: 'self' file:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _blocks(pictures: Sequence[Thumbnail]) -> Iterator[bytes]:
    """Give the pictures as text, some in a block; the page knows the sizes, so it finds each."""
    starts = block_starts([one.size for one in pictures])
    for start, end in zip(starts, [*starts[1:], len(pictures)], strict=True):
        yield b"".join(_packed(one) for one in pictures[start:end])


def _packed(one: Thumbnail) -> bytes:
    content = one.path.read_bytes() if one.path else b""
    if len(content) != one.size:
        raise BadInputError(
            f"{one.path} changed while the page was written.\nFix: give the command again."
        )
    return base64.b64encode(content)


def _asset(name: str) -> str:
    return resources.files("lorascope.viewer").joinpath(name).read_text(encoding="utf-8")
