"""A scale of likeness: 0 like the base model's pictures, 1 as near as training images are."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from lorascope.errors import ShapeError
from lorascope.metrics.similarity import LEAST, NEIGHBOURS, cosines

Features = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]

FLOOR = 1e-3  # of the largest unit: a feature that never varies must not become infinite
SHRINK = 0.1  # of the mean variance is left in every direction
DIGITS = 12  # of a likeness: beyond them lies rounding
MOST_ORIGINS = 64  # of the base model's pictures that the scale is laid over


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """Where features are measured from, and in what unit.

    Attributes
    ----------
    centre, unit : (F,) arrays
        The base model's pictures lie around the centre, so that "any picture" is no direction at
        all; a unit is the usual spread of a feature.
    """

    centre: Floats
    unit: Floats

    @classmethod
    def between(cls, base: Features, training: Features) -> "Space":
        """Lay the space out over the base model's pictures and the training images.

        Parameters
        ----------
        base : (N, F) array
        training : (M, F) array
            Either may be empty; then the other decides alone.

        Raises
        ------
        ShapeError
            Both are empty, or they have different features.
        """
        sets = [np.asarray(s, dtype=np.float64) for s in (base, training) if len(s)]
        if not sets or len({s.shape[1] for s in sets}) > 1:
            raise ShapeError(f"Features of {base.shape} and {training.shape} make no space.")
        unit = np.sqrt(np.mean([s.var(axis=0) for s in sets], axis=0))
        unit = np.maximum(unit, FLOOR * max(float(unit.max()), 1e-30))
        return cls(sets[0].mean(axis=0), unit)

    def place(self, raw: Features) -> Floats:
        """Measure (N, F) raw features from the centre, in units."""
        return np.asarray((raw - self.centre) / self.unit)


@dataclass(frozen=True, slots=True, eq=False)
class Whitening:
    """How pictures differ that show the same: directions that say little of the subject.

    Attributes
    ----------
    directions : (K, F) array
        Orthonormal.
    gains : (K,) array
        What is left of a step in each direction, from 0 to 1; elsewhere all of it.
    """

    directions: Floats
    gains: Floats

    @classmethod
    def over(cls, *sets: Floats) -> "Whitening":
        """Learn it from how the pictures of each set differ among themselves.

        Parameters
        ----------
        *sets : (N, F) arrays
            Images of the subject, pictures by the base model, placed in one `Space`.

        Notes
        -----
        Their pooled covariance within the sets, shrunk towards a tenth of its mean variance in
        all directions. With 24 base pictures and 8 training images it raised the average precision
        of finding a subject from .66 to .92 (``benchmarks/results/likeness.json``, the default
        features, "standard" and "whitened").
        """
        apart = np.concatenate([some - some.mean(axis=0) for some in sets if len(some)])
        values, vectors = np.linalg.eigh(apart @ apart.T / len(apart))
        known = values > 1e-9 * max(float(values[-1]), 1e-30)
        length = np.sqrt(len(apart) * values[known])
        directions = (vectors[:, known].T @ apart) / length[:, None]
        shares = values[known] / (SHRINK * max(float(values.mean()), 1e-30))
        return cls(directions, 1 / np.sqrt(shares + 1))

    def apply(self, placed: Floats) -> Floats:
        """Make (N, F) features shorter in those directions."""
        inside = placed @ self.directions.T
        return np.asarray(placed + (inside * (self.gains - 1)) @ self.directions)


@dataclass(frozen=True, slots=True, eq=False)
class Lens:
    """A space and a whitening in it: what features are compared through."""

    space: Space
    whitening: Whitening

    @classmethod
    def over(cls, base: Features, training: Features) -> "Lens":
        """Make it of (N, F) pictures by the base model and (M, F) training images."""
        space = Space.between(base, training)
        return cls(space, Whitening.over(*(space.place(s) for s in (training, base) if len(s))))

    def see(self, raw: Features) -> Floats:
        """Place (N, F) raw features, and whiten them."""
        return self.whitening.apply(self.space.place(raw))


@dataclass(frozen=True, slots=True, eq=False)
class LikenessScale:
    """From the base model's pictures to the training images.

    Attributes
    ----------
    lens : Lens
    references : (R, F) array
        What samples are compared with, seen through it.
    among : int
        Every comparison is with the nearest of so many references: of fewer, the nearest are
        farther away, and both ends of the scale must have the same chance.
    at_zero, at_one : (N,), (M,) arrays
        Nearness of each of the base model's pictures (of `MOST_ORIGINS` at most), and of each
        training image, each seen through a lens that was made without it: what a lens was made
        of looks nearer, or farther, than it is.
    """

    lens: Lens
    references: Floats
    among: int
    at_zero: Floats
    at_one: Floats

    @classmethod
    def between(
        cls, base: Features, training: Features, references: Features | None = None
    ) -> "LikenessScale":
        """Lay the scale.

        Parameters
        ----------
        base : (N, F) array
            Pictures by the base model.
        training : (M, F) array
            Training images; with one alone nothing can be placed on the scale.
        references : (R, F) array, optional
            Images of the subject that were not trained on. Unset, samples are compared with the
            training images, and one of them is left out each time.

        Raises
        ------
        ShapeError
            The sets have different features, or there is no reference.
        """
        kept = training if references is None else references
        if not len(kept):
            raise ShapeError("There is no reference to compare with.")
        among = max(1, len(kept) - 1) if references is None else len(kept)
        some = base[_places(len(base))]
        zero, one = [], []
        for place in range(len(some)):
            lens = Lens.over(_without(some, place), training)
            zero.append(_near(lens, some[place], kept, among))
        for place in range(len(training) if len(training) > 1 else 0):
            others = _without(training, place)
            against = others if references is None else references
            one.append(_near(Lens.over(some, others), training[place], against, among))
        lens = Lens.over(some, training)
        return cls(lens, lens.see(kept), among, np.array(zero), np.array(one))

    @property
    def zero(self) -> float:
        """Mean cosine of the base model's pictures to the references."""
        return float(self.at_zero.mean())

    @property
    def one(self) -> float:
        """Mean cosine of the training images to the references."""
        return float(self.at_one.mean())

    @property
    def laid(self) -> bool:
        """Whether both ends are known and far enough apart to measure more than noise."""
        return bool(len(self.at_zero) and len(self.at_one)) and self.one - self.zero >= LEAST

    def cosines(self, raw: Features) -> Floats:
        """Compare (N, F) raw features with every reference: (N, R)."""
        return cosines(self.lens.see(raw), self.references)

    def of_base(self, count: int) -> dict[int, float]:
        """Give the likeness of the base model's pictures themselves, each left out in turn.

        Parameters
        ----------
        count : int
            How many the scale was laid over.

        Returns
        -------
        dict
            Place -> likeness, for those that were taken; empty where the scale is not `laid`.
        """
        if not self.laid:
            return {}
        values = self._placed(self.at_zero)
        return dict(zip(_places(count).tolist(), values.tolist(), strict=True))

    def likeness(self, raw: Features) -> Floats | None:
        """Place pictures on the scale.

        Parameters
        ----------
        raw : (N, F) array

        Returns
        -------
        (N,) array or None
            0 like the base model's pictures on average, 1 as near to the references as the
            training images are, above 1 nearer; may lie below 0. None where the scale is not
            `laid`.
        """
        if not self.laid:
            return None
        near = nearest_of(self.cosines(raw), self.among)
        return self._placed(near)

    def _placed(self, near: Floats) -> Floats:
        """Place nearness on the scale, without what is rounding alone."""
        return np.asarray(np.round((near - self.zero) / (self.one - self.zero), DIGITS) + 0.0)


