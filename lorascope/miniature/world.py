"""What exists in the drawn world: avatars, their tags, and what the base model never sees."""

import colorsys
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

Colour = tuple[int, int, int]

HAIR_COLOURS: dict[str, Colour] = {
    "black hair": (42, 40, 52),
    "brown hair": (120, 72, 40),
    "blonde hair": (240, 208, 96),
    "red hair": (196, 44, 40),
    "blue hair": (60, 110, 214),
    "green hair": (60, 160, 84),
    "pink hair": (244, 140, 186),
    "white hair": (232, 234, 240),
}
HAIR_STYLES = ("short hair", "long hair", "twintails", "ponytail", "bob")
EYE_COLOURS: dict[str, Colour] = {
    "red eyes": (206, 36, 48),
    "blue eyes": (44, 110, 230),
    "green eyes": (40, 170, 76),
    "yellow eyes": (240, 196, 30),
    "purple eyes": (140, 60, 206),
    "brown eyes": (112, 66, 34),
}
OUTFITS = ("school uniform", "hoodie", "dress", "armor", "t-shirt")
OUTFIT_COLOURS: dict[str, Colour] = {
    "white": (240, 240, 240),
    "black": (48, 48, 56),
    "red": (206, 52, 52),
    "blue": (58, 96, 200),
    "green": (64, 150, 80),
    "yellow": (240, 204, 70),
    "purple": (140, 80, 190),
}
ACCESSORIES = ("hat", "ribbon", "glasses")
EXPRESSIONS = ("smile", "frown", "open mouth")
BACKGROUNDS = (
    "white background",
    "pink background",
    "blue background",
    "sky",
    "forest",
    "night",
    "beach",
    "room",
)
SKINS: dict[str, Colour] = {
    "pale skin": (255, 228, 210),
    "tan skin": (222, 172, 130),
    "dark skin": (140, 92, 64),
}
DEFAULT_SKIN = "pale skin"  # untagged: what is usual goes without saying

REGIONS: dict[str, int] = {
    "background": 0,
    "skin": 1,
    "hair": 2,
    "eyes": 3,
    "outfit": 4,
    "hat": 5,
    "ribbon": 6,
    "glasses": 7,
    "mouth": 8,
    "mark": 9,
    "emblem": 10,
}

OUTLINES = ("thin", "none", "bold")
SHADINGS = ("flat", "cel", "soft")
PALETTES = ("plain", "pastel", "sepia", "neon")

SHAPES = ("star", "heart", "moon", "circle", "cross")
SMALL_MARK_SHAPES = (*SHAPES, "bars", "triangle")

# Never drawn for training, so that a test can ask how the base model meets something new.
WITHHELD_HUES = (160.0, 195.0)  # degrees, both ends included
WITHHELD_SHAPES = ("bolt", "ring", "diamond")
WITHHELD_PALETTE = "sepia"
WITHHELD_OUTLINE_AND_SHADING = ("none", "soft")

BIG_HALF_WIDTH = (13.5, 15.0)  # px; 24 px across, three latent cells, even when drawn at 90 %
SMALL_EMBLEM_HALF_WIDTH = (6.5, 10.5)
SMALL_MARK_HALF_WIDTH = (4.9, 5.6)

SKIN_SHARES = (0.6, 0.25, 0.15)
ACCESSORY_SHARES = {"hat": 0.22, "ribbon": 0.3, "glasses": 0.22}
LOOK_SHARE = 0.45
BIG_EMBLEM_SHARE = 0.65
HAIR_MARK_SHARE = 0.6


