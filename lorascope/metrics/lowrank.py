"""Linear algebra of one LoRA module, without ever forming the full matrix."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import ShapeError, WeightError

Array = NDArray[Any]
Factors = tuple[Array, Array, float]  # up, down, scale


def norm(up: Array, down: Array, *, scale: float = 1.0) -> float:
    """Size of one update: the Frobenius norm of ``scale * up @ down``.

    Parameters
    ----------
    up : (out, rank) or (out, rank, 1, 1) array
    down : (rank, in) or (rank, in, height, width) array
        A convolution's kernel axes are flattened into ``in``.
    scale : float
        alpha / rank, times the strength where one is meant.

    Returns
    -------
    float
        At least 0. Unchanged by ``c * up, down / c``; NaN or infinite where a factor is.

    Raises
    ------
    ShapeError
        The inner sizes differ.

    Notes
    -----
    ``scale * sqrt(trace((up.T @ up) @ (down @ down.T)))``: kohya's ``scale_weight_norms`` limits
    exactly this number.
    """
    return float(np.sqrt(max(inner((up, down, scale), (up, down, scale)), 0.0)))


def inner(one: Factors, other: Factors) -> float:
    """Inner product of two updates of the same module, summed over all entries.

    Parameters
    ----------
    one, other : (up, down, scale)
        As in `norm`; the two may differ in rank.

    Returns
    -------
    float
        Unchanged by ``c * up, down / c`` in either.

    Raises
    ------
    ShapeError
        The inner sizes differ, or the two updates are of different size.
    """
    up, down, scale = _flat(*one)
    other_up, other_down, other_scale = _flat(*other)
    if len(up) != len(other_up) or down.shape[1] != other_down.shape[1]:
        raise ShapeError(
            f"two updates of different size: ({len(up)}, {down.shape[1]}) "
            f"and ({len(other_up)}, {other_down.shape[1]})"
        )
    return float(((up.T @ other_up) * (down @ other_down.T)).sum() * scale * other_scale)


def cosine(one: Factors, other: Factors) -> float:
    """Cosine between two updates of the same module.

    Parameters
    ----------
    one, other : (up, down, scale)
        As in `norm`.

    Returns
    -------
    float
        From -1 to 1. Scale and strength cancel.

    Raises
    ------
    ShapeError
        The inner sizes differ, or the two updates are of different size.
    WeightError
        One of them is zero.
    """
    sizes = norm(one[0], one[1], scale=one[2]) * norm(other[0], other[1], scale=other[2])
    if sizes == 0.0:
        raise WeightError("an update is zero: it has no direction")
    return float(np.clip(inner(one, other) / sizes, -1.0, 1.0))


def singular_values(up: Array, down: Array, *, scale: float = 1.0) -> Array:
    """Singular values of ``scale * up @ down``, largest first.

    Parameters
    ----------
    up : (out, rank) or (out, rank, 1, 1) array
    down : (rank, in) or (rank, in, height, width) array
    scale : float
        alpha / rank.

    Returns
    -------
    (rank,) array
        Fewer where ``out`` or ``in`` is smaller than the rank.

    Raises
    ------
    ShapeError
        The inner sizes differ.
    WeightError
        A factor holds NaN or infinity.

    Notes
    -----
    Taken from the product of the two QR triangles, in O((out + in) rank**2).
    """
    up, down, scale = _flat(up, down, scale)
    if not (np.isfinite(up).all() and np.isfinite(down).all()):
        raise WeightError("up or down holds NaN or infinity")
    left, right = np.linalg.qr(up)[1], np.linalg.qr(down.T)[1]
    core: Array = left @ right.T  # (rank, rank): the same singular values as up @ down
    values: Array = np.linalg.svd(core, compute_uv=False) * abs(scale)
    return values


def effective_rank(up: Array, down: Array) -> float:
    """How many directions one LoRA module really uses.

    Parameters
    ----------
    up : (out, rank) or (out, rank, 1, 1) array
    down : (rank, in) or (rank, in, height, width) array

    Returns
    -------
    float
        In directions: 1.0 when one carries all, ``rank`` when all carry alike.
        Alpha and strength cancel.

    Raises
    ------
    ShapeError
        The inner sizes differ.
    WeightError
        The product is zero: the module was never trained; or it holds NaN or infinity.

    Notes
    -----
    Exponential of the entropy (nats) of the singular values of ``up @ down`` divided by their sum.
    Source: Roy and Vetterli, EUSIPCO 2007, pp. 606-610.
    """
    return entropy_rank(singular_values(up, down))


def entropy_rank(values: Array) -> float:
    """Effective rank from singular values that are known already; see `effective_rank`.

    Parameters
    ----------
    values : (rank,) array
        At least 0.

    Raises
    ------
    WeightError
        All are zero: the module was never trained.
    """
    total = float(values.sum())
    if total == 0.0:
        raise WeightError("up @ down is zero: this module was never trained")
    share = values[values > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))


def _flat(up: Array, down: Array, scale: float) -> tuple[Array, Array, float]:
    """Bring the factors to (out, rank) and (rank, in), in double precision."""
    up, down = up.reshape(len(up), -1), down.reshape(len(down), -1)
    if up.shape[1] != down.shape[0]:
        raise ShapeError(f"up {up.shape} and down {down.shape} disagree on rank")
    return up.astype(np.float64), down.astype(np.float64), float(scale)
