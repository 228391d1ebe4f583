"""Which images are never trained on: decided once, by content alone."""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from lorascope.errors import BadInputError
from lorascope.io.captions import split_tags
from lorascope.io.dataset_file import DatasetImage, Split

# Images from which at least so many are held out. Below four nothing can be said of epochs.
AT_LEAST = ((12, 4), (6, 2))
SMALLEST_COMPOSITION = 2  # images
LARGEST_COMPOSITION = 0.25  # of all images
# Where and in what: last words of tags that name a background or an outfit.
PLACES = (
    "alley background bathroom beach bedroom bridge building cafe castle cave city classroom "
    "desert field forest garden indoors kitchen lake library mountain mountains night ocean office "
    "outdoors park pool restaurant river road room school sea shrine sky snow space stage street "
    "studio temple train underwater water"
)
OUTFITS = (
    "apron armor armour bikini blazer blouse bodysuit cape cloak coat cosplay costume dress gown "
    "hoodie jacket jeans kimono leotard overalls pajamas pyjamas robe school-uniform shirt skirt "
    "suit sweater swimsuit t-shirt tuxedo uniform vest yukata"
)
KINDS = frozenset((PLACES + " " + OUTFITS).split())


def split(
    images: Sequence[DatasetImage],
    share: float,
    seed: int,
    *,
    composition: str = "",
    known: Mapping[str, Split] | None = None,
) -> dict[str, Split]:
    """Decide by content alone which images are held out.

    Parameters
    ----------
    images : sequence of DatasetImage
        Exact duplicates count once, so they fall on one side.
    share : float
        To hold out, of the images without the composition's tag; rounded to whole images, at
        least 2 of 6 or more and 4 of 12 or more. 0 holds none out.
    seed : int
        Another seed, another choice.
    composition : str
        A tag; every image that has it is kept out as a composition.
    known : mapping
        Decisions that stand already.

    Returns
    -------
    dict
        sha256 -> "train", "held-out" or "composition". One image at least is trained on.

    Raises
    ------
    BadInputError
        Every image has the composition's tag.
    """
    known = known or {}
    kept_out = {i.sha256 for i in images if composition and composition in split_tags(i.caption)}
    everyone = {i.sha256 for i in images}
    usual = everyone - kept_out
    if images and not usual:
        raise BadInputError(
            f"Every image has the tag {composition!r}: nothing would be left to train on.\n"
            "Fix: name another tag in held_out_tag, or none."
        )
    different = sorted(usual, key=lambda h: hashlib.sha256(f"{seed}\0{h}".encode()).digest())
    wanted = min(_wanted(share, len(different)), len(different) - 1)
    sides: dict[str, Split] = dict.fromkeys(kept_out, "composition")
    sides |= {h: known[h] for h in sorted(everyone) if h in known}
    free = wanted - sum(sides.get(h) == "held-out" for h in different)
    for h in different:
        if h not in sides:
            sides[h] = "held-out" if free > 0 else "train"
            free -= 1
    return sides


def compositions(images: Sequence[DatasetImage], trigger: str) -> list[tuple[str, int]]:
    """List the backgrounds and outfits that could be kept out whole, with their images.

    A composition is one tag that names a place or an outfit and that between two images and a
    quarter of all have: little is lost for training, and the LoRA can be asked for what it was
    never shown.

    Returns
    -------
    list of (tag, images)
        The smallest first, then by name.
    """
    counts = Counter(
        tag for image in images for tag in set(split_tags(image.caption)) if tag != trigger
    )
    most = LARGEST_COMPOSITION * len(images)
    fitting = [
        (tag, count)
        for tag, count in counts.items()
        if SMALLEST_COMPOSITION <= count <= most and tag.split()[-1].lower() in KINDS
    ]
    return sorted(fitting, key=lambda found: (found[1], found[0]))


def _wanted(share: float, different: int) -> int:
    """Count the images to hold out."""
    wanted = math.floor(share * different + 0.5)
    if share > 0:
        least = next((least for images, least in AT_LEAST if different >= images), 0)
        wanted = max(wanted, least)
    return wanted
