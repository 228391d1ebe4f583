"""Prompts made of a dataset's own tags, for those who name none."""

import functools
import random
import re
from collections.abc import Callable, Sequence

import numpy as np

from lorascope.io.captions import split_tags
from lorascope.io.dataset_file import Dataset
from lorascope.miniature import world
from lorascope.tools.drawing.activation import activation_tags, has_tag, without_tags
from lorascope.tools.drawing.prompt_groups import Captions, Prompt

# Where the dataset never is: what a caption would say of it, and the prompt.
PLACES = {
    "beach": "on a beach",
    "snow": "in the snow",
    "forest": "in a forest",
    "night": "in a city street at night",
}
EXTRAS = {
    "umbrella": "under a striped umbrella",
    "bicycle": "beside a bicycle",
    "balloons": "among balloons",
}
COLOURS = ("red", "blue", "green", "yellow", "purple", "white", "black", "pink", "brown", "orange")
COLOURED = re.compile(rf"\b({'|'.join(COLOURS)})([ _])(\w+)", re.IGNORECASE)
PEOPLE = frozenset("1girl 1boy girl boy woman man person lady guy child".split())
UNRELATED = ("a wooden house beside a lake, mountains", "a bowl of fruit on a table")
WORLD_VALUES: tuple[tuple[str, ...], ...] = (
    world.EXPRESSIONS,
    tuple(f"{colour} {outfit}" for outfit in world.OUTFITS for colour in world.OUTFIT_COLOURS),
    tuple(world.EYE_COLOURS),
    tuple(world.HAIR_COLOURS),
)
STRANGERS = (7, 8)  # seeds of avatars that have nothing to do with the LoRA
MOST_TAGS = 3  # activation tags that are shown each by itself
SENTENCE = 4  # words in a caption's first tag


def make_prompts(dataset: Dataset, *, in_world: bool) -> tuple[Prompt, ...]:
    """Make about ten prompts that suit a dataset.

    Parameters
    ----------
    dataset : Dataset
    in_world : bool
        The base model knows the miniature's drawn world only: no other word is used.

    Returns
    -------
    tuple of Prompt
        The activation tag alone; two training captions and a held-out one; one attribute edited;
        two unseen contexts; a hard composition of things never shown; a caption without the
        activation tag; two that have nothing to do with the dataset. What the dataset gives no
        words for is left out, and no text stands twice.
    """
    made = _of_world(dataset) if in_world else _of_photographs(dataset)
    return tuple({prompt.text: prompt for prompt in reversed(made)}.values())[::-1]


def training_prompts(dataset: Dataset, split: str) -> tuple[Prompt, ...]:
    """Make a prompt of every distinct caption of one side of the split."""
    images = (image for image in dataset.images if image.split == split and image.caption)
    captions = Captions.of(dataset)
    return tuple(
        Prompt(text, captions.group(text), captions.split(text))
        for text in dict.fromkeys(image.caption for image in images)
    )


def tag_prompts(dataset: Dataset) -> tuple[Prompt, ...]:
    """Make a prompt of every activation tag by itself."""
    return tuple(Prompt(tag, "trigger") for tag in activation_tags(dataset))


def without_trigger(dataset: Dataset, count: int, *, in_world: bool) -> tuple[str, ...]:
    """Make prompts that the LoRA should leave as they were: what the base model must keep.

    Parameters
    ----------
    dataset : Dataset
    count : int
        How many at most.
    in_world : bool
        As for `make_prompts`.

    Returns
    -------
    tuple of str
        Two that have nothing to do with the dataset, then captions without the activation tags;
        only the former where the dataset has none.
    """
    unrelated = _strangers() if in_world else UNRELATED
    triggers = activation_tags(dataset)
    images = sorted(dataset.images, key=lambda image: image.sha256)
    bare = [_bare(image.caption, triggers) for image in images if triggers]
    return tuple(dict.fromkeys(prompt for prompt in (*unrelated, *bare) if prompt))[:count]


def _of_world(dataset: Dataset) -> list[Prompt]:
    """Make prompts that the miniature can draw."""
    captions = Captions.of(dataset)
    kept_out = {tag for i in dataset.of("composition") for tag in split_tags(i.caption)}
    places = [place for place in world.BACKGROUNDS if place not in captions.shown]
    places.sort(key=lambda place: place not in kept_out)  # there are images to compare with
    extras = [extra for extra in reversed(world.ACCESSORIES) if extra not in captions.shown]
    edit, value = _edit(dataset, functools.partial(_other_of_world, shown=captions.shown))
    if not edit and extras:  # the captions have nothing to replace: add something
        edit = _asking(dataset, captions, extras[0])
    worn = [extra for extra in extras if extra != "ribbon"]  # never with a hat
    hard = [value, *places[-1:], *(worn[:1] if value else worn)]
    return _prompts(dataset, captions, edit, places, hard, _strangers())


