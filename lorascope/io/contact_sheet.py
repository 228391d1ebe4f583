"""Many pictures on one: a row of them per label at the left, a column per text on top."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lorascope.errors import ShapeError

Picture = NDArray[np.uint8]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PAPER, INK, FAINT, EMPTY = "#ffffff", "#22252b", "#7a808c", "#eceef1"
LARGEST, SMALLEST = 256, 112  # px: the longer side of a cell
MOST_PIXELS = 40_000_000  # of all cells; many cells get smaller, down to LEAST
LEAST = 48
MARGIN, GAP, WIDE_GAP = 16, 4, 12  # px
MOST_LINES = 9  # of a text on top; the rest is an ellipsis


def contact_sheet(
    pictures: Sequence[Sequence[Picture | None]],
    *,
    rows: Sequence[tuple[str, str]],
    columns: Sequence[tuple[str, str]],
    title: str = "",
) -> Picture:
    """Lay pictures out as a table.

    Parameters
    ----------
    pictures : sequence of rows of (H, W, 3) uint8 arrays
        All of one size; None leaves its place empty.
    rows : sequence of (str, str)
        Label at the left, and a fainter line under it. The first row is set apart.
    columns : sequence of (str, str)
        Heading, wrapped to the width, and a fainter line above it. Columns with another faint
        line are set apart.
    title : str
        A line above everything.

    Returns
    -------
    (H, W, 3) uint8 array
        Cells are enlarged to at least 112 px and shrunk to at most 256 px; to less where there
        are so many that the sheet would pass 40 million px.

    Raises
    ------
    ShapeError
        There are no pictures, they differ in size, or the labels do not fit their number.
    """
    width, height = _cell_size(pictures, rows, columns)
    size = max(12, round(max(width, height) / 11))
    bold, plain = ImageFont.load_default(size + 1), ImageFont.load_default(size - 1)
    headings = [_wrapped(_clean(text), plain, width) for text, _ in columns]
    faint = bool(any(above for _, above in columns))
    line = size + 4
    x = _starts(MARGIN + _label_width(rows, bold, plain), width, [above for _, above in columns])
    heads = line * (faint + max((len(lines) for lines in headings), default=0)) + GAP
    top = MARGIN + (line + 2 * GAP if title else 0)
    y = _starts(top + heads, height, ["first", *["other"] * (len(rows) - 1)])
    right = x[-1] + width + MARGIN
    if title:
        right = max(right, 2 * MARGIN + round(bold.getlength(_clean(title))))
    sheet = Image.new("RGB", (right, y[-1] + height + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN - 2), _clean(title), fill=INK, font=bold)
    for left, (_, above), lines in zip(x, columns, headings, strict=True):
        bottom = top + heads - GAP
        if faint:
            draw.text((left, bottom - line * (len(lines) + 1)), above, fill=FAINT, font=plain)
        for number, text in enumerate(lines):
            place = (left, bottom - line * (len(lines) - number))
            draw.text(place, text, fill=INK, font=plain)
    for upper, (label, below), cells in zip(y, rows, pictures, strict=True):
        middle = upper + height // 2 - (line if below else line // 2)
        draw.text((MARGIN, middle), _clean(label), fill=INK, font=bold)
        draw.text((MARGIN, middle + line), _clean(below), fill=FAINT, font=plain)
        for left, cell in zip(x, cells, strict=True):
            if cell is None:
                draw.rectangle((left, upper, left + width - 1, upper + height - 1), fill=EMPTY)
            else:
                sheet.paste(thumbnail(cell, width, height), (left, upper))
    return np.asarray(sheet)


def thumbnail(picture: Picture, width: int, height: int) -> Image.Image:
    """Bring a picture to a size: Lanczos when it shrinks, bicubic when it grows."""
    shrinks = picture.shape[1] > width or picture.shape[0] > height
    method = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
    image = Image.fromarray(np.ascontiguousarray(picture))
    return image if image.size == (width, height) else image.resize((width, height), method)


def shown_size(width: int, height: int, *, cells: int = 1) -> tuple[int, int]:
    """Width and height that a picture of this size gets on a sheet of so many, in px."""
    longer = max(width, height)
    room = max(LEAST, int((MOST_PIXELS / cells) ** 0.5))
    wanted = min(max(longer, SMALLEST), LARGEST, room)
    return max(1, round(width * wanted / longer)), max(1, round(height * wanted / longer))


def _cell_size(
    pictures: Sequence[Sequence[Picture | None]], rows: Sequence[Any], columns: Sequence[Any]
) -> tuple[int, int]:
    if len(pictures) != len(rows) or any(len(cells) != len(columns) for cells in pictures):
        raise ShapeError(f"The pictures do not fill {len(rows)} rows of {len(columns)}.")
    sizes = {cell.shape for cells in pictures for cell in cells if cell is not None}
    if len(sizes) != 1:
        raise ShapeError(f"A sheet needs pictures of one size, not {sorted(sizes)}.")
    height, width, _ = sizes.pop()
    return shown_size(width, height, cells=len(rows) * len(columns))


def _starts(start: int, size: int, groups: Sequence[str]) -> list[int]:
    """Where each row or column begins, with more room where the group changes."""
    places = [start]
    for number in range(1, len(groups)):
        apart = groups[number] != groups[number - 1]
        places.append(places[-1] + size + (WIDE_GAP if apart else GAP))
    return places


def _label_width(rows: Sequence[tuple[str, str]], bold: Font, plain: Font) -> int:
    widths = [max(bold.getlength(_clean(a)), plain.getlength(_clean(b))) for a, b in rows]
    return round(max(widths)) + MARGIN


def _wrapped(text: str, font: Font, width: int) -> list[str]:
    """Break a text into lines of a width; a word too long for one is broken inside."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    if len(lines) <= MOST_LINES:
        return lines
    last = lines[MOST_LINES - 1]
    while last and font.getlength(last + "...") > width:
        last = last[:-1]
    return [*lines[: MOST_LINES - 1], last + "..."]


def _clean(text: str) -> str:
    """Keep what can be drawn on one line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
