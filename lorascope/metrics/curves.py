"""Noisy curves: smoothing, dips, spikes, trends, and how much of each is noise."""

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import stats
from scipy.ndimage import median_filter
from scipy.signal import find_peaks, lfilter, savgol_filter

from lorascope.errors import ShapeError

Array = NDArray[Any]

NORMAL = 1.4826  # median absolute deviation -> standard deviation of a normal distribution
SPIKE_WINDOW = 401  # steps that a spike is compared with
SPIKE_DEVIATIONS = 8.0  # median absolute deviations of the logarithm
CALM = 0.05  # the least deviation: a nearly constant curve would spike at every ripple
DIP_WIDTHS = (1, 3, 5)  # epochs that a dip may span
TREND_P = 0.01  # of Kendall's test, below which a trend is not chance
FEWEST_POINTS = 8  # that a trend is read from
FLAT = 0.1  # share of its level that a curve on a plateau may have moved, at most
CELLS = 1 << 21  # numbers that LOWESS holds at once
SHAPE_POINTS = 1000  # of a schedule that its shape is read from
SAME = 0.02  # of a schedule's range: how near it comes to the shape that it is called by


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
        reach = np.abs(x).max(axis=1, keepdims=True)
        near = np.abs(x) / np.where(reach > 0, reach, 1)
        weights = (1 - near**3) ** 3
        weights /= weights.sum(axis=1, keepdims=True)
        middle, level = ((weights * one).sum(axis=1) for one in (x, y))
        spread = (weights * x**2).sum(axis=1) - middle**2
        slope = (weights * x * y).sum(axis=1) - middle * level
        slope = np.divide(
            slope, spread, out=np.zeros_like(slope), where=spread > 1e-12 * reach[:, 0]
        )
        smoothed[rows] = level - slope * middle
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


def spikes(values: Array) -> tuple[Array, Array]:
    """Single values far above their surroundings.

    Parameters
    ----------
    values : (steps,) array
        Losses; what is not a number above 0 is passed over.

    Returns
    -------
    places : (n,) array of int
    limits : (n,) array
        What each would have had to exceed, in the unit of ``values``.

    Notes
    -----
    ``log(value) > median + 8 * MAD`` over the 401 steps around, so that neither a falling curve nor
    its unit matters. A single step's loss lies anywhere between 0.002 and 1 (it hangs on the
    timestep), hence the logarithm and the wide limit.
    """
    values = np.asarray(values, dtype=np.float64)
    sound = np.flatnonzero(np.isfinite(values) & (values > 0))
    if len(sound) < FEWEST_POINTS:
        return np.zeros(0, dtype=int), np.zeros(0)
    logs = np.log(values[sound])
    median = _running_median(logs)
    away = np.abs(logs - median)
    deviation = _running_median(away)
    half = min(SPIKE_WINDOW, len(logs)) // 2
    for end in (slice(0, half), slice(len(logs) - half, None)):  # a steep start is no spike
        deviation[end] = np.maximum(deviation[end], np.median(away[end]))
    limits = median + SPIKE_DEVIATIONS * np.maximum(deviation, CALM)
    above = logs > limits
    return sound[above], np.exp(limits[above])


@dataclass(frozen=True, kw_only=True, slots=True)
class Trend:
    """A straight line that outliers do not move, and whether there is one at all."""

    start: int  # place of its first point
    slope: float  # unit of the values for each unit of the places
    low: float  # 95 % interval of the slope
    high: float
    p: float  # of Kendall's test: how often chance alone would order the points as much
    change: float  # slope times the distance between its ends


def trend(at: Array, values: Array, *, start: int = 0) -> Trend | None:
    """Fit a line by the median of all slopes, and test it by ranks.

    Parameters
    ----------
    at, values : (n,) arrays
        All finite; independent of each other, as block means are and a moving average is not.
    start : int
        The first point that counts.

    Returns
    -------
    Trend or None
        None for fewer than eight points: too few to tell.

    Notes
    -----
    Sources: Theil, Indagationes Mathematicae 12, 1950; Sen, Journal of the American Statistical
    Association 63(324), 1968; Kendall, Biometrika 30(1), 1938.
    """
    at, values = (np.asarray(one, dtype=np.float64)[start:] for one in (at, values))
    if len(at) != len(values):
        raise ShapeError(f"{len(at)} places for {len(values)} values")
    if len(values) < FEWEST_POINTS or at[0] == at[-1]:
        return None
    slope, _, low, high = stats.theilslopes(values, at)
    p = stats.kendalltau(at, values).pvalue
    return Trend(
        start=start,
        slope=float(slope),
        low=float(low),
        high=float(high),
        p=float(p) if np.isfinite(p) else 1.0,
        change=float(slope * (at[-1] - at[0])),
    )


