"""The prompts of a grid: those that were asked for, or some that suit the dataset."""

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lorascope.errors import BadInputError
from lorascope.io.captions import split_tags
from lorascope.io.dataset_file import Dataset
from lorascope.metrics import tags as tagging
from lorascope.miniature import world

WITH_TRIGGER = ("trigger", "caption", "edit", "unseen")
WITHOUT_TRIGGER = ("class", "unrelated")

# Where the dataset never is: what a caption would say of it, and the prompt.
PLACES = {
    "beach": "on a beach",
    "snow": "in the snow",
    "forest": "in a forest",
    "night": "in a city street at night",
}
COLOURS = ("red", "blue", "green", "yellow", "purple", "white", "black", "pink", "brown", "orange")
UNRELATED = ("a wooden house beside a lake, mountains", "a bowl of fruit on a table")
WORLD_VALUES: tuple[tuple[str, ...], ...] = (
    world.EXPRESSIONS,
    tuple(f"{colour} {outfit}" for outfit in world.OUTFITS for colour in world.OUTFIT_COLOURS),
    tuple(world.EYE_COLOURS),
    tuple(world.HAIR_COLOURS),
)
STRANGERS = (7, 8)  # seeds of avatars that have nothing to do with the LoRA


@dataclass(frozen=True, slots=True)
class Prompt:
    """One column of the grid."""

    text: str
    group: str  # trigger, caption, edit, unseen, class, unrelated
    split: str = ""  # train or held-out, where it is the caption of an image


def choose_prompts(text: str, dataset: Dataset, *, in_world: bool) -> tuple[Prompt, ...]:
    """Read the prompts that were asked for, or make some that suit the dataset.

    Parameters
    ----------
    text : str
        Prompts with a bar or a line break between them; empty lines and lines with # at the
        beginning do not count. May be empty. Never opened as a file.
    dataset : Dataset
    in_world : bool
        The base model knows the miniature's drawn world only.

    Returns
    -------
    tuple of Prompt
        No text twice.

    Raises
    ------
    BadInputError
        There is no prompt, or the text is a single name of a file (``.txt``).
    """
    if not text.strip():
        made = _prompts_of_world(dataset) if in_world else _prompts_of_photographs(dataset)
        return tuple({prompt.text: prompt for prompt in reversed(made)}.values())[::-1]
    if not {"|", "\n"} & set(text) and text.strip().lower().endswith(".txt"):
        raise BadInputError(
            f"{text.strip()} looks like a file of prompts, and no such file was read.\n"
            "Fix: --prompts FILE with one prompt a line, or prompts with a bar between them."
        )
    lines = (line.strip() for line in text.replace("|", "\n").splitlines())
    found = dict.fromkeys(line for line in lines if line and not line.startswith("#"))
    if not found:
        raise BadInputError("There is no prompt.\nFix: --prompts FILE with one prompt a line.")
    return tuple(Prompt(line, group_of(line, dataset), _split_of(line, dataset)) for line in found)


def without_trigger(dataset: Dataset, count: int, *, in_world: bool) -> tuple[str, ...]:
    """Make prompts that the LoRA should leave as they were: what the base model must keep.

    Parameters
    ----------
    dataset : Dataset
    count : int
        How many at most.
    in_world : bool
        As for `choose_prompts`.

    Returns
    -------
    tuple of str
        Two that have nothing to do with the dataset, then captions without the trigger; only the
        former where the dataset names no trigger.
    """
    unrelated = _strangers() if in_world else UNRELATED
    images = sorted(dataset.images, key=lambda image: image.sha256)
    bare = [_bare(image.caption, dataset.trigger) for image in images if dataset.trigger]
    return tuple(dict.fromkeys(prompt for prompt in (*unrelated, *bare) if prompt))[:count]


def group_of(prompt: str, dataset: Dataset) -> str:
    """Tell what a prompt asks of the LoRA, from the tags that the training captions show.

    Returns
    -------
    str
        trigger (nothing else), caption (a caption of the dataset), edit (known tags put together
        in a new way), unseen (with a tag that no caption has), class (without the trigger, with
        a known tag), unrelated (neither).
    """
    tags, shown = split_tags(prompt), _shown(dataset)
    if dataset.trigger and tagging.position(tags, dataset.trigger) is None:
        return "class" if shown.intersection(tags) else "unrelated"
    others = tagging.without(tags, dataset.trigger)
    if not others:
        return "trigger"
    if _split_of(prompt, dataset):
        return "caption"
    return "edit" if shown.issuperset(others) else "unseen"


