"""A set of pictures and the training images, as one encoder sees them all."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import BadInputError
from lorascope.io.dataset_file import Dataset, DatasetImage, read_dataset
from lorascope.metrics.likeness import Space
from lorascope.metrics.vendi import left_out_interval
from lorascope.records import Inputs, Scalar
from lorascope.tools.drawing.prompts import WITH_TRIGGER, WITHOUT_TRIGGER
from lorascope.tools.pictures.features import features_of, features_of_images, open_encoder
from lorascope.tools.pictures.own_encoders import Encoder
from lorascope.tools.pictures.sets import BASE, Picture, PictureSet, read_pictures, usual_size

Features = NDArray[np.float32]
Mask = NDArray[np.bool_]

MOST_REFERENCES = 64  # images of each side of the split that pictures are compared with
FEW_REFERENCES = 4  # held-out images below which the training images are the reference
NAMED = 3  # pictures that cannot be read and are named
SEEN = {
    "base": "Pictures are compared by what the base model's own UNet sees in them: what it was "
    "never taught to tell apart counts as the same.",
    "latents": "Pictures are compared by colours, shading and their layout; a face is not "
    "recognised.",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class References:
    """Images of the dataset that could be read."""

    names: tuple[str, ...]
    features: Features  # (M, F)


@dataclass(frozen=True, eq=False, kw_only=True)
class Described:
    """Pictures in the order of their set; what could not be read is NaN."""

    dataset: Dataset
    pictures: PictureSet
    features: Features  # (N, F)
    known: Mask  # (N,) which pictures could be read
    training: References
    held_out: References
    compared: str  # by what
    seen: tuple[str, ...] = ()  # what was left out

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.pictures.pictures)

    @functools.cached_property
    def asks(self) -> Mask:
        """(N,) bool: whose prompt asks for the subject."""
        return self._in(WITH_TRIGGER)

    @functools.cached_property
    def plain(self) -> Mask:
        """(N,) bool: whose prompt does not."""
        return self._in(WITHOUT_TRIGGER)

    @functools.cached_property
    def by_base(self) -> Mask:
        """(N,) bool: which ones the base model drew, and can be read."""
        drawn = np.array([picture.kind == BASE for picture in self.pictures.pictures])
        return drawn & self.known

    @functools.cached_property
    def of_scale(self) -> Mask:
        """(N,) bool: its first row that can be read, which every scale and unit is laid over.

        Not its others: companions and other base models would move every picture's number.
        """
        row = np.array([picture.row for picture in self.pictures.pictures])
        first = row[self.by_base].min(initial=row.max())
        return np.asarray(self.by_base & (row == first))

    @property
    def of_origin(self) -> Mask:
        """(N,) bool: the pictures of that row whose prompt asks for the subject.

        All of them where no prompt does.
        """
        asking = self.of_scale & self.asks
        return asking if asking.any() else self.of_scale

    @property
    def origin(self) -> Features:
        """Features of those pictures; none where there is none."""
        return self.features[self.of_origin]

    @functools.cached_property
    def space(self) -> Space:
        """The space that distances are measured in."""
        return Space.between(self.origin, self.training.features)

    def rows(self) -> Iterator[tuple[tuple[Picture, ...], NDArray[np.int64]]]:
        """Give the pictures row by row, with their places."""
        for row in self.pictures.rows():
            yield row, np.array([picture.cell for picture in row])

    def pairs(self, places: NDArray[np.int64], wanted: Mask) -> tuple[NDArray[np.int64], ...]:
        """Give those of some pictures that are wanted and known, and the base model's of each.

        Returns
        -------
        here, there : (K,) arrays of places
            Only where both could be read.
        """
        known, found = self.known, []
        for place in places[wanted[places] & known[places]]:
            baseline = self.pictures.pictures[place].baseline
            if baseline is not None and known[baseline]:
                found.append((place, baseline))
        pairs = np.array(found, dtype=np.int64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]

    def prompts(self, places: NDArray[np.int64]) -> list[Scalar]:
        """Give the prompts of some pictures."""
        return [self.pictures.pictures[place].prompt for place in places]

    def _in(self, groups: Sequence[str]) -> Mask:
        return np.array([picture.group in groups for picture in self.pictures.pictures])


def describe(inputs: Inputs, features: str) -> Described:
    """Look at every picture of a set and at the dataset's images.

    Parameters
    ----------
    inputs : Inputs
        Reads ``pictures``, ``dataset`` and ``base``; keeps what it saw in ``features``.
    features : str
        As for `encoder_of`.

    Raises
    ------
    BadInputError
        Not one picture can be read, or neither a picture by the base model nor a training image.
    MissingInputError
        There is no list of pictures, or no such encoder.
    """
    dataset = read_dataset(inputs["dataset"])
    pictures = read_pictures(inputs["pictures"], dataset)
    encoder = open_encoder(features, str(inputs["base"]))
    found = features_of(pictures, encoder, inputs["features"])
    size = usual_size(pictures, dataset)
    train, lost = _references(dataset, dataset.train, size, encoder, inputs["features"])
    held_out, lost_too = _references(dataset, dataset.held_out, size, encoder, inputs["features"])
    described = Described(
        dataset=dataset,
        pictures=pictures,
        features=found,
        known=_known(found),
        training=train,
        held_out=held_out,
        compared=SEEN.get(features, f"Pictures are compared by {encoder.name}."),
    )
    if not described.known.any():
        raise BadInputError(
            f"Not one picture of {inputs['pictures']} can be read.\nFix: draw them again."
        )
    if not (len(described.origin) or described.training.names):
        raise BadInputError(
            "There is neither a picture by the base model nor an image of the dataset that can be "
            "read: pictures have nothing to be measured by.\nFix: lorascope grid RUN"
        )
    return replace(described, seen=tuple(_doubts(described, (*lost, *lost_too))))


def interval_of_pairs(
    measure: Callable[[Mask], float | None], prompts: Sequence[Scalar], seeds: Sequence[Scalar]
) -> tuple[float | None, float | None]:
    """Give the 95 % interval of a number about pairs: over prompts, or seeds where these are more.

    Parameters
    ----------
    measure : callable
        As for `left_out_interval`.
    prompts, seeds : sequences of length N
        Of each picture.
    """
    by = max((prompts, seeds), key=lambda items: len(set(items)))
    found = left_out_interval(measure, np.array([str(item) for item in by]))
    return found or (None, None)


def _some(images: Sequence[DatasetImage]) -> Sequence[DatasetImage]:
    """Take every so many of a long list."""
    return images[:: max(1, -(-len(images) // MOST_REFERENCES))]


def _references(
    dataset: Dataset,
    images: Sequence[DatasetImage],
    size: tuple[int, int],
    encoder: Encoder,
    folder: Path,
) -> tuple[References, tuple[str, ...]]:
    """Look at some images of a dataset; give those that can be read, and the names of the rest."""
    some = _some(images)
    if not some:
        return References(names=(), features=np.empty((0, 0), dtype=np.float32)), ()
    found = features_of_images(dataset, some, size, encoder, folder)
    known = _known(found)
    names = np.array([image.file for image in some])
    return References(names=tuple(names[known].tolist()), features=found[known]), tuple(
        names[~known].tolist()
    )


def _known(features: Features) -> Mask:
    return np.asarray(np.isfinite(features).all(axis=1) & bool(features.shape[1]))


def _doubts(described: Described, unread: Sequence[str]) -> Iterator[str]:
    """Say what was left out."""
    pairs = zip(described.pictures.pictures, described.known, strict=True)
    lost = [picture.file for picture, known in pairs if not known]
    for what, files in (("pictures", lost), ("images of the dataset", unread)):
        if files:
            more = " ..." if len(files) > NAMED else ""
            named = ", ".join(files[:NAMED])
            yield f"{len(files)} {what} cannot be read and were left out: {named}{more}."
    dataset = described.dataset
    for side, images in (("training", dataset.train), ("held-out", dataset.held_out)):
        if len(images) > MOST_REFERENCES:
            yield f"Of {len(images)} {side} images {len(_some(images))} were looked at."
    if not described.by_base.any():
        yield "There is no picture by the base model: nothing can be measured beside it."
    elif described.asks.any() and not (described.of_scale & described.asks).any():
        yield "The base model drew no prompt with the trigger; its other pictures count."
