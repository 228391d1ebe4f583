"""The images of a training: looked at, split once, put into buckets, encoded once."""

import hashlib
import math
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.captions import read_caption, split_tags
from lorascope.io.dataset_file import Dataset, DatasetImage, Split
from lorascope.io.folders import left_out, scan_training_folder
from lorascope.io.images import read_file, read_image, resize_crop
from lorascope.metrics.buckets import Size, bucket
from lorascope.progress import track
from lorascope.records import seed_from
from trainer.config import TrainConfig

if TYPE_CHECKING:
    from lorascope.models.base import Base

ENOUGH_FOR_TWO = 6  # images from which at least two are held out
ENCODED_AT_ONCE = 8  # images

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One training image, ready for any number of steps."""

    image: DatasetImage
    size: Size
    latent: torch.Tensor  # (C, h, w) float32, scaled, on the CPU


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images of one size, trained on in one step."""

    size: Size
    members: tuple[int, ...]  # positions in the list of prepared images


def warn(text: str) -> None:
    """Say a line on stderr, clear of a running progress line."""
    print(("\r\x1b[K" if sys.stderr.isatty() else "") + text, file=sys.stderr, flush=True)


def collect(
    config: TrainConfig,
    resolution: Size,
    *,
    known: Mapping[str, Split] | None = None,
    say: Say = warn,
) -> Dataset:
    """Look at every image of the training folder and split them.

    An image that cannot be read is named and left out; captions that are missing are counted.

    Parameters
    ----------
    config : TrainConfig
        Names the folder, the repeats, the share to hold out and the seed.
    resolution : (width, height)
        What training aims at, px.
    known : mapping, optional
        sha256 -> split, from an earlier training in the same run: kept.
    say : callable
        Takes each warning.

    Raises
    ------
    MissingInputError, BadInputError
        There is no such folder, or no image in it can be used.
    """
    root = Path(config.dataset)
    found = scan_training_folder(root)
    if unused := left_out(root):
        count = "1 image" if len(unused) == 1 else f"{len(unused)} images"
        say(f"warning: {count} outside numbered folders not used: {unused[0]} ...")
    images = [
        image
        for path, repeats in track(found, label="looking at images")
        if (image := _look_at(root, path, config.repeats or repeats, say)) is not None
    ]
    if not images:
        raise BadInputError(
            f"None of the {len(found)} images in {root} can be read; each is named above.\n"
            "Fix: replace them."
        )
    bare = [image.file for image in images if not image.caption]
    if bare:
        say(
            f"warning: {len(bare)} of {len(images)} images have no caption and train with an empty "
            f"one: {', '.join(bare[:3])}{' ...' if len(bare) > 3 else ''}"
        )
    sides = split([image.sha256 for image in images], config.held_out, config.seed, known or {})
    return Dataset(
        root=root,
        trigger=config.trigger,
        class_word=config.class_word,
        resolution=resolution,
        images=tuple(replace(image, split=sides[image.sha256]) for image in images),
    )


def split(
    hashes: Sequence[str], share: float, seed: int, known: Mapping[str, Split]
) -> dict[str, Split]:
    """Decide by content alone which images are held out.

    Parameters
    ----------
    hashes : sequence of str
        sha256 of each image's bytes. Exact duplicates count once, so they fall on one side.
    share : float
        To hold out; rounded to whole images, and at least 2 of 6 or more. 0 holds none out.
    seed : int
        Another seed, another choice.
    known : mapping
        Decisions that stand already.

    Returns
    -------
    dict
        sha256 -> "train" or "held-out". One image at least is trained on.
    """
    different = sorted(set(hashes), key=lambda h: hashlib.sha256(f"{seed}\0{h}".encode()).digest())
    wanted = math.floor(share * len(different) + 0.5)
    if share > 0 and len(different) >= ENOUGH_FOR_TWO:
        wanted = max(wanted, 2)
    wanted = min(wanted, len(different) - 1)
    sides = {h: known[h] for h in different if h in known}
    free = wanted - sum(side == "held-out" for side in sides.values())
    for h in different:
        if h not in sides:
            sides[h] = "held-out" if free > 0 else "train"
            free -= 1
    return sides


def prepare(base: "Base", dataset: Dataset) -> list[Prepared]:
    """Encode every training image once: the mean of what the VAE gives.

    Returns
    -------
    list of Prepared
        In the order of the dataset; the held-out images are not among them.

    Raises
    ------
    BadInputError, MissingInputError
        An image changed after it was looked at.
    """
    sized = [(i, bucket(i.width, i.height, dataset.resolution[0])) for i in dataset.train]
    groups: dict[Size, list[int]] = {}
    for position, (_, size) in enumerate(sized):
        groups.setdefault(size, []).append(position)
    parts = [
        (size, members[start : start + ENCODED_AT_ONCE])
        for size, members in groups.items()
        for start in range(0, len(members), ENCODED_AT_ONCE)
    ]
    latents: dict[int, torch.Tensor] = {}
    for size, members in track(parts, label="encoding images"):
        pictures = [resize_crop(read_image(dataset.path(sized[m][0])), *size) for m in members]
        with torch.no_grad():
            encoded = base.encode_images(np.stack(pictures)).float().cpu()
        latents |= dict(zip(members, encoded, strict=True))
    return [
        Prepared(image=image, size=size, latent=latents[position])
        for position, (image, size) in enumerate(sized)
    ]


def epoch_batches(
    images: Sequence[Prepared], batch_size: int, seed: int, epoch: int
) -> list[Batch]:
    """Put one epoch in order: every image x repeats, in batches of one size each.

    The order depends on the seed and the epoch alone. Batches are rounded up per bucket, so that
    every epoch has the same number of them.
    """
    order = random.Random(seed_from(seed, "order", epoch))
    sizes: dict[Size, list[int]] = {}
    for position, one in enumerate(images):
        sizes.setdefault(one.size, []).extend([position] * one.image.repeats)
    batches = []
    for size, members in sorted(sizes.items()):
        order.shuffle(members)
        batches += [
            Batch(size=size, members=tuple(members[start : start + batch_size]))
            for start in range(0, len(members), batch_size)
        ]
    order.shuffle(batches)
    return batches


def captions(config: TrainConfig, images: Sequence[DatasetImage], step: int) -> list[str]:
    """Give the captions of one step: dropped or shuffled as configured.

    The draws depend on the seed, the step and the place in the batch alone.
    """
    return list(_captions(config, images, step))


def _captions(config: TrainConfig, images: Sequence[DatasetImage], step: int) -> Iterator[str]:
    for place, image in enumerate(images):
        draw = random.Random(seed_from(config.seed, "captions", step, place))
        dropped = draw.random() < config.caption_dropout
        tags = split_tags(image.caption)
        if dropped:
            yield ""
        elif config.shuffle_tags and len(tags) > config.keep_tags:
            rest = tags[config.keep_tags :]
            draw.shuffle(rest)
            yield ", ".join(tags[: config.keep_tags] + rest)
        else:
            yield image.caption


def _look_at(root: Path, path: Path, repeats: int, say: Say) -> DatasetImage | None:
    """Read one image and its caption; None, and a warning, where the image cannot be used."""
    try:
        height, width, _ = read_image(path).shape
        digest = hashlib.sha256(read_file(path)).hexdigest()
    except (BadInputError, MissingInputError) as error:
        say(f"warning: skipped: {str(error).splitlines()[0]}")
        return None
    return DatasetImage(
        file=path.relative_to(root).as_posix(),
        sha256=digest,
        caption=read_caption(path),
        repeats=repeats,
        split="train",
        width=width,
        height=height,
    )
