"""What the page knows: everything but the pictures themselves, as compact as JSON can be."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from PIL import Image

from lorascope.records import Row, Scalar
from lorascope.viewer.axes import Axis, axes_of, file_name, settings_of
from lorascope.viewer.overlays import Overlay, Overlays
from lorascope.viewer.thumbnails import Rung, Thumbnail

SCHEMA = 1
BLOCK = 750_000  # bytes of pictures in one block of the page
DIGITS = 4  # that a measured number keeps
NEAREST = "nearest_train"  # a column that names a training image
PARAMETERS = ("infotext", "parameters")  # columns, or text in the picture, for other programs
TEXT_IN_PICTURE = "parameters"
TEXT_NAMES: Mapping[str, str] = {NEAREST: "nearest training image"}
# Told of the picture that is open, in this order; what does not vary is told as well.
FACTS: Mapping[str, str] = {
    "epoch": "epoch", "step": "step", "lora": "LoRA", "strength": "strength",
    "text_strength": "text strength", "companions": "companions", "tags": "tags",
    "base": "base model", "prompt": "prompt", "group": "kind of prompt", "split": "caption of",
    "negative": "negative prompt", "seed": "seed", "guidance": "guidance",
    "steps": "sampling steps", "sampler": "sampler", "clip_skip": "clip skip",
    "width": "width", "height": "height",
}  # fmt: skip
PATHS = ("lora", "base")  # of these only the name is told


@dataclass(frozen=True, slots=True, kw_only=True)
class Album:
    """The small copies of a page, and which of them belongs to which picture."""

    rung: Rung
    cells: tuple[Thumbnail, ...]
    cell_of: tuple[int, ...]  # place in `cells` for each picture
    references: tuple[Thumbnail, ...] = ()  # training images
    names: tuple[str, ...] = ()  # of the training images

    @property
    def all(self) -> tuple[Thumbnail, ...]:
        """Every copy, in the order in which they stand in the file."""
        return (*self.cells, *self.references)


def page_data(
    rows: Sequence[Row],
    *,
    run: Path,
    page: Path,
    title: str,
    overlays: Overlays,
    texts: Sequence[str],
) -> dict[str, Any]:
    """Gather what the page shows around its pictures; `picture_data` tells the rest.

    Parameters
    ----------
    rows : sequence of Row
        The pictures, as `axes.complete` gives them.
    run : Path
        What their files are relative to.
    page : Path
        Where the page will lie: links to the full pictures start there.
    title : str
    overlays : Overlays
    texts : sequence of str
        What each picture says for other programs; may be empty.
    """
    place_of = {row["cell"]: place for place, row in enumerate(rows)}
    return {
        "schema": SCHEMA,
        "title": title,
        "count": len(rows),
        "settings": list(settings_of(rows)),
        "aspect": _aspect(rows, run),
        "axes": [_axis(axis) for axis in axes_of(rows)],
        "facts": _facts(rows, overlays.texts),
        "metrics": [_metric(one, place_of) for one in overlays.numbers],
        "caveats": list(overlays.caveats),
        "row": _coded([row["row"] for row in rows]),
        "baseline": [place_of.get(row["baseline"], -1) for row in rows],
        "links": _coded([_link(run, str(row["file"]), page) for row in rows]),
        "texts": _lines(texts),
    }


def picture_data(rows: Sequence[Row], overlays: Overlays, album: Album) -> dict[str, Any]:
    """Tell where each picture stands in the file, and which training image is nearest to it."""
    return {
        "nearest": _nearest(rows, overlays, album),
        "references": list(album.names),
        "pictures": _pictures(album),
    }


def as_json(data: Mapping[str, Any]) -> str:
    """Write JSON that may stand in a page: nothing in it can end a script or begin a tag."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def text_of(path: Path) -> str:
    """Read what a picture says for other programs; "" where it says nothing."""
    try:
        with Image.open(path) as opened:
            return str(opened.info.get(TEXT_IN_PICTURE, ""))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""


def inside(run: Path, file: str) -> Path | None:
    """Find a picture's file; None where the name points out of the run."""
    pure = PurePosixPath(file)
    return None if not file or pure.is_absolute() or ".." in pure.parts else run / pure


def block_starts(sizes: Sequence[int]) -> list[int]:
    """Tell at which picture each block of the page begins."""
    starts, filled = [0], 0
    for place, size in enumerate(sizes):
        if filled and filled + size > BLOCK:
            starts.append(place)
            filled = 0
        filled += size
    return starts


