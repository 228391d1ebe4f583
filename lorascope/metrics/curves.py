"""Noisy curves: smoothing, dips and how much of a dip is noise."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import find_peaks, savgol_filter

from lorascope.errors import ShapeError

Array = NDArray[Any]


def smooth(values: Array, *, weight: float = 0.99) -> Array:
    """TensorBoard's smoothing: an exponential average without its pull towards zero.

    Parameters
    ----------
    values : (steps,) array
        A value that is NaN or infinite is passed over: the average stays where it was.
    weight : float
        Of the past; from 0 (no smoothing) to below 1.

    Returns
    -------
    (steps,) array
        NaN until the first finite value.

    Raises
    ------
    ShapeError
        The weight is not in [0, 1).

    Notes
    -----
    ``(weight * past + (1 - weight) * value) / (1 - weight ** n)``, as in TensorBoard's scalar
    charts.
    """
    if not 0 <= weight < 1:
        raise ShapeError(f"weight {weight} is not in [0, 1)")
    smoothed = np.full(len(values), np.nan)
    past, seen = 0.0, 0
    for i, value in enumerate(np.asarray(values, dtype=np.float64)):
        if np.isfinite(value):
            past, seen = weight * past + (1 - weight) * value, seen + 1
        if seen:
            smoothed[i] = past / (1 - weight**seen)
    return smoothed


def epoch_means(epochs: Array, values: Array) -> tuple[Array, Array, Array, Array]:
    """Mean of each epoch, and how far it is noise.

    Parameters
    ----------
    epochs : (steps,) array of int
        The epoch of each step.
    values : (steps,) array
        NaN and infinity are left out.

    Returns
    -------
    epochs : (n,) array of int
        Ascending, without those that hold nothing finite.
    means : (n,) array
    errors : (n,) array
        Standard error of each mean, from the spread within the epoch; NaN for a single step.
    counts : (n,) array of int
        Steps behind each mean.

    Notes
    -----
    A training loss is drawn at random timesteps, so that its spread is some 1.2 times its mean:
    400 steps leave 6 % of noise on an epoch mean.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(epochs) != len(values):
        raise ShapeError(f"{len(epochs)} epochs for {len(values)} values")
    kept = np.isfinite(values)
    names, index = np.unique(np.asarray(epochs)[kept], return_inverse=True)
    counts = np.bincount(index, minlength=len(names))
    means = np.bincount(index, values[kept], minlength=len(names)) / np.maximum(counts, 1)
    squares = np.bincount(index, (values[kept] - means[index]) ** 2, minlength=len(names))
    errors = np.full(len(names), np.nan)
    many = counts > 1
    errors[many] = np.sqrt(squares[many] / (counts[many] - 1) / counts[many])
    return names, means, errors, counts


def savitzky_golay(values: Array) -> Array:
    """Smooth epoch means by local parabolas; never meant for single steps.

    Parameters
    ----------
    values : (epochs,) array
        All finite.

    Returns
    -------
    (epochs,) array
        A straight line or a parabola comes back as it was. Fewer than five values come back
        unsmoothed.

    Notes
    -----
    Window: the odd number nearest to a fifth of the length, at least 5. Source: Savitzky and
    Golay, Analytical Chemistry 36(8), 1964.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 5:
        return values.copy()
    window = max(5, len(values) // 5 // 2 * 2 + 1)
    smoothed: Array = savgol_filter(values, window, polyorder=2)
    return smoothed


def dips(values: Array) -> tuple[Array, Array]:
    """Local minima with their prominence; the two ends count as well.

    Parameters
    ----------
    values : (epochs,) array
        All finite.

    Returns
    -------
    places : (n,) array of int
        Ascending. Of a flat dip, its middle.
    prominences : (n,) array
        How far the curve rises before it falls lower again, in the unit of ``values``; always
        above 0. At an end only the inner side counts, because nothing is known of the other.

    Notes
    -----
    ``scipy.signal.find_peaks`` on the mirrored curve; it passes over the ends, where the minimum
    of a run that stopped early lies.
    """
    heights = -np.asarray(values, dtype=np.float64)
    if len(heights) < 2:
        return np.zeros(0, dtype=int), np.zeros(0)
    places, found = find_peaks(heights, prominence=np.finfo(float).tiny)
    both = dict(zip(places.tolist(), found["prominences"].tolist(), strict=True))
    for end, inward in ((0, heights), (len(heights) - 1, heights[::-1])):
        if (depth := _edge_prominence(inward)) > 0:
            both[end] = depth
    order = sorted(both)
    return np.array(order, dtype=int), np.array([both[i] for i in order])


def thin(at: Array, values: Array, *, points: int = 1000) -> tuple[Array, Array, Array, Array]:
    """Shorten a long curve without losing its spikes.

    Parameters
    ----------
    at : (steps,) array
        Ascending.
    values : (steps,) array
        NaN is passed over within a piece.
    points : int
        How many pieces at most.

    Returns
    -------
    at : (n,) array
        Last place of each piece.
    mean, low, high : (n,) arrays
        Of each piece: mean, minimum and maximum; NaN where a piece holds nothing finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(at) != len(values):
        raise ShapeError(f"{len(at)} places for {len(values)} values")
    pieces = np.array_split(np.arange(len(values)), max(1, min(points, len(values))))
    rows = np.full((len(pieces), 3), np.nan)
    for row, piece in zip(rows, pieces, strict=True):
        finite = values[piece][np.isfinite(values[piece])]
        if len(finite):
            row[:] = finite.mean(), finite.min(), finite.max()
    ends = np.array([piece[-1] for piece in pieces if len(piece)], dtype=int)
    rows = rows[: len(ends)]
    return np.asarray(at)[ends], rows[:, 0], rows[:, 1], rows[:, 2]


def _edge_prominence(heights: Array) -> float:
    """How far the curve falls from its first value before it climbs above it."""
    above = np.nonzero(heights > heights[0])[0]
    until = above[0] if len(above) else len(heights)
    return float(heights[0] - heights[:until].min())