@dataclass(frozen=True, kw_only=True, slots=True)
class Emblem:
    """A shape on the front of the outfit."""

    shape: str
    colour: Colour
    size: float  # half-width, px


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A shape on the face, or worn in the hair."""

    shape: str
    colour: Colour
    side: str  # "left", "right" (the viewer's) or "middle"
    place: str  # "cheek", "forehead" or "hair"
    size: float  # half-width, px


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """The manner of drawing; the default is the look of the tagged world."""

    outline: str = "thin"
    shading: str = "flat"
    palette: str = "plain"


@dataclass(frozen=True, kw_only=True, slots=True)
class Avatar:
    """Who is drawn, wearing what, where, and in which look."""

    hair: str
    hair_style: str
    eyes: str
    outfit: str
    outfit_colour: str
    expression: str
    background: str
    skin: str = DEFAULT_SKIN
    accessories: tuple[str, ...] = ()
    # What follows no tag describes: it goes beyond the tagged world.
    hair_rgb: Colour | None = None
    hair_rgb_right: Colour | None = None
    eyes_rgb: tuple[Colour, Colour] | None = None
    outfit_rgb: Colour | None = None
    ribbon_rgb: Colour | None = None
    background_rgb: tuple[Colour, Colour] | None = None
    emblem: Emblem | None = None
    mark: Mark | None = None
    look: Look = Look()


def sample_avatar(rng: random.Random) -> Avatar:
    """Draw one avatar of the tagged world, every attribute on its own.

    Parameters
    ----------
    rng : random.Random

    Returns
    -------
    Avatar
        Without overrides and in the default look; a hat and a ribbon never together.
    """
    accessories = [name for name in ACCESSORIES if rng.random() < ACCESSORY_SHARES[name]]
    if "hat" in accessories and "ribbon" in accessories:
        accessories.remove(rng.choice(["hat", "ribbon"]))
    return Avatar(
        hair=rng.choice(list(HAIR_COLOURS)),
        hair_style=rng.choice(HAIR_STYLES),
        eyes=rng.choice(list(EYE_COLOURS)),
        outfit=rng.choice(OUTFITS),
        outfit_colour=rng.choice(list(OUTFIT_COLOURS)),
        expression=rng.choice(EXPRESSIONS),
        background=rng.choice(BACKGROUNDS),
        skin=rng.choices(list(SKINS), SKIN_SHARES)[0],
        accessories=tuple(accessories),
    )


def widen(avatar: Avatar, rng: random.Random, *, withheld: bool = False) -> Avatar:
    """Take an avatar beyond the tagged world, as the image encoder must know more than tags say.

    Parameters
    ----------
    avatar : Avatar
    rng : random.Random
    withheld : bool
        False: nothing of what is withheld. True: withheld hues and shapes, always with a big
        emblem and a big hair mark, and for some a withheld look.

    Returns
    -------
    Avatar
    """
    return replace(
        avatar,
        hair_rgb=_colour(rng, withheld) if withheld or rng.random() < 0.7 else None,
        hair_rgb_right=_colour(rng) if rng.random() < 0.35 else None,
        eyes_rgb=_two_eyes(rng, withheld) if rng.random() < 0.7 else None,
        outfit_rgb=_colour(rng, withheld) if rng.random() < 0.7 else None,
        ribbon_rgb=_colour(rng, withheld) if rng.random() < 0.4 else None,
        background_rgb=(_colour(rng), _colour(rng)) if rng.random() < 0.35 else None,
        emblem=_emblem(rng, withheld) if withheld or rng.random() < 0.55 else None,
        mark=_mark(avatar, rng, withheld) if withheld or rng.random() < 0.6 else None,
        look=_look(rng, withheld) if rng.random() < LOOK_SHARE else Look(),
    )


def tags(avatar: Avatar) -> tuple[str, ...]:
    """Describe the avatar in booru style; what goes beyond the tagged world is left out."""
    return tuple(tag_regions(avatar))


def tag_regions(avatar: Avatar) -> dict[str, str]:
    """Say for each tag of the avatar in which region of the drawing it shows.

    Parameters
    ----------
    avatar : Avatar

    Returns
    -------
    dict of str to str
        Tag to a name in ``REGIONS``, in the order of the tags.
    """
    found = {
        avatar.hair: "hair",
        avatar.hair_style: "hair",
        avatar.eyes: "eyes",
        f"{avatar.outfit_colour} {avatar.outfit}": "outfit",
        avatar.expression: "mouth",
        avatar.background: "background",
    }
    found.update({name: name for name in avatar.accessories})
    if avatar.skin != DEFAULT_SKIN:
        found[avatar.skin] = "skin"
    return found


def caption(avatar: Avatar, rng: random.Random, *, drop: float = 0.1, empty: float = 0.1) -> str:
    """Write the avatar's tags in random order, with gaps: see ``shuffled_caption``."""
    return shuffled_caption(tags(avatar), rng, drop=drop, empty=empty)


