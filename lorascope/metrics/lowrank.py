"""Linear algebra of one LoRA module, without ever forming the full matrix."""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import ShapeError, WeightError

Array = NDArray[Any]
PIECE = 2**18  # multiplications below which OpenBLAS keeps to one thread
Factors = tuple[Array, Array | None, float]  # up, down, scale; down None: up is the whole update


def norm(up: Array, down: Array | None, *, scale: float = 1.0, left: Array | None = None) -> float:
    """Size of one update: the Frobenius norm of ``scale * left (x) (up @ down)``.

    Parameters
    ----------
    up : (out, rank) or (out, rank, 1, 1) array
    down : (rank, in) or (rank, in, height, width) array or None
        A convolution's kernel axes are flattened into ``in``. None: ``up`` is the whole update,
        (out, in) or (out, in, height, width).
    scale : float
        alpha / rank, times the strength where one is meant.
    left : (a, b) array, optional
        LoKr's left Kronecker factor.

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
    ``scale * sqrt(trace((up.T @ up) @ (down @ down.T)))``, times the norm of ``left``: kohya's
    ``scale_weight_norms`` limits exactly this number.
    """
    one = (up, down, scale)
    return float(np.sqrt(max(inner(one, one, left=left, other_left=left), 0.0)))


def inner(
    one: Factors,
    other: Factors,
    *,
    left: Array | None = None,
    other_left: Array | None = None,
) -> float:
    """Inner product of two updates of the same module, summed over all entries.

    Parameters
    ----------
    one, other : (up, down, scale)
        As in `norm`; the two may differ in rank, and either may be dense.
    left, other_left : (a, b) array, optional
        LoKr's left Kronecker factors.

    Returns
    -------
    float
        Unchanged by ``c * up, down / c`` in either.

    Raises
    ------
    ShapeError
        The inner sizes differ, or the two updates are of different size.
    """
    if left is not None and other_left is not None and left.shape == other_left.shape:
        sides = float((left.astype(np.float64) * other_left.astype(np.float64)).sum())
        return sides * inner(one, other)
    if left is not None:
        one = dense(one, left=left), None, 1.0
    if other_left is not None:
        other = dense(other, left=other_left), None, 1.0
    (up, down), (other_up, other_down) = _flat(*one[:2]), _flat(*other[:2])
    _check_same_size((up, down), (other_up, other_down))
    if down is not None and other_down is not None:
        total = (_cross(up.T, other_up.T) * _cross(down, other_down)).sum()
    elif down is not None:
        total = _with_whole(up, down, other_up)
    elif other_down is not None:
        total = _with_whole(other_up, other_down, up)
    else:
        total = np.vdot(up.astype(np.float64), other_up.astype(np.float64))
    return float(total * one[2] * other[2])


def _with_whole(up: Array, down: Array, whole: Array) -> float:
    """Give the inner product of ``up @ down`` with a matrix."""
    return float((up.astype(np.float64) * _cross(whole, down)).sum())


def dense(one: Factors, *, left: Array | None = None) -> Array:
    """Form the update itself, kernel axes flattened into ``in``.

    Parameters
    ----------
    one : (up, down, scale)
        As in `norm`.
    left : (a, b) array, optional
        LoKr's left Kronecker factor.

    Returns
    -------
    (out, in) float64 array

    Raises
    ------
    ShapeError
        The inner sizes differ.
    """
    up, down = _flat(*one[:2])
    wide = up.astype(np.float64)
    product: Array = one[2] * (wide if down is None else wide @ down)
    return product if left is None else np.kron(left.astype(np.float64), product)


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
    sizes = norm(*one[:2], scale=one[2]) * norm(*other[:2], scale=other[2])
    if sizes == 0.0:
        raise WeightError("an update is zero: it has no direction")
    return float(np.clip(inner(one, other) / sizes, -1.0, 1.0))


