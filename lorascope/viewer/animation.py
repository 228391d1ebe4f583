"""A GIF along an axis: one prompt over the epochs, or all prompts side by side."""

import bisect
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import GifImagePlugin, Image, ImageDraw, ImageFont

from lorascope import storage
from lorascope.errors import BadInputError, LorascopeError, ShapeError
from lorascope.io.images import read_image
from lorascope.progress import track
from lorascope.viewer.thumbnails import DAMAGED, MISSING

PAPER, INK, FAINT, EMPTY = "#ffffff", "#22252b", "#7a808c", "#eceef1"
GAP = 4  # px between the pictures of a strip
LEAST, MOST = 16, 4096  # px: sides of a picture, of the whole animation
COLOURS = 256
FOR_PALETTE = 48  # frames that the colours are chosen from, at this many px
PALETTE_SIDE = 160
FASTEST = 20  # ms; browsers show what is faster more slowly
FOREVER = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
Strip = Sequence[Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """Where things are on every frame, in px."""

    picture: tuple[int, int]
    pictures: int
    band: int  # height of the label above

    @property
    def size(self) -> tuple[int, int]:
        width, height = self.picture
        return self.pictures * (width + GAP) - GAP, height + self.band


def write_gif(
    frames: Sequence[Path | Strip],
    labels: Sequence[str],
    path: Path,
    *,
    size: int = 256,
    milliseconds: int = 500,
) -> Path:
    """Write pictures as an animation that goes on for ever.

    Parameters
    ----------
    frames : sequence of Path, or of sequences of Path
        A picture a frame, or several side by side. One that is missing or damaged becomes a
        grey one that says so.
    labels : sequence of str
        Drawn above the pictures, one a frame; "" draws none.
    path : Path
        The file.
    size : int
        Longer side of a picture in px; less where the strip would pass 4096 px.
    milliseconds : int
        How long each frame stays.

    Returns
    -------
    Path
        ``path``; the same pictures give the same bytes. One frame is in memory at a time.

    Raises
    ------
    ShapeError
        There are no frames, they differ in length, or the labels are not as many.
    BadInputError
        No picture can be read, or the size or the time cannot be used.
    StorageError
        The file cannot be written; what was there is as it was.
    """
    strips = [[frame] if isinstance(frame, Path) else list(frame) for frame in frames]
    _check(strips, labels, size, milliseconds)
    page = _page(strips, labels, size)
    palette = _palette(strips, labels, page)
    with storage.replacing(path) as partial, partial.open("wb") as out:
        out.write(_header(page, palette))
        drawn = _frames(strips, labels, page)
        for frame in track(drawn, label="GIF", total=len(strips)):
            indexed = frame.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
            for piece in GifImagePlugin.getdata(indexed, duration=milliseconds):
                out.write(piece)
        out.write(b";")
    return path


def _check(strips: Sequence[Strip], labels: Sequence[str], size: int, milliseconds: int) -> None:
    if len(strips) != len(labels):
        raise ShapeError(
            f"An animation of {len(strips)} frames needs as many labels, not {len(labels)}."
        )
    if not strips or not strips[0] or len({len(strip) for strip in strips}) != 1:
        raise ShapeError("An animation needs frames with one number of pictures, at least one.")
    if not LEAST <= size <= MOST:
        raise BadInputError(
            f"A picture of {size} px cannot be animated.\nFix: {LEAST} to {MOST} px."
        )
    if milliseconds < FASTEST:
        raise BadInputError(
            f"{milliseconds} ms a frame is too fast for browsers.\nFix: at least {FASTEST} ms."
        )


def _page(strips: Sequence[Strip], labels: Sequence[str], size: int) -> _Page:
    first = next((one for strip in strips for one in map(_read, strip) if one[0] is not None), None)
    if first is None or first[0] is None:
        raise BadInputError(
            f"None of {len(strips)} frames has a picture that can be read, such as "
            f"{strips[0][0]}.\nFix: draw them again: lorascope grid RUN"
        )
    width, height = first[0].size
    number = len(strips[0])
    room = (MOST - GAP * (number - 1)) / number
    shrunk = min(size / max(width, height), room / width)
    picture = max(1, round(width * shrunk)), max(1, round(height * shrunk))
    return _Page(
        picture=picture,
        pictures=number,
        band=_text_size(size) * 2 if any(labels) else 0,
    )


def _frames(strips: Sequence[Strip], labels: Sequence[str], page: _Page) -> Iterator[Image.Image]:
    for strip, label in zip(strips, labels, strict=True):
        yield _frame(strip, label, page)


def _frame(strip: Strip, label: str, page: _Page) -> Image.Image:
    sheet = Image.new("RGB", page.size, PAPER)
    draw = ImageDraw.Draw(sheet)
    width, height = page.picture
    if page.band:
        font = ImageFont.load_default(page.band // 2)
        draw.text((GAP, page.band // 2), _fitted(label, font, page.size[0]), INK, font, anchor="lm")
    for place, path in enumerate(strip):
        left = place * (width + GAP)
        picture, state = _read(path)
        if picture is not None:
            sheet.paste(picture.resize((width, height), _method(picture, width)), (left, page.band))
            continue
        draw.rectangle((left, page.band, left + width - 1, page.band + height - 1), EMPTY)
        middle = (left + width // 2, page.band + height // 2)
        draw.text(middle, state, FAINT, ImageFont.load_default(max(9, width // 12)), anchor="mm")
    return sheet


def _read(path: Path) -> tuple[Image.Image | None, str]:
    try:
        return Image.fromarray(read_image(path)), ""
    except LorascopeError:
        return None, DAMAGED if path.exists() else MISSING


def _method(picture: Image.Image, width: int) -> Image.Resampling:
    return Image.Resampling.LANCZOS if picture.width > width else Image.Resampling.BICUBIC


def _palette(strips: Sequence[Strip], labels: Sequence[str], page: _Page) -> Image.Image:
    """Choose the colours that all frames share, so that nothing flickers but what changes."""
    every = max(1, -(-len(strips) // FOR_PALETTE))
    some = list(_frames(strips[::every], labels[::every], _small(page)))
    width, height = some[0].size
    all_of_them = Image.new("RGB", (width, height * len(some)), PAPER)
    for place, frame in enumerate(some):
        all_of_them.paste(frame, (0, place * height))
    return all_of_them.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def _small(page: _Page) -> _Page:
    shrunk = min(1.0, PALETTE_SIDE / max(page.picture))
    width, height = page.picture
    picture = max(1, round(width * shrunk)), max(1, round(height * shrunk))
    return _Page(picture=picture, pictures=page.pictures, band=page.band)


def _header(page: _Page, palette: Image.Image) -> bytes:
    """Write what stands before the frames: size, shared colours, and that it repeats."""
    colours = bytes(palette.getpalette() or ()).ljust(3 * COLOURS, b"\0")[: 3 * COLOURS]
    screen = struct.pack("<HHBBB", *page.size, 0b1_111_0_111, 0, 0)  # 256 shared colours of 8 bits
    return b"GIF89a" + screen + colours + FOREVER


def _text_size(size: int) -> int:
    return max(10, round(size / 16))


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Keep what can be drawn on one line of this width."""
    clean = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    room = width - 2 * GAP
    if font.getlength(clean) <= room:
        return clean

    def needed(letters: int) -> int:
        return math.ceil(font.getlength(clean[:letters] + "..."))

    kept = bisect.bisect_right(range(len(clean)), room, key=needed)
    return clean[: max(0, kept - 1)] + "..."
