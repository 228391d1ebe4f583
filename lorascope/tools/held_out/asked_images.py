"""Which pictures the loss tool asks about, read once and made ready for the model."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.captions import split_tags
from lorascope.io.dataset_file import Dataset, DatasetImage
from lorascope.io.images import resize_crop
from lorascope.metrics import similarity
from lorascope.metrics.tags import without
from lorascope.progress import track
from lorascope.records import Row, seed_from
from lorascope.tools.held_out.losses import AUGMENTED, KEPT, SHUFFLED
from lorascope.tools.held_out.questions import Item
from lorascope.tools.vae import at_training_size

if TYPE_CHECKING:
    from torch import Tensor

    from lorascope.models.base import Base

Array = NDArray[Any]

ASKED_TWICE = 8  # training images that are asked about in other ways where nothing is held out
CROP = 0.9  # of each side of an image that is shifted and scaled
KEPT_STEPS, KEPT_GUIDANCE = 12, 5.0  # how the base model draws what it must keep
UNREAD_NAMED = 5  # images that cannot be read and get a sentence of their own


@dataclass(frozen=True, kw_only=True, eq=False)
class Chosen:
    """Images of each set, at their training size.

    Attributes
    ----------
    images : tuple of (DatasetImage, (H, W, 3) uint8 array)
        Held-out ones first, then compositions, then those trained on; by content, whatever
        their order in the dataset.
    leaks : list of rows
        Held-out images that are (almost) among the training images; they are not in ``images``.
    unread : tuple of str
        A sentence for what could not be read.
    """

    images: tuple[tuple[DatasetImage, Array], ...]
    leaks: list[Row]
    unread: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """All that is asked about, before a model is there."""

    dataset: Dataset
    chosen: Chosen
    prompts: tuple[str, ...]  # whose pictures the base model draws itself
    seed: int

    @property
    def told(self) -> tuple[object, ...]:
        """Tell this plan from any other, without a model: what JSON can hold."""
        images = [[i.split, i.caption, i.sha256, _told(p)] for i, p in self.chosen.images]
        drawn = [KEPT_STEPS, KEPT_GUIDANCE, list(self.dataset.resolution), *self.prompts]
        return (images, drawn, self.dataset.trigger)

    def items(self, base: "Base", kept: Array | None) -> tuple[Item, ...]:
        """Make every item ready: images are encoded, the base model's own pictures drawn.

        Parameters
        ----------
        base : Base
            Without any LoRA.
        kept : (prompts, C, h, w) array or None
            What it drew of the prompts before.
        """
        items = [
            _item(base, image.split, image, image.caption, pixels)
            for image, pixels in track(self.chosen.images, label="encoding images")
        ]
        if not any(image.split == "held-out" for image, _ in self.chosen.images):
            train = [(i, p) for i, p in self.chosen.images if i.split == "train"]
            items += _other_ways(base, self.dataset.trigger, train[:ASKED_TWICE])
        latents = _kept_latents(base, self.dataset, self.prompts, self.seed, kept)
        items += [
            Item(kind=KEPT, name=prompt, key=f"kept {prompt}", prompt=prompt, latent=latent)
            for prompt, latent in zip(self.prompts, latents, strict=True)
        ]
        return tuple(items)


def choose(dataset: Dataset, images: int, train_images: int) -> Chosen:
    """Read the images, and take some of each set; no held-out one that leaks.

    Parameters
    ----------
    dataset : Dataset
    images, train_images : int
        At most so many held-out ones and so many trained on; 0 for all.

    Raises
    ------
    BadInputError
        There is no image that can be measured.
    """
    ordered = sorted(dataset.images, key=lambda i: (i.sha256, i.file))
    gists: dict[str, Array] = {}
    pixels: dict[str, Array] = {}
    unread: list[str] = []
    room = train_images or len(ordered)
    for image in track(ordered, label="reading images"):
        try:
            read = at_training_size(dataset, image)
            gists[image.file] = similarity.gist(read)
        except (BadInputError, MissingInputError) as error:
            unread.append(f"{str(error).splitlines()[0]} It was left out.")
            continue
        if image.split != "train" or room > 0:
            pixels[image.file] = read
            room -= image.split == "train"
    leaks = _leaks([i for i in ordered if i.file in gists], gists)
    leaked = {row["image"] for row in leaks}
    held, others, train = (
        [i for i in ordered if i.split == split and i.file in pixels and i.file not in leaked]
        for split in ("held-out", "composition", "train")
    )
    taken = (*held[: images or None], *others, *train)
    if not taken:
        why = f" {unread[0]}" if unread else ""
        raise BadInputError(
            f"The dataset lists no image that can be measured.{why}\n"
            "Fix: lorascope add dataset RUN FOLDER"
        )
    more = [f"{len(unread) - UNREAD_NAMED} more images could not be read."]
    return Chosen(
        images=tuple((image, pixels[image.file]) for image in taken),
        leaks=leaks,
        unread=(*unread[:UNREAD_NAMED], *(more if len(unread) > UNREAD_NAMED else ())),
    )


def _leaks(images: Sequence[DatasetImage], gists: dict[str, Array]) -> list[Row]:
    """Find held-out images that are (almost) among the training images, mirrored or not."""
    train = [i for i in images if i.split == "train"]
    held = [i for i in images if i.split != "train"]
    if not train or not held:
        return []
    bytes_of = {i.sha256: i.file for i in train}
    seen = np.stack([gists[i.file] for i in train])
    usual = similarity.usual_distance(seen)
    rows: list[Row] = []
    for image in held:
        both = np.stack([gists[image.file], similarity.mirrored(gists[image.file])])
        apart = similarity.distances(both, seen).min(axis=0)
        nearest = int(apart.argmin())
        same = image.sha256 in bytes_of
        if same or apart[nearest] <= similarity.SAME * usual:
            other = bytes_of[image.sha256] if same else train[nearest].file
            share = 0.0 if same else float(apart[nearest] / usual)
            rows.append({"image": image.file, "other": other, "distance": share, "same": same})
    return rows


def _item(base: "Base", kind: str, image: DatasetImage, prompt: str, pixels: Array) -> Item:
    latent = base.encode_images(pixels[None])[0].float().cpu()
    return Item(kind=kind, name=image.file, key=image.sha256, prompt=prompt, latent=latent)


def _other_ways(
    base: "Base", trigger: str, train: Sequence[tuple[DatasetImage, Array]]
) -> Iterator[Item]:
    """Ask about training images with their tags in another order, and shifted a little."""
    for image, pixels in train:
        draw = random.Random(seed_from("other ways", image.sha256))
        if caption := _shuffled(image.caption, trigger, draw):
            yield _item(base, SHUFFLED, image, caption, pixels)
        yield _item(base, AUGMENTED, image, image.caption, _moved(pixels, draw))


def _shuffled(caption: str, trigger: str, draw: random.Random) -> str:
    """Put a caption's tags in another order, the trigger first; "" where there is no other."""
    tags = split_tags(caption)
    rest = without(tags, trigger)
    if len(set(rest)) < 3:
        return ""
    mixed = rest
    while mixed == rest:
        mixed = draw.sample(rest, len(rest))
    return ", ".join([*(tag for tag in tags if tag not in rest), *mixed])


