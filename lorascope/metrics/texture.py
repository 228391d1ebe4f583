"""Grain, blocks and contrast of one picture: what its brightness looks like from close by."""

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import ShapeError
from lorascope.metrics.colour import luma

Picture = NDArray[np.uint8]
Floats = NDArray[np.float64]

HIGH_FREQUENCY = 0.35  # cycles a pixel; the highest along an axis is 0.5
BLOCK = 8  # px: what one latent of every published Stable Diffusion becomes; JPEG's block too
WINDOW = 8  # px a side, of local contrast
QUIET = 0.25  # share of the windows that are quieter than what is called quiet


def high_frequency_share(picture: Picture, *, above: float = HIGH_FREQUENCY) -> float:
    """Measure which share of a picture's contrast is finer than detail usually is.

    Parameters
    ----------
    picture : (H, W, 3) uint8 array
        RGB, at least 8 px a side.
    above : float
        Frequency in cycles a pixel, in any direction.

    Returns
    -------
    float
        Share of the energy of the brightness without its mean: 0 smooth, about 0.6 white noise,
        1 a chessboard of single pixels. A plain picture has 0. More contrast, mirroring and
        turning by 90 degrees change nothing.

    Raises
    ------
    ShapeError
        It is not an RGB picture, or too small.

    Notes
    -----
    Power of the discrete Fourier transform under a Hann window, which keeps opposite borders
    from making an edge. Drawings with hard outlines have more of it than photographs: compare.
    """
    grey = _large(picture)
    height, width = grey.shape
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    flat = (grey - (grey * window).sum() / window.sum()) * window
    power = np.abs(np.fft.rfft2(flat)) ** 2
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    power[:, 1 : (width + 1) // 2] *= 2  # the half of the spectrum that rfft leaves out
    whole = float(power.sum())
    if whole <= 1e-9 * grey.size:
        return 0.0
    return float(power[np.hypot(rows, columns) > above].sum() / whole)


def blockiness(picture: Picture, *, block: int = BLOCK) -> float:
    """Measure how far a grid of blocks shows in a picture.

    Parameters
    ----------
    picture : (H, W, 3) uint8 array
        RGB, at least two blocks a side.
    block : int
        Side of a block in px; the grid begins at the top left.

    Returns
    -------
    float
        Mean step of brightness across the grid's lines, in grey levels, beyond the mean step
        elsewhere; about 0 without a grid, and may lie below. Turning by 90 degrees changes
        nothing where the sides are whole blocks.

    Raises
    ------
    ShapeError
        It is not an RGB picture, or too small.

    Notes
    -----
    The steps of Wang, Sheikh and Bovik, No-reference perceptual quality assessment of JPEG
    compressed images, ICIP 2002, as a difference in place of a fitted formula.
    """
    grey = _large(picture, least=2 * block)
    found = []
    for axis in (0, 1):
        steps = np.abs(np.diff(grey, axis=axis)).mean(axis=1 - axis)
        across = np.arange(len(steps)) % block == block - 1
        found.append(steps[across].mean() - steps[~across].mean())
    return float(np.mean(found))


def contrast_kurtosis(picture: Picture) -> float:
    """Tell contrast that is gathered at edges from contrast that lies everywhere.

    Parameters
    ----------
    picture : (H, W, 3) uint8 array
        RGB, at least 8 px a side.

    Returns
    -------
    float
        Logarithm (base 2) of the kurtosis of each pixel's difference from the mean of its
        eight neighbours: 1.58 for normal noise, above it where few edges stand in smooth
        areas, as in drawings and photographs; 0 for a plain picture and for a chessboard.
        More contrast, mirroring and turning by 90 degrees change nothing.

    Raises
    ------
    ShapeError
        It is not an RGB picture, or too small.

    Notes
    -----
    Band-pass filtered natural pictures are far from normal; noise brings them nearer to it.
    Source: Field, Relations between the statistics of natural images and the response properties
    of cortical cells, Journal of the Optical Society of America A 4(12), 1987.
    """
    grey = _large(picture)
    around = sum(
        grey[1 + y : grey.shape[0] - 1 + y, 1 + x : grey.shape[1] - 1 + x]
        for y in (-1, 0, 1)
        for x in (-1, 0, 1)
        if (y, x) != (0, 0)
    )
    contrast = grey[1:-1, 1:-1] - around / 8
    contrast = contrast - contrast.mean()
    variance = float(np.mean(contrast**2))
    if variance <= 1e-9:
        return 0.0
    return float(np.log2(np.mean(contrast**4) / variance**2))


def edge_strength(picture: Picture) -> float:
    """Average the steepness of the brightness over a picture.

    Parameters
    ----------
    picture : (H, W, 3) uint8 array
        RGB, at least 8 px a side.

    Returns
    -------
    float
        Length of the gradient in grey levels a pixel, from 0. Mirroring and turning by 90
        degrees change nothing.

    Raises
    ------
    ShapeError
        It is not an RGB picture, or too small.
    """
    down, across = np.gradient(_large(picture))
    return float(np.hypot(down, across).mean())


def local_contrast(picture: Picture, *, window: int = WINDOW) -> float:
    """Average the contrast inside small windows of a picture.

    Parameters
    ----------
    picture : (H, W, 3) uint8 array
        RGB, at least one window a side.
    window : int
        Side of a window in px; what is left over at the right and the bottom does not count.

    Returns
    -------
    float
        Mean standard deviation of the colour channels, in grey levels, from 0. Shading wider
        than a window does not count.

    Raises
    ------
    ShapeError
        It is not an RGB picture, or too small.
    """
    return float(_contrasts(picture, window).mean())


def quiet_contrast(picture: Picture, *, window: int = WINDOW, share: float = QUIET) -> float:
    """Measure the contrast of the quiet parts of a picture: sky, wall, skin, paper.

    Parameters
    ----------
    picture : (H, W, 3) uint8 array
        RGB, at least one window a side.
    window : int
        As for `local_contrast`.
    share : float
        The share of the windows that are quieter.

    Returns
    -------
    float
        Standard deviation of the colour channels in such a window, in grey levels, from 0; that
        of the noise where a noisy picture has smooth parts.

    Raises
    ------
    ShapeError
        It is not an RGB picture, or too small.

    Notes
    -----
    Every drawing or photograph has parts where little happens. A LoRA at too high a strength
    fills them with blotches before anything else is lost.
    The smoothest blocks tell the noise of a picture: Olsen, Estimation of noise in images, CVGIP
    Graphical Models and Image Processing 55(4), 1993, pp. 319-323.
    """
    return float(np.quantile(_contrasts(picture, window), share))


def _contrasts(picture: Picture, window: int) -> Floats:
    """Give the standard deviation of the colour channels in every window."""
    _large(picture, least=window)
    down, across = (side // window for side in picture.shape[:2])
    cut = picture[: down * window, : across * window].astype(np.float64)
    tiles = cut.reshape(down, window, across, window, 3)
    return np.asarray(np.sqrt(tiles.var(axis=(1, 3)).mean(axis=-1))).ravel()


def _large(picture: Picture, *, least: int = BLOCK) -> Floats:
    grey = luma(picture)
    height, width = grey.shape
    if min(height, width) < least:
        raise ShapeError(
            f"A picture of {width} x {height} pixels is too small; {least} a side are needed."
        )
    return grey
