"""Draws an avatar: a picture, and the map of which pixel shows which region."""

import functools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from lorascope.miniature.world import (
    EYE_COLOURS,
    HAIR_COLOURS,
    OUTFIT_COLOURS,
    REGIONS,
    SHAPES,
    SKINS,
    Avatar,
    Colour,
    Look,
)

Points = NDArray[np.float64]
Outline = Sequence[tuple[float, float]] | Points
Pixels = NDArray[np.uint8]

SUPERSAMPLING = 3
UNIT = 128  # all coordinates below are px of a drawing of this size
MIDDLE = 64
EYE_LINE = 59
SIDES = (-1, 1)  # the viewer's left, the viewer's right
WHITE: Colour = (255, 255, 255)
DETAIL_WIDTH = 1.3
BOLD_WIDTH = 2.2  # times as wide
BOLD_DARKNESS = 0.55


@dataclass(frozen=True, eq=False, slots=True)
class Drawing:
    """One finished drawing."""

    image: Pixels  # (H, W, 3)
    regions: Pixels  # (H, W), values of REGIONS


def draw(avatar: Avatar, rng: random.Random, *, size: int = UNIT, jitter: float = 1.0) -> Drawing:
    """Draw one avatar.

    Parameters
    ----------
    avatar : Avatar
    rng : random.Random
        Decides what no tag says: shades, strands, scenery, place and tilt.
    size : int
        Width and height, px.
    jitter : float
        1 for the usual range of scale (10 %), tilt (7 degrees) and place (6 px); 0 for none.

    Returns
    -------
    Drawing
        The region map depends on ``avatar`` and ``rng`` but not on the look.
    """
    canvas = _Canvas(size, avatar.look)
    _background(canvas, avatar, rng)
    canvas.place(rng, jitter)
    figure = _Figure(canvas, avatar, _paints(avatar, rng), rng)
    for part in PARTS:
        part(figure)
    regions = np.asarray(canvas.regions)
    image = np.asarray(canvas.picture.reduce(SUPERSAMPLING))
    return Drawing(_finish(image, regions, avatar.look), regions)


# Colours and curves


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (int(max(0, min(255, channel * factor))) for channel in colour)
    return red, green, blue


def _mix(first: Colour, second: Colour, share: float) -> Colour:
    red, green, blue = (
        int(a * (1 - share) + b * share) for a, b in zip(first, second, strict=True)
    )
    return red, green, blue


def _vary(rng: random.Random, colour: Colour, amount: int) -> Colour:
    red, green, blue = (max(0, min(255, c + rng.randint(-amount, amount))) for c in colour)
    return red, green, blue


def _distance(first: Colour, second: Colour) -> int:
    return sum(abs(a - b) for a, b in zip(first, second, strict=True))


@functools.cache
def _spline_basis(steps: int) -> Points:
    """Catmull-Rom weights of four neighbours, (steps, 4)."""
    t = np.linspace(0, 1, steps, endpoint=False)
    weights = [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3]
    weights += [t + 4 * t**2 - 3 * t**3, -(t**2) + t**3]
    return 0.5 * np.stack(weights, axis=1)


def _smooth(outline: Outline, steps: int = 5, *, closed: bool = True) -> Points:
    """Round a polygon, or an open line, through its points."""
    points = np.asarray(outline, float)
    if closed:
        padded = np.concatenate([points[-1:], points, points[:2]])
    else:
        padded = np.concatenate([points[:1], points, points[-1:]])
    windows = np.stack([padded[i : len(padded) - 3 + i] for i in range(4)], axis=1)
    curve: Points = (_spline_basis(steps) @ windows).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])


def _mirrored(outline: Outline) -> Points:
    return np.asarray(outline, float) * (-1, 1) + (2 * MIDDLE, 0)


@functools.cache
def _arc(start: float, stop: float, count: int) -> Points:
    """Points of the unit circle, angles in degrees."""
    t = np.radians(np.linspace(start, stop, count, endpoint=stop - start < 360))
    return np.stack([np.cos(t), np.sin(t)], axis=1)


# The canvas


