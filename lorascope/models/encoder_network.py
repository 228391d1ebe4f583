"""A network that describes pictures: made ready, asked in batches, every answer of length 1."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from lorascope.models.encoder_files import Preparation

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

BATCH = 32
DAMAGE = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError)


class Encoder(Protocol):
    """What turns pictures into features."""

    name: str  # says which weights, for whoever keeps what was computed

    def images(self, pictures: Sequence[Pixels]) -> Floats:
        """Describe (H, W, 3) pictures of any sizes: (N, F) float32, every row of length 1."""
        ...


class Network:
    """A network that sees pictures of one size.

    Parameters
    ----------
    name : str
        Of the network and its weights.
    run : callable
        Turns (N, 3, h, w) float32 into (N, F).
    preparation : Preparation
        How pictures are made ready for it.
    device : torch.device
    lower : bool
        Whether it may be computed in bfloat16.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Tensor], Tensor],
        preparation: Preparation,
        device: torch.device,
        *,
        lower: bool = False,
    ) -> None:
        self.name = name
        self.lower = lower and _has_bfloat16(device)
        self.preparation = preparation
        self.device = device
        self._run = run

    @torch.inference_mode()
    def images(self, pictures: Sequence[Pixels]) -> Floats:
        """Describe (H, W, 3) pictures of any sizes: (N, F) float32, every row of length 1."""
        found = []
        for start in range(0, len(pictures), BATCH):
            ready = [prepared(p, self.preparation) for p in pictures[start : start + BATCH]]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.lower):
                features = self._run(torch.from_numpy(np.stack(ready)).to(self.device))
            found.append(features.float().reshape(len(ready), -1).cpu().numpy())
        return in_one(found)


def prepared(picture: Pixels, how: Preparation) -> Floats:
    """Resize a picture, take its middle and scale its colours.

    Parameters
    ----------
    picture : (H, W, 3) uint8 array
    how : Preparation

    Returns
    -------
    (3, h, w) float32 array
    """
    opened = Image.fromarray(np.ascontiguousarray(picture))
    height, width = how.size
    if how.edge == 0:
        opened = opened.resize((width, height), Image.Resampling(how.resample))
    else:
        short = min(opened.size)
        wide, high = (max(how.edge, how.edge * side // short) for side in opened.size)
        opened = opened.resize((wide, high), Image.Resampling(how.resample))
        left, top = (wide - width) // 2, (high - height) // 2
        opened = opened.crop((left, top, left + width, top + height))
    values = np.asarray(opened, dtype=np.float32) / 255
    mean, std = (np.array(numbers, dtype=np.float32) for numbers in (how.mean, how.std))
    scaled = (values - mean) / std
    return np.ascontiguousarray(scaled.transpose(2, 0, 1), dtype=np.float32)


def _has_bfloat16(device: torch.device) -> bool:
    """Tell whether the machine has it in hardware; elsewhere it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return asked is not None and bool(asked())


def in_one(parts: Sequence[Floats]) -> Floats:
    """Put batches of features together, and give every row the length 1."""
    if not parts:
        return np.zeros((0, 0), dtype=np.float32)
    features = np.concatenate(parts)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(length > 0, length, 1.0), dtype=np.float32)
