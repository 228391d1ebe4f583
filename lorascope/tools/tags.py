"""Tags: what the captions teach, before any training."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from lorascope.errors import BadInputError
from lorascope.io.captions import split_tags
from lorascope.io.dataset_file import DatasetImage, read_dataset
from lorascope.metrics import tags as counts
from lorascope.metrics.intervals import interval
from lorascope.records import Inputs, Measured, Measurement, Row, Tool

MOST_PAIRS = 300  # rows of the table; the strongest


def tags(inputs: Inputs, *, trigger: str = "") -> Measured:
    """Count the tags of the training captions: how often, how exposed, where and with whom.

    Parameters
    ----------
    inputs : Inputs
        Reads ``dataset``.
    trigger : str
        The tag meant to call the subject up; empty: the dataset's own, or else a guess.

    Returns
    -------
    Measured
        Tables: ``tags``, a row per tag; ``pairs``, tags that meet; ``images``, a row per image.
        Shares are of images (exposures: of images shown in an epoch); position 1 is first.

    Raises
    ------
    BadInputError
        The dataset has no image.
    """
    dataset = read_dataset(inputs["dataset"])
    if not dataset.images:
        raise BadInputError(
            f"{inputs['dataset']} lists no image.\nFix: make the run again from a folder of images."
        )
    trained = dataset.train or dataset.images
    captions = [split_tags(image.caption) for image in trained]
    given = trigger.strip() or dataset.trigger.strip()
    wanted = given or _guess(captions)
    places = [counts.position(c, wanted) for c in captions]
    holding = np.array([p is not None for p in places], dtype=float)
    first = np.array([p == 1 for p in places], dtype=float)
    empty = sum(not c for c in captions)
    numbers = [
        _count("images", len(trained), "images", len(trained)),
        _count("held_out_images", len(dataset.held_out), "images", len(dataset.images)),
        _count("tags", len(counts.frequency(captions)), "tags", len(trained)),
        _count("tags_per_image", float(np.mean([len(c) for c in captions])), "tags", len(trained)),
        _count("empty_captions", empty, "images", len(trained)),
        _count("shown_per_epoch", sum(i.repeats for i in trained), "images", len(trained)),
        _count("trigger_guessed", float(not given), "1", len(trained)),
    ]
    if wanted:
        shown = sum(i.repeats for i in trained)
        exposed = sum(i.repeats for i, held in zip(trained, holding, strict=True) if held)
        numbers += [
            _share("trigger_share", holding),
            _share("trigger_first_share", first),
            _count("trigger_exposure", exposed / shown if shown else 0.0, "1", len(trained)),
            _count("trigger_missing", float((1 - holding).sum()), "images", len(trained)),
        ]
    return Measured(
        numbers=tuple(numbers),
        tables={
            "tags": _tag_rows(trained, captions, wanted),
            "pairs": _pair_rows(captions),
            "images": [_image_row(image, wanted) for image in dataset.images],
        },
        caveats=_caveats(given, wanted, len(trained), empty),
    )


def _guess(captions: Sequence[Sequence[str]]) -> str:
    """Take the tag that comes first in most captions for the trigger."""
    first = Counter(c[0] for c in captions if c)
    return min(first, key=lambda tag: (-first[tag], tag), default="")


def _tag_rows(
    images: Sequence[DatasetImage], captions: Sequence[Sequence[str]], wanted: str
) -> list[Row]:
    shown = counts.exposure(captions, [image.repeats for image in images])
    places = counts.positions(captions)
    return [
        {
            "tag": tag,
            "images": number,
            "share": number / len(images),
            "exposure": shown.get(tag, 0.0),
            "position": places[tag],
            "trigger": counts.position([tag], wanted) is not None,
        }
        for tag, number in counts.frequency(captions).items()
    ]


def _pair_rows(captions: Sequence[Sequence[str]]) -> list[Row]:
    """List the pairs that meet in two images or more, the most bound together first."""
    bound = counts.npmi(captions)
    met = [(pair, *found) for pair, found in bound.items() if found[0] > 1]
    met.sort(key=lambda row: (-row[2], -row[1], row[0]))
    return [
        {"tag": pair[0], "other": pair[1], "images": images, "npmi": value}
        for pair, images, value in met[:MOST_PAIRS]
    ]


def _image_row(image: DatasetImage, wanted: str) -> Row:
    caption = split_tags(image.caption)
    place = counts.position(caption, wanted)
    return {
        "image": image.file,
        "caption": image.caption,
        "tags": len(caption),
        "has_trigger": place is not None,
        "trigger_position": place,
        "repeats": image.repeats,
        "split": image.split,
    }


def _caveats(given: str, wanted: str, images: int, empty: int) -> tuple[str, ...]:
    caveats = []
    if not wanted:
        caveats.append("No image has a caption: nothing is known of a trigger.")
    elif not given:
        caveats.append(
            f"No trigger was given: {wanted!r} is a guess, the tag that comes first most often. "
            "Name it with --trigger."
        )
    if empty and wanted:
        caveats.append(f"{empty} of {images} training images have no caption.")
    return tuple(caveats)


def _count(name: str, value: float, unit: str, n: int) -> Measurement:
    return Measurement(name=name, value=float(value), unit=unit, n=n)


def _share(name: str, values: np.ndarray) -> Measurement:
    return Measurement(
        name=name, value=float(values.mean()), unit="1", n=len(values), interval=interval(values)
    )


TAGS = Tool(name="tags", asks="What do the captions teach?", reads=("dataset",), measure=tags)