def shuffled_caption(
    all_tags: Sequence[str], rng: random.Random, *, drop: float = 0.1, empty: float = 0.1
) -> str:
    """Write tags in random order, with gaps.

    Parameters
    ----------
    all_tags : sequence of str
    rng : random.Random
    drop : float
        Probability of leaving out each tag, 0 to 1.
    empty : float
        Probability of leaving out all of them, 0 to 1: what guidance is trained on.

    Returns
    -------
    str
        Tags joined by a comma and a space.
    """
    if rng.random() < empty:
        return ""
    kept = [tag for tag in all_tags if rng.random() >= drop]
    rng.shuffle(kept)
    return ", ".join(kept)


def is_withheld_colour(colour: Colour) -> bool:
    """Whether the hue lies in ``WITHHELD_HUES``; a grey has no hue and is not withheld."""
    hue, saturation, _ = colorsys.rgb_to_hsv(*(channel / 255 for channel in colour))
    return saturation > 0 and WITHHELD_HUES[0] <= hue * 360 <= WITHHELD_HUES[1]


def is_withheld_look(look: Look) -> bool:
    """Whether the look is kept from training."""
    pair = (look.outline, look.shading)
    return look.palette == WITHHELD_PALETTE or pair == WITHHELD_OUTLINE_AND_SHADING


def _colour(rng: random.Random, withheld: bool = False) -> Colour:
    """Any colour inside (withheld) or outside the withheld hues."""
    while True:
        hue = rng.random()
        value = rng.choice([rng.uniform(0.2, 0.5), rng.uniform(0.5, 1), rng.uniform(0.7, 1)])
        vivid = withheld or rng.random() < 0.75
        saturation = rng.uniform(0.5, 1) if vivid else rng.uniform(0, 0.5)
        value = max(value, 0.45) if withheld else value
        red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
        colour = (int(255 * red), int(255 * green), int(255 * blue))
        if is_withheld_colour(colour) == withheld:
            return colour


def _two_eyes(rng: random.Random, withheld: bool) -> tuple[Colour, Colour]:
    left = _colour(rng, withheld)
    return left, left if rng.random() < 0.7 else _colour(rng)


def _emblem(rng: random.Random, withheld: bool) -> Emblem:
    big = withheld or rng.random() < BIG_EMBLEM_SHARE
    return Emblem(
        shape=rng.choice(WITHHELD_SHAPES if withheld else SHAPES),
        colour=_colour(rng),
        size=rng.uniform(*(BIG_HALF_WIDTH if big else SMALL_EMBLEM_HALF_WIDTH)),
    )


def _mark(avatar: Avatar, rng: random.Random, withheld: bool) -> Mark:
    side = rng.choice(["left", "right"])
    if withheld or rng.random() < HAIR_MARK_SHARE:
        return Mark(
            shape=rng.choice(WITHHELD_SHAPES if withheld else SHAPES),
            colour=_colour(rng),
            side="left" if "ribbon" in avatar.accessories else side,  # the ribbon sits right
            place="hair",
            size=rng.uniform(*BIG_HALF_WIDTH),
        )
    place = rng.choice(["cheek", "cheek", "forehead"])
    return Mark(
        shape=rng.choice(SMALL_MARK_SHAPES),
        colour=_colour(rng),
        side=side if place == "cheek" else "middle",
        place=place,
        size=rng.uniform(*SMALL_MARK_HALF_WIDTH),
    )


def _look(rng: random.Random, withheld: bool) -> Look:
    """Any look but the default, withheld or not as asked."""
    while True:
        look = Look(
            outline=rng.choice(OUTLINES),
            shading=rng.choice(SHADINGS),
            palette=rng.choice(PALETTES),
        )
        if look != Look() and is_withheld_look(look) == withheld:
            return look