class _Canvas:
    """A supersampled picture and its region map, drawn on together."""

    def __init__(self, size: int, look: Look) -> None:
        self.look = look
        self.scale = size / UNIT
        self.picture = Image.new("RGB", (size * SUPERSAMPLING, size * SUPERSAMPLING))
        self.regions = Image.new("L", (size, size), REGIONS["background"])
        self._pen = ImageDraw.Draw(self.picture)
        self._region_pen = ImageDraw.Draw(self.regions)
        self._turn: Points = np.eye(2)
        self._shift: Points = np.zeros(2)

    def place(self, rng: random.Random, jitter: float) -> None:
        """Scale, tilt and shift whatever is drawn from now on."""
        scale = 1 + rng.uniform(-0.1, 0.1) * jitter
        angle = math.radians(rng.uniform(-7, 7) * jitter)
        shift = np.array([rng.uniform(-6, 6), rng.uniform(-3, 5)]) * jitter
        cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
        centre = np.array([MIDDLE, 80.0])
        self._turn = np.array([[cos, -sin], [sin, cos]])
        self._shift = centre - self._turn @ centre + shift

    def polygon(
        self,
        points: Outline,
        fill: Colour,
        region: str | None = None,
        edge: Colour | None = None,
        *,
        width: float = DETAIL_WIDTH,
    ) -> None:
        """Fill a polygon and outline it as the look says."""
        flat = self._placed(points)
        fine = (flat * SUPERSAMPLING).ravel().tolist()
        self._pen.polygon(fine, fill=fill)
        if edge is not None:
            if self.look.outline == "none":
                edge = fill
            elif self.look.outline == "bold":
                edge, width = _shade(edge, BOLD_DARKNESS), width * BOLD_WIDTH
            pixels = self._px(width, SUPERSAMPLING)
            self._pen.line(fine + fine[:4], fill=edge, width=pixels, joint="curve")
        if region is not None:
            self._region_pen.polygon(flat.ravel().tolist(), fill=REGIONS[region])

    def blob(
        self,
        points: Outline,
        fill: Colour,
        region: str | None = None,
        edge: Colour | None = None,
        *,
        steps: int = 5,
    ) -> None:
        """Fill a rounded polygon."""
        self.polygon(_smooth(points, steps), fill, region, edge)

    def ellipse(
        self,
        centre: tuple[float, float],
        radii: tuple[float, float],
        fill: Colour,
        region: str | None = None,
        edge: Colour | None = None,
        *,
        width: float = DETAIL_WIDTH,
        stop: float = 360,
        count: int = 28,
    ) -> None:
        """Fill an ellipse, or the part of it from 0 to ``stop`` degrees."""
        points = _arc(0, stop, count) * radii + centre
        self.polygon(points, fill, region, edge, width=width)

    def line(
        self, points: Outline, fill: Colour, width: float = 1.5, region: str | None = None
    ) -> None:
        """Draw an open line."""
        flat = self._placed(points)
        fine = (flat * SUPERSAMPLING).ravel().tolist()
        self._pen.line(fine, fill=fill, width=self._px(width, SUPERSAMPLING), joint="curve")
        if region is not None:
            coarse = flat.ravel().tolist()
            self._region_pen.line(coarse, fill=REGIONS[region], width=self._px(width))

    def _placed(self, points: Outline) -> Points:
        placed: Points = (np.asarray(points, float) @ self._turn.T + self._shift) * self.scale
        return placed

    def _px(self, width: float, factor: int = 1) -> int:
        return max(1, round(width * factor * self.scale))


# Shapes: emblems, marks and background patterns, within -1 to 1


def _star() -> Points:
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42) / math.sin(2 * math.pi / 5)
    angle = np.arange(10) * math.pi / 5
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1)


def _heart() -> Points:
    t = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([np.sin(t) ** 3, -y / 16], axis=1)


def _moon() -> Points:
    return np.concatenate([_arc(60, 300, 20), _arc(82, 278, 14)[::-1] * 0.72 + (0.32, 0)])


def _box(x: float, y: float, half_width: float, half_height: float) -> Points:
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float)
    return corners * (half_width, half_height) + (x, y)


def _cross(arm: float = 0.34) -> Points:
    corner = np.array([(-arm, -1), (arm, -1), (arm, -arm)])
    turns = [np.array([[0, -1], [1, 0]]), np.array([[-1, 0], [0, -1]]), np.array([[0, 1], [-1, 0]])]
    return np.concatenate([corner, *(corner @ turn.T for turn in turns)])


def _bolt() -> Points:
    top, left, bottom = [(0.6, -1), (0.1, -1)], [(-0.8, 0.2), (-0.1, 0.2)], [(-0.4, 1)]
    return np.array([*top, *left, *bottom, (0.8, -0.3), (0.05, -0.3)], float)


UNIT_SHAPES: dict[str, tuple[Points, ...]] = {
    "star": (_star(),),
    "heart": (_heart(),),
    "moon": (_moon(),),
    "circle": (_arc(0, 360, 28),),
    "cross": (_cross(),),
    "bars": (_box(-0.5, 0, 0.23, 0.9), _box(0.5, 0, 0.23, 0.9)),
    "triangle": (np.array([(-1, -0.85), (1, -0.85), (0, 1)]),),
    "bolt": (_bolt(),),
    "ring": (_arc(0, 360, 28),),
    "diamond": (np.array([(0, -1), (0.85, 0), (0, 1), (-0.85, 0)]),),
}
HOLES = {"ring": 0.5}  # share of the half-width through which one sees what lies behind


