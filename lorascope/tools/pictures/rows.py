"""What is said of one row of pictures: which it is, and means with their doubt."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lorascope.metrics.intervals import interval
from lorascope.records import Row, Scalar
from lorascope.tools.pictures.sets import Picture

Floats = NDArray[np.float64]

DIGITS = 12  # of a mean: beyond them lies rounding


def row_facts(pictures: Sequence[Picture]) -> Row:
    """Say which row of a set this is: the first columns of a table ``epochs``."""
    first = pictures[0]
    return {
        "row": first.row,
        "kind": first.kind,
        "epoch": first.epoch,
        "step": first.step,
        "strength": first.strength,
        "text_strength": first.text_strength,
        "pictures": len(pictures),
    }


def over_prompts(name: str, values: Floats, prompts: Sequence[Scalar]) -> dict[str, Scalar]:
    """Average over pictures, with the 95 % interval over the prompts.

    Parameters
    ----------
    name : str
        Of the column; the interval's ends are ``NAME_low`` and ``NAME_high``.
    values : (N,) array
        One a picture; NaN where it was not measured.
    prompts : sequence of length N
        Which prompt each belongs to: the seeds of one prompt are one item.

    Returns
    -------
    dict
        Three columns; None where nothing was measured, or one prompt gives no interval.
    """
    known = np.isfinite(values)
    told = np.array([str(prompt) for prompt in prompts])
    items = [float(values[known & (told == prompt)].mean()) for prompt in np.unique(told[known])]
    if not items:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    low, high = interval(np.array(items)) if len(items) > 1 else (math.nan, math.nan)
    found = {name: float(values[known].mean()), f"{name}_low": low, f"{name}_high": high}
    return {
        column: round(value, DIGITS) + 0.0 if math.isfinite(value) else None
        for column, value in found.items()
    }