def _prompts_of_world(dataset: Dataset) -> list[Prompt]:
    """Make prompts that the miniature can draw."""
    shown = _shown(dataset)
    places = [place for place in world.BACKGROUNDS if place not in shown]
    extras = [extra for extra in reversed(world.ACCESSORIES) if extra not in shown]
    edits = _edits(dataset, functools.partial(_other_of_world, shown=shown))
    if not edits and extras:  # the captions have nothing to replace: add something
        edits = [_with(dataset.trigger, extras[0])]
    return _prompts(dataset, edits, places, _strangers())


def _prompts_of_photographs(dataset: Dataset) -> list[Prompt]:
    """Make prompts that any large model can draw."""
    captions = " ".join(image.caption for image in dataset.images).lower()
    words = set(captions.replace(",", " ").replace(".", " ").split())
    places = [prompt for word, prompt in PLACES.items() if word not in words]
    edits = _edits(dataset, functools.partial(_other_colour, shown=_shown(dataset)))
    return _prompts(dataset, edits, places, UNRELATED)


def _prompts(
    dataset: Dataset, edits: Sequence[str], places: Sequence[str], unrelated: Sequence[str]
) -> list[Prompt]:
    """Put the groups together: about nine prompts."""
    trigger = dataset.trigger
    trained = list(dict.fromkeys(i.caption for i in dataset.train if i.caption))
    held_out = [i.caption for i in dataset.held_out if i.caption and i.caption not in trained]
    found = [Prompt(trigger, "trigger")] if trigger else []
    found += [Prompt(text, "caption", "train") for text in _spread_out(trained, 2)]
    found += [Prompt(text, "caption", "held-out") for text in held_out[:1]]
    found += [Prompt(text, "edit") for text in edits[:1]]
    found += [Prompt(_with(trigger, place), "unseen") for place in places[:2]]
    bare = tagging.without(split_tags(trained[0]), trigger) if trained and trigger else []
    plain = ", ".join(part for part in (dataset.class_word, *bare) if part)
    found += [Prompt(plain, "class")] if plain else []
    return [*found, *(Prompt(text, "unrelated") for text in unrelated)]


def _edits(dataset: Dataset, other: Callable[[str], str]) -> list[str]:
    """Replace one tag of a training caption by a value that the dataset never shows."""
    for image in dataset.train:
        tags = split_tags(image.caption)
        for place, tag in enumerate(tags):
            if tag != dataset.trigger and (value := other(tag)):
                return [", ".join([*tags[:place], value, *tags[place + 1 :]])]
    return []


def _other_of_world(tag: str, shown: set[str]) -> str:
    values = next((values for values in WORLD_VALUES if tag in values), ())
    return next((value for value in reversed(values) if value not in shown), "")


def _other_colour(tag: str, shown: set[str]) -> str:
    first, _, noun = tag.partition(" ")
    if first not in COLOURS or not noun:
        return ""
    return next((f"{c} {noun}" for c in COLOURS if f"{c} {noun}" not in shown), "")


def _shown(dataset: Dataset) -> set[str]:
    """Every tag of the training captions but the trigger."""
    captions = (split_tags(image.caption) for image in dataset.train)
    return {tag for tags in captions for tag in tagging.without(tags, dataset.trigger)}


def _split_of(prompt: str, dataset: Dataset) -> str:
    """Say which images have the prompt's tags for a caption: train, held-out or none."""
    wanted = set(split_tags(prompt))
    images = (*dataset.train, *dataset.held_out)
    return next((i.split for i in images if set(split_tags(i.caption)) == wanted), "")


def _strangers() -> tuple[str, ...]:
    avatars = (world.sample_avatar(random.Random(seed)) for seed in STRANGERS)
    return tuple(", ".join(world.tags(avatar)) for avatar in avatars)


def _bare(caption: str, trigger: str) -> str:
    return ", ".join(tagging.without(split_tags(caption), trigger))


def _with(trigger: str, text: str) -> str:
    return f"{trigger}, {text}" if trigger else text


def _spread_out(texts: Sequence[str], count: int) -> list[str]:
    """Pick some, as far apart in the list as can be."""
    places = np.linspace(0, len(texts), count, endpoint=False).astype(int)
    return [texts[place] for place in dict.fromkeys(places.tolist())] if texts else []