def _shape(
    canvas: _Canvas,
    kind: str,
    centre: tuple[float, float],
    size: float,
    fill: Colour,
    *,
    region: str | None,
    behind: Colour,
) -> None:
    edge, width = _shade(fill, 0.5), 1.1 if size > 6 else 0.8
    for points in UNIT_SHAPES[kind]:
        canvas.polygon(points * size + centre, fill, region, edge, width=width)
    if kind in HOLES:
        radius = size * HOLES[kind]
        canvas.ellipse(centre, (radius, radius), behind, region, edge, width=width)


# Backgrounds


def _band(canvas: _Canvas, top: float, bottom: float, fill: Colour) -> None:
    canvas.polygon([(-9, top), (137, top), (137, bottom), (-9, bottom)], fill)


def _gradient(
    canvas: _Canvas, upper: Colour, lower: Colour, *, bottom: float = UNIT, bands: int = 16
) -> None:
    height = bottom / bands
    for i in range(bands):
        _band(canvas, height * i, height * (i + 1) + 1, _mix(upper, lower, i / (bands - 1)))


def _white(canvas: _Canvas, rng: random.Random) -> None:
    _band(canvas, 0, UNIT, (250, 250, 250))


def _pink(canvas: _Canvas, rng: random.Random) -> None:
    _band(canvas, 0, UNIT, _vary(rng, (250, 190, 205), 6))


def _blue(canvas: _Canvas, rng: random.Random) -> None:
    _band(canvas, 0, UNIT, _vary(rng, (60, 90, 200), 8))


def _sky(canvas: _Canvas, rng: random.Random) -> None:
    _gradient(canvas, (96, 170, 240), (190, 226, 250))
    for _ in range(rng.randint(3, 5)):
        x, y, zoom = rng.uniform(0, 128), rng.uniform(8, 110), rng.uniform(0.8, 1.4)
        for dx, dy, radius in ((-9, 2, 6), (0, -2, 8), (9, 2, 6), (0, 4, 7)):
            radii = (radius * zoom * 1.2, radius * zoom * 0.8)
            canvas.ellipse((x + dx * zoom, y + dy * zoom), radii, (252, 252, 255), count=16)


def _forest(canvas: _Canvas, rng: random.Random) -> None:
    _band(canvas, 0, 90, (132, 180, 120))
    _band(canvas, 84, UNIT, (70, 120, 50))
    start = rng.uniform(0, 22)
    for i in range(-1, 7):
        x = i * 22 + start + rng.uniform(-4, 4)
        canvas.polygon([(x - 3, 30), (x + 3, 30), (x + 4, 96), (x - 4, 96)], (92, 62, 38))
        leaves = _vary(rng, (34, 104, 46), 14)
        for y, radius in ((8, 20), (30, 16)):
            centre = (x, y + rng.uniform(-4, 4))
            canvas.ellipse(centre, (radius, radius * 0.85), leaves, count=14)


def _night(canvas: _Canvas, rng: random.Random) -> None:
    _gradient(canvas, (12, 14, 46), (44, 36, 92))
    for _ in range(26):
        centre = (rng.uniform(0, 128), rng.uniform(0, 128))
        radius = rng.choice([0.8, 1.0, 1.4])
        canvas.ellipse(centre, (radius, radius), (250, 244, 200), count=8)
    x, y = rng.choice([18, 108]), rng.uniform(14, 26)
    canvas.ellipse((x, y), (10, 10), (250, 240, 180))
    canvas.ellipse((x + 4, y - 2), (9, 9), (18, 18, 54))


def _beach(canvas: _Canvas, rng: random.Random) -> None:
    _gradient(canvas, (140, 210, 250), (210, 240, 250), bottom=60)
    _band(canvas, 58, 92, (40, 150, 200))
    _band(canvas, 90, UNIT, (238, 214, 150))
    for i in range(4):
        x, y = rng.uniform(0, 100), 64 + i * 7
        canvas.line([(x, y), (x + 14, y)], (170, 225, 240), 1.4)
    foam = [(0, 91), (20, 93), (44, 90), (70, 93), (100, 90), (128, 92)]
    canvas.line(_smooth(foam, closed=False), (250, 250, 250), 2.2)
    canvas.ellipse((rng.choice([18, 110]), 18), (9, 9), (255, 232, 110))


def _room(canvas: _Canvas, rng: random.Random) -> None:
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


BACKGROUND_PAINTERS: dict[str, Callable[[_Canvas, random.Random], None]] = {
    "white background": _white,
    "pink background": _pink,
    "blue background": _blue,
    "sky": _sky,
    "forest": _forest,
    "night": _night,
    "beach": _beach,
    "room": _room,
}