def nearest_of(found: Floats, among: int, *, neighbours: int = NEIGHBOURS) -> Floats:
    """Average the nearest of so many references, whichever of them these are.

    Parameters
    ----------
    found : (N, R) array
        Cosines of each sample to each reference.
    among : int
        From 1 to R.
    neighbours : int
        How many of them count; all where there are fewer.

    Returns
    -------
    (N,) array
        Mean over every choice of ``among`` references of the mean cosine to the nearest ones.

    Raises
    ------
    ShapeError
        There are fewer references.

    Notes
    -----
    Counted, not drawn: the reference at place j from the nearest is the k-th nearest of a choice
    in ``C(j - 1, k - 1) C(R - j, among - k)`` of the ``C(R, among)`` choices.
    """
    count = found.shape[1]
    if not 1 <= among <= count:
        raise ShapeError(f"{among} of {count} references cannot be chosen.")
    weights = _weights(count, among, min(neighbours, among))
    return np.asarray(-np.sort(-found, axis=1) @ weights)


def _weights(count: int, among: int, neighbours: int) -> Floats:
    """How much the reference at each place counts, the nearest first; they sum to 1."""
    place = np.arange(1, count + 1)
    total = np.zeros(count)
    for kth in range(1, neighbours + 1):
        chance = _choices(place - 1, kth - 1) + _choices(count - place, among - kth)
        total += np.exp(chance - _choices(np.array([count]), among))
    return total / neighbours


def _choices(count: NDArray[np.int64], chosen: int) -> Floats:
    """Logarithm of the number of choices; minus infinity where there is none."""
    whole = np.maximum(count, chosen)
    found = gammaln(whole + 1) - gammaln(chosen + 1) - gammaln(whole - chosen + 1)
    return np.where(count >= chosen, found, -np.inf)


def _near(lens: Lens, picture: Floats, references: Features, among: int) -> float:
    """How near one picture comes to the references, seen through a lens."""
    found = cosines(lens.see(picture[None]), lens.see(references))
    return float(nearest_of(found, min(among, len(references)))[0])


def _without(features: Features, place: int) -> Features:
    """Leave one out; the only one stays."""
    return np.delete(features, place, axis=0) if len(features) > 1 else features


def _places(count: int) -> NDArray[np.int64]:
    """Take every so many of a long list."""
    return np.arange(0, count, max(1, -(-count // MOST_ORIGINS)))
