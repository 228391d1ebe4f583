"""Noisy curves made readable: smoothing, epoch means, dips and how much of each is noise."""

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.signal import find_peaks, lfilter, savgol_filter

from lorascope.errors import ShapeError

Array = NDArray[Any]

DIP_WIDTHS = (1, 3, 5)  # epochs that a dip may span
CELLS = 1 << 21  # numbers that LOWESS holds at once


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
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values)
    seen = np.cumsum(finite)
    smoothed = np.full(len(values), np.nan)
    if not finite.any():
        return smoothed
    past = lfilter([1 - weight], [1, -weight], values[finite])
    past /= 1 - weight ** np.arange(1, len(past) + 1, dtype=np.float64)
    smoothed[seen > 0] = past[seen[seen > 0] - 1]  # what is no number repeats the one before
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


def lowess(at: Array, values: Array, *, share: float = 0.2) -> Array:
    """Smooth by local straight lines, nearer points weighing more.

    For epoch means and thinned curves: time and memory grow with the square of the length.

    Parameters
    ----------
    at : (n,) array
        Ascending; equal places are allowed.
    values : (n,) array
        All finite.
    share : float
        Of the points that each line is laid through, from above 0 to 1; three points at least.

    Returns
    -------
    (n,) array
        A straight line comes back as it was; adding to ``at``, or stretching it, changes nothing.

    Raises
    ------
    ShapeError
        The two do not fit, ``at`` falls, or the share makes no sense.

    Notes
    -----
    Tricube weights, degree 1, no robustness passes. Source: Cleveland, Journal of the American
    Statistical Association 74(368), 1979.
    """
    at, values = (np.asarray(one, dtype=np.float64) for one in (at, values))
    count = len(values)
    if len(at) != count or not 0 < share <= 1 or (np.diff(at) < 0).any():
        raise ShapeError(f"LOWESS needs ascending places ({len(at)} for {count}), share in (0, 1]")
    if count < 3:
        return values.copy()
    width = min(count, max(3, int(np.ceil(share * count))))
    starts = _nearest(at, width)
    smoothed = np.empty(count)
    for first in range(0, count, max(1, CELLS // width)):
        rows = slice(first, first + max(1, CELLS // width))
        x = sliding_window_view(at, width)[starts[rows]] - at[rows, None]
        y = sliding_window_view(values, width)[starts[rows]]
        smoothed[rows] = _line_at_zero(x, y)
    return smoothed


def _nearest(at: Array, width: int) -> Array:
    """First place of the ``width`` neighbours nearest to each place, by halving."""
    count = len(at)
    here = np.arange(count)
    low, high = np.maximum(here - width + 1, 0), np.minimum(here, count - width)
    while (low < high).any():
        middle = (low + high) // 2
        after = at[np.minimum(middle + width, count - 1)] - at
        move = (low < high) & (after < at - at[middle])  # the next one is nearer than the first
        low, high = np.where(move, middle + 1, low), np.where(move, high, middle)
    return low


def _line_at_zero(x: Array, y: Array) -> Array:
    """Lay a weighted line through each row; give its height where x is 0."""
    reach = np.abs(x).max(axis=1, keepdims=True)
    near = np.abs(x) / np.where(reach > 0, reach, 1)
    weights = (1 - near**3) ** 3
    weights /= weights.sum(axis=1, keepdims=True)
    middle, level = ((weights * one).sum(axis=1) for one in (x, y))
    spread = (weights * x**2).sum(axis=1) - middle**2
    slope = (weights * x * y).sum(axis=1) - middle * level
    slope = np.divide(slope, spread, out=np.zeros_like(slope), where=spread > 1e-12 * reach[:, 0])
    height: Array = level - slope * middle
    return height


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


def _edge_prominence(heights: Array) -> float:
    """How far the curve falls from its first value before it climbs above it."""
    above = np.nonzero(heights > heights[0])[0]
    until = above[0] if len(above) else len(heights)
    return float(heights[0] - heights[:until].min())


def dip_noise(means: Array, errors: Array, places: Array) -> Array:
    """How often noise alone would make a dip as deep as each of these somewhere on the curve.

    Parameters
    ----------
    means, errors : (epochs,) arrays
        Epoch means and their standard errors, as `epoch_means` gives them.
    places : (n,) array of int
        The dips.

    Returns
    -------
    (n,) array
        From near 0 (hardly noise) to 1; NaN where a standard error is not known.

    Notes
    -----
    A dip of 1, 3 or 5 epochs against as many epochs on either side of it. The smaller of the two
    differences is put in standard errors and read off the normal distribution: epoch means are
    means of many steps, each at a timestep of its own, so that bootstrapping blocks of steps gives
    the same and costs more. At an end there is one side only, and being lower than it is half the
    chance, hence twice the tail. The smallest of the widths counts, multiplied by their number;
    then the chance that any of the n dips would be as deep (Sidak). A low epoch also looks calm:
    its own error counts as no smaller than that of its neighbours.
    """
    means, errors = (np.asarray(one, dtype=np.float64) for one in (means, errors))
    if len(means) != len(errors):
        raise ShapeError(f"{len(means)} means for {len(errors)} errors")
    single = np.array([_dip_tail(means, errors, int(place)) for place in places], dtype=np.float64)
    found: Array = 1 - (1 - single) ** max(1, len(single))
    return found


def _dip_tail(means: Array, errors: Array, place: int) -> float:
    """Chance that noise makes one dip, over all widths; see `dip_noise`."""
    tails = []
    for width in DIP_WIDTHS:
        half = width // 2
        here = slice(max(0, place - half), place + half + 1)
        sides = [slice(max(0, here.start - width), here.start), slice(here.stop, here.stop + width)]
        sides = [side for side in sides if len(means[side])]
        if not sides or (width > 1 and len(means) < 2 * width):
            continue
        around = np.concatenate([errors[side] for side in sides])
        calm = float(np.sqrt((around**2).mean()))
        own = max(_error(errors[here]), calm / np.sqrt(len(means[here])))
        scores = [
            _score(float(means[side].mean() - means[here].mean()), own, _error(errors[side]))
            for side in sides
        ]
        tail = math.erfc(min(scores) / math.sqrt(2)) / 2
        tails.append(tail * (1 if len(sides) == 2 else 2))
    if not tails or not np.isfinite(tails).any():
        return float("nan")
    return min(1.0, float(np.nanmin(tails)) * len(tails))


def _score(gap: float, *errors: float) -> float:
    """Give a gap in its standard errors; without any error, each gap is beyond doubt."""
    error = math.hypot(*errors)
    return gap / error if error else math.copysign(math.inf, gap) if gap else 0.0


def _error(errors: Array) -> float:
    """Give the standard error of the mean of some means."""
    return float(np.sqrt((errors**2).sum()) / len(errors))
