"""Small picture arithmetic for pages: colours over pictures, tiles cut out."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dashboards.thumbs import UNREADABLE

Array = NDArray[Any]


def read(path: Path) -> Array | None:
    """Read a picture as (H, W, 3) uint8; None where it cannot be."""
    try:
        with Image.open(path) as opened:
            return np.asarray(opened.convert("RGB"))
    except UNREADABLE:
        return None


def enlarge(picture: Array, width: int, height: int, *, smooth: bool = True) -> Array:
    """Bring a picture to a size."""
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(picture).resize((width, height), how))


def overlay(picture: Array, coloured: Array, share: float) -> Array:
    """Lay a coloured map over a picture."""
    height, width = picture.shape[:2]
    above = enlarge(coloured, width, height)
    grey = picture.mean(axis=-1, keepdims=True)
    mixed: Array = ((1 - share) * grey + share * above).clip(0, 255).astype(np.uint8)
    return mixed


def tile(picture: Array, x: int, y: int, size: int, *, shown: int) -> Array:
    """Cut a square out, its corner at ``x``, ``y``, and show its pixels large."""
    cut = picture[max(y, 0) : y + size, max(x, 0) : x + size]
    return enlarge(cut, shown, shown, smooth=False) if cut.size else picture
