"""How far a picture obeys its prompt: from what a text tells a model about it, to a scale."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import ShapeError

Array = NDArray[Any]

FEWEST_OTHERS = 3  # pictures of other prompts below which nothing can be said of a prompt
# What makes a prompt known: benchmarks/results/adherence.json counts how often it is wrong.
SURE = 3.0  # standard errors over the timesteps
MOST = 0.75  # share of the other pictures: some show what was asked by chance


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptScale:
    """What a prompt's gain comes to in pictures that do not show it (0), and that do (1).

    Attributes
    ----------
    zero : float
        Mean over the base model's pictures of other prompts.
    one : float
        Mean over the base model's pictures of this prompt.
    known : bool
        The base model tells its own pictures of the prompt from the others.
    """

    zero: float
    one: float
    known: bool

    @classmethod
    def between(cls, others: Array, own: Array, *, floor: float = -math.inf) -> "PromptScale":
        """Lay the scale of one prompt.

        Parameters
        ----------
        others : (M, K) array
            Gains of the text in pictures of other prompts, at K timesteps; rows with NaN do not
            count.
        own : (N, K) array
            The same in the base model's own pictures of the prompt.
        floor : float
            What the gain of a text that says nothing comes to; where it is known, the own pictures
            have to lie above it too.

        Notes
        -----
        A prompt is known where its own pictures gain more than `MOST` of the others, and more than
        their mean by `SURE` standard errors over the timesteps, which all have the same noise.
        Where the model does not know a text, its own and other pictures are alike.
        """
        others, own = _whole(others), _whole(own)
        if not len(others) or not len(own):
            return cls(zero=math.nan, one=math.nan, known=False)
        mean, zero = own.mean(axis=0), others.mean(axis=0)
        known = (
            len(others) >= FEWEST_OTHERS
            and (mean.mean() > others.mean(axis=1)).mean() >= MOST
            and _surely_above(mean - zero, 0.0)
            and (not math.isfinite(floor) or _surely_above(mean, floor))
        )
        return cls(zero=float(zero.mean()), one=float(mean.mean()), known=bool(known))

    def place(self, gains: Array | float) -> Array:
        """Place (...) mean gains on the scale; NaN where the prompt is not known."""
        if not self.known:
            return np.full(np.shape(gains), np.nan)
        placed: Array = (np.asarray(gains) - self.zero) / (self.one - self.zero)
        return placed


def gain(empty: Array, told: Array) -> Array:
    """How much smaller a model's loss on a picture is once it is told a text.

    Parameters
    ----------
    empty : (..., K) array
        Losses without a text, at K timesteps.
    told : (..., K) array
        With it, under the same noise.

    Returns
    -------
    (..., K) array
        As a share of the loss without a text: 0 when the text says nothing, up to 1; below 0 when
        it says something else than the picture shows. Scale of the losses cancels.

    Raises
    ------
    ShapeError
        The shapes differ.

    Notes
    -----
    The likelihood ratio of a diffusion model used as a classifier, to first order.
    Source: Li et al., Your diffusion model is secretly a zero-shot classifier, ICCV 2023.
    """
    empty, told = np.asarray(empty, dtype=np.float64), np.asarray(told, dtype=np.float64)
    if empty.shape != told.shape:
        raise ShapeError(f"Losses of {empty.shape} and {told.shape} cannot be compared.")
    with np.errstate(all="ignore"):
        found: Array = (empty - told) / empty
    return np.where(np.isfinite(found), found, np.nan)


def middles(steps: int, count: int, band: tuple[float, float]) -> Array:
    """Give the middle timesteps of ``count`` equal parts of a band.

    Parameters
    ----------
    steps : int
        Timesteps of the schedule.
    count : int
    band : (low, high)
        Shares of the schedule, 0 to 1.

    Returns
    -------
    (count,) int array
    """
    low, high = band
    shares = low + (np.arange(count) + 0.5) / count * (high - low)
    found: Array = np.minimum((shares * steps).astype(int), steps - 1)
    return found


def _whole(values: Array) -> Array:
    """Leave out rows that were not measured."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2:
        raise ShapeError(f"Gains of {values.shape}: a row per picture, a column per timestep.")
    whole: Array = values[np.isfinite(values).all(axis=1)]
    return whole


def _surely_above(values: Array, floor: float) -> bool:
    """Tell whether (K,) values lie above a floor by `SURE` standard errors; one, if at all."""
    apart = values - floor
    if len(values) < 2:
        return bool(apart.mean() > 0)
    error = apart.std(ddof=1) / math.sqrt(len(values))
    return bool(apart.mean() > SURE * error)
