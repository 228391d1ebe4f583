"""The head: hair behind and in front of it, the face, what it wears and what is painted on it."""

import numpy as np

from lorascope.miniature.canvas import (
    SIDES,
    WHITE,
    arc,
    distance,
    draw_shape,
    mirrored,
    mix,
    shade,
    smooth,
)
from lorascope.miniature.figure import Figure
from lorascope.miniature.world import Colour

EYE_LINE = 59


def draw_back_hair(figure: Figure) -> None:
    """Draw the hair behind everything else."""
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
        figure.hair(tail if right else mirrored(tail), right=right)
        figure.both_hair([(66, 26), (42, 28), (37, 50), (40, 68), (64, 72)])
    else:
        figure.both_hair([(66, 24), (42, 26), (36, 46), (37, 64), (44, 72), (64, 70)])


def draw_head(figure: Figure) -> None:
    """Draw ears, face, blush and nose."""
    canvas, p = figure.canvas, figure.paints
    for side in SIDES:
        canvas.ellipse((64 + side * 23, 58), (4, 5), p.skin, "skin", p.skin_edge)
    left = [(48, 34), (41, 48), (41.5, 63), (49, 76)]
    face = [(64, 30), *left, (64, 83.5), *mirrored(left[::-1]).tolist()]
    canvas.blob(face, p.skin, "skin", p.skin_edge)
    blush = mix(p.skin, (240, 90, 100), 0.3)
    for side in SIDES:
        canvas.ellipse((64 + side * 17, 72), (3.6, 2.0), blush, "skin", count=14)
    canvas.line([(64, 67.5), (63, 69)], p.skin_edge, 1.2)


def draw_eyes(figure: Figure) -> None:
    """Draw both eyes; chance turns the gaze a little."""
    canvas, p, y = figure.canvas, figure.paints, EYE_LINE
    gaze_x, gaze_y = figure.rng.uniform(-0.6, 0.6), figure.rng.uniform(-0.4, 0.4)
    for side, iris in zip(SIDES, p.eyes, strict=True):
        x = 64 + side * 11
        seen = x + gaze_x
        canvas.ellipse((x, y), (7.4, 9), (252, 252, 252), "eyes", p.skin_edge, width=0.8)
        canvas.ellipse(
            (seen, y + 0.4 + gaze_y), (6.1, 8.3), iris, "eyes", shade(iris, 0.55), width=0.9
        )
        canvas.ellipse((seen, y + 1), (1.9, 3.4), shade(iris, 0.18), "eyes", count=14)
        canvas.ellipse((seen - 2.2, y - 3.6), (1.8, 2.0), WHITE, "eyes", count=12)
        lashes = [(x - 8, y - 4.5), (x - 4.6, y - 9), (x + 4.6, y - 9), (x + 8, y - 4.5)]
        canvas.line(smooth(lashes, 4, closed=False), (36, 28, 34), 2.6, "eyes")


def draw_brows(figure: Figure) -> None:
    """Draw the brows, as the expression has them."""
    expression = figure.avatar.expression
    drop = {"smile": 0, "frown": 2.4, "open mouth": -1.5}[expression]
    slant = 1.6 if expression == "frown" else 0.6
    for side in SIDES:
        x, y = 64 + side * 11, EYE_LINE - 12
        brow = np.array([(x - side * 5, y + drop), (x + side * 5, y - slant)])
        figure.canvas.line(brow, figure.paints.hair_edge, 1.6)


def draw_mouth(figure: Figure) -> None:
    """Draw the mouth, which is what shows the expression."""
    canvas, expression = figure.canvas, figure.avatar.expression
    if expression == "smile":
        upper = [(54, 71.5), (59, 73.2), (64, 73.8), (69, 73.2), (74, 71.5)]
        points = smooth([*upper, (70.5, 77), (64, 79.4), (57.5, 77)], 4)
        canvas.polygon(points, (255, 250, 250), "mouth")
        canvas.line([*points.tolist(), *points[:2].tolist()], (170, 36, 44), 1.7)
    elif expression == "frown":
        lips = [(55.5, 79), (59, 75), (64, 73.2), (69, 75), (72.5, 79)]
        canvas.line(smooth(lips, 4, closed=False), (110, 30, 40), 3.2, "mouth")
    else:
        canvas.ellipse((64, 75.3), (6.6, 5.6), (150, 26, 40), "mouth", (80, 18, 26))
        canvas.ellipse((64, 78), (4.2, 2.2), (242, 130, 134), "mouth", count=12)


MARK_PLACES = {"cheek": (15.5, 73.0), "forehead": (0.0, 44.0), "hair": (28.0, 42.0)}