def singular_values(
    up: Array, down: Array | None, *, scale: float = 1.0, left: Array | None = None
) -> Array:
    """Singular values of ``scale * up @ down``, largest first.

    Parameters
    ----------
    up : (out, rank) or (out, rank, 1, 1) array
    down : (rank, in) or (rank, in, height, width) array or None
        None: ``up`` is the whole update.
    scale : float
        alpha / rank.
    left : (a, b) array, optional
        LoKr's left Kronecker factor; there are then min(a, b) x rank values.

    Returns
    -------
    (rank,) array
        The first is the spectral norm. Fewer where ``out`` or ``in`` is smaller than the rank.

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
    up, down = _flat(up, down)
    if not all(np.isfinite(part).all() for part in (up, down, scale) if part is not None):
        raise WeightError("up or down holds NaN or infinity")
    core = up.astype(np.float64)
    if down is not None:  # (rank, rank): the same singular values as up @ down
        core = _triangle(core) @ _triangle(down.T.astype(np.float64)).T
    values: Array = np.linalg.svd(core, compute_uv=False) * abs(scale)
    return values if left is None else _times_left(values, left)


def spectra(
    factors: Sequence[Factors], *, lefts: Sequence[Array | None] | None = None
) -> list[Array]:
    """Singular values of many updates at once, several times faster than one by one.

    Parameters
    ----------
    factors : sequence of (up, down, scale)
        As in `norm`.
    lefts : sequence of (a, b) array or None, optional
        LoKr's left Kronecker factors, one for each.

    Returns
    -------
    list of (rank,) arrays
        As of `singular_values`, in the order given.

    Raises
    ------
    ShapeError
        The inner sizes differ.
    WeightError
        A factor holds NaN or infinity.

    Notes
    -----
    The squares are the eigenvalues of ``L.T @ (down @ down.T) @ L``, where ``L @ L.T`` is
    ``up.T @ up``, all in double precision; of a whole update, those of its Gram matrix. What is
    above a millionth of the largest value has a relative error below 1e-4; what is smaller may
    be off by as much as that. Where ``L`` does not exist (a direction that nothing uses),
    `singular_values` is asked.
    """
    found: list[Array | None] = [None] * len(factors)
    groups: dict[int, list[tuple[int, Array, Array]]] = {}
    for place, (up, down, scale) in enumerate(factors):
        if down is None:
            found[place] = _values_of_whole(up, scale)
        elif len(down) <= min(len(up), down[0].size):
            groups.setdefault(len(down), []).append((place, *_grams(up, down, scale)))
    for group in groups.values():
        values = _values_of_grams(np.stack([g[1] for g in group]), np.stack([g[2] for g in group]))
        for (place, *_), row in zip(group, values, strict=True):
            found[place] = row if np.isfinite(row).all() else None
    done = [
        singular_values(*factors[place][:2], scale=factors[place][2]) if row is None else row
        for place, row in enumerate(found)
    ]
    if lefts is None:
        return done
    return [
        values if left is None else _times_left(values, left)
        for values, left in zip(done, lefts, strict=True)
    ]


def _times_left(values: Array, left: Array) -> Array:
    """Give the singular values of a Kronecker product, largest first."""
    if not np.isfinite(left).all():
        raise WeightError("the left factor holds NaN or infinity")
    sides = np.linalg.svd(left.astype(np.float64), compute_uv=False)
    return np.sort(np.outer(sides, values), axis=None)[::-1]


def _grams(up: Array, down: Array, scale: float) -> tuple[Array, Array]:
    """Give ``up.T @ up`` and ``down @ down.T``, scaled."""
    up, flat = _flat(up, down)
    assert flat is not None
    grams = abs(scale) * _cross(up.T, up.T), abs(scale) * _cross(flat, flat)
    if not all(np.isfinite(gram).all() for gram in grams):
        raise WeightError("up or down holds NaN or infinity")
    return grams


def _values_of_grams(ups: Array, downs: Array) -> Array:
    """Take (n, rank) singular values from (n, rank, rank) Gram matrices; NaN where they cannot."""
    values: Array = np.full(ups.shape[:2], np.nan)
    roots: dict[int, Array] = {}
    for place, gram in enumerate(ups):
        with contextlib.suppress(np.linalg.LinAlgError):
            roots[place] = np.linalg.cholesky(gram)
    if roots:
        done = list(roots)
        root = np.stack(list(roots.values()))
        squares = np.linalg.eigvalsh(root.transpose(0, 2, 1) @ downs[done] @ root)[:, ::-1]
        values[done] = np.sqrt(np.maximum(squares, 0.0))
    return values


def _values_of_whole(whole: Array, scale: float) -> Array:
    """Take the singular values of a matrix from its smaller Gram matrix."""
    flat = whole.reshape(len(whole), -1)
    flat = flat if len(flat) <= flat.shape[1] else flat.T
    gram = _cross(flat, flat)
    if not np.isfinite(gram).all():
        raise WeightError("up or down holds NaN or infinity")
    squares: Array = np.linalg.eigvalsh(gram)[::-1]
    return np.sqrt(np.maximum(squares, 0.0)) * abs(scale)


def _triangle(tall: Array) -> Array:
    """Give R of a tall matrix's QR, from the Rs of its pieces; see `_cross` for why in pieces."""
    width = tall.shape[1]
    rows = 8 * width
    while len(tall) > 2 * rows:
        padded = np.zeros((-(-len(tall) // rows) * rows, width))
        padded[: len(tall)] = tall  # rows of zeros change no R
        pieces = padded.reshape(-1, rows, width)
        tall = np.asarray(np.linalg.qr(pieces, mode="r")).reshape(-1, width)
    return np.asarray(np.linalg.qr(tall, mode="r"))


def _cross(one: Array, other: Array) -> Array:
    """Give ``one @ other.T`` in double precision, in pieces.

    Pieces so small that a BLAS does not share them out among threads: on a busy machine waiting
    for each other costs its threads a hundred times what they save here.
    """
    step = max(PIECE // max(len(one) * len(other), 1), 16)
    total: Array = np.zeros((len(one), len(other)))
    for start in range(0, one.shape[1], step):
        piece = one[:, start : start + step].astype(np.float64)
        twin = piece
        if other is not one:
            twin = other[:, start : start + step].astype(np.float64)
        total += piece @ twin.T
    return total


def effective_rank(up: Array, down: Array | None) -> float:
    """How many directions one LoRA module really uses.

    Parameters
    ----------
    up : (out, rank) or (out, rank, 1, 1) array
    down : (rank, in) or (rank, in, height, width) array or None

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


def stable_rank(values: Array) -> float:
    """How many directions as strong as the strongest would make the same norm.

    Parameters
    ----------
    values : (rank,) array
        Singular values, largest first.

    Returns
    -------
    float
        From 1 to rank: squared Frobenius norm / squared spectral norm.

    Raises
    ------
    WeightError
        All are zero: the module was never trained.
    """
    return float((values**2).sum() / _largest(values) ** 2)


def top_share(values: Array, *, count: int = 1) -> float:
    """Share of the strongest directions in the squared norm, from 0 to 1.

    Parameters
    ----------
    values : (rank,) array
        Singular values, largest first.
    count : int
        How many directions.

    Raises
    ------
    WeightError
        All are zero: the module was never trained.
    """
    squares = (values / _largest(values)) ** 2
    return float(squares[:count].sum() / squares.sum())


def _largest(values: Array) -> float:
    if not values.size or values[0] == 0.0:
        raise WeightError("up @ down is zero: this module was never trained")
    return float(values[0])


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


def _flat(up: Array, down: Array | None) -> tuple[Array, Array | None]:
    """Bring the factors to (out, rank) and (rank, in)."""
    up = up.reshape(len(up), -1)
    if down is None:
        return up, None
    down = down.reshape(len(down), -1)
    if up.shape[1] != down.shape[0]:
        raise ShapeError(f"up {up.shape} and down {down.shape} disagree on rank")
    return up, down


def _check_same_size(one: tuple[Array, Array | None], other: tuple[Array, Array | None]) -> None:
    sizes = [(len(up), up.shape[1] if down is None else down.shape[1]) for up, down in (one, other)]
    if sizes[0] != sizes[1]:
        raise ShapeError(f"two updates of different size: {sizes[0]} and {sizes[1]}")