def rising(at: Array, values: Array) -> Trend | None:
    """Find out whether a curve rises: as a whole, over its last half, or over its last quarter.

    Parameters
    ----------
    at, values : (n,) arrays
        As `trend` takes them.

    Returns
    -------
    Trend or None
        The surest one with a slope above 0 and p below .01; p counts the three looks.
    """
    spans = [trend(at, values, start=len(values) * part // 4) for part in (0, 2, 3)]
    up = [
        one for one in spans if one is not None and one.slope > 0 and one.p * len(spans) < TREND_P
    ]
    if not up:
        return None
    best = min(up, key=lambda one: one.p)
    return replace(best, p=best.p * len(spans))


def plateau(at: Array, values: Array, *, flat: float = FLAT) -> Trend | None:
    """Find the longest end of a curve that demonstrably moves no more.

    Parameters
    ----------
    at, values : (n,) arrays
        As `trend` takes them; logarithms, where ``flat`` is to be a share.
    flat : float
        How far the curve may have moved.

    Returns
    -------
    Trend or None
        At least a third of the points, without a trend (p above .1), and with the whole 95 %
        interval of its change within ``flat``. None also where noise is too large to tell.
    """
    at = np.asarray(at, dtype=np.float64)
    for start in range(len(values) * 2 // 3 + 1):
        found = trend(at, values, start=start)
        if found is None:
            break
        length = at[-1] - at[start]
        if found.p > 0.1 and max(abs(found.low), abs(found.high)) * length <= flat:
            return found
    return None


def segments(values: Array, *, noise: float | None = None, least: int = 2) -> Array:
    """Cut a curve into pieces of constant level: the best of all ways to cut it.

    Parameters
    ----------
    values : (n,) array
        All finite.
    noise : float, optional
        Standard deviation of a single value; read off the differences of neighbours where it is
        not given, so that a slope does not count as noise.
    least : int
        Values in a piece.

    Returns
    -------
    (pieces,) array of int
        First place of each piece; only 0 where nothing changes.

    Notes
    -----
    Minimises the sum of squares plus ``2 * noise**2 * log(n)`` for every cut, exactly, by dynamic
    programming. Time grows with the square of the length. Source: Jackson et al., IEEE Signal
    Processing Letters 12(2), 2005.
    """
    values = np.asarray(values, dtype=np.float64)
    count = len(values)
    if least < 1:
        raise ShapeError(f"pieces of {least} values")
    if count < 2 * least:
        return np.zeros(min(count, 1), dtype=int)
    if noise is None:
        noise = float(np.median(np.abs(np.diff(values)))) * NORMAL / np.sqrt(2)
    values = values - values.mean()
    total = np.concatenate([[0.0], values.cumsum()])
    square = np.concatenate([[0.0], (values**2).cumsum()])
    price = max(2 * noise**2 * np.log(count), 1e-9 * square[-1])  # rounding makes no piece
    best = np.full(count + 1, np.inf)
    best[0], came = -price, np.zeros(count + 1, dtype=int)
    for end in range(least, count + 1):
        start = np.arange(end - least + 1)
        cost = square[end] - square[start] - (total[end] - total[start]) ** 2 / (end - start)
        whole = best[start] + cost + price
        came[end] = whole.argmin()
        best[end] = whole[came[end]]
    starts = [int(came[count])]
    while starts[-1]:
        starts.append(int(came[starts[-1]]))
    return np.array(starts[::-1])


def step_noise(before: Array, after: Array, *, noise: float | None = None) -> float:
    """How often noise alone would set two pieces of a curve as far apart.

    Parameters
    ----------
    before, after : (n,), (m,) arrays
        Two neighbouring pieces, as `segments` cuts them.
    noise : float, optional
        Standard deviation of a single value; from the two pieces where it is not given.

    Returns
    -------
    float
        From the normal distribution, for one place fixed beforehand: multiply by the number of
        pieces that could have been cut out.
    """
    if noise is None:
        inside = np.concatenate([before - before.mean(), after - after.mean()])
        noise = float(np.sqrt((inside**2).sum() / max(1, len(inside) - 2)))
    error = noise * math.sqrt(1 / len(before) + 1 / len(after))
    gap = abs(float(after.mean() - before.mean()))
    if error == 0:
        return float(gap == 0)
    return math.erfc(gap / error / math.sqrt(2))


def knee(at: Array, values: Array) -> tuple[int, float, float, float]:
    """Find where a curve bends most: two straight lines that meet.

    Parameters
    ----------
    at, values : (n,) arrays
        All finite, five or more; places ascending.

    Returns
    -------
    place : int
    before, after : float
        The two slopes.
    gain : float
        Share of the squares left by one line that the bend explains, from 0 to 1.

    Raises
    ------
    ShapeError
        Fewer than five points, or the two do not fit.
    """
    at, values = (np.asarray(one, dtype=np.float64) for one in (at, values))
    if len(at) != len(values) or len(values) < 5:
        raise ShapeError(f"{len(at)} places for {len(values)} values: need five or more of both")
    length = at[-1] - at[0] or 1.0
    x = (at - at[0]) / length
    line = np.stack([np.ones(len(x)), x], axis=1)
    fits = []
    for place in range(2, len(x) - 2):
        bend = np.column_stack([line, np.maximum(x - x[place], 0)])
        fit = np.linalg.lstsq(bend, values, rcond=None)[0]
        fits.append((float(((bend @ fit - values) ** 2).sum()), place, fit))
    left, place, fit = min(fits, key=lambda one: one[:2])
    alone = float(((line @ np.linalg.lstsq(line, values, rcond=None)[0] - values) ** 2).sum())
    tiny = 1e-12 * float((values**2).sum())
    gain = 1 - left / alone if alone > tiny else 0.0
    before, after = fit[1] / length, (fit[1] + fit[2]) / length
    return place, float(before), float(after), float(gain)


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """What a logged learning rate did."""

    shape: str  # of its longest cycle: "constant", "linear", "cosine", "steps", "other"
    warmup: int  # place of the first full rate after a rise from the start; 0 without one
    restarts: tuple[int, ...]  # places where it jumps up again
    final: float  # last over highest


def schedule(at: Array, values: Array) -> Schedule | None:
    """Recognise the schedule of a logged learning rate.

    Parameters
    ----------
    at : (n,) array
        Steps, ascending.
    values : (n,) array
        The rates; what is no number is passed over.

    Returns
    -------
    Schedule or None
        None where there are fewer than eight rates or none above 0. Its places count the finite
        values alone. The unit of the rate and the first step do not matter.
    """
    at, values = (np.asarray(one, dtype=np.float64) for one in (at, values))
    if len(at) != len(values):
        raise ShapeError(f"{len(at)} places for {len(values)} values")
    kept = np.isfinite(values)
    x, y = at[kept], values[kept]
    if len(y) < FEWEST_POINTS or y.max() <= 0:
        return None
    y = y / y.max()
    full = int(np.argmax(y >= 0.999))
    warmup = full if y[0] < 0.9 and (np.diff(y[: full + 1]) >= -1e-6).all() else 0
    jumps = np.flatnonzero(np.diff(y[warmup:]) > 0.1) + warmup + 1
    cuts = [warmup, *jumps.tolist(), len(y)]
    start, end = max(itertools.pairwise(cuts), key=lambda cut: cut[1] - cut[0])
    return Schedule(
        shape=_shape(x[start:end], y[start:end]),
        warmup=warmup,
        restarts=tuple(int(jump) for jump in jumps),
        final=float(y[-1]),
    )


def _running_median(values: Array) -> Array:
    """Median of the values around each; at the ends that of the outermost whole window."""
    window = min(SPIKE_WINDOW, len(values) - 1 + len(values) % 2)  # odd
    half = window // 2
    inside = median_filter(values, size=window)[half : len(values) - half]
    found: Array = np.pad(inside, (half, len(values) - half - len(inside)), mode="edge")
    return found


def _shape(x: Array, y: Array) -> str:
    """Call one cycle of a schedule by the shape that it comes nearest to."""
    spread = float(np.ptp(y))
    if spread <= SAME / 2:
        return "constant"
    if len(np.unique(np.round(y, 6))) <= max(2, len(y) // 10):
        return "steps"
    some = np.unique(np.linspace(0, len(x) - 1, SHAPE_POINTS).astype(int))
    x, y = x[some], y[some]
    share = (x - x[0]) / max(x[-1] - x[0], 1e-12)
    left = {}
    for name, curve in {"linear": share, "cosine": np.cos(np.pi * share)}.items():
        basis = np.stack([np.ones(len(share)), curve], axis=1)
        misses = basis @ np.linalg.lstsq(basis, y, rcond=None)[0] - y
        left[name] = float(np.sqrt((misses**2).mean()))
    best = min(left, key=lambda name: left[name])
    return best if left[best] <= SAME * spread else "other"


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


def _edge_prominence(heights: Array) -> float:
    """How far the curve falls from its first value before it climbs above it."""
    above = np.nonzero(heights > heights[0])[0]
    until = above[0] if len(above) else len(heights)
    return float(heights[0] - heights[:until].min())
