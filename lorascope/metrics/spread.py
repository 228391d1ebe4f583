"""How far apart the pictures of one set are."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import ShapeError

Features = NDArray[np.floating[Any]]


def spread(features: Features) -> float:
    """Mean distance between two pictures of a set.

    Parameters
    ----------
    features : (N, F) array
        At least two pictures.

    Returns
    -------
    float
        Root mean square difference of a pair, averaged over all pairs; in the unit of the
        features. 0 when all are the same; the order of the pictures does not matter.

    Raises
    ------
    ShapeError
        There are fewer than two.
    """
    first, second = np.triu_indices(_several(features), 1)
    apart = (features[first] - features[second]).astype(np.float64)
    return float(np.sqrt((apart**2).mean(axis=1)).mean())


def relative_spread(features: Features, usual: Features) -> float | None:
    """Spread of a set beside the spread of another.

    Parameters
    ----------
    features, usual : (N, F), (M, F) arrays
        In one unit.

    Returns
    -------
    float or None
        1 as far apart as the other set, 0 all the same; None where either has fewer than two
        pictures or the other has no spread.
    """
    if len(features) < 2 or len(usual) < 2:
        return None
    whole = spread(usual)
    return spread(features) / whole if whole > 0 else None


def _several(features: Features) -> int:
    if features.ndim != 2 or len(features) < 2:
        raise ShapeError(f"A spread needs two pictures or more, as rows; not {features.shape}.")
    return len(features)
