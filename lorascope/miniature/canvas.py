"""The canvas of the drawn world: a picture and its region map, drawn on together."""

import functools
import math
import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lorascope.miniature.world import REGIONS, Colour, Look

Points = NDArray[np.float64]
Outline = Sequence[tuple[float, float]] | Points

SUPERSAMPLING = 3
UNIT = 128  # all coordinates below are px of a drawing of this size
MIDDLE = 64
SIDES = (-1, 1)  # the viewer's left, the viewer's right
WHITE: Colour = (255, 255, 255)
DETAIL_WIDTH = 1.3
BOLD_WIDTH = 2.2  # times as wide
BOLD_DARKNESS = 0.55


# Colours and curves


def shade(colour: Colour, factor: float) -> Colour:
    """Make a colour darker, or lighter with a factor above 1."""
    red, green, blue = (int(max(0, min(255, channel * factor))) for channel in colour)
    return red, green, blue


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Mix two colours; ``share`` is that of the second."""
    red, green, blue = (
        int(a * (1 - share) + b * share) for a, b in zip(first, second, strict=True)
    )
    return red, green, blue


def vary(rng: random.Random, colour: Colour, amount: int) -> Colour:
    """Move every channel by up to ``amount``."""
    red, green, blue = (max(0, min(255, c + rng.randint(-amount, amount))) for c in colour)
    return red, green, blue


def distance(first: Colour, second: Colour) -> int:
    """Sum of the differences of the channels, 0 to 765."""
    return sum(abs(a - b) for a, b in zip(first, second, strict=True))


@functools.cache
def _spline_basis(steps: int) -> Points:
    """Catmull-Rom weights of four neighbours, (steps, 4)."""
    t = np.linspace(0, 1, steps, endpoint=False)
    weights = [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3]
    weights += [t + 4 * t**2 - 3 * t**3, -(t**2) + t**3]
    return 0.5 * np.stack(weights, axis=1)


def smooth(outline: Outline, steps: int = 5, *, closed: bool = True) -> Points:
    """Round a polygon, or an open line, through its points."""
    points = np.asarray(outline, float)
    if closed:
        padded = np.concatenate([points[-1:], points, points[:2]])
    else:
        padded = np.concatenate([points[:1], points, points[-1:]])
    windows = np.stack([padded[i : len(padded) - 3 + i] for i in range(4)], axis=1)
    curve: Points = (_spline_basis(steps) @ windows).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])


def mirrored(outline: Outline) -> Points:
    """Mirror left and right."""
    return np.asarray(outline, float) * (-1, 1) + (2 * MIDDLE, 0)


@functools.cache
def arc(start: float, stop: float, count: int) -> Points:
    """Points of the unit circle, angles in degrees."""
    t = np.radians(np.linspace(start, stop, count, endpoint=stop - start < 360))
    return np.stack([np.cos(t), np.sin(t)], axis=1)


# The canvas


class Canvas:
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
                edge, width = shade(edge, BOLD_DARKNESS), width * BOLD_WIDTH
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
        self.polygon(smooth(points, steps), fill, region, edge)

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
        points = arc(0, stop, count) * radii + centre
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
    return np.concatenate([arc(60, 300, 20), arc(82, 278, 14)[::-1] * 0.72 + (0.32, 0)])


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
    "circle": (arc(0, 360, 28),),
    "cross": (_cross(),),
    "bars": (_box(-0.5, 0, 0.23, 0.9), _box(0.5, 0, 0.23, 0.9)),
    "triangle": (np.array([(-1, -0.85), (1, -0.85), (0, 1)]),),
    "bolt": (_bolt(),),
    "ring": (arc(0, 360, 28),),
    "diamond": (np.array([(0, -1), (0.85, 0), (0, 1), (-0.85, 0)]),),
}
HOLES = {"ring": 0.5}  # share of the half-width through which one sees what lies behind


def draw_shape(
    canvas: Canvas,
    kind: str,
    centre: tuple[float, float],
    size: float,
    fill: Colour,
    *,
    region: str | None,
    behind: Colour,
) -> None:
    """Draw one of UNIT_SHAPES, and what lies behind it through its hole."""
    edge, width = shade(fill, 0.5), 1.1 if size > 6 else 0.8
    for points in UNIT_SHAPES[kind]:
        canvas.polygon(points * size + centre, fill, region, edge, width=width)
    if kind in HOLES:
        radius = size * HOLES[kind]
        canvas.ellipse(centre, (radius, radius), behind, region, edge, width=width)