def _background(canvas: _Canvas, avatar: Avatar, rng: random.Random) -> None:
    if avatar.background_rgb is None:
        BACKGROUND_PAINTERS[avatar.background](canvas, rng)
        return
    first, second = avatar.background_rgb
    pattern = rng.choice(["plain", "shapes", "gradient"])
    _gradient(canvas, first, second if pattern == "gradient" else first)
    if pattern == "shapes":
        for _ in range(rng.randint(2, 6)):
            centre, size = (rng.uniform(0, 128), rng.uniform(0, 128)), rng.uniform(6, 22)
            _shape(canvas, rng.choice(SHAPES), centre, size, second, region=None, behind=first)


# The figure, from back to front


@dataclass(frozen=True, kw_only=True, slots=True)
class _Paints:
    """The colours of one drawing, shades included."""

    hair: Colour
    hair_right: Colour
    hair_edge: Colour
    hair_light: Colour
    skin: Colour
    skin_edge: Colour
    eyes: tuple[Colour, Colour]
    outfit: Colour
    outfit_edge: Colour
    outfit_light: Colour
    outfit_dark: Colour

    @property
    def hair_right_edge(self) -> Colour:
        return _shade(self.hair_right, 0.55)

    @property
    def bright_outfit(self) -> bool:
        """White details would be lost on it."""
        return min(self.outfit) > 215


def _paints(avatar: Avatar, rng: random.Random) -> _Paints:
    hair = _vary(rng, avatar.hair_rgb or HAIR_COLOURS[avatar.hair], 8)
    skin = _vary(rng, SKINS[avatar.skin], 5)
    outfit = _vary(rng, avatar.outfit_rgb or OUTFIT_COLOURS[avatar.outfit_colour], 8)
    return _Paints(
        hair=hair,
        hair_right=avatar.hair_rgb_right or hair,
        hair_edge=_shade(hair, 0.55 if sum(hair) > 240 else 0.5),
        hair_light=_mix(hair, WHITE, 0.25),
        skin=skin,
        skin_edge=_shade(skin, 0.6),
        eyes=avatar.eyes_rgb or (EYE_COLOURS[avatar.eyes],) * 2,
        outfit=outfit,
        outfit_edge=_shade(outfit, 0.55),
        outfit_light=_mix(outfit, WHITE, 0.3),
        outfit_dark=_shade(outfit, 0.8),
    )


@dataclass(frozen=True, slots=True)
class _Figure:
    """What every part needs to draw itself."""

    canvas: _Canvas
    avatar: Avatar
    paints: _Paints
    rng: random.Random

    def hair(self, points: Outline, *, right: bool = False, steps: int = 5) -> None:
        """Draw one strand of the left or of the right colour."""
        p = self.paints
        fill, edge = (p.hair_right, p.hair_right_edge) if right else (p.hair, p.hair_edge)
        self.canvas.blob(points, fill, "hair", edge, steps=steps)

    def both_hair(self, points: Outline, *, steps: int = 5) -> None:
        """Draw a strand on the left and its mirror image on the right."""
        self.hair(points, steps=steps)
        self.hair(_mirrored(points), right=True, steps=steps)

    def outfit(self, points: Outline, fill: Colour | None = None, *, steps: int = 5) -> None:
        """Draw one rounded piece of the outfit."""
        p = self.paints
        self.canvas.blob(points, fill or p.outfit, "outfit", p.outfit_edge, steps=steps)


def _back_hair(figure: _Figure) -> None:
    sway = figure.rng.uniform(-2, 2)
    style = figure.avatar.hair_style
    if style == "long hair":
        fall = [(66, 24), (40, 26), (32, 50), (30, 84), (26 + sway, 118), (36, 132), (50, 128)]
        figure.both_hair([*fall, (64, 120)])
    elif style == "bob":
        figure.both_hair([(66, 24), (40, 26), (33, 48), (32, 70), (35, 82), (48, 84), (64, 82)])
    elif style == "twintails":
        tail = [(44, 34), (32, 32), (20, 44), (13 + sway, 70), (15 + sway, 98), (24, 110), (28, 96)]
        figure.both_hair([*tail, (33, 70), (40, 50)])
        figure.both_hair([(66, 26), (42, 28), (37, 50), (40, 70), (64, 74)])
    elif style == "ponytail":
        tail = [(74, 26), (88, 14), (104, 20), (114 + sway, 46), (114 + sway, 76), (104, 98)]
        tail += [(101, 72), (94, 48), (80, 36)]
        right = figure.rng.random() < 0.5
        figure.hair(tail if right else _mirrored(tail), right=right)
        figure.both_hair([(66, 26), (42, 28), (37, 50), (40, 68), (64, 72)])
    else:
        figure.both_hair([(66, 24), (42, 26), (36, 46), (37, 64), (44, 72), (64, 70)])