def _axis(axis: Axis) -> dict[str, Any]:
    return {
        "key": axis.key,
        "name": axis.name,
        "side": axis.side,
        "labels": list(axis.labels),
        "groups": list(axis.groups),
        "places": list(axis.places),
    }


def _facts(rows: Sequence[Row], texts: Mapping[str, Mapping[int, str]]) -> list[dict[str, Any]]:
    """Tell what is known of each picture; what is known of none is left out."""
    found = []
    for key, name in FACTS.items():
        values = [_fact(key, row.get(key)) for row in rows]
        if any(value is not None for value in values):
            found.append({"key": key, "name": name, **_coded(values)})
    for key, told in texts.items():
        values = [told.get(int(row["cell"] or 0)) for row in rows]
        found.append(
            {"key": key, "name": TEXT_NAMES.get(key, key.replace("_", " ")), **_coded(values)}
        )
    return found


def _fact(key: str, value: Scalar) -> Scalar:
    if value is None or value == "":
        return None
    return file_name(value) if key in PATHS else value


def _metric(one: Overlay, place_of: Mapping[Scalar, int]) -> dict[str, Any]:
    values: list[float | None] = [None] * len(place_of)
    for cell, value in one.values.items():
        if cell in place_of:
            values[place_of[cell]] = _rounded(value)
    return {
        "key": one.key,
        "name": one.name,
        "meaning": one.meaning,
        "values": values,
        "means": {
            str(row): [None if v is None else _rounded(v) for v in mean]
            for row, mean in one.means.items()
        },
        "numbers": list(one.numbers),
    }


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _coded(values: Sequence[Scalar]) -> dict[str, Any]:
    """Write a column as its different values and, for each row, which of them it has."""
    different = list(dict.fromkeys(_key(value) for value in values))
    if len(different) == 1:
        return {"values": [different[0][1]], "index": 0}
    place = {key: number for number, key in enumerate(different)}
    return {
        "values": [value for _, value in different],
        "index": [place[_key(value)] for value in values],
    }


def _key(value: Scalar) -> tuple[str, Scalar]:
    return type(value).__name__, value  # 1, 1.0 and True are three values


def _nearest(rows: Sequence[Row], overlays: Overlays, album: Album) -> list[int]:
    """Tell which training image is nearest to each picture; -1 where that is not known."""
    told = overlays.texts.get(NEAREST, {})
    places = {name: place for place, name in enumerate(album.names)}
    found = [places.get(told.get(int(row["cell"] or 0), ""), -1) for row in rows]
    return found if any(place >= 0 for place in found) else []


def _lines(texts: Sequence[str]) -> dict[str, Any]:
    """Write texts as lists of lines: most of them share all lines but one."""
    if not any(texts):
        return {"lines": [], "of": []}
    split = [text.split("\n") if text else [] for text in texts]
    lines = list(dict.fromkeys(line for text in split for line in text))
    place = {line: number for number, line in enumerate(lines)}
    return {"lines": lines, "of": [[place[line] for line in text] for text in split]}


def _pictures(album: Album) -> dict[str, Any]:
    sizes = [one.size for one in album.all]
    states = {str(i): one.state for i, one in enumerate(album.all) if one.state}
    return {
        "sizes": sizes,
        "starts": block_starts(sizes),
        "of": list(album.cell_of),
        "references": len(album.cells),  # place of the first training image
        "states": states,
        "longer": album.rung.longer,
        "lossless": album.rung.lossless,
    }


def _link(run: Path, file: str, page: Path) -> str:
    """Give the way from the page to the full picture; "" where there is none."""
    path = inside(run, file)
    if path is None:
        return ""
    try:
        return quote(Path(os.path.relpath(path, page.parent)).as_posix())
    except ValueError:  # another drive
        return ""


def _aspect(rows: Sequence[Row], run: Path) -> float:
    """Give the usual width over height."""
    sizes = Counter((r["width"], r["height"]) for r in rows if r.get("width") and r.get("height"))
    if sizes:
        width, height = sizes.most_common(1)[0][0]
        return round(float(width or 1) / float(height or 1), 4)
    for row in rows:
        path = inside(run, str(row["file"]))
        try:
            if path:
                with Image.open(path) as opened:
                    return round(opened.width / opened.height, 4)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
    return 1.0
