"""What a curve over the LoRA's strength says: where it spoils, where it works, where it is best.

A curve has a row for each strength and a column for each item: a latent, or a prompt with a seed.
Every number comes with its 95 % interval over resampled items, so that one odd picture shows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import ShapeError
from lorascope.metrics.intervals import DRAWS, LEVEL

Floats = NDArray[np.float64]
Find = Callable[[Floats, Floats], float | None]

SPOILT = 3.0  # artefact z of a spoilt picture: part of what "saturation" means (methods)
ORDINARY = 1.0  # artefact z of what happens in healthy pictures too: one usual spread
USUAL, BEYOND = 1.0, 1.5  # strengths between which the slope is taken
LEAST_GAIN = 0.2  # at strength 1, of the gain's unit: below it, half of it means nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One strength, or slope, with its doubt."""

    value: float
    low: float  # 95 % interval over resampled items
    high: float
    n: int  # items
    open: bool = False  # some resamples never came there: the upper end may lie beyond the curve


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StressCurve:
    """Artefacts and gain of some items at rising strengths.

    Attributes
    ----------
    strengths : (S,) array
        Rising.
    artefacts : (S, N) array
        Artefact z; see `artefacts.artefact_z`.
    gain : (S, N) array or None
        What one wants of the LoRA: likeness (0 the base model, 1 the training images), or
        another measure that is about 0 without it and about 1 where it does all it can.

    Raises
    ------
    ShapeError
        The sizes do not fit, or the strengths do not rise.
    """

    strengths: Floats
    artefacts: Floats
    gain: Floats | None = None

    def __post_init__(self) -> None:
        """Refuse what is no curve."""
        rows = len(self.strengths)
        for values in (self.artefacts, self.gain):
            if values is not None and (values.ndim != 2 or len(values) != rows or not values.size):
                raise ShapeError(f"{rows} strengths do not fit values of {values.shape}.")
        if (np.diff(self.strengths) <= 0).any():
            raise ShapeError("The strengths of a curve rise.")

    def saturation(self) -> Estimate | None:
        """Find the smallest strength at which the median item is spoilt; None: at none tested."""
        return self.estimate(lambda artefacts, _: crossing(self.strengths, artefacts, SPOILT))

    def half(self) -> Estimate | None:
        """Find the strength at which half of the gain at strength 1 is reached; None: no gain."""

        def find(_: Floats, gain: Floats) -> float | None:
            whole = self._at(gain, USUAL)
            if whole is None or whole < LEAST_GAIN:
                return None
            return crossing(self.strengths, gain, whole / 2)

        return None if self.gain is None else self.estimate(find)

    def slope(self) -> Estimate | None:
        """Tell how fast the gain still rises from strength 1 to 1.5, for one unit of strength."""

        def find(_: Floats, gain: Floats) -> float | None:
            ends = self._at(gain, USUAL), self._at(gain, BEYOND)
            if ends[0] is None or ends[1] is None:
                return None
            return (ends[1] - ends[0]) / (BEYOND - USUAL)

        return None if self.gain is None else self.estimate(find)

    def best(self) -> Estimate | None:
        """Find the strength with the highest utility; None: no gain was measured."""

        def find(artefacts: Floats, gain: Floats) -> float | None:
            return peak(self.strengths, utility(artefacts, gain))

        return None if self.gain is None else self.estimate(find)

    def lost(self) -> Estimate | None:
        """Tell how much utility is lost at strength 1, of what there is at the best one asked."""

        def find(artefacts: Floats, gain: Floats) -> float | None:
            worth = utility(artefacts, gain)
            usual = self._at(worth, USUAL)
            return None if usual is None else max(float(worth.max()) - usual, 0.0)

        return None if self.gain is None else self.estimate(find)

    def utilities(self) -> Floats | None:
        """(S,) utility of each strength; None where no gain was measured."""
        if self.gain is None:
            return None
        return utility(np.median(self.artefacts, axis=1), self.gain.mean(axis=1))

    def artefact_bounds(self) -> tuple[Floats, Floats]:
        """(S,) ends of the 95 % interval of the median artefact z at each strength."""
        medians = np.median(self.artefacts[:, self._draws()], axis=2)
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(medians, [tail, 1 - tail], axis=1)
        return low, high

    def estimate(self, find: Find, *, values: Floats | None = None) -> Estimate | None:
        """Ask the middle curve for a number, and resampled ones for its interval.

        Parameters
        ----------
        find : callable
            Takes the (S,) median artefact z and the (S,) mean gain; gives a strength, or None
            where the curve does not come there.
        values : (S, N) array, optional
            Takes the place of the gain.
        """
        given = self.gain if values is None else values
        gain = np.zeros_like(self.artefacts) if given is None else given
        value = find(np.median(self.artefacts, axis=1), gain.mean(axis=1))
        if value is None:
            return None
        draws = self._draws()
        medians = np.median(self.artefacts[:, draws], axis=2).T
        means = gain[:, draws].mean(axis=2).T
        drawn = [find(median, mean) for median, mean in zip(medians, means, strict=True)]
        found = [np.inf if one is None else one for one in drawn]
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(found, [tail, 1 - tail], method="nearest")
        last = float(self.strengths[-1])
        return Estimate(
            value=value,
            low=float(min(low, value)),
            high=float(max(high, value)) if np.isfinite(high) else max(last, value),
            n=self.artefacts.shape[1],
            open=not np.isfinite(high),
        )

    def _at(self, gain: Floats, strength: float) -> float | None:
        if not self.strengths[0] <= strength <= self.strengths[-1]:
            return None
        return float(np.interp(strength, self.strengths, gain))

    def _draws(self) -> NDArray[np.int64]:
        """Resample the items: a row of places for each curve."""
        items = self.artefacts.shape[1]
        return np.random.default_rng(0).integers(0, items, (DRAWS, items))


