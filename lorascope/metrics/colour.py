"""Colour and noise of one picture: what too strong a LoRA spoils first."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import ShapeError

Picture = NDArray[np.uint8]

DARK, BRIGHT = 2, 253  # a channel at or beyond these is clipped
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
NOISE_KERNEL = ((1, -2, 1), (-2, 4, -2), (1, -2, 1))


def colourfulness(picture: Picture) -> float:
    """How colourful a picture looks.

    Parameters
    ----------
    picture : (H, W, 3) uint8 array
        RGB.

    Returns
    -------
    float
        In grey levels, from 0: 0 for any grey picture, about 15 slightly, 60 quite, 110 and
        above extremely colourful. Moving or mirroring the pixels changes nothing.

    Raises
    ------
    ShapeError
        It is not an RGB picture.

    Notes
    -----
    Source: Hasler and Suesstrunk, Measuring colourfulness in natural images, SPIE 5007, 2003.
    """
    red, green, blue = np.moveaxis(_checked(picture).astype(np.float64), 2, 0)
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))


def saturation(picture: Picture) -> float:
    """Average the saturation (the S of HSV) over a picture.

    Parameters
    ----------
    picture : (H, W, 3) uint8 array
        RGB.

    Returns
    -------
    float
        From 0 (grey) to 1; black counts as grey.

    Raises
    ------
    ShapeError
        It is not an RGB picture.
    """
    values = _checked(picture).astype(np.float64)
    highest, lowest = values.max(axis=2), values.min(axis=2)
    return float(np.mean((highest - lowest) / np.maximum(highest, 1)))


def clipped_share(picture: Picture) -> float:
    """Count the pixels, as a share, with a channel at the end of its range.

    Parameters
    ----------
    picture : (H, W, 3) uint8 array
        RGB.

    Returns
    -------
    float
        From 0 to 1. A drawing with a white background has a high share by its nature: compare
        with the base model's picture of the same prompt and seed.

    Raises
    ------
    ShapeError
        It is not an RGB picture.
    """
    values = _checked(picture)
    return float(((values <= DARK) | (values >= BRIGHT)).any(axis=2).mean())


def noise_sigma(picture: Picture) -> float:
    """Estimate the standard deviation of the pixel noise.

    Parameters
    ----------
    picture : (H, W, 3) uint8 array
        RGB, at least 3 x 3 pixels.

    Returns
    -------
    float
        In grey levels, from 0. Exact for white noise on a plain ground; fine texture counts
        as noise.

    Raises
    ------
    ShapeError
        It is not an RGB picture, or too small.

    Notes
    -----
    Source: Immerkaer, Fast noise variance estimation, Computer Vision and Image Understanding
    64(2), 1996, pp. 300-302.
    """
    grey = _checked(picture).astype(np.float64) @ np.array(LUMA)
    height, width = grey.shape
    if height < 3 or width < 3:
        raise ShapeError(f"A picture of {width} x {height} pixels is too small to measure noise.")
    response = np.zeros((height - 2, width - 2))
    for row, weights in enumerate(NOISE_KERNEL):
        for column, weight in enumerate(weights):
            response += weight * grey[row : row + height - 2, column : column + width - 2]
    return float(np.sqrt(np.pi / 2) * np.abs(response).mean() / 6)


def _checked(picture: NDArray[Any]) -> Picture:
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ShapeError(f"An RGB picture is (H, W, 3) uint8, not {picture.shape} {picture.dtype}.")
    return picture
