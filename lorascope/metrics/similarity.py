"""How alike pictures are, with features that need no network of their own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import ShapeError

Array = NDArray[np.floating[Any]]
Features = NDArray[np.float64]  # (pictures, features)

LEVELS = (1, 2, 4)  # cells a side
NEIGHBOURS = 3  # of the reference pictures, each sample is compared with its nearest
SAME = 0.1  # of the median distance: two training images nearer than that count as one
LEAST = 0.02  # cosine between the two anchors of a scale
GIST = 16  # px a side of the blurred picture that copies are looked for in


def layout(maps: Array, *, levels: Sequence[int] = LEVELS) -> Features:
    """Describe maps by what their channels are like, here and there.

    Parameters
    ----------
    maps : (N, C, H, W) array
        One stack of channels a picture: latents, or colours.
    levels : sequence of int
        The maps are cut into this many cells a side, once for each level.

    Returns
    -------
    (N, F) array
        Mean and standard deviation of every channel in every cell; F = 2 C sum(levels squared).
        Where in its cell something lies does not matter.

    Raises
    ------
    ShapeError
        The maps are not four-dimensional, or smaller than the finest grid.

    Notes
    -----
    A spatial pyramid after Lazebnik, Schmid and Ponce, CVPR 2006, over moments instead of words.
    It sees colours, shading and their arrangement; it does not recognise a face.
    """
    if maps.ndim != 4 or min(maps.shape[2:]) < max(levels):
        raise ShapeError(
            f"Layout needs (N, C, H, W) maps of at least {max(levels)} cells, not {maps.shape}."
        )
    values = maps.astype(np.float64)
    parts = []
    for level in levels:
        rows = np.array_split(np.arange(values.shape[2]), level)
        columns = np.array_split(np.arange(values.shape[3]), level)
        for row in rows:
            for column in columns:
                cell = values[:, :, row[0] : row[-1] + 1, column[0] : column[-1] + 1]
                parts += [cell.mean(axis=(2, 3)), cell.std(axis=(2, 3))]
    return np.concatenate(parts, axis=1)


def gist(picture: NDArray[np.uint8], *, side: int = GIST) -> NDArray[np.float64]:
    """Blur a picture down to a few pixels, as one vector.

    Parameters
    ----------
    picture : (H, W, 3) uint8 array
    side : int
        Pixels a side, of any shape of picture.

    Returns
    -------
    (3 side side,) array
        Mean colour of each field, from 0 to 1.

    Raises
    ------
    ShapeError
        The picture has fewer pixels than fields.
    """
    height, width = picture.shape[:2]
    if min(height, width) < side:
        raise ShapeError(f"A picture of {width} x {height} pixels has no {side} fields a side.")
    rows = np.linspace(0, height, side + 1).astype(int)[:-1]
    columns = np.linspace(0, width, side + 1).astype(int)[:-1]
    sums = np.add.reduceat(
        np.add.reduceat(picture.astype(np.float64), rows, axis=0), columns, axis=1
    )
    sizes = np.diff([*rows, height])[:, None] * np.diff([*columns, width])[None, :]
    return np.asarray(sums / sizes[:, :, None] / 255).ravel()


def mirrored(blurred: NDArray[np.float64], *, side: int = GIST) -> NDArray[np.float64]:
    """Give the `gist` of the same picture, left and right exchanged.

    Parameters
    ----------
    blurred : (3 side side,) array
        As `gist` gives it.
    side : int
        Of that picture.
    """
    return np.ascontiguousarray(blurred.reshape(side, side, -1)[:, ::-1]).ravel()


def cosines(first: Features, second: Features) -> Features:
    """Cosine between every row of one set and every row of another.

    Parameters
    ----------
    first : (N, F) array
    second : (M, F) array

    Returns
    -------
    (N, M) array
        From -1 to 1; 0 where a row is zero.

    Raises
    ------
    ShapeError
        The sets have different features.
    """
    _matching(first, second)
    return np.asarray(np.clip(_unit(first) @ _unit(second).T, -1.0, 1.0))


def nearest_cosine(
    samples: Features, references: Features, *, neighbours: int = NEIGHBOURS
) -> NDArray[np.float64]:
    """How near each sample comes to the references that it is most alike to.

    Parameters
    ----------
    samples : (N, F) array
    references : (M, F) array
    neighbours : int
        How many of the references count; all where there are fewer.

    Returns
    -------
    (N,) array
        Mean cosine to the nearest references, from -1 to 1.

    Raises
    ------
    ShapeError
        The sets have different features, or there is no reference.
    """
    if not len(references):
        raise ShapeError("There is no reference to compare with.")
    found = np.sort(cosines(samples, references), axis=1)
    return np.asarray(found[:, -neighbours:].mean(axis=1))


def leave_one_out(references: Features, *, neighbours: int = NEIGHBOURS) -> NDArray[np.float64]:
    """How near each reference comes to the others: the mark that a sample can hope for.

    Parameters
    ----------
    references : (M, F) array
        At least two.
    neighbours : int

    Returns
    -------
    (M,) array
        As `nearest_cosine`, each reference against the rest.

    Raises
    ------
    ShapeError
        There are fewer than two.
    """
    if len(references) < 2:
        raise ShapeError("Leaving one out needs two references.")
    found = cosines(references, references)
    np.fill_diagonal(found, -np.inf)
    kept = min(neighbours, len(references) - 1)
    return np.asarray(np.sort(found, axis=1)[:, -kept:].mean(axis=1))


def distances(first: Features, second: Features) -> Features:
    """Root mean square difference between every row of one set and every row of another.

    Parameters
    ----------
    first : (N, F) array
    second : (M, F) array

    Returns
    -------
    (N, M) array
        In the unit of the features.

    Raises
    ------
    ShapeError
        The sets have different features.
    """
    _matching(first, second)
    return np.stack([np.sqrt(np.mean((second - row) ** 2, axis=1)) for row in first])


def usual_distance(features: Features) -> float:
    """Median distance between two different pictures of a set; 0 for fewer than two."""
    if len(features) < 2:
        return 0.0
    apart = distances(features, features)
    return float(np.median(apart[np.triu_indices(len(features), 1)]))


def pixel_change(picture: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Mean absolute difference of two pictures.

    Parameters
    ----------
    picture, other : (H, W, 3) uint8 arrays

    Returns
    -------
    float
        From 0 (the same) to 1 (black against white).

    Raises
    ------
    ShapeError
        They differ in size.
    """
    if picture.shape != other.shape:
        raise ShapeError(f"Pictures of {picture.shape} and {other.shape} cannot be compared.")
    return float(np.abs(picture.astype(np.float64) - other).mean() / 255)