def _moved(pixels: Array, draw: random.Random) -> Array:
    """Cut a part out of a picture and scale it up to the whole size."""
    height, width = pixels.shape[:2]
    rows, columns = round(height * CROP), round(width * CROP)
    top, left = draw.randint(0, height - rows), draw.randint(0, width - columns)
    part = np.ascontiguousarray(pixels[top : top + rows, left : left + columns])
    return np.array(resize_crop(part, width, height))


def _kept_latents(
    base: "Base", dataset: Dataset, prompts: Sequence[str], seed: int, stored: Array | None
) -> "Sequence[Tensor]":
    """Let the base model draw pictures of prompts without the trigger; they are never decoded."""
    import torch

    from lorascope.models.sampling import sample_latents

    if not prompts:
        return ()
    if stored is not None and len(stored) == len(prompts):
        return tuple(torch.from_numpy(stored))
    side = base.pixels_per_latent
    width, height = (max(side, edge // side * side) for edge in dataset.resolution)
    drawn = sample_latents(
        base,
        prompts,
        [seed_from(seed, "kept", prompt) for prompt in prompts],
        steps=KEPT_STEPS,
        guidance=KEPT_GUIDANCE,
        width=width,
        height=height,
        batch=4 if base.family == "sdxl" else 16,
    )
    return tuple(drawn)


def _told(pixels: Array) -> str:
    """Tell one picture at its training size from any other."""
    return hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest()[:16]