TORSO = [
    (64, 84), (52, 86), (36, 94), (28, 108), (24, 136), (104, 136), (100, 108), (92, 94), (76, 86),
]  # fmt: skip


def _neck(figure: _Figure) -> None:
    skin = _shade(figure.paints.skin, 0.9)
    points = [(57, 72), (71, 72), (72, 92), (56, 92)]
    figure.canvas.polygon(points, skin, "skin", figure.paints.skin_edge)


def _bare_torso(figure: _Figure) -> None:
    figure.canvas.blob(TORSO, figure.paints.skin, "skin", figure.paints.skin_edge)


def _t_shirt(figure: _Figure) -> None:
    canvas, p = figure.canvas, figure.paints
    _neck(figure)
    _bare_torso(figure)
    left = [(54, 86), (36, 93), (27, 104), (23, 118), (37, 122), (38, 136)]
    figure.outfit([*left, *_mirrored(left[::-1]).tolist(), (64, 93)], steps=3)
    canvas.ellipse((64, 86), (9, 6), _shade(p.skin, 0.95), "skin", p.skin_edge, stop=180)
    canvas.line([(38, 108), (39, 124)], p.outfit_edge, 1.3)
    canvas.line([(90, 108), (89, 124)], p.outfit_edge, 1.3)


def _dress(figure: _Figure) -> None:
    canvas, p = figure.canvas, figure.paints
    _neck(figure)
    _bare_torso(figure)
    figure.outfit(
        [(42, 100), (64, 104), (86, 100), (90, 118), (96, 136), (32, 136), (38, 118)], steps=4
    )
    canvas.line([(46, 101), (52, 87)], p.outfit, 3, "outfit")
    canvas.line([(82, 101), (76, 87)], p.outfit, 3, "outfit")
    lace = _mix(p.outfit, WHITE, 0.65)
    for x in range(43, 90, 7):
        centre = (x, 102 - abs(x - MIDDLE) * 0.08)
        canvas.ellipse(centre, (4.2, 3.2), lace, "outfit", p.outfit_edge, width=0.8, count=12)


def _hoodie(figure: _Figure) -> None:
    canvas, p = figure.canvas, figure.paints
    figure.outfit([(64, 74), (44, 78), (40, 92), (64, 98), (88, 92), (84, 78)], p.outfit_dark)
    _neck(figure)
    figure.outfit(TORSO, steps=4)
    collar = [(46, 86), (54, 82), (64, 95), (74, 82), (82, 86), (76, 98), (64, 104), (52, 98)]
    figure.outfit(collar, p.outfit_light, steps=4)
    string = (90, 90, 90) if p.bright_outfit else (250, 250, 250)
    for side in SIDES:
        canvas.line([(64 + side * 6, 99), (64 + side * 7, 114)], string, 2)
    pocket = [(50, 120), (78, 120), (84, 136), (44, 136)]
    canvas.polygon(pocket, p.outfit_dark, "outfit", p.outfit_edge)


def _school_uniform(figure: _Figure) -> None:
    canvas, p = figure.canvas, figure.paints
    _neck(figure)
    figure.outfit(TORSO, steps=4)
    bright = p.bright_outfit
    collar: Colour = (50, 70, 130) if bright else (248, 248, 250)
    trim = (248, 248, 250) if bright else p.outfit_edge
    lapel = [(58, 82), (42, 90), (38, 104), (52, 102), (64, 112), (62, 98)]
    seam = [(41, 101), (52, 98), (63, 108)]
    for place in (np.asarray, _mirrored):
        canvas.polygon(place(lapel), collar, "outfit", p.outfit_edge)
        canvas.line(place(seam), trim, 1.3)
    canvas.polygon([(58, 84), (70, 84), (64, 104)], p.skin, "skin")
    red: Colour = (214, 40, 56)
    tie = red if _distance(red, p.outfit) > 120 else (40, 60, 140)
    points = [(64, 106), (55, 112), (57, 122), (64, 112), (71, 122), (73, 112)]
    canvas.polygon(points, tie, "outfit", p.outfit_edge)


