"""Copies of training images: as a whole, mirrored, and in patches that may come from several."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import ShapeError
from lorascope.metrics.similarity import SAME, Features, distances, mirrored

Pixels = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]

Mask = NDArray[np.bool_]
_Look = tuple[Mask, int, bool]  # patches found, how many may be the same, whether mirrored
Sums = tuple[Floats, Floats]  # over patches: of every colour, and the power about their mean

SIDE = 96  # px of the longer side, that pictures are compared at
PATCH = 16  # px a side: 85 px at 512
STRIDE = PATCH // 2
MATCH = 0.8  # cross-correlation above which two patches show the same
MOVED = 0.7  # of the patches have to match where the training image is moved as a whole
REACH = 1  # px that it is moved by, each way: 5 px at 512
EDGES = ((REACH, REACH), (REACH, REACH), (0, 0))
SHIFTS = tuple((d, r) for d in range(2 * REACH + 1) for r in range(2 * REACH + 1))
CANDIDATES = 4  # training images that are moved: those that have most patches above
LIKELY = 0.5
FLAT = 6 / 255  # standard deviation below which a patch shows nothing
FLOOR = 3 * PATCH**2 * FLAT**2
FEWEST = 8  # patches that show something, below which nothing is said
SOURCE = 0.15  # of the matched patches, from which a training image counts as a source


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """The training image that a picture as a whole is nearest to."""

    place: int  # among the distinct training images
    distance: float  # root mean square difference of the blurred pictures, 0 to 1
    ratio: float | None  # to the distance to the second nearest; None where there is no second
    mirrored: bool  # nearer with left and right exchanged


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """What share of a picture's patches is found in training images, and in which.

    Attributes
    ----------
    share : float
        Of the patches that show something: those found in any training image.
    largest : float
        Those found in the one training image that has most of them.
    sources : tuple of int
        Training images that give at least `SOURCE` of what is matched, the largest first; each
        counts with what those before it do not have. Two or more are a collage.
    shares : tuple of float
        What each of them gives, of the patches that show something.
    patches : int
        How many show something.
    """

    share: float
    largest: float
    sources: tuple[int, ...]
    shares: tuple[float, ...]
    patches: int


def compared_size(width: int, height: int) -> tuple[int, int]:
    """Give the size that pictures of some size are compared at.

    Returns
    -------
    width, height : int
        The longer side is `SIDE`, both are multiples of `STRIDE`.
    """
    share = SIDE / max(width, height)
    short = max(PATCH, round(min(width, height) * share / STRIDE) * STRIDE)
    return (SIDE, short) if width >= height else (short, SIDE)


def distinct_places(gists: Features, *, same: float = SAME) -> list[int]:
    """Pick one of every group of near-duplicates, mirror images counted as such.

    Parameters
    ----------
    gists : (M, F) array
        As `similarity.gist` makes them.
    same : float
        Two pictures are the same when nearer than this share of the median distance.

    Returns
    -------
    list of int
        Row numbers, rising; the first of each group.
    """
    if len(gists) < 2:
        return list(range(len(gists)))
    apart = _either_way(gists, gists)[0]
    limit = same * float(np.median(apart[np.triu_indices(len(gists), 1)]))
    kept: list[int] = []
    for row in range(len(gists)):
        if not kept or apart[row, kept].min() > limit:
            kept.append(row)
    return kept


def nearest(sample: Floats, references: Features) -> Nearest:
    """Find the training image that a picture is nearest to, mirrored or not.

    Parameters
    ----------
    sample : (F,) array
        The picture's `similarity.gist`.
    references : (M, F) array
        Those of distinct training images.

    Raises
    ------
    ShapeError
        There is none, or they have other features.

    Notes
    -----
    The ratio is 0 for a copy and 1 where nothing is favoured. Yoon et al., Diffusion probabilistic
    models generalize when they fail to memorize, 2023, call less than 1/3 in pixels a copy. A
    background that only one training image has makes it low as well.
    """
    if not len(references):
        raise ShapeError("There is no training image to compare with.")
    found, turned = _either_way(np.asarray(sample, dtype=np.float64)[None], references)
    order = np.argsort(found[0], kind="stable")
    first = float(found[0, order[0]])
    second = float(found[0, order[1]]) if len(order) > 1 else None
    ratio = None if second is None else first / second if second > 0 else 1.0
    place = int(order[0])
    return Nearest(place=place, distance=first, ratio=ratio, mirrored=bool(turned[0, place]))


class Prepared:
    """A training image, ready to be looked for in many pictures.

    Parameters
    ----------
    picture : (H, W, 3) uint8 array
        At the size that is compared at: a longer side of `SIDE` px, both multiples of `STRIDE`.

    Raises
    ------
    ShapeError
        It cannot be cut into patches.
    """

    def __init__(self, picture: Pixels) -> None:
        _check(picture)
        self.picture = picture
        self.sums = _patch_sums(_as_floats(picture))


def patch_matches(picture: Pixels, references: Sequence[Prepared]) -> Matched | None:
    """Find the patches of a picture in training images.

    Parameters
    ----------
    picture : (H, W, 3) uint8 array
        At the size that is compared at: a longer side of `SIDE` px, both multiples of `STRIDE`.
    references : sequence of Prepared
        Distinct training images of the same size.

    Returns
    -------
    Matched or None
        None where fewer than `FEWEST` patches show anything.

    Raises
    ------
    ShapeError
        The sizes differ or cannot be cut into patches, or there is no training image.

    Notes
    -----
    Normalised cross-correlation, above `MATCH`, of colour patches at one place, in pictures of
    `SIDE` px; brightness and contrast cancel; a training image counts mirrored as well. Patches
    that are flat in the picture do not count.

    A copy lies where its original lay. If training images may be moved and scaled freely, other
    drawings of one character match them too: fewer copies stand out then
    (``benchmarks/results/copies.json``). So the likeliest training images are moved by `REACH` px
    as a whole only, and that counts where `MOVED` of all patches match then.
    """
    _check(picture)
    if not references:
        raise ShapeError("There is no training image to compare with.")
    if any(reference.picture.shape != picture.shape for reference in references):
        raise ShapeError("The training images have another size than the picture.")
    ways = (_Sample(picture), _Sample(np.ascontiguousarray(picture[:, ::-1])))
    if int(ways[0].shows.sum()) < FEWEST:
        return None
    looks = [_look(ways, reference) for reference in references]
    closest = sorted(range(len(looks)), key=lambda place: -looks[place][1])[:CANDIDATES]
    found = [hits for hits, _, _ in looks]
    for place in closest:
        found[place] = _moved(ways, references[place], looks[place])
    return _summed_up(found, ways[0].shows)


class _Sample:
    """A picture, ready to be compared: its pixels and the sums over its patches."""

    def __init__(self, picture: Pixels) -> None:
        self.pixels = _as_floats(picture)
        self.sums, self.power = _patch_sums(self.pixels)
        self.shows = self.power > FLOOR

    def correlation(self, there: Floats, sums: Sums) -> Floats:
        """Correlate every patch with what lies at its place; -1 where either is flat."""
        cross = _of_patches(np.einsum("iajbc,iajbc->ij", _blocks(self.pixels), _blocks(there)))
        cross = cross - (self.sums * sums[0]).sum(axis=2) / PATCH**2
        good = (sums[1] > FLOOR) & self.shows
        return np.where(good, cross / np.sqrt(np.where(good, self.power * sums[1], 1)), -1)


def _look(ways: Sequence[_Sample], reference: Prepared) -> _Look:
    """Look for a picture in a training image, plain and mirrored: what is found, and may be."""
    there = _as_floats(reference.picture)
    found = [way.correlation(there, reference.sums) for way in ways]
    counts = [int((one > LIKELY).sum()) for one in found]
    turned = counts[1] > counts[0]
    return _upright(found[turned] > MATCH, turned=turned), counts[turned], turned


def _moved(ways: Sequence[_Sample], reference: Prepared, look: _Look) -> Mask:
    """Give what is found in a training image that may be moved as a whole."""
    hits, _, turned = look
    way = ways[turned]
    height, width, _ = reference.picture.shape
    padded = np.pad(_as_floats(reference.picture), EDGES, mode="edge")
    for down, right in SHIFTS:
        there = padded[down : down + height, right : right + width]
        found = way.correlation(there, _patch_sums(there)) > MATCH
        if found.sum() > max(int(hits.sum()), MOVED * int(way.shows.sum())):
            hits = _upright(found, turned=turned)
    return hits


def _upright(hits: Mask, *, turned: bool) -> Mask:
    """Lay what was found in a mirrored picture as it lies in the picture."""
    return hits[:, ::-1] if turned else hits


def _summed_up(found: Sequence[Mask], shows: Mask) -> Matched:
    """Give every patch to one training image, beginning with the one that has most."""
    hits, count = np.stack(found).reshape(len(found), -1), int(shows.sum())
    share = float(hits.any(axis=0).sum()) / count
    largest = float(hits.sum(axis=1).max()) / count
    given: list[tuple[int, float]] = []
    while hits.any():
        place = int(hits.sum(axis=1).argmax())
        part = float(hits[place].sum()) / count
        if part < SOURCE * share:
            break
        given.append((place, part))
        hits = hits & ~hits[place]
    return Matched(
        share=share,
        largest=largest,
        sources=tuple(place for place, _ in given),
        shares=tuple(part for _, part in given),
        patches=count,
    )


def _patch_sums(pixels: Floats) -> Sums:
    """Sum over every patch: each colour, and the power about the mean."""
    blocks = _blocks(pixels)
    sums = _of_patches(blocks.sum(axis=(1, 3)))
    squares = _of_patches(np.einsum("iajbc,iajbc->ij", blocks, blocks))
    return sums, squares - (sums**2).sum(axis=2) / PATCH**2


def _blocks(pixels: Floats) -> Floats:
    height, width, colours = pixels.shape
    return pixels.reshape(height // STRIDE, STRIDE, width // STRIDE, STRIDE, colours)


def _of_patches(blocks: Floats) -> Floats:
    """Sum four blocks to a patch."""
    return blocks[:-1, :-1] + blocks[1:, :-1] + blocks[:-1, 1:] + blocks[1:, 1:]


def _as_floats(picture: Pixels) -> Floats:
    return np.ascontiguousarray(picture, dtype=np.float32) / np.float32(255) - np.float32(0.5)


def _either_way(first: Features, second: Features) -> tuple[Features, Mask]:
    """Distances to the nearer of a picture and its mirror image, and which it is."""
    plain = distances(first, second)
    turned = distances(first, np.stack([mirrored(row) for row in second]))
    return np.minimum(plain, turned), turned < plain


def _check(picture: Pixels) -> None:
    height, width = picture.shape[:2]
    if height % STRIDE or width % STRIDE or min(height, width) < PATCH:
        raise ShapeError(
            f"A picture of {width} x {height} px cannot be cut into patches: its sides must be "
            f"multiples of {STRIDE} px, and {PATCH} px or more."
        )
