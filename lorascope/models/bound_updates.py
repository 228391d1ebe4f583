"""Updates that only the base model's weight can tell: IA3, OFT, BOFT, GLoRA, as of LyCORIS."""

import math
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]


@runtime_checkable
class BoundModule(Protocol):
    """What is needed of such a module (`lorascope.io.lora_file.BaseBoundModule`)."""

    @property
    def kind(self) -> str:
        """IA3, OFT, BOFT or GLoRA."""

    @property
    def parts(self) -> Mapping[str, Floats]:
        """The file's tensors, by their own ending."""

    @property
    def alpha(self) -> float:
        """Training constant; 0 where the file has none."""


def merge(module: BoundModule, whole: Tensor, strength: float) -> Tensor:
    """Give a weight with the module in it.

    Parameters
    ----------
    module : BaseBoundModule
    whole : float32 tensor
        The base model's weight; may be overwritten.
    strength : float
        Not 0.

    Returns
    -------
    float32 tensor, shaped like ``whole``
    """
    parts = {name: torch.from_numpy(values.copy()) for name, values in module.parts.items()}
    parts = {name: values.to(whole.device) for name, values in parts.items()}
    return _MERGES[module.kind](parts, whole, module.alpha, strength)


def misfit(module: BoundModule, weight: tuple[int, ...]) -> bool:
    """Tell whether a module cannot belong to a weight of this shape."""
    return len(weight) < 2 or not _FITS[module.kind](module.parts, weight)


def _ia3(parts: Mapping[str, Tensor], whole: Tensor, alpha: float, strength: float) -> Tensor:
    """Scale the rows, or the columns, by 1 + strength x weight."""
    on_input = bool(parts["on_input"].reshape(-1)[0])
    shape = [1] * whole.ndim
    shape[1 if on_input else 0] = -1
    return whole.mul_(1.0 + strength * parts["weight"].reshape(shape))


def _oft(parts: Mapping[str, Tensor], whole: Tensor, alpha: float, strength: float) -> Tensor:
    """Rotate the rows within blocks, a part of the way."""
    turns = _rotations(parts["oft_blocks"], alpha * len(whole))
    count, side, _ = turns.shape
    blocks = whole.view(count, side, -1)
    turned = whole + strength * (turns.transpose(1, 2) @ blocks - blocks).view(whole.shape)
    return _rescaled(parts, turned, strength)


def _boft(parts: Mapping[str, Tensor], whole: Tensor, alpha: float, strength: float) -> Tensor:
    """Rotate the rows in stages, each over pairs twice as far apart, each a part of the way."""
    stages = _rotations(parts["oft_blocks"], alpha * len(whole))
    side = stages.shape[-1]
    eye = torch.eye(side, device=whole.device)
    turned = whole.reshape(len(whole), -1)
    for stage, blocks in enumerate(stages):
        apart = 2**stage * (side // 2)
        mixed = turned.view(-1, 2, apart, turned.shape[1]).transpose(1, 2)
        mixed = mixed.reshape(-1, side, turned.shape[1])
        mixed = torch.lerp(eye, blocks, strength) @ mixed
        turned = mixed.view(-1, apart, 2, turned.shape[1]).transpose(1, 2).reshape(turned.shape)
    return _rescaled(parts, turned.view(whole.shape), strength)


def _glora(parts: Mapping[str, Tensor], whole: Tensor, alpha: float, strength: float) -> Tensor:
    """Add strength x scale x (W @ a1 @ a2 + b1 @ b2)."""
    a1, a2, b1 = (parts[name].flatten(1) for name in ("a1", "a2", "b1"))
    rank = a1.shape[1]
    change = torch.einsum("oi...,ij->oj...", whole, a1 @ a2)
    if "bm" in parts:
        own = torch.einsum("mn...,im,nj->ij...", parts["bm"], b1, parts["b2"].flatten(1))
    else:
        own = b1 @ parts["b2"].flatten(1)
    factor = strength * (alpha or rank) / rank
    if "scalar" in parts:
        factor *= float(parts["scalar"].reshape(-1)[0])
    return whole + factor * (change + own.reshape(whole.shape))


def _rotations(blocks: Tensor, limit: float) -> Tensor:
    """Make rotations of the stored blocks (Cayley), their angles held within a limit."""
    skew = blocks - blocks.transpose(-1, -2)
    size = torch.linalg.vector_norm(skew) + 1e-8
    if 0.0 < limit < float(size):
        skew = skew * (limit / size)
    eye = torch.eye(blocks.shape[-1], device=blocks.device)
    return torch.linalg.solve(eye - skew, eye + skew, left=False)


def _rescaled(parts: Mapping[str, Tensor], turned: Tensor, strength: float) -> Tensor:
    if "rescale" not in parts:
        return turned
    rows = parts["rescale"].reshape(-1, *(1 for _ in turned.shape[1:]))
    return turned * (1.0 + strength * (rows - 1.0))


def _fits_ia3(parts: Mapping[str, Floats], weight: tuple[int, ...]) -> bool:
    on_input = bool(parts["on_input"].reshape(-1)[0])
    return parts["weight"].size == weight[1 if on_input else 0]


def _fits_blocks(parts: Mapping[str, Floats], weight: tuple[int, ...]) -> bool:
    *stages, count, side, _ = parts["oft_blocks"].shape
    if stages and (side % 2 or weight[0] % (2 ** stages[0] * (side // 2))):
        return False
    rescale = parts.get("rescale")
    return count * side == weight[0] and (rescale is None or rescale.size == weight[0])


def _fits_glora(parts: Mapping[str, Floats], weight: tuple[int, ...]) -> bool:
    kernel = math.prod(weight[2:])
    a1, a2, b1, b2 = (parts[name].shape for name in ("a1", "a2", "b1", "b2"))
    if min(map(len, (a1, a2, b1, b2))) < 2:
        return False
    rank = a1[1]
    sizes = [math.prod(shape) for shape in (a1, a2, b1)]
    wanted = [weight[1] * rank, rank * weight[1], weight[0] * b1[1]]
    if sizes != wanted or (len(a1) and a1[0] != weight[1]) or a2[0] != rank or b1[0] != weight[0]:
        return False
    if "bm" not in parts:
        return b2[0] == b1[1] and math.prod(b2) == b1[1] * weight[1] * kernel
    return parts["bm"].shape == (b1[1], b2[0], *weight[2:]) and math.prod(b2) == b2[0] * weight[1]


_MERGES = {"IA3": _ia3, "OFT": _oft, "BOFT": _boft, "GLoRA": _glora}
_FITS = {"IA3": _fits_ia3, "OFT": _fits_blocks, "BOFT": _fits_blocks, "GLoRA": _fits_glora}
KINDS = frozenset(_MERGES)