def _armor(figure: _Figure) -> None:
    canvas, p = figure.canvas, figure.paints
    gold: Colour = (226, 182, 70)
    gold_edge = _shade(gold, 0.6)
    _neck(figure)
    figure.outfit(TORSO, steps=4)
    breast = [(46, 92), (64, 97), (82, 92), (86, 112), (64, 124), (42, 112)]
    figure.outfit(breast, p.outfit_light, steps=4)
    canvas.line([(64, 96), (64, 124)], p.outfit_edge, 1.5)
    canvas.line(_smooth([(44, 113), (64, 126), (84, 113)], 6, closed=False), gold, 2.2)
    for side in SIDES:
        x = 64 + side * 33
        canvas.ellipse((x, 100), (12, 10), p.outfit_light, "outfit", p.outfit_edge)
        canvas.ellipse((x, 106), (12.5, 4), gold, "outfit", gold_edge)
        canvas.ellipse((x + side, 97), (3, 2.4), WHITE, "outfit")
    gorget = [(55, 82), (73, 82), (74, 91), (64, 95), (54, 91)]
    canvas.polygon(gorget, gold, "outfit", gold_edge)


OUTFIT_PAINTERS: dict[str, Callable[[_Figure], None]] = {
    "school uniform": _school_uniform,
    "hoodie": _hoodie,
    "dress": _dress,
    "armor": _armor,
    "t-shirt": _t_shirt,
}


def _body(figure: _Figure) -> None:
    OUTFIT_PAINTERS[figure.avatar.outfit](figure)


def _emblem(figure: _Figure) -> None:
    emblem = figure.avatar.emblem
    if emblem is None:
        return
    centre = (MIDDLE, min(113, 119 - emblem.size))  # whole even at the largest scale and shift
    _shape(
        figure.canvas, emblem.shape, centre, emblem.size, emblem.colour,
        region="emblem", behind=figure.paints.outfit,
    )  # fmt: skip


def _head(figure: _Figure) -> None:
    canvas, p = figure.canvas, figure.paints
    for side in SIDES:
        canvas.ellipse((64 + side * 23, 58), (4, 5), p.skin, "skin", p.skin_edge)
    left = [(48, 34), (41, 48), (41.5, 63), (49, 76)]
    face = [(64, 30), *left, (64, 83.5), *_mirrored(left[::-1]).tolist()]
    canvas.blob(face, p.skin, "skin", p.skin_edge)
    blush = _mix(p.skin, (240, 90, 100), 0.3)
    for side in SIDES:
        canvas.ellipse((64 + side * 17, 72), (3.6, 2.0), blush, "skin", count=14)
    canvas.line([(64, 67.5), (63, 69)], p.skin_edge, 1.2)


def _eyes(figure: _Figure) -> None:
    canvas, p, y = figure.canvas, figure.paints, EYE_LINE
    gaze_x, gaze_y = figure.rng.uniform(-0.6, 0.6), figure.rng.uniform(-0.4, 0.4)
    for side, iris in zip(SIDES, p.eyes, strict=True):
        x = 64 + side * 11
        seen = x + gaze_x
        canvas.ellipse((x, y), (7.4, 9), (252, 252, 252), "eyes", p.skin_edge, width=0.8)
        canvas.ellipse(
            (seen, y + 0.4 + gaze_y), (6.1, 8.3), iris, "eyes", _shade(iris, 0.55), width=0.9
        )
        canvas.ellipse((seen, y + 1), (1.9, 3.4), _shade(iris, 0.18), "eyes", count=14)
        canvas.ellipse((seen - 2.2, y - 3.6), (1.8, 2.0), WHITE, "eyes", count=12)
        lashes = [(x - 8, y - 4.5), (x - 4.6, y - 9), (x + 4.6, y - 9), (x + 8, y - 4.5)]
        canvas.line(_smooth(lashes, 4, closed=False), (36, 28, 34), 2.6, "eyes")


def _brows(figure: _Figure) -> None:
    expression = figure.avatar.expression
    drop = {"smile": 0, "frown": 2.4, "open mouth": -1.5}[expression]
    slant = 1.6 if expression == "frown" else 0.6
    for side in SIDES:
        x, y = 64 + side * 11, EYE_LINE - 12
        brow = np.array([(x - side * 5, y + drop), (x + side * 5, y - slant)])
        figure.canvas.line(brow, figure.paints.hair_edge, 1.6)


def _mouth(figure: _Figure) -> None:
    canvas, expression = figure.canvas, figure.avatar.expression
    if expression == "smile":
        upper = [(54, 71.5), (59, 73.2), (64, 73.8), (69, 73.2), (74, 71.5)]
        points = _smooth([*upper, (70.5, 77), (64, 79.4), (57.5, 77)], 4)
        canvas.polygon(points, (255, 250, 250), "mouth")
        canvas.line([*points.tolist(), *points[:2].tolist()], (170, 36, 44), 1.7)
    elif expression == "frown":
        lips = [(55.5, 79), (59, 75), (64, 73.2), (69, 75), (72.5, 79)]
        canvas.line(_smooth(lips, 4, closed=False), (110, 30, 40), 3.2, "mouth")
    else:
        canvas.ellipse((64, 75.3), (6.6, 5.6), (150, 26, 40), "mouth", (80, 18, 26))
        canvas.ellipse((64, 78), (4.2, 2.2), (242, 130, 134), "mouth", count=12)