def crossing(strengths: Floats, values: Floats, level: float) -> float | None:
    """Find where a curve first comes above a level.

    Parameters
    ----------
    strengths, values : (S,) arrays
        The strengths rise.
    level : float

    Returns
    -------
    float or None
        By straight lines between the points; the first strength where the curve begins above.
        None where it never does.
    """
    above = np.flatnonzero(values > level)
    if not above.size:
        return None
    place = int(above[0])
    if place == 0:
        return float(strengths[0])
    low, high = values[place - 1], values[place]
    share = (level - low) / (high - low)
    return float(strengths[place - 1] + share * (strengths[place] - strengths[place - 1]))


def utility(artefacts: Floats, gain: Floats) -> Floats:
    """Weigh what one wants against what it spoils.

    Parameters
    ----------
    artefacts, gain : arrays of one shape
        Artefact z; gain, of which no more than 1 counts.

    Returns
    -------
    array of that shape
        ``min(gain, 1)``, less ``(z - ORDINARY) / (SPOILT - ORDINARY)`` where that is above 0: a
        spoilt picture has lost as much as full likeness is worth. A definition, fitted to
        nobody's taste; both curves are published beside it.
    """
    lost = np.maximum(artefacts - ORDINARY, 0.0) / (SPOILT - ORDINARY)
    return np.asarray(np.minimum(gain, 1.0) - lost)


def peak(strengths: Floats, values: Floats) -> float:
    """Find where a curve is highest, by a parabola through the highest point and its neighbours.

    Parameters
    ----------
    strengths, values : (S,) arrays
        The strengths rise.

    Returns
    -------
    float
        Never beyond those neighbours; the highest point itself at an end of the curve.
    """
    place = int(np.argmax(values))
    if place in (0, len(values) - 1):
        return float(strengths[place])
    here = slice(place - 1, place + 2)
    bend, slope, _ = np.polyfit(strengths[here] - strengths[place], values[here], 2)
    if bend >= 0:
        return float(strengths[place])
    top = strengths[place] - slope / (2 * bend)
    return float(np.clip(top, strengths[place - 1], strengths[place + 1]))
