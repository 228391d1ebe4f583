"""The look of the finished picture: its shading and its palette."""

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from lorascope.miniature.canvas import UNIT
from lorascope.miniature.world import REGIONS, Look

Pixels = NDArray[np.uint8]
Picture = NDArray[np.float32]

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
CEL_DARKNESS = 0.34
SEPIA = np.array([1.08, 0.88, 0.64], np.float32)
_HAIR, _SKIN, _OUTFIT, _HAT = (REGIONS[name] for name in ("hair", "skin", "outfit", "hat"))


def _solids() -> Pixels:
    """Region to the body that it lies on: an eye is part of the face, an emblem of the outfit."""
    table = np.arange(len(REGIONS), dtype=np.uint8)
    for region in ("eyes", "glasses", "mouth"):
        table[REGIONS[region]] = _SKIN
    table[REGIONS["mark"]] = _HAIR
    table[REGIONS["emblem"]] = _OUTFIT
    return table


SOLIDS = _solids()


def finish(image: Pixels, regions: Pixels, look: Look) -> Pixels:
    """Shade the picture and map its colours, as the look says."""
    if look.shading == "flat" and look.palette == "plain":
        return image
    picture = image.astype(np.float32)
    if look.shading == "cel":
        picture *= 1 - CEL_DARKNESS * _softened(_shadow(regions))[..., None]
    elif look.shading == "soft":
        picture *= _light(len(regions))[..., None]
    if look.palette != "plain":
        picture = PALETTE_MAPS[look.palette](picture, regions)
    finished: Pixels = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    return finished


def _shadow(regions: Pixels) -> NDArray[np.bool_]:
    """Where cel shading darkens: right edges of hair, hat and outfit, and the face under hair."""
    unit = len(regions) / UNIT
    body = SOLIDS[regions]
    right = _moved(body, -round(6 * unit), -round(2 * unit))
    above = _moved(body, round(2 * unit), round(5 * unit))
    own = np.isin(body, (_HAIR, _OUTFIT, _HAT)) & (right != body)
    cast = (body == _SKIN) & np.isin(above, (_HAIR, _HAT))
    edge = (body == _SKIN) & np.isin(right, (_HAIR, REGIONS["background"]))
    shadow: NDArray[np.bool_] = own | cast | edge
    return shadow


def _moved(body: Pixels, dx: int, dy: int) -> Pixels:
    """Move the map by whole pixels, repeating its border."""
    size = len(body)
    rows = np.clip(np.arange(size) - dy, 0, size - 1)
    columns = np.clip(np.arange(size) - dx, 0, size - 1)
    moved: Pixels = body[rows[:, None], columns]
    return moved


def _softened(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    blurred = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(0.7))
    return np.asarray(blurred, np.float32) / np.float32(255)


@functools.cache
def _light(size: int) -> NDArray[np.float32]:
    """Light from the upper left: 1.18 there, 0.55 in the lower right corner."""
    t = np.linspace(0, 1, size, dtype=np.float32)
    across = 0.65 * t[None, :] + 0.35 * t[:, None]
    light: NDArray[np.float32] = (1.18 - 0.63 * across).astype(np.float32)
    return light


def _pastel(picture: Picture, regions: Pixels) -> Picture:
    mapped: Picture = picture * np.float32(0.55) + np.float32(0.45 * 255)
    return mapped


def _sepia(picture: Picture, regions: Pixels) -> Picture:
    mapped: Picture = (picture @ LUMA)[..., None] * SEPIA
    return mapped


def _neon(picture: Picture, regions: Pixels) -> Picture:
    grey = (picture @ LUMA)[..., None]
    dark = _softened(regions == REGIONS["background"])[..., None]
    mapped: Picture = (grey + 1.9 * (picture - grey)) * (1 - 0.7 * dark)
    return mapped


PALETTE_MAPS: dict[str, Callable[[Picture, Pixels], Picture]] = {
    "pastel": _pastel,
    "sepia": _sepia,
    "neon": _neon,
}