MARK_PLACES = {"cheek": (15.5, 73.0), "forehead": (0.0, 44.0), "hair": (28.0, 42.0)}


def _mark(figure: _Figure, *, in_hair: bool) -> None:
    mark = figure.avatar.mark
    if mark is None or (mark.place == "hair") != in_hair:
        return
    side = {"left": -1, "middle": 0, "right": 1}[mark.side]
    across, y = MARK_PLACES[mark.place]
    p = figure.paints
    hair = p.hair_right if side > 0 else p.hair
    _shape(
        figure.canvas, mark.shape, (64 + side * across, y), mark.size, mark.colour,
        region="mark", behind=hair if in_hair else p.skin,
    )  # fmt: skip


FRINGES = (
    [(42, 50), (46, 46), (50, 50), (55, 45), (60, 49), (64, 44)],
    [(43, 52), (47, 42), (54, 38), (60, 34), (64, 33)],
    [(42, 47), (48, 46.5), (54, 47), (60, 46.5), (64, 47)],
)
LOCK_ENDS = {"long hair": 104, "bob": 80, "twintails": 72}


def _front_hair(figure: _Figure) -> None:
    canvas, p = figure.canvas, figure.paints
    fringe, drop = figure.rng.choice(FRINGES), figure.rng.uniform(-2, 2) * 0.6
    top = [(64, 20), (50, 21), (40, 28), (36, 42), (37, 56)]
    half = [*top, *((x, y + drop) for x, y in fringe)]
    canvas.polygon(half, p.hair, "hair", p.hair_edge)
    canvas.polygon(_mirrored(half), p.hair_right, "hair", p.hair_right_edge)
    if p.hair_right == p.hair:  # no parting
        end = fringe[-1][1] + drop - 1.5
        canvas.polygon([(61, 20.5), (67, 20.5), (67, end), (61, end)], p.hair, "hair")
    style = figure.avatar.hair_style
    if style in LOCK_ENDS:
        end = LOCK_ENDS[style]
        lock = [(39, 40), (35, 54), (35, end - 10), (38, end), (43, end - 12), (43, 60)]
        figure.both_hair(lock, steps=3)
    elif style == "short hair":
        figure.both_hair([(39, 40), (35, 52), (38, 66), (42, 60), (43, 50)], steps=3)
    shine = _smooth([(46, 31), (54, 27), (64, 26), (72, 27)], 4, closed=False)
    canvas.line(shine, p.hair_light, 2.2)
    if style == "twintails":
        for side in SIDES:
            canvas.ellipse((64 + side * 25, 35), (4, 4), (230, 80, 90), None, (120, 30, 40))


def _glasses(figure: _Figure) -> None:
    if "glasses" not in figure.avatar.accessories:
        return
    canvas, frame = figure.canvas, (60, 24, 30)
    for side in SIDES:
        rim = _arc(0, 359.9, 26) * (10.6, 11.6) + (64 + side * 11, EYE_LINE + 0.6)
        canvas.line(rim, frame, 2.2, "glasses")
    canvas.line([(62.6, 57), (65.4, 57)], frame, 1.9, "glasses")
    for place in (np.asarray, _mirrored):
        canvas.line(place([(43, 56), (39, 54)]), frame, 1.7, "glasses")


RIBBON_COLOURS: tuple[Colour, ...] = ((226, 44, 60), (240, 110, 170), (60, 110, 230))


def _ribbon(figure: _Figure) -> None:
    if "ribbon" not in figure.avatar.accessories:
        return
    canvas, x, y = figure.canvas, 84, 26
    clear = [colour for colour in RIBBON_COLOURS if _distance(colour, figure.paints.hair) > 150]
    chosen = figure.rng.choice(clear or RIBBON_COLOURS)
    colour = figure.avatar.ribbon_rgb or chosen
    loop = np.array([(0, -3), (12, -12), (19, -10), (20, 9), (13, 11), (0, 3)], float)
    for side in SIDES:
        edge = _shade(colour, 0.5)
        canvas.polygon(loop * (side, 1) + (x, y), colour, "ribbon", edge, width=1.6)
        canvas.line([(x + side * 5, y), (x + side * 13, y - 1)], _shade(colour, 0.6), 1.5)
    knot, edge = _shade(colour, 0.85), _shade(colour, 0.45)
    canvas.ellipse((x, y), (5.2, 5.6), knot, "ribbon", edge, width=1.4)


HAT_COLOURS: tuple[Colour, ...] = ((60, 56, 80), (180, 50, 56), (150, 110, 60))


