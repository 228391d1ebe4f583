"""Writes ordinary training folders of drawings: ``<repeats>_<name>/NNN.png`` and ``NNN.txt``."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from lorascope.miniature.drawing import draw
from lorascope.miniature.world import (
    BACKGROUNDS,
    EXPRESSIONS,
    Avatar,
    Emblem,
    Look,
    Mark,
    sample_avatar,
    tags,
)

# Kept out of the character's folders: does it still work in a place where it never was?
UNSEEN_BACKGROUNDS = ("beach", "pink background")
SEEN_BACKGROUNDS = tuple(name for name in BACKGROUNDS if name not in UNSEEN_BACKGROUNDS)

STYLE_LOOK = Look(outline="none", shading="soft")  # withheld from the base model

OUTFIT_SIZES: Mapping[str, int] = {"def": 20, "arcane": 5}
OUTFIT_REPEATS: Mapping[str, int] = {"def": 5, "arcane": 5}


def character_avatar(
    rng: random.Random, *, backgrounds: Sequence[str] = SEEN_BACKGROUNDS
) -> Avatar:
    """Give the project's own character, whom the base model has never seen.

    Parameters
    ----------
    rng : random.Random
        Decides the expression and the background; all else is the character.
    backgrounds : sequence of str
        What to choose the background from.

    Returns
    -------
    Avatar
    """
    return Avatar(
        hair="green hair",
        hair_style="long hair",
        eyes="yellow eyes",
        outfit="hoodie",
        outfit_colour="black",
        expression=rng.choice(EXPRESSIONS),
        background=rng.choice(backgrounds),
        hair_rgb=(35, 178, 160),
        hair_rgb_right=(178, 240, 224),
        emblem=Emblem(shape="bolt", colour=(250, 212, 50), size=14.5),
        mark=Mark(shape="diamond", colour=(240, 84, 120), side="left", place="hair", size=14.5),
    )


def arcane_avatar(rng: random.Random, *, backgrounds: Sequence[str] = SEEN_BACKGROUNDS) -> Avatar:
    """Give the character in her second outfit: a purple dress with a golden ring."""
    return replace(
        character_avatar(rng, backgrounds=backgrounds),
        outfit="dress",
        outfit_colour="purple",
        emblem=Emblem(shape="ring", colour=(250, 196, 60), size=14.0),
    )


OUTFIT_AVATARS = {"def": character_avatar, "arcane": arcane_avatar}


def write_character(
    root: Path,
    *,
    name: str = "fern",
    trigger: str = "zyxfern",
    images: int = 20,
    repeats: int = 5,
    seed: int = 0,
    backgrounds: Sequence[str] = SEEN_BACKGROUNDS,
) -> Path:
    """Write a folder of the project's own character; only what varies is tagged.

    Parameters
    ----------
    root : Path
        Where the folder goes.
    name : str
        Of the folder, behind the repeats.
    trigger : str
        First tag of every caption.
    images : int
    repeats : int
    seed : int
        The same seed gives the same bytes; a longer folder begins like a shorter one.
    backgrounds : sequence of str
        What to choose the backgrounds from.

    Returns
    -------
    Path
        The folder.
    """
    drawn = []
    for rng in _generators(seed, name, images):
        avatar = character_avatar(rng, backgrounds=backgrounds)
        drawn.append((avatar, (avatar.expression, avatar.background), rng))
    return _write(root / f"{repeats}_{name}", trigger, drawn)


def write_style(
    root: Path,
    *,
    name: str = "style",
    trigger: str = "zyxstyle",
    images: int = 20,
    repeats: int = 5,
    seed: int = 0,
    look: Look = STYLE_LOOK,
) -> Path:
    """Write a folder of many avatars in one look; everything but the look is tagged.

    Parameters
    ----------
    root, name, trigger, images, repeats, seed
        As in `write_character`.
    look : Look

    Returns
    -------
    Path
        The folder.
    """
    drawn = []
    for rng in _generators(seed, name, images):
        avatar = replace(sample_avatar(rng), look=look)
        drawn.append((avatar, tags(avatar), rng))
    return _write(root / f"{repeats}_{name}", trigger, drawn)


def write_outfits(
    root: Path,
    *,
    prefix: str = "zyx",
    sizes: Mapping[str, int] = OUTFIT_SIZES,
    repeats: Mapping[str, int] = OUTFIT_REPEATS,
    seed: int = 0,
    backgrounds: Sequence[str] = SEEN_BACKGROUNDS,
) -> tuple[Path, ...]:
    """Write one folder for each outfit of the character; the triggers share their beginning.

    Parameters
    ----------
    root : Path
        Where the folders go.
    prefix : str
        Each trigger is this and the outfit's name: ``zyxdef``, ``zyxarcane``.
    sizes, repeats : mapping of str to int
        Images and repeats of each outfit in ``OUTFIT_AVATARS``.
    seed : int
    backgrounds : sequence of str

    Returns
    -------
    tuple of Path
        The folders, in the order of ``sizes``.
    """
    folders = []
    for outfit, images in sizes.items():
        drawn = []
        for rng in _generators(seed, outfit, images):
            avatar = OUTFIT_AVATARS[outfit](rng, backgrounds=backgrounds)
            drawn.append((avatar, (avatar.expression, avatar.background), rng))
        folders.append(_write(root / f"{repeats[outfit]}_{outfit}", prefix + outfit, drawn))
    return tuple(folders)


def _generators(seed: int, name: str, images: int) -> list[random.Random]:
    """Give every image its own generator, so that none depends on how many there are."""
    return [random.Random(f"{seed}/{name}/{index}") for index in range(images)]


def _write(
    folder: Path, trigger: str, drawn: Iterable[tuple[Avatar, Sequence[str], random.Random]]
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, (avatar, described, rng) in enumerate(drawn, start=1):
        picture = Image.fromarray(draw(avatar, rng).image)
        image = folder / f"{index:03d}.png"
        temporary = image.with_suffix(".png.part")
        picture.save(temporary, format="PNG")
        temporary.replace(image)
        text = image.with_suffix(".txt")
        temporary = text.with_suffix(".txt.part")
        temporary.write_text(", ".join((trigger, *described)), encoding="utf-8")
        temporary.replace(text)
    return folder
