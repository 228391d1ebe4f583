"""How sure: what the same question would have answered on other images.

Every function takes one row per independent item (an image) and resamples whole rows, so that all
epochs are compared on the same images (cluster bootstrap). The draws are fixed by the seed.
Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import ShapeError

Array = NDArray[Any]

DRAWS = 2000
LEVEL = 0.95
FEWEST = 4  # items below which an interval is a guess


def resampled_means(values: Array, *, draws: int = DRAWS, seed: int = 0) -> Array:
    """Means over resampled items.

    Parameters
    ----------
    values : (items, ...) array
    draws : int
        How many resamples.
    seed : int
        Of the draws.

    Returns
    -------
    (draws, ...) array

    Raises
    ------
    ShapeError
        There are no items.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim == 0 or len(values) == 0:
        raise ShapeError(f"no items to resample: shape {values.shape}")
    rng = np.random.default_rng(seed)
    count = len(values)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=draws) / count
    means: Array = np.tensordot(weights, values, axes=1)
    return means


def interval(values: Array, *, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of some items, by the percentile bootstrap.

    Parameters
    ----------
    values : (items,) array
    draws, seed : int
        As in `resampled_means`.

    Returns
    -------
    low, high : float
        Equal where there is one item only: one item says nothing about the spread.

    Raises
    ------
    ShapeError
        There are no items.
    """
    low, high = intervals(np.asarray(values)[:, None], draws=draws, seed=seed)
    return float(low[0]), float(high[0])


def intervals(values: Array, *, draws: int = DRAWS, seed: int = 0) -> tuple[Array, Array]:
    """95 % interval of the mean for each column; see `interval`.

    Parameters
    ----------
    values : (items, columns) array

    Returns
    -------
    low, high : (columns,) arrays
    """
    means = resampled_means(values, draws=draws, seed=seed)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high


def best_shares(values: Array, *, draws: int = DRAWS, seed: int = 0) -> Array:
    """How probable it is that each epoch has the lowest mean of all.

    Parameters
    ----------
    values : (images, epochs) array
        Lower is better.

    Returns
    -------
    (epochs,) array
        Share of the resamples in which the epoch is lowest; they sum to 1. Of equal ones the
        earliest counts.

    Notes
    -----
    With fewer than `FEWEST` images these shares are wide of the mark.
    """
    means = resampled_means(values, draws=draws, seed=seed)
    return np.bincount(means.argmin(axis=1), minlength=means.shape[1]) / len(means)


def confidence_set(values: Array, *, draws: int = DRAWS, seed: int = 0) -> Array:
    """Epochs that cannot be told from the best.

    Parameters
    ----------
    values : (images, epochs) array
        Lower is better.

    Returns
    -------
    (epochs,) array of bool
        True where the mean distance to the best is within its own standard error, or where the
        epoch is the best in at least 5 % of the resamples. The lowest mean is always in.
    """
    means = resampled_means(values, draws=draws, seed=seed)
    distance = means - means.min(axis=1, keepdims=True)
    shares = np.bincount(means.argmin(axis=1), minlength=means.shape[1]) / len(means)
    within: Array = (distance.mean(axis=0) <= distance.std(axis=0)) | (shares >= 1 - LEVEL)
    within[np.asarray(values, dtype=np.float64).mean(axis=0).argmin()] = True
    return within


def falling_share(
    values: Array, at: Array, *, last: int = 3, draws: int = DRAWS, seed: int = 0
) -> float:
    """How probable it is that the mean still falls at the end.

    Parameters
    ----------
    values : (images, epochs) array
    at : (epochs,) array
        Where each epoch stands: epoch or step.
    last : int
        How many epochs at the end the straight line is laid through.

    Returns
    -------
    float
        Share of the resamples in which the least-squares slope is below 0.

    Raises
    ------
    ShapeError
        Fewer than two epochs, or ``at`` does not fit.
    """
    if values.shape[1] != len(at) or len(at) < 2:
        raise ShapeError(f"{values.shape[1]} epochs at {len(at)} places: need two or more of both")
    where = np.asarray(at[-last:], dtype=np.float64)
    means = resampled_means(values[:, -last:], draws=draws, seed=seed)
    return float((means @ (where - where.mean()) < 0).mean())


def split_best(values: Array, *, draws: int = DRAWS, seed: int = 0) -> float:
    """Value of the best epoch when it is chosen on one half of the images and read on the other.

    Parameters
    ----------
    values : (images, epochs) array
        Lower is better.

    Returns
    -------
    float
        Free of the winner's curse: the minimum over noisy epochs lies too low.

    Raises
    ------
    ShapeError
        Fewer than two images.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        raise ShapeError(f"{len(values)} image(s) cannot be halved")
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(len(values)), (draws, 1)), axis=1)
    half = len(values) // 2
    chosen = values[order[:, :half]].mean(axis=1).argmin(axis=1)
    read = values[order[:, half:]].mean(axis=1)
    return float(read[np.arange(draws), chosen].mean())


def above_share(values: Array, *, draws: int = DRAWS, seed: int = 0) -> float:
    """How probable it is that the mean of some items lies above 0.

    Parameters
    ----------
    values : (items,) array
        Such as the difference between two epochs on each image.

    Returns
    -------
    float
        Share of the resamples whose mean is above 0.
    """
    return float((resampled_means(values, draws=draws, seed=seed) > 0).mean())
