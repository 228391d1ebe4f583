"""Features that need no network but the base model: what its UNet sees, or its VAE alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from lorascope.io.images import resize_crop
from lorascope.metrics.similarity import LEVELS, layout

if TYPE_CHECKING:
    from lorascope.models.base import Base

Pixels = NDArray[np.uint8]
Features = NDArray[np.float32]
Floats = NDArray[np.float64]

# What finds a subject best, as measured (`benchmarks/results/likeness.json`): the middle block
# rather than the fine one, and without layout; the timestep and the number of noises hardly matter.
TIMESTEP = 0.261  # share of the training timesteps
NOISES = 2
UNET_LEVELS = (1,)  # of `similarity.layout`: what is seen counts, not where
LONGEST_PX = 768  # the longer side that pictures are shown to a UNet at, at most
LATENTS_PX = 512  # the longer side that they are shown to the VAE alone at
AT_ONCE = 16  # pictures


class Encoder(Protocol):
    """What describes pictures by numbers."""

    @property
    def name(self) -> str:
        """Everything that decides the numbers but the picture."""

    def images(self, pictures: Sequence[Pixels]) -> Features:
        """Describe pictures, (H, W, 3) uint8 each, as rows of (N, F) float32."""


@dataclass(frozen=True, eq=False, kw_only=True)
class BaseEncoder:
    """The UNet of the base model, asked without a prompt.

    Attributes
    ----------
    base : Base
        Without any LoRA: what a LoRA changes must not judge it.
    digest : str
        Of the base model's bytes.
    timestep, block, noises, seed
        As for `seen_by_unet`; the block is the middle one where unset.
    levels : sequence of int
        Of `similarity.layout`.
    """

    base: "Base"
    digest: str
    timestep: float = TIMESTEP
    block: int | None = None
    noises: int = NOISES
    levels: tuple[int, ...] = UNET_LEVELS
    seed: int = 0

    @property
    def name(self) -> str:
        """Everything that decides the numbers but the picture."""
        levels = "".join(map(str, self.levels))
        dtype = str(self.base.compute_dtype).removeprefix("torch.")
        return (
            f"base-{self.digest[:16]}-t{self.timestep:g}-b{self._place}-n{self.noises}"
            f"-l{levels}-s{self.seed}-{dtype}-1"
        )

    def images(self, pictures: Sequence[Pixels]) -> Features:
        """Describe pictures, (H, W, 3) uint8 each, as rows of (N, F) float32."""
        return _by_size(pictures, self._size, self._describe)

    @property
    def _place(self) -> int:
        from lorascope.models.features import middle_block

        return middle_block(self.base) if self.block is None else self.block

    def _size(self, picture: Pixels) -> tuple[int, int]:
        """Choose the size to show a picture at: the UNet halves it without a rest."""
        blocks = len(self.base.unet.up_blocks)
        unit = self.base.pixels_per_latent * 2 ** (blocks - 1)
        cells = 2 ** min(self._place + 1, blocks - 1)  # of the block's maps, in a unit
        least = -(-max(self.levels) // cells)
        return _scaled(picture, min(self.base.size, LONGEST_PX), unit=unit, least=least)

    def _describe(self, pictures: Pixels) -> Floats:
        from lorascope.models.features import seen_by_unet

        maps = seen_by_unet(
            self.base,
            pictures,
            timestep=self.timestep,
            block=self._place,
            noises=self.noises,
            seed=self.seed,
        )
        return layout(maps, levels=self.levels)


@dataclass(frozen=True, eq=False, kw_only=True)
class LatentEncoder:
    """The layout of the VAE's latents: colours and shading, and where they lie."""

    base: "Base"
    digest: str

    @property
    def name(self) -> str:
        """Everything that decides the numbers but the picture."""
        return f"latents-{self.digest[:16]}-1"

    def images(self, pictures: Sequence[Pixels]) -> Features:
        """Describe pictures, (H, W, 3) uint8 each, as rows of (N, F) float32."""
        unit = self.base.pixels_per_latent
        return _by_size(
            pictures,
            lambda picture: _scaled(picture, LATENTS_PX, unit=unit, least=max(LEVELS)),
            lambda several: layout(self.base.encode_images(several).cpu().numpy()),
        )


def _by_size(
    pictures: Sequence[Pixels],
    size: Callable[[Pixels], tuple[int, int]],
    describe: Callable[[Pixels], Floats],
) -> Features:
    """Describe pictures in batches of one size, each scaled to the size it is shown at."""
    groups: dict[tuple[int, int], list[int]] = {}
    for place, picture in enumerate(pictures):
        groups.setdefault(size(picture), []).append(place)
    found: dict[int, Features] = {}
    for (width, height), places in groups.items():
        for start in range(0, len(places), AT_ONCE):
            some = places[start : start + AT_ONCE]
            batch = np.stack([resize_crop(pictures[place], width, height) for place in some])
            found |= zip(some, describe(batch).astype(np.float32), strict=True)
    return np.stack([found[place] for place in range(len(pictures))])


def _scaled(picture: Pixels, longest: int, *, unit: int, least: int) -> tuple[int, int]:
    """Width and height in whole units, the longer side at most ``longest`` px if it can be."""
    height, width = picture.shape[:2]
    share = min(1.0, longest / max(height, width))
    width, height = (max(least, round(side * share / unit)) * unit for side in (width, height))
    return width, height