def draw_mark(figure: Figure, *, in_hair: bool) -> None:
    """Draw the mark if it lies in the hair, or on the skin, as asked."""
    mark = figure.avatar.mark
    if mark is None or (mark.place == "hair") != in_hair:
        return
    side = {"left": -1, "middle": 0, "right": 1}[mark.side]
    across, y = MARK_PLACES[mark.place]
    p = figure.paints
    hair = p.hair_right if side > 0 else p.hair
    draw_shape(
        figure.canvas, mark.shape, (64 + side * across, y), mark.size, mark.colour,
        region="mark", behind=hair if in_hair else p.skin,
    )  # fmt: skip


FRINGES = (
    [(42, 50), (46, 46), (50, 50), (55, 45), (60, 49), (64, 44)],
    [(43, 52), (47, 42), (54, 38), (60, 34), (64, 33)],
    [(42, 47), (48, 46.5), (54, 47), (60, 46.5), (64, 47)],
)
LOCK_ENDS = {"long hair": 104, "bob": 80, "twintails": 72}


def draw_front_hair(figure: Figure) -> None:
    """Draw fringe, locks and shine; chance picks the fringe."""
    canvas, p = figure.canvas, figure.paints
    fringe, drop = figure.rng.choice(FRINGES), figure.rng.uniform(-2, 2) * 0.6
    top = [(64, 20), (50, 21), (40, 28), (36, 42), (37, 56)]
    half = [*top, *((x, y + drop) for x, y in fringe)]
    canvas.polygon(half, p.hair, "hair", p.hair_edge)
    canvas.polygon(mirrored(half), p.hair_right, "hair", p.hair_right_edge)
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
    shine = smooth([(46, 31), (54, 27), (64, 26), (72, 27)], 4, closed=False)
    canvas.line(shine, p.hair_light, 2.2)
    if style == "twintails":
        for side in SIDES:
            canvas.ellipse((64 + side * 25, 35), (4, 4), (230, 80, 90), None, (120, 30, 40))


def draw_glasses(figure: Figure) -> None:
    """Draw the glasses, if the avatar wears them."""
    if "glasses" not in figure.avatar.accessories:
        return
    canvas, frame = figure.canvas, (60, 24, 30)
    for side in SIDES:
        rim = arc(0, 359.9, 26) * (10.6, 11.6) + (64 + side * 11, EYE_LINE + 0.6)
        canvas.line(rim, frame, 2.2, "glasses")
    canvas.line([(62.6, 57), (65.4, 57)], frame, 1.9, "glasses")
    for place in (np.asarray, mirrored):
        canvas.line(place([(43, 56), (39, 54)]), frame, 1.7, "glasses")


RIBBON_COLOURS: tuple[Colour, ...] = ((226, 44, 60), (240, 110, 170), (60, 110, 230))


def draw_ribbon(figure: Figure) -> None:
    """Draw the ribbon, if the avatar wears it, in a colour that the hair does not hide."""
    if "ribbon" not in figure.avatar.accessories:
        return
    canvas, x, y = figure.canvas, 84, 26
    clear = [colour for colour in RIBBON_COLOURS if distance(colour, figure.paints.hair) > 150]
    chosen = figure.rng.choice(clear or RIBBON_COLOURS)
    colour = figure.avatar.ribbon_rgb or chosen
    loop = np.array([(0, -3), (12, -12), (19, -10), (20, 9), (13, 11), (0, 3)], float)
    for side in SIDES:
        edge = shade(colour, 0.5)
        canvas.polygon(loop * (side, 1) + (x, y), colour, "ribbon", edge, width=1.6)
        canvas.line([(x + side * 5, y), (x + side * 13, y - 1)], shade(colour, 0.6), 1.5)
    knot, edge = shade(colour, 0.85), shade(colour, 0.45)
    canvas.ellipse((x, y), (5.2, 5.6), knot, "ribbon", edge, width=1.4)


HAT_COLOURS: tuple[Colour, ...] = ((60, 56, 80), (180, 50, 56), (150, 110, 60))


def draw_hat(figure: Figure) -> None:
    """Draw the hat, if the avatar wears it."""
    if "hat" not in figure.avatar.accessories:
        return
    canvas, colour = figure.canvas, figure.rng.choice(HAT_COLOURS)
    edge = shade(colour, 0.55)
    crown = [(40, 32), (42, 14), (52, 5), (64, 3), (76, 5), (86, 14), (88, 32)]
    canvas.blob(crown, colour, "hat", edge, steps=4)
    band = [(39, 26), (89, 26), (89, 33), (39, 33)]
    canvas.polygon(band, mix(colour, WHITE, 0.55), "hat")
    canvas.ellipse((64, 34), (36, 5.5), colour, "hat", edge)