def _of_photographs(dataset: Dataset) -> list[Prompt]:
    """Make prompts that any large model can draw."""
    captions = Captions.of(dataset)
    said = " ".join(image.caption for image in dataset.images).lower()
    words = set(re.split(r"[\s,._]+", said))
    places = [prompt for word, prompt in PLACES.items() if word not in words]
    extras = [prompt for word, prompt in EXTRAS.items() if word not in words]
    edit, value = _edit(dataset, functools.partial(_other_colour, said=said))
    if not edit and (captions.triggers or captions.class_word):
        person = PEOPLE.intersection(words | set(dataset.class_word.lower().split()))
        value = "wearing sunglasses" if person else "painted purple"
        edit = _asking(dataset, captions, value)
    hard = [value, *places[-1:], *extras[:1]]
    return _prompts(dataset, captions, edit, places, hard, UNRELATED)


def _prompts(
    dataset: Dataset,
    captions: Captions,
    edit: str,
    places: Sequence[str],
    hard: Sequence[str],
    unrelated: Sequence[str],
) -> list[Prompt]:
    """Put the groups together."""
    trained = list(dict.fromkeys(i.caption for i in dataset.train if i.caption))
    held_out = [i.caption for i in dataset.held_out if i.caption and i.caption not in trained]
    found = [Prompt(tag, "trigger") for tag in captions.triggers[:MOST_TAGS]]
    found += [
        Prompt(text, "caption", captions.split(text))
        for text in (*_spread_out(trained, 2), *held_out[:1])
    ]
    found += [Prompt(edit, "edit")] if edit else []
    found += [Prompt(_asking(dataset, captions, place), "unseen") for place in places[:2]]
    never_shown = [text for text in hard if text]
    if len(never_shown) > 1:
        found.append(Prompt(_asking(dataset, captions, ", ".join(never_shown)), "hard"))
    plain = _of_class(captions, trained)
    found += [Prompt(plain, "class")] if plain else []
    return [*found, *(Prompt(text, "unrelated") for text in unrelated)]


def _of_class(captions: Captions, trained: Sequence[str]) -> str:
    """Give a training caption without the activation tag, and with the class word."""
    tags = split_tags(trained[0]) if trained and captions.triggers else []
    bare = without_tags(tags, captions.triggers)
    named = not captions.class_word or has_tag(bare, [captions.class_word])
    return ", ".join(bare if named else [captions.class_word, *bare])


def _asking(dataset: Dataset, captions: Captions, text: str) -> str:
    """Ask for the dataset's subject in a way that its captions do: as tags, or in a sentence."""
    trigger = captions.triggers[0] if captions.triggers else ""
    starts = [tags[0] for i in dataset.train if (tags := split_tags(i.caption))]
    sentences = [start for start in starts if len(start.split()) >= SENTENCE]
    if 2 * len(sentences) > len(starts):
        subject = " ".join(part for part in (trigger, captions.class_word) if part)
        return f"a photo of {subject} {text}" if subject else text
    return ", ".join(part for part in (trigger or captions.class_word, text) if part)


def _edit(dataset: Dataset, other: Callable[[str], tuple[str, str]]) -> tuple[str, str]:
    """Replace one attribute of a training caption by one that the dataset never shows.

    Returns
    -------
    caption, attribute : str
        Both empty where nothing can be replaced.
    """
    for image in dataset.train:
        tags = split_tags(image.caption)
        for place, tag in enumerate(tags):
            changed, value = other(tag)
            if value and tag != dataset.trigger:
                return ", ".join([*tags[:place], changed, *tags[place + 1 :]]), value
    return "", ""


def _other_of_world(tag: str, shown: frozenset[str]) -> tuple[str, str]:
    values = next((values for values in WORLD_VALUES if tag in values), ())
    found = next((value for value in reversed(values) if value not in shown), "")
    return found, found


def _other_colour(tag: str, said: str) -> tuple[str, str]:
    """Give a tag or a sentence with its first coloured thing in a colour that it never has."""
    found = COLOURED.search(tag)
    if not found:
        return "", ""
    _, gap, noun = found.groups()
    values = (f"{colour}{gap}{noun}" for colour in COLOURS)
    value = next((value for value in values if value.lower() not in said), "")
    return tag[: found.start()] + value + tag[found.end() :], value


def _strangers() -> tuple[str, ...]:
    avatars = (world.sample_avatar(random.Random(seed)) for seed in STRANGERS)
    return tuple(", ".join(world.tags(avatar)) for avatar in avatars)


def _bare(caption: str, triggers: Sequence[str]) -> str:
    return ", ".join(without_tags(split_tags(caption), triggers))


def _spread_out(texts: Sequence[str], count: int) -> list[str]:
    """Pick some, as far apart in the list as can be."""
    places = np.linspace(0, len(texts), count, endpoint=False).astype(int)
    return [texts[place] for place in dict.fromkeys(places.tolist())] if texts else []
