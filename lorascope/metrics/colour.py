"""Colour and noise of one picture: what too strong a LoRA spoils first."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import ShapeError

Picture = NDArray[np.uint8]

HIGH = 0.95  # share of the pixels below the saturation that is called high
DARK, BRIGHT = 2, 253  # a channel at or beyond these is clipped
PALE = 128  # grey levels between the channels, below which nobody sees that one is clipped
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
    return float(_saturations(picture).mean())


def saturation_high(picture: Picture, *, share: float = HIGH) -> float:
    """Find the saturation (the S of HSV) that few pixels exceed: the most vivid part of a picture.

    Parameters
    ----------
    picture : (H, W, 3) uint8 array
        RGB.
    share : float
        The share of the pixels that are less saturated.

    Returns
    -------
    float
        From 0 (grey) to 1; black counts as grey.

    Raises
    ------
    ShapeError
        It is not an RGB picture.
    """
    return float(np.quantile(_saturations(picture), share))


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


def clipped_colour_share(picture: Picture) -> float:
    """Count the pixels, as a share, that are clipped in a strong colour.

    Parameters
    ----------
    picture : (H, W, 3) uint8 array
        RGB.

    Returns
    -------
    float
        From 0 to 1, never more than `clipped_share`. White paper, black ink and pale walls do
        not count: whether a whole ground lies at 252 or at 254 is luck, and nobody can see it.

    Raises
    ------
    ShapeError
        It is not an RGB picture.
    """
    values = _checked(picture).astype(np.int16)
    highest, lowest = values.max(axis=2), values.min(axis=2)
    clipped = (lowest <= DARK) | (highest >= BRIGHT)
    return float((clipped & (highest - lowest > PALE)).mean())


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
    grey = luma(picture)
    height, width = grey.shape
    if height < 3 or width < 3:
        raise ShapeError(f"A picture of {width} x {height} pixels is too small to measure noise.")
    response = np.zeros((height - 2, width - 2))
    for row, weights in enumerate(NOISE_KERNEL):
        for column, weight in enumerate(weights):
            response += weight * grey[row : row + height - 2, column : column + width - 2]
    return float(np.sqrt(np.pi / 2) * np.abs(response).mean() / 6)


def luma(picture: Picture) -> NDArray[np.float64]:
    """Give a picture's brightness, as grey levels from 0 to 255.

    Parameters
    ----------
    picture : (H, W, 3) uint8 array
        RGB.

    Returns
    -------
    (H, W) float64 array
        Luma of ITU-R BT.601.

    Raises
    ------
    ShapeError
        It is not an RGB picture.
    """
    return np.asarray(_checked(picture).astype(np.float64) @ np.array(LUMA))


def _saturations(picture: Picture) -> NDArray[np.float64]:
    values = _checked(picture).astype(np.float64)
    highest, lowest = values.max(axis=2), values.min(axis=2)
    return np.asarray((highest - lowest) / np.maximum(highest, 1))


def _checked(picture: NDArray[Any]) -> Picture:
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ShapeError(f"An RGB picture is (H, W, 3) uint8, not {picture.shape} {picture.dtype}.")
    return picture