def map_cosine(first: Array, second: Array) -> float:
    """Cosine between two maps of values from 0: 1 for one shape, 0 for no common place.

    Raises
    ------
    ShapeError
        They differ in size.
    """
    if first.shape != second.shape:
        raise ShapeError(f"Maps of {first.shape} and {second.shape} cannot be compared.")
    return float(cosines(_row(first), _row(second))[0, 0])


def overlap(first: Array, second: Array) -> float:
    """How much of the first map's mass lies where the second map is strong.

    Parameters
    ----------
    first, second : (H, W) arrays
        Of values from 0.

    Returns
    -------
    float
        From 0 to 1; 0 where a map is zero. Not symmetric; scaling a map changes nothing.

    Raises
    ------
    ShapeError
        They differ in size.

    Notes
    -----
    Intersection over the area of the first, ``sum(a b) / sum(a)``, with both maps scaled to a
    highest value of 1, after Tang et al., What the DAAM, ACL 2023.
    """
    if first.shape != second.shape:
        raise ShapeError(f"Maps of {first.shape} and {second.shape} cannot be compared.")
    if first.max() <= 0 or second.max() <= 0:
        return 0.0
    scaled = first.astype(np.float64) / first.max()
    return float((scaled * (second / second.max())).sum() / scaled.sum())


def _row(values: Array) -> Features:
    return values.astype(np.float64).reshape(1, -1)


def _unit(features: Features) -> Features:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(length > 0, length, 1.0))


def _matching(first: Features, second: Features) -> None:
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ShapeError(f"Features of {first.shape} and {second.shape} cannot be compared.")
