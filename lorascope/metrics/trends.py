"""What a noisy curve does: spikes, rises, rests, changes level, bends; and a rate's schedule."""

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.ndimage import median_filter

from lorascope.errors import ShapeError

Array = NDArray[Any]

NORMAL = 1.4826  # median absolute deviation -> standard deviation of a normal distribution
SPIKE_WINDOW = 401  # steps that a spike is compared with
SPIKE_DEVIATIONS = 8.0  # median absolute deviations of the logarithm
CALM = 0.05  # the least deviation: a nearly constant curve would spike at every ripple
TREND_P = 0.01  # of Kendall's test, below which a trend is not chance
FEWEST_POINTS = 8  # that a trend is read from
FLAT = 0.1  # share of its level that a curve on a plateau may have moved, at most
SHAPE_POINTS = 1000  # of a schedule that its shape is read from
SAME = 0.02  # of a schedule's range: how near it comes to the shape that it is called by


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


def _running_median(values: Array) -> Array:
    """Median of the values around each; at the ends that of the outermost whole window."""
    window = min(SPIKE_WINDOW, len(values) - 1 + len(values) % 2)  # odd
    half = window // 2
    inside = median_filter(values, size=window)[half : len(values) - half]
    found: Array = np.pad(inside, (half, len(values) - half - len(inside)), mode="edge")
    return found


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
