"""The activation tags of a dataset: every word that is meant to call something up."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from lorascope.io.captions import split_tags
from lorascope.io.dataset_file import Dataset
from lorascope.metrics import tags as tagging

NUMBERED = re.compile(r"\d+_(.+)")  # repeats, and what the folder's images are of
# What captions begin with everywhere, so that it calls nothing up.
ORDINARY = frozenset(
    "1girl 1boy 1other 2girls 2boys solo girl boy woman man person people no_humans".split()
)
ALIKE = 3  # letters at least, where one name is part of another
LEAST = 2  # captions that must begin alike before that says something


def activation_tags(dataset: Dataset) -> tuple[str, ...]:
    """List every activation tag of a dataset.

    Parameters
    ----------
    dataset : Dataset
        Its trigger counts, each part of it where there are commas. Of a set of several concepts,
        so does what all captions of a folder begin with (``10_zyxdef/``, ``4_zyxarcane/``), the
        word that a folder is named by where all its captions hold it in their first tag (``10_sks
        dog``: "a photo of sks dog"), a second tag that the folder is named by, and in one folder
        for all what several captions begin with in place of the trigger.

    Returns
    -------
    tuple of str
        The trigger first; none where the dataset calls nothing up by name.

    Notes
    -----
    A set without a trigger and of one folder has none unless the folder's name says so: that its
    captions begin alike may be habit ("1girl").
    """
    found = split_tags(dataset.trigger)
    groups = _groups(dataset)
    starts = [_common_start(captions) for captions in groups.values()]
    firsts = {start[0].casefold() for start in starts if start}
    several = len(firsts) > 1
    for (name, captions), start in zip(groups.items(), starts, strict=True):
        found += _of_folder(name, captions, start, several=several)
    if dataset.trigger:
        found += _instead(list(groups.values()), found)
    return tuple(_without_repeats(found, dataset.class_word))


def without_tags(tags: Sequence[str], triggers: Iterable[str]) -> list[str]:
    """Take activation tags out of a caption's tags; the longest first, as one may hold another."""
    rest = list(tags)
    for trigger in sorted(triggers, key=len, reverse=True):
        rest = tagging.without(rest, trigger)
    return rest


def has_tag(tags: Sequence[str], triggers: Iterable[str]) -> bool:
    """Tell whether a caption's tags hold one of the activation tags."""
    return any(tagging.position(tags, trigger) is not None for trigger in triggers)


def _groups(dataset: Dataset) -> Mapping[str, list[list[str]]]:
    """Gather the captions trained on by the name of their folder."""
    found: dict[str, list[list[str]]] = {}
    for image in dataset.train:
        folder = PurePosixPath(image.file).parent.name
        if tags := split_tags(image.caption):
            found.setdefault(folder, []).append(tags)
    return found


def _common_start(captions: Sequence[Sequence[str]]) -> list[str]:
    """Find the tags that all captions of a folder begin with; none where there are too few."""
    if len(captions) < LEAST:
        return []
    start = []
    for column in zip(*captions, strict=False):
        if len(set(column)) > 1:
            break
        start.append(column[0])
    return start


def _of_folder(
    name: str, captions: Sequence[Sequence[str]], start: Sequence[str], *, several: bool
) -> list[str]:
    named = NUMBERED.fullmatch(name)
    words = named[1].split() if named else []
    first = words[0] if words else ""
    if first and all(tagging.position(tags[:1], first) for tags in captions):
        found = [first]
    else:
        found = list(start[:1]) if several else []
    second = [tag for tag in start[1:2] if any(_akin(tag, word) for word in words)]
    return found + second


def _akin(tag: str, word: str) -> bool:
    """Tell whether a tag and a folder's word are one: "zyxdef" in a folder "def"."""
    one, other = tag.casefold(), word.casefold()
    return one == other or (min(len(one), len(other)) >= ALIKE and (one in other or other in one))


def _instead(groups: Sequence[Sequence[Sequence[str]]], known: Sequence[str]) -> list[str]:
    """Find what captions without a known tag begin with, where others begin with one."""
    captions = [tags for group in groups for tags in group]
    if not any(has_tag(tags[:1], known) for tags in captions):
        return []
    others = [tags for tags in captions if not has_tag(tags, known)]
    firsts = tagging.frequency([tags[:1] for tags in others])
    later = {tag for tags in captions for tag in tags[1:]}
    return [tag for tag, count in firsts.items() if count >= LEAST and tag not in later]


def _without_repeats(found: Iterable[str], class_word: str) -> list[str]:
    """Leave out what is ordinary, and what holds a tag that stands before it."""
    kept: list[str] = []
    for tag in found:
        usual = tag.casefold().replace(" ", "_") in ORDINARY or tag == class_word
        if not usual and not has_tag([tag], kept):
            kept.append(tag)
    return kept
