"""How many different pictures a set holds, and how sure a number about pairs is."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lorascope.errors import ShapeError
from lorascope.metrics.intervals import LEVEL
from lorascope.metrics.similarity import distances

Features = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]

FEWEST_ITEMS = 3  # below which leaving one out says nothing


def alike(features: Features, usual: float) -> Floats:
    """Similarity of every pair of pictures, whatever they are all like.

    Parameters
    ----------
    features : (N, F) array
    usual : float
        The distance at which two pictures count as usually different.

    Returns
    -------
    (N, N) array
        ``exp(-(distance / usual)^2)``: 1 for the same picture, 0.37 at the usual distance. What
        the pictures have in common does not matter, unlike with a cosine.

    Raises
    ------
    ShapeError
        There is no picture, or the usual distance is not above 0.
    """
    if features.ndim != 2 or not len(features) or not usual > 0:
        raise ShapeError(f"Features of {features.shape} at a usual distance of {usual}.")
    exact = features.astype(np.float64)
    return np.exp(-((distances(exact, exact) / usual) ** 2))


def vendi(similarity: Floats) -> float:
    """How many different pictures a set holds.

    Parameters
    ----------
    similarity : (N, N) array
        Symmetric, positive semidefinite, with 1 on its diagonal.

    Returns
    -------
    float
        From 1 (all the same) to N (nothing in common).

    Raises
    ------
    ShapeError
        It is not square, or empty.

    Notes
    -----
    ``exp(-sum(l log l))`` over the eigenvalues l of ``similarity / N``.
    Source: Friedman and Dieng, The Vendi Score, TMLR 2023, definition 3.1.
    """
    if similarity.ndim != 2 or len(set(similarity.shape)) != 1 or not len(similarity):
        raise ShapeError(f"A Vendi score needs a square of similarities, not {similarity.shape}.")
    values = np.linalg.eigvalsh(similarity / len(similarity))
    known = values[values > 1e-12]
    return float(np.exp(-(known * np.log(known)).sum()))


def left_out_interval(
    measure: Callable[[NDArray[np.bool_]], float | None], items: NDArray[Any]
) -> tuple[float, float] | None:
    """95 % interval of a number about pairs, by leaving one item out at a time.

    Parameters
    ----------
    measure : callable
        Gives the number for the pictures that a mask keeps; None where it cannot.
    items : (N,) array
        Which item each picture belongs to: its prompt, or its seed.

    Returns
    -------
    low, high : float, or None
        None for fewer than three items.

    Notes
    -----
    Jackknife (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 11), with
    Student's t. Drawing with replacement would put a picture beside itself and so make every set
    look less diverse than it is.
    """
    distinct = np.unique(items)
    whole = measure(np.ones(len(items), dtype=bool))
    parts = [measure(items != item) for item in distinct]
    known = np.array([part for part in parts if part is not None])
    if whole is None or len(known) < FEWEST_ITEMS:
        return None
    error = np.sqrt((len(known) - 1) * known.var())
    reach = float(error * stats.t.ppf((1 + LEVEL) / 2, len(known) - 1))
    return whole - reach, whole + reach
