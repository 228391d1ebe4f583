"""The images of a training: looked at, split once, put into buckets, encoded once."""

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from lorascope.io.captions import split_tags
from lorascope.io.dataset_file import Dataset, DatasetImage, Split
from lorascope.io.images import read_image, resize_crop
from lorascope.io.scan import Say, scan_images
from lorascope.metrics.buckets import Size, bucket
from lorascope.progress import track
from lorascope.records import seed_from
from trainer.config import TrainConfig
from trainer.split import compositions, split

if TYPE_CHECKING:
    from lorascope.models.base import Base

ENCODED_AT_ONCE = 8  # images


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
    images = scan_images(root, repeats=config.repeats, say=say)
    tag = config.held_out_tag.strip()
    sides = split(images, config.held_out, config.seed, composition=tag, known=known)
    _say_compositions(images, tag, config.trigger, say)
    return Dataset(
        root=root,
        trigger=config.trigger,
        class_word=config.class_word,
        resolution=resolution,
        images=tuple(replace(image, split=sides[image.sha256]) for image in images),
    )


def _say_compositions(images: Sequence[DatasetImage], tag: str, trigger: str, say: Say) -> None:
    """Name a tag that no image has, and offer those that could be kept out."""
    if tag and not any(tag in split_tags(image.caption) for image in images):
        say(f"warning: no caption has the tag {tag!r} of held_out_tag; nothing is kept out for it")
    if tag or not (offers := compositions(images, trigger)):
        return
    listed = ", ".join(f"{name} ({count} images)" for name, count in offers[:3])
    say(f"note: a background or outfit can be kept out whole with held_out_tag, such as {listed}")


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
