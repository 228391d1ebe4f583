"""How unusual a picture is: measures of its colours and texture, beside what is usual.

None of the measures means anything alone: a pencil drawing has harsh edges and a neon sign is
saturated. Each is compared with what the base model draws of the same prompt and noise *and* with
the training images, and only what stands out from both counts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import ShapeError
from lorascope.metrics import colour, texture

Picture = NDArray[np.uint8]
Floats = NDArray[np.float64]

NORMAL = 1.4826  # median absolute deviations in a standard deviation of the normal distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One measure of a picture, and how far apart two healthy pictures may lie by it."""

    of: Callable[[Picture], float]
    unit: str
    least: float  # spread that is assumed at least, on the scale that z is taken on
    towards: int = 1  # the side that artefacts move it to
    ratio: bool = False  # z is taken of log2(1 + value)

    def scaled(self, values: Floats) -> Floats:
        """Bring values to the scale that z is taken on."""
        return np.asarray(np.log2(1 + values) if self.ratio else values)


# The least spreads are design values: about what is hardly seen side by side. They matter where
# pictures are so alike, drawings on white, that their own spread is next to nothing.
MEASURES: Mapping[str, Measure] = {
    "colourfulness": Measure(of=colour.colourfulness, unit="grey levels", least=5.0),
    "saturation": Measure(of=colour.saturation, unit="1", least=0.03),
    "saturation_95": Measure(of=colour.saturation_high, unit="1", least=0.03),
    "clipped": Measure(of=colour.clipped_share, unit="1", least=0.2),
    "clipped_colour": Measure(of=colour.clipped_colour_share, unit="1", least=0.05),
    "high_frequency": Measure(of=texture.high_frequency_share, unit="1", least=0.01),
    "noise": Measure(of=colour.noise_sigma, unit="grey levels", least=0.25, ratio=True),
    "blockiness": Measure(of=texture.blockiness, unit="grey levels", least=1.0),
    "contrast_kurtosis": Measure(
        of=texture.contrast_kurtosis, unit="octaves", least=0.3, towards=-1
    ),
    "edge_strength": Measure(of=texture.edge_strength, unit="grey levels", least=0.25, ratio=True),
    "local_contrast": Measure(
        of=texture.local_contrast, unit="grey levels", least=0.25, ratio=True
    ),
    "quiet_contrast": Measure(
        of=texture.quiet_contrast, unit="grey levels", least=0.25, ratio=True
    ),
}


def measured(picture: Picture, measures: Mapping[str, Measure] = MEASURES) -> Floats:
    """Take every measure of one picture, in the order of their names in ``measures``.

    Raises
    ------
    ShapeError
        It is not an RGB picture, or too small (16 px a side are enough for all).
    """
    return np.array([measure.of(picture) for measure in measures.values()])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Usual:
    """What healthy pictures come to: the middle and the spread of every measure.

    Attributes
    ----------
    middle, spread : (K,) arrays
        Median, and `NORMAL` median absolute deviations, never less than `Measure.least`; on the
        scales that z is taken on.
    n : int
        How many pictures stand behind them.
    """

    middle: Floats
    spread: Floats
    n: int

    @classmethod
    def among(cls, values: Floats, measures: Mapping[str, Measure] = MEASURES) -> "Usual":
        """Describe a set of pictures.

        Parameters
        ----------
        values : (N, K) array
            A row a picture, as `measured` gives it.
        measures : mapping
            The K measures.

        Raises
        ------
        ShapeError
            There is no picture, or another number of measures.
        """
        if values.ndim != 2 or not len(values) or values.shape[1] != len(measures):
            raise ShapeError(f"A usual range needs pictures x measures, not {values.shape}.")
        found = scaled(values, measures)
        middle = np.median(found, axis=0)
        spread = NORMAL * np.median(np.abs(found - middle), axis=0)
        least = np.array([measure.least for measure in measures.values()])
        return cls(middle=middle, spread=np.maximum(spread, least), n=len(values))


def scaled(values: Floats, measures: Mapping[str, Measure] = MEASURES) -> Floats:
    """Bring (N, K) values to the scales that z is taken on."""
    each = zip(np.moveaxis(values, -1, 0), measures.values(), strict=True)
    return np.stack([measure.scaled(column) for column, measure in each], axis=-1)


def z_scores(
    values: Floats,
    own: Floats | None,
    usual: Usual,
    measures: Mapping[str, Measure] = MEASURES,
) -> Floats:
    """Say how unusual pictures are, towards the side of artefacts.

    Parameters
    ----------
    values : (N, K) array
        As `measured` gives them.
    own : (N, K) array, optional
        What each is compared with: the base model's picture of the same prompt and noise. Unset,
        the middle of the usual pictures.
    usual : Usual
        Whose spread is the unit.
    measures : mapping
        The K measures.

    Returns
    -------
    (N, K) array
        In spreads; above 0 where a measure lies on the side that artefacts move it to.
    """
    towards = np.array([measure.towards for measure in measures.values()])
    origin = usual.middle if own is None else scaled(own, measures)
    return np.asarray(towards * (scaled(values, measures) - origin) / usual.spread)


def joint_z(against_base: Floats, against_training: Floats) -> Floats:
    """Keep of two z scores what they have in common.

    Parameters
    ----------
    against_base, against_training : arrays of one shape

    Returns
    -------
    array of that shape
        The smaller in size where both have one sign, else 0: a picture between the base model's
        and the training images is what was asked for, and a neon dataset is no fault.
    """
    smaller = np.minimum(np.abs(against_base), np.abs(against_training))
    return np.where(
        np.sign(against_base) == np.sign(against_training), np.sign(against_base) * smaller, 0.0
    )


def artefact_z(joint: Floats) -> Floats:
    """Sum up the measures of each picture: the one that stands out most.

    Parameters
    ----------
    joint : (N, K) array
        As `joint_z` gives it.

    Returns
    -------
    (N,) array
        From 0, which is no artefact at all.

    Notes
    -----
    Artefacts come in kinds, and one kind is enough to spoil a picture: in a mean over the measures
    the others would hide it. As a rank it is no better than the mean of the three largest
    (``told_apart`` in ``benchmarks/results/stress.json``), but it is in spreads, as each z is.
    """
    return np.asarray(np.maximum(joint.max(axis=1), 0.0))
