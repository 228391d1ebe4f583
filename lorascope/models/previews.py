"""Latents as small pictures, without the VAE: one straight map from channels to colours.

A latent's channels are nearly a linear code of the colours under them. The map is fitted on the
spot, to latents whose pictures are known, so that it serves any VAE with any number of channels;
nothing here needs torch.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import ShapeError

Floats = NDArray[np.float64]

RIDGE = 1e-4  # of the channels' mean square: keeps channels that say the same apart


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Preview:
    """A linear map from latents to RGB.

    Attributes
    ----------
    weights : (C, 3) array
    offset : (3,) array
        In grey levels.
    explained : float
        Share of the known pictures' variance that it gives back, at the latents' resolution.
    """

    weights: Floats
    offset: Floats
    explained: float

    @classmethod
    def fitted(cls, latents: list[Floats], pictures: list[NDArray[np.uint8]]) -> "Preview":
        """Fit the map by least squares.

        Parameters
        ----------
        latents : list of (C, h, w) arrays
        pictures : list of (H, W, 3) uint8 arrays
            What each shows; H and W are whole multiples of h and w.

        Raises
        ------
        ShapeError
            There is none, or sizes do not fit.
        """
        if not latents or len(latents) != len(pictures):
            raise ShapeError(f"{len(latents)} latents and {len(pictures)} pictures: one each.")
        codes = np.concatenate([latent.reshape(len(latent), -1).T for latent in latents])
        colours = np.concatenate(
            [
                _pooled(picture, latent.shape[1:]).reshape(-1, 3)
                for latent, picture in zip(latents, pictures, strict=True)
            ]
        )
        middle, mean = codes.mean(axis=0), colours.mean(axis=0)
        centred, wanted = codes - middle, colours - mean
        square = centred.T @ centred
        square += np.eye(len(square)) * max(RIDGE * np.trace(square) / len(square), 1e-12)
        weights = np.linalg.solve(square, centred.T @ wanted)
        left, whole = ((wanted - centred @ weights) ** 2).sum(), (wanted**2).sum()
        explained = 1.0 - float(left / whole) if whole > 0 else 1.0
        return cls(weights=weights, offset=mean - middle @ weights, explained=explained)

    def picture(self, latent: Floats) -> NDArray[np.uint8]:
        """Show a (C, h, w) latent as an (h, w, 3) picture, clipped as a decoder's would be."""
        colours = np.tensordot(latent, self.weights, axes=(0, 0)) + self.offset
        return np.nan_to_num(colours, nan=0.0).clip(0, 255).round().astype(np.uint8)


def _pooled(picture: NDArray[np.uint8], size: tuple[int, ...]) -> Floats:
    """Average a picture over the fields that its latent's cells cover."""
    (height, width), (down, across) = picture.shape[:2], size
    if height % down or width % across or height < down or width < across:
        raise ShapeError(
            f"A picture of {width} x {height} px does not fit a latent of {across} x {down}."
        )
    fields = picture.reshape(down, height // down, across, width // across, 3)
    return np.asarray(fields.astype(np.float64).mean(axis=(1, 3)))
