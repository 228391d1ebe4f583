"""Draws an avatar: a picture, and the map of which pixel shows which region."""

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lorascope.miniature.canvas import SUPERSAMPLING, UNIT, Canvas
from lorascope.miniature.figure import Figure, draw_body, draw_emblem, paints_of
from lorascope.miniature.head import (
    draw_back_hair,
    draw_brows,
    draw_eyes,
    draw_front_hair,
    draw_glasses,
    draw_hat,
    draw_head,
    draw_mark,
    draw_mouth,
    draw_ribbon,
)
from lorascope.miniature.look import Pixels, finish
from lorascope.miniature.scenery import draw_background
from lorascope.miniature.world import Avatar

# From back to front.
PARTS: tuple[Callable[[Figure], None], ...] = (
    draw_back_hair,
    draw_body,
    draw_emblem,
    draw_head,
    draw_eyes,
    draw_brows,
    draw_mouth,
    functools.partial(draw_mark, in_hair=False),
    draw_front_hair,
    functools.partial(draw_mark, in_hair=True),
    draw_glasses,
    draw_ribbon,
    draw_hat,
)


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
    canvas = Canvas(size, avatar.look)
    draw_background(canvas, avatar, rng)
    canvas.place(rng, jitter)
    figure = Figure(canvas, avatar, paints_of(avatar, rng), rng)
    for part in PARTS:
        part(figure)
    regions = np.asarray(canvas.regions)
    image = np.asarray(canvas.picture.reduce(SUPERSAMPLING))
    return Drawing(finish(image, regions, avatar.look), regions)
