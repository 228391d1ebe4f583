"""The contact sheet of a grid: rows down, columns across, labelled."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.contact_sheet import Picture, contact_sheet, shown_size, thumbnail
from lorascope.io.images import read_image, write_png
from lorascope.progress import track
from lorascope.tools.drawing.layout import Column, Layer, Placed
from lorascope.tools.pictures.sets import TRIGGER_OFF

WHITE = 255


def write_sheet(path: Path, placed: Sequence[Placed], samples: Path) -> None:
    """Draw a grid as one picture.

    Parameters
    ----------
    path : Path
        Of the sheet.
    placed : sequence of Placed
        Row by row. A picture that cannot be read leaves its place empty; pictures of different
        sizes are fitted into one frame.
    samples : Path
        The run's folder of samples.
    """
    rows: dict[int, list[Placed]] = {}
    for one in placed:
        rows.setdefault(one.row, []).append(one)
    shots = [one.cell.shot for one in placed]
    frame = max(s.width for s in shots), max(s.height for s in shots)
    shown = shown_size(*frame, cells=len(placed))
    thumbs = [
        [_thumb(one, samples, shown) for one in row]
        for row in track(rows.values(), label="grid, contact sheet", total=len(rows))
    ]
    heads = [one.column for one in rows[0]]
    sheet = contact_sheet(
        thumbs,
        rows=row_labels([row[0].layer for row in rows.values()]),
        columns=_column_labels(heads),
    )
    write_png(path, sheet)


def _thumb(one: Placed, samples: Path, shown: tuple[int, int]) -> Picture | None:
    try:
        picture = read_image(one.cell.path(samples))
    except (BadInputError, MissingInputError):
        return None
    width, height = shown
    share = min(width / picture.shape[1], height / picture.shape[0])
    size = max(1, round(picture.shape[1] * share)), max(1, round(picture.shape[0] * share))
    small = np.asarray(thumbnail(picture, *size))
    framed = np.full((height, width, 3), WHITE, dtype=np.uint8)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    framed[top : top + size[1], left : left + size[0]] = small
    return framed


def row_labels(layers: Sequence[Layer]) -> list[tuple[str, str]]:
    """Say what tells each row from the others."""
    drawn = [layer for layer in layers if layer.epoch]
    by_strength = len({(x.strength, x.text_strength) for x in drawn}) > 1 or any(
        (x.strength, x.text_strength) != (1.0, 1.0) for x in drawn
    )
    several = len({layer.base for layer in layers}) > 1
    found = []
    for layer in layers:
        more = [_strengths(layer)] if by_strength and layer.epoch else []
        more += [Path(layer.base).stem] if several else []
        more += [lora.path.stem for lora in layer.companions]
        more += ["trigger left out"] if layer.kind == TRIGGER_OFF else []
        found.append((f"epoch {layer.epoch}" if layer.epoch else "base model", ", ".join(more)))
    return found


def _strengths(layer: Layer) -> str:
    text = f", text {layer.text_strength:g}" if layer.text_strength != layer.strength else ""
    return f"strength {layer.strength:g}{text}"


def _column_labels(columns: Sequence[Column]) -> list[tuple[str, str]]:
    """Say what tells each column from the others."""
    varies = {
        name: len({getattr(column.shot, name) for column in columns}) > 1
        for name in ("seed", "negative", "guidance", "steps", "sampler", "width", "height")
    }
    found = []
    for column in columns:
        shot = column.shot
        more = [column.asked.tags] if column.asked.tags else []
        more += [f"seed {shot.seed}"] if varies["seed"] else []
        more += [f"not: {shot.negative or '-'}"] if varies["negative"] else []
        more += [f"guidance {shot.guidance:g}"] if varies["guidance"] else []
        more += [f"{shot.steps} steps"] if varies["steps"] else []
        more += [shot.sampler] if varies["sampler"] else []
        more += [f"{shot.width} x {shot.height}"] if varies["width"] or varies["height"] else []
        text = column.prompt.text + (f" ({', '.join(more)})" if more else "")
        found.append((text, column.prompt.group))
    return found
