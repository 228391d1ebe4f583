"""The figure: its colours, how its parts are put on the canvas, and its body."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lorascope.miniature.canvas import (
    MIDDLE,
    SIDES,
    WHITE,
    Canvas,
    Outline,
    distance,
    draw_shape,
    mirrored,
    mix,
    shade,
    smooth,
    vary,
)
from lorascope.miniature.world import (
    EYE_COLOURS,
    HAIR_COLOURS,
    OUTFIT_COLOURS,
    SKINS,
    Avatar,
    Colour,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Paints:
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
        """The outline of the right strands."""
        return shade(self.hair_right, 0.55)

    @property
    def bright_outfit(self) -> bool:
        """White details would be lost on it."""
        return min(self.outfit) > 215


def paints_of(avatar: Avatar, rng: random.Random) -> Paints:
    """Choose the colours: what the tags say, a little varied, and the shades of it."""
    hair = vary(rng, avatar.hair_rgb or HAIR_COLOURS[avatar.hair], 8)
    skin = vary(rng, SKINS[avatar.skin], 5)
    outfit = vary(rng, avatar.outfit_rgb or OUTFIT_COLOURS[avatar.outfit_colour], 8)
    return Paints(
        hair=hair,
        hair_right=avatar.hair_rgb_right or hair,
        hair_edge=shade(hair, 0.55 if sum(hair) > 240 else 0.5),
        hair_light=mix(hair, WHITE, 0.25),
        skin=skin,
        skin_edge=shade(skin, 0.6),
        eyes=avatar.eyes_rgb or (EYE_COLOURS[avatar.eyes],) * 2,
        outfit=outfit,
        outfit_edge=shade(outfit, 0.55),
        outfit_light=mix(outfit, WHITE, 0.3),
        outfit_dark=shade(outfit, 0.8),
    )


@dataclass(frozen=True, slots=True)
class Figure:
    """What every part needs to draw itself."""

    canvas: Canvas
    avatar: Avatar
    paints: Paints
    rng: random.Random

    def hair(self, points: Outline, *, right: bool = False, steps: int = 5) -> None:
        """Draw one strand of the left or of the right colour."""
        p = self.paints
        fill, edge = (p.hair_right, p.hair_right_edge) if right else (p.hair, p.hair_edge)
        self.canvas.blob(points, fill, "hair", edge, steps=steps)

    def both_hair(self, points: Outline, *, steps: int = 5) -> None:
        """Draw a strand on the left and its mirror image on the right."""
        self.hair(points, steps=steps)
        self.hair(mirrored(points), right=True, steps=steps)

    def outfit(self, points: Outline, fill: Colour | None = None, *, steps: int = 5) -> None:
        """Draw one rounded piece of the outfit."""
        p = self.paints
        self.canvas.blob(points, fill or p.outfit, "outfit", p.outfit_edge, steps=steps)


TORSO = [
    (64, 84), (52, 86), (36, 94), (28, 108), (24, 136), (104, 136), (100, 108), (92, 94), (76, 86),
]  # fmt: skip


def _neck(figure: Figure) -> None:
    skin = shade(figure.paints.skin, 0.9)
    points = [(57, 72), (71, 72), (72, 92), (56, 92)]
    figure.canvas.polygon(points, skin, "skin", figure.paints.skin_edge)


def _bare_torso(figure: Figure) -> None:
    figure.canvas.blob(TORSO, figure.paints.skin, "skin", figure.paints.skin_edge)


def _t_shirt(figure: Figure) -> None:
    canvas, p = figure.canvas, figure.paints
    _neck(figure)
    _bare_torso(figure)
    left = [(54, 86), (36, 93), (27, 104), (23, 118), (37, 122), (38, 136)]
    figure.outfit([*left, *mirrored(left[::-1]).tolist(), (64, 93)], steps=3)
    canvas.ellipse((64, 86), (9, 6), shade(p.skin, 0.95), "skin", p.skin_edge, stop=180)
    canvas.line([(38, 108), (39, 124)], p.outfit_edge, 1.3)
    canvas.line([(90, 108), (89, 124)], p.outfit_edge, 1.3)


def _dress(figure: Figure) -> None:
    canvas, p = figure.canvas, figure.paints
    _neck(figure)
    _bare_torso(figure)
    figure.outfit(
        [(42, 100), (64, 104), (86, 100), (90, 118), (96, 136), (32, 136), (38, 118)], steps=4
    )
    canvas.line([(46, 101), (52, 87)], p.outfit, 3, "outfit")
    canvas.line([(82, 101), (76, 87)], p.outfit, 3, "outfit")
    lace = mix(p.outfit, WHITE, 0.65)
    for x in range(43, 90, 7):
        centre = (x, 102 - abs(x - MIDDLE) * 0.08)
        canvas.ellipse(centre, (4.2, 3.2), lace, "outfit", p.outfit_edge, width=0.8, count=12)


def _hoodie(figure: Figure) -> None:
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


def _school_uniform(figure: Figure) -> None:
    canvas, p = figure.canvas, figure.paints
    _neck(figure)
    figure.outfit(TORSO, steps=4)
    bright = p.bright_outfit
    collar: Colour = (50, 70, 130) if bright else (248, 248, 250)
    trim = (248, 248, 250) if bright else p.outfit_edge
    lapel = [(58, 82), (42, 90), (38, 104), (52, 102), (64, 112), (62, 98)]
    seam = [(41, 101), (52, 98), (63, 108)]
    for place in (np.asarray, mirrored):
        canvas.polygon(place(lapel), collar, "outfit", p.outfit_edge)
        canvas.line(place(seam), trim, 1.3)
    canvas.polygon([(58, 84), (70, 84), (64, 104)], p.skin, "skin")
    red: Colour = (214, 40, 56)
    tie = red if distance(red, p.outfit) > 120 else (40, 60, 140)
    points = [(64, 106), (55, 112), (57, 122), (64, 112), (71, 122), (73, 112)]
    canvas.polygon(points, tie, "outfit", p.outfit_edge)


def _armor(figure: Figure) -> None:
    canvas, p = figure.canvas, figure.paints
    gold: Colour = (226, 182, 70)
    gold_edge = shade(gold, 0.6)
    _neck(figure)
    figure.outfit(TORSO, steps=4)
    breast = [(46, 92), (64, 97), (82, 92), (86, 112), (64, 124), (42, 112)]
    figure.outfit(breast, p.outfit_light, steps=4)
    canvas.line([(64, 96), (64, 124)], p.outfit_edge, 1.5)
    canvas.line(smooth([(44, 113), (64, 126), (84, 113)], 6, closed=False), gold, 2.2)
    for side in SIDES:
        x = 64 + side * 33
        canvas.ellipse((x, 100), (12, 10), p.outfit_light, "outfit", p.outfit_edge)
        canvas.ellipse((x, 106), (12.5, 4), gold, "outfit", gold_edge)
        canvas.ellipse((x + side, 97), (3, 2.4), WHITE, "outfit")
    gorget = [(55, 82), (73, 82), (74, 91), (64, 95), (54, 91)]
    canvas.polygon(gorget, gold, "outfit", gold_edge)


OUTFIT_PAINTERS: dict[str, Callable[[Figure], None]] = {
    "school uniform": _school_uniform,
    "hoodie": _hoodie,
    "dress": _dress,
    "armor": _armor,
    "t-shirt": _t_shirt,
}


def draw_body(figure: Figure) -> None:
    """Draw neck, torso and outfit."""
    OUTFIT_PAINTERS[figure.avatar.outfit](figure)


def draw_emblem(figure: Figure) -> None:
    """Draw the emblem on the chest, if there is one."""
    emblem = figure.avatar.emblem
    if emblem is None:
        return
    centre = (MIDDLE, min(113, 119 - emblem.size))  # whole even at the largest scale and shift
    draw_shape(
        figure.canvas, emblem.shape, centre, emblem.size, emblem.colour,
        region="emblem", behind=figure.paints.outfit,
    )  # fmt: skip
