"""What lies behind the figure: a place that a tag names, or colours and shapes that none does."""

import random
from collections.abc import Callable

from lorascope.miniature.canvas import UNIT, Canvas, draw_shape, mix, smooth, vary
from lorascope.miniature.world import SHAPES, Avatar, Colour


def draw_background(canvas: Canvas, avatar: Avatar, rng: random.Random) -> None:
    """Fill the canvas with the avatar's background."""
    if avatar.background_rgb is None:
        BACKGROUND_PAINTERS[avatar.background](canvas, rng)
        return
    first, second = avatar.background_rgb
    pattern = rng.choice(["plain", "shapes", "gradient"])
    _gradient(canvas, first, second if pattern == "gradient" else first)
    if pattern == "shapes":
        for _ in range(rng.randint(2, 6)):
            centre, size = (rng.uniform(0, 128), rng.uniform(0, 128)), rng.uniform(6, 22)
            draw_shape(canvas, rng.choice(SHAPES), centre, size, second, region=None, behind=first)


def _band(canvas: Canvas, top: float, bottom: float, fill: Colour) -> None:
    canvas.polygon([(-9, top), (137, top), (137, bottom), (-9, bottom)], fill)


def _gradient(
    canvas: Canvas, upper: Colour, lower: Colour, *, bottom: float = UNIT, bands: int = 16
) -> None:
    height = bottom / bands
    for i in range(bands):
        _band(canvas, height * i, height * (i + 1) + 1, mix(upper, lower, i / (bands - 1)))


def _white(canvas: Canvas, rng: random.Random) -> None:
    _band(canvas, 0, UNIT, (250, 250, 250))


def _pink(canvas: Canvas, rng: random.Random) -> None:
    _band(canvas, 0, UNIT, vary(rng, (250, 190, 205), 6))


def _blue(canvas: Canvas, rng: random.Random) -> None:
    _band(canvas, 0, UNIT, vary(rng, (60, 90, 200), 8))


def _sky(canvas: Canvas, rng: random.Random) -> None:
    _gradient(canvas, (96, 170, 240), (190, 226, 250))
    for _ in range(rng.randint(3, 5)):
        x, y, zoom = rng.uniform(0, 128), rng.uniform(8, 110), rng.uniform(0.8, 1.4)
        for dx, dy, radius in ((-9, 2, 6), (0, -2, 8), (9, 2, 6), (0, 4, 7)):
            radii = (radius * zoom * 1.2, radius * zoom * 0.8)
            canvas.ellipse((x + dx * zoom, y + dy * zoom), radii, (252, 252, 255), count=16)


def _forest(canvas: Canvas, rng: random.Random) -> None:
    _band(canvas, 0, 90, (132, 180, 120))
    _band(canvas, 84, UNIT, (70, 120, 50))
    start = rng.uniform(0, 22)
    for i in range(-1, 7):
        x = i * 22 + start + rng.uniform(-4, 4)
        canvas.polygon([(x - 3, 30), (x + 3, 30), (x + 4, 96), (x - 4, 96)], (92, 62, 38))
        leaves = vary(rng, (34, 104, 46), 14)
        for y, radius in ((8, 20), (30, 16)):
            centre = (x, y + rng.uniform(-4, 4))
            canvas.ellipse(centre, (radius, radius * 0.85), leaves, count=14)


def _night(canvas: Canvas, rng: random.Random) -> None:
    _gradient(canvas, (12, 14, 46), (44, 36, 92))
    for _ in range(26):
        centre = (rng.uniform(0, 128), rng.uniform(0, 128))
        radius = rng.choice([0.8, 1.0, 1.4])
        canvas.ellipse(centre, (radius, radius), (250, 244, 200), count=8)
    x, y = rng.choice([18, 108]), rng.uniform(14, 26)
    canvas.ellipse((x, y), (10, 10), (250, 240, 180))
    canvas.ellipse((x + 4, y - 2), (9, 9), (18, 18, 54))


def _beach(canvas: Canvas, rng: random.Random) -> None:
    _gradient(canvas, (140, 210, 250), (210, 240, 250), bottom=60)
    _band(canvas, 58, 92, (40, 150, 200))
    _band(canvas, 90, UNIT, (238, 214, 150))
    for i in range(4):
        x, y = rng.uniform(0, 100), 64 + i * 7
        canvas.line([(x, y), (x + 14, y)], (170, 225, 240), 1.4)
    foam = [(0, 91), (20, 93), (44, 90), (70, 93), (100, 90), (128, 92)]
    canvas.line(smooth(foam, closed=False), (250, 250, 250), 2.2)
    canvas.ellipse((rng.choice([18, 110]), 18), (9, 9), (255, 232, 110))


def _room(canvas: Canvas, rng: random.Random) -> None:
    frame = (110, 70, 44)
    _band(canvas, 0, UNIT, (226, 196, 156))
    for i in range(7):
        canvas.line([(i * 21, 0), (i * 21, 100)], (214, 180, 140), 1.6)
    _band(canvas, 100, UNIT, (140, 92, 58))
    _band(canvas, 98, 101, (250, 240, 220))
    x = rng.choice([3, 91])
    window = [(x, 18), (x + 34, 18), (x + 34, 62), (x, 62)]
    canvas.polygon(window, (170, 220, 250))
    canvas.line([*window, *window[:2]], frame, 3)
    canvas.line([(x + 17, 18), (x + 17, 62)], frame, 2)
    canvas.line([(x, 40), (x + 34, 40)], frame, 2)


BACKGROUND_PAINTERS: dict[str, Callable[[Canvas, random.Random], None]] = {
    "white background": _white,
    "pink background": _pink,
    "blue background": _blue,
    "sky": _sky,
    "forest": _forest,
    "night": _night,
    "beach": _beach,
    "room": _room,
}
