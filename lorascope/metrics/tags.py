"""Tags of captions: how often, how exposed, where, and with whom."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from lorascope.errors import ShapeError

Caption = Sequence[str]  # the tags of one image, in order


def frequency(captions: Sequence[Caption]) -> dict[str, int]:
    """Count the images that carry each tag.

    Parameters
    ----------
    captions : sequence of sequences of tags

    Returns
    -------
    dict
        Most frequent first, equals by name. A tag written twice in one caption counts once.
    """
    counted = Counter(tag for tags in captions for tag in dict.fromkeys(tags))
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def exposure(captions: Sequence[Caption], repeats: Sequence[int]) -> dict[str, float]:
    """How much of the training each tag takes part in.

    Parameters
    ----------
    captions : sequence of sequences of tags
    repeats : sequence of int
        How often each image is shown in one epoch.

    Returns
    -------
    dict
        From 0 to 1: the share of the images shown that carry the tag.

    Raises
    ------
    ShapeError
        There are not as many repeats as captions.
    """
    if len(captions) != len(repeats):
        raise ShapeError(f"{len(repeats)} repeats for {len(captions)} captions")
    shown: Counter[str] = Counter()
    for tags, times in zip(captions, repeats, strict=True):
        shown.update(dict.fromkeys(tags, times))
    total = sum(repeats)
    return {tag: times / total for tag, times in shown.items()} if total else {}


def positions(captions: Sequence[Caption]) -> dict[str, float]:
    """Where each tag stands on average among those of its caption.

    Parameters
    ----------
    captions : sequence of sequences of tags

    Returns
    -------
    dict
        1 is first. A tag written twice counts where it comes first.
    """
    places: dict[str, list[int]] = {}
    for tags in captions:
        for tag in dict.fromkeys(tags):
            places.setdefault(tag, []).append(list(tags).index(tag) + 1)
    return {tag: sum(found) / len(found) for tag, found in places.items()}


def npmi(captions: Sequence[Caption]) -> dict[tuple[str, str], tuple[int, float]]:
    """How strongly two tags go together.

    Parameters
    ----------
    captions : sequence of sequences of tags

    Returns
    -------
    dict
        Of each pair of tags that meets (in the order of their names): the images that carry both,
        and the normalised pointwise mutual information from -1 to 1. It is 0 when they meet as
        often as chance has it and 1 when neither is ever without the other; for two tags that
        every image carries, nothing can be said and it is 0.

    Notes
    -----
    ``log(p(a, b) / p(a) p(b)) / -log p(a, b)``. Source: Bouma, GSCL 2009.
    """
    count = len(captions)
    single = frequency(captions)
    pairs = Counter(pair for tags in captions for pair in combinations(sorted(set(tags)), 2))
    found = {}
    for (one, other), images in sorted(pairs.items()):
        share = images / count
        mutual = math.log(share * count * count / (single[one] * single[other]))
        value = min(1.0, mutual / -math.log(share)) if images < count else 0.0
        found[one, other] = (images, value)
    return found


def position(tags: Caption, wanted: str) -> int | None:
    """Find which tag of a caption holds a word.

    Parameters
    ----------
    tags : sequence of str
    wanted : str
        One word or more; found as whole words, whatever their case, also inside a longer tag.

    Returns
    -------
    int or None
        1 is first; None where no tag holds it.
    """
    return next((i for i, tag in enumerate(tags, 1) if _within(tag, wanted) is not None), None)


def without(tags: Caption, unwanted: str) -> list[str]:
    """Take a word out of a caption, and leave the rest of the tag that held it.

    Parameters
    ----------
    tags : sequence of str
    unwanted : str
        As in `position`.

    Returns
    -------
    list of str
        Without tags that became empty.
    """
    rest = []
    for tag in tags:
        words = tag.split()
        while (start := _within(" ".join(words), unwanted)) is not None:
            del words[start : start + len(unwanted.split())]
        if words:
            rest.append(" ".join(words))
    return rest


def _within(tag: str, wanted: str) -> int | None:
    """Find whole words among the words of a tag."""
    words, sought = tag.casefold().split(), wanted.casefold().split()
    if not sought:
        return None
    starts = range(len(words) - len(sought) + 1)
    return next((i for i in starts if words[i : i + len(sought)] == sought), None)