def _hat(figure: _Figure) -> None:
    if "hat" not in figure.avatar.accessories:
        return
    canvas, colour = figure.canvas, figure.rng.choice(HAT_COLOURS)
    edge = _shade(colour, 0.55)
    crown = [(40, 32), (42, 14), (52, 5), (64, 3), (76, 5), (86, 14), (88, 32)]
    canvas.blob(crown, colour, "hat", edge, steps=4)
    band = [(39, 26), (89, 26), (89, 33), (39, 33)]
    canvas.polygon(band, _mix(colour, WHITE, 0.55), "hat")
    canvas.ellipse((64, 34), (36, 5.5), colour, "hat", edge)


PARTS: tuple[Callable[[_Figure], None], ...] = (
    _back_hair,
    _body,
    _emblem,
    _head,
    _eyes,
    _brows,
    _mouth,
    functools.partial(_mark, in_hair=False),
    _front_hair,
    functools.partial(_mark, in_hair=True),
    _glasses,
    _ribbon,
    _hat,
)


# The look: shading and palette of the finished picture

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
CEL_DARKNESS = 0.34
SEPIA = np.array([1.08, 0.88, 0.64], np.float32)
_HAIR, _SKIN, _OUTFIT, _HAT = (REGIONS[name] for name in ("hair", "skin", "outfit", "hat"))


def _solids() -> Pixels:
    """Region to the body that it lies on: an eye is part of the face, an emblem of the outfit."""
    table = np.arange(len(REGIONS), dtype=np.uint8)
    for region in ("eyes", "glasses", "mouth"):
        table[REGIONS[region]] = _SKIN
    table[REGIONS["mark"]] = _HAIR
    table[REGIONS["emblem"]] = _OUTFIT
    return table


SOLIDS = _solids()


def _finish(image: Pixels, regions: Pixels, look: Look) -> Pixels:
    if look.shading == "flat" and look.palette == "plain":
        return image
    picture = image.astype(np.float32)
    if look.shading == "cel":
        picture *= 1 - CEL_DARKNESS * _softened(_shadow(regions))[..., None]
    elif look.shading == "soft":
        picture *= _light(len(regions))[..., None]
    if look.palette != "plain":
        picture = PALETTE_MAPS[look.palette](picture, regions)
    finished: Pixels = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    return finished


def _shadow(regions: Pixels) -> NDArray[np.bool_]:
    """Where cel shading darkens: right edges of hair, hat and outfit, and the face under hair."""
    unit = len(regions) / UNIT
    body = SOLIDS[regions]
    right = _moved(body, -round(6 * unit), -round(2 * unit))
    above = _moved(body, round(2 * unit), round(5 * unit))
    own = np.isin(body, (_HAIR, _OUTFIT, _HAT)) & (right != body)
    cast = (body == _SKIN) & np.isin(above, (_HAIR, _HAT))
    edge = (body == _SKIN) & np.isin(right, (_HAIR, REGIONS["background"]))
    shadow: NDArray[np.bool_] = own | cast | edge
    return shadow


def _moved(body: Pixels, dx: int, dy: int) -> Pixels:
    """Move the map by whole pixels, repeating its border."""
    size = len(body)
    rows = np.clip(np.arange(size) - dy, 0, size - 1)
    columns = np.clip(np.arange(size) - dx, 0, size - 1)
    moved: Pixels = body[rows[:, None], columns]
    return moved


def _softened(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    blurred = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(0.7))
    return np.asarray(blurred, np.float32) / np.float32(255)


@functools.cache
def _light(size: int) -> NDArray[np.float32]:
    """Light from the upper left: 1.18 there, 0.55 in the lower right corner."""
    t = np.linspace(0, 1, size, dtype=np.float32)
    across = 0.65 * t[None, :] + 0.35 * t[:, None]
    light: NDArray[np.float32] = (1.18 - 0.63 * across).astype(np.float32)
    return light


Picture = NDArray[np.float32]


def _pastel(picture: Picture, regions: Pixels) -> Picture:
    mapped: Picture = picture * np.float32(0.55) + np.float32(0.45 * 255)
    return mapped


def _sepia(picture: Picture, regions: Pixels) -> Picture:
    mapped: Picture = (picture @ LUMA)[..., None] * SEPIA
    return mapped


def _neon(picture: Picture, regions: Pixels) -> Picture:
    grey = (picture @ LUMA)[..., None]
    dark = _softened(regions == REGIONS["background"])[..., None]
    mapped: Picture = (grey + 1.9 * (picture - grey)) * (1 - 0.7 * dark)
    return mapped


PALETTE_MAPS: dict[str, Callable[[Picture, Pixels], Picture]] = {
    "pastel": _pastel,
    "sepia": _sepia,
    "neon": _neon,
}
