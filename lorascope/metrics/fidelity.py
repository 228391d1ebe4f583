"""How much of a picture survives: signal to noise, structure, edges, the worst place."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import ShapeError

Array = NDArray[Any]

CEILING = 100.0  # dB; stands for "no difference"
WHITE = 255.0
GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
SMALLEST = 11  # px, the window of SSIM


def psnr(original: Array, decoded: Array) -> float:
    """Peak signal-to-noise ratio of two pictures.

    Parameters
    ----------
    original, decoded : (H, W, 3) uint8 arrays

    Returns
    -------
    float
        In dB, higher is nearer; `CEILING` where they are equal, so that it is always finite.

    Raises
    ------
    ShapeError
        The pictures differ in size.
    """
    return _decibels(float(_squares(original, decoded).mean()))


def ssim(original: Array, decoded: Array) -> float:
    """Structural similarity of two pictures.

    Parameters
    ----------
    original, decoded : (H, W, 3) uint8 arrays
        At least 11 px on each side.

    Returns
    -------
    float
        At most 1, where they are equal; mean over the colours.

    Raises
    ------
    ShapeError
        The pictures differ in size or are too small.

    Notes
    -----
    Gaussian window of 11 px. Source: Wang, Bovik, Sheikh and Simoncelli, IEEE TIP 13(4), 2004.
    """
    from skimage.metrics import structural_similarity

    _squares(original, decoded)
    if min(original.shape[:2]) < SMALLEST:
        raise ShapeError(f"{original.shape}: SSIM needs {SMALLEST} px on each side")
    value = structural_similarity(
        original,
        decoded,
        channel_axis=2,
        data_range=WHITE,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(value)


def edge_retention(original: Array, decoded: Array) -> float:
    """How much of the edges' strength is still at its place.

    Parameters
    ----------
    original, decoded : (H, W, 3) uint8 arrays

    Returns
    -------
    float
        1 when every edge is as strong as it was, 0 when nothing is left where edges were; 1 where
        the original has no edge. Edges that came in elsewhere do not count.

    Raises
    ------
    ShapeError
        The pictures differ in size.

    Notes
    -----
    ``sum(g * h) / sum(g * g)`` over the gradient magnitudes g of the original and h of the decoded
    picture, on grey.
    """
    _squares(original, decoded)
    was, now = _gradient(original), _gradient(decoded)
    total = float((was * was).sum())
    return float((was * now).sum()) / total if total else 1.0


def worst_tile(original: Array, decoded: Array, *, size: int = 24) -> tuple[int, int, float]:
    """Find the square that lost most.

    Parameters
    ----------
    original, decoded : (H, W, 3) uint8 arrays
    size : int
        Side of the square in px; 24 px are three cells of the latent.

    Returns
    -------
    x, y : int
        Left and upper edge of the square in px.
    psnr : float
        Of the square, in dB.

    Raises
    ------
    ShapeError
        The pictures differ in size.
    """
    squares = _squares(original, decoded)
    height, width = (min(size, side) for side in squares.shape)
    sums = np.zeros((squares.shape[0] + 1, squares.shape[1] + 1))
    sums[1:, 1:] = squares.cumsum(axis=0).cumsum(axis=1)
    tiles = sums[height:, width:] - sums[:-height, width:]
    tiles -= sums[height:, :-width] - sums[:-height, :-width]
    y, x = np.unravel_index(int(tiles.argmax()), tiles.shape)
    worst = float(squares[y : y + height, x : x + width].mean())
    return int(x), int(y), _decibels(worst)


def error_map(original: Array, decoded: Array, *, cells: int = 32) -> Array:
    """Mean absolute difference on a small grid.

    Parameters
    ----------
    original, decoded : (H, W, 3) uint8 arrays
    cells : int
        Cells on each side, whatever the shape of the picture.

    Returns
    -------
    (cells, cells) float32 array
        From 0 to 255.

    Raises
    ------
    ShapeError
        The pictures differ in size.
    """
    _squares(original, decoded)
    errors = np.abs(original.astype(np.float64) - decoded).mean(axis=2)
    for axis, length in enumerate(errors.shape):
        starts = np.arange(cells) * length // cells
        stops = np.maximum((np.arange(cells) + 1) * length // cells, starts + 1)
        zero = np.zeros_like(errors.take([0], axis=axis))
        sums = np.concatenate([zero, errors.cumsum(axis=axis)], axis=axis)
        counts = (stops - starts).reshape((-1, 1) if axis == 0 else (1, -1))
        errors = (sums.take(stops, axis=axis) - sums.take(starts, axis=axis)) / counts
    small: Array = errors.astype(np.float32)
    return small


def _squares(original: Array, decoded: Array) -> Array:
    """Squared difference of each pixel, mean over the colours."""
    if original.shape != decoded.shape or original.ndim != 3:
        raise ShapeError(f"two pictures of different size: {original.shape} and {decoded.shape}")
    squares: Array = ((original.astype(np.float64) - decoded) ** 2).mean(axis=2)
    return squares


def _gradient(picture: Array) -> Array:
    down, right = np.gradient(picture @ GREY)
    magnitude: Array = np.hypot(down, right)
    return magnitude


def _decibels(mean_square: float) -> float:
    if mean_square <= WHITE**2 / 10 ** (CEILING / 10):
        return CEILING
    return 10 * math.log10(WHITE**2 / mean_square)
