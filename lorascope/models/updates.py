"""What one module of a LoRA does to one weight of the base model: pure arithmetic in float32."""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorascope.models import bound_updates
from lorascope.models.bound_updates import BoundModule

Floats = NDArray[np.float32]

PIECE = 2**18  # entries of a weight that are merged at once


class Module(Protocol):
    """What is needed of one module of a LoRA (`lorascope.io.lora_file.LoraModule`)."""

    @property
    def down(self) -> Floats | None:
        """(rank, in[, kh, kw]); None: ``up`` is the whole update."""

    @property
    def up(self) -> Floats:
        """(out, rank[, 1, 1])."""

    @property
    def left(self) -> Floats | None:
        """The left Kronecker factor (a, b)."""

    @property
    def magnitude(self) -> Floats | None:
        """DoRA's norms: of the rows, or (1, in, ...) of the columns."""

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the whole update."""

    @property
    def scale(self) -> float:
        """Alpha / rank."""


Update = tuple[Module | BoundModule, float]  # and its strength


@torch.no_grad()
def delta(module: Module | BoundModule, weight: Tensor, *, strength: float = 1.0) -> Tensor:
    """Compute how a module changes a base model's weight.

    Parameters
    ----------
    module : LoraModule or BaseBoundModule
    weight : Tensor
        The base model's own.
    strength : float

    Returns
    -------
    float32 tensor, shaped like ``weight``
    """
    if strength == 0.0:
        return torch.zeros_like(weight, dtype=torch.float32)
    return _merge(module, weight, strength) - weight.float()


def misfit(module: Module | BoundModule, weight: tuple[int, ...]) -> bool:
    """Tell whether a module's update cannot be added to a weight of this shape."""
    if isinstance(module, BoundModule):
        return bound_updates.misfit(module, weight)
    last = module.up if module.down is None else module.down
    if module.size != (weight[0], math.prod(weight[1:])):
        return True
    kernel, wanted = last.shape[2:], weight[2:] or (1, 1)
    if len(kernel) not in (0, 2) or (kernel and kernel != wanted):
        return True
    magnitude = module.magnitude
    return magnitude is not None and _norms_of(magnitude, weight) is None


def sizes(module: Module | BoundModule) -> str:
    """Name the shapes of a module's parts."""
    if isinstance(module, BoundModule):
        return ", ".join(f"{part} {values.shape}" for part, values in module.parts.items())
    down = "" if module.down is None else f" and down {module.down.shape}"
    left = "" if module.left is None else f" and left {module.left.shape}"
    return f"up {module.up.shape}{down}{left}"


def merge_into(weight: Tensor, original: Tensor, updates: Sequence[Update]) -> None:
    """Set a weight to original + the sum of strength x update, rounded once.

    Each update is computed from the original weight, also those that depend on it (DoRA, IA3, OFT,
    BOFT, GLoRA): their order plays no part beyond rounding. Plain LoRAs go in pieces of rows that
    stay in the processor's cache: twice as fast.

    Parameters
    ----------
    weight : Tensor
        Written.
    original : Tensor, shaped like ``weight``
    updates : sequence of (module, strength)
        At least one, none of strength 0.
    """
    plain = [(m, s) for m, s in updates if not isinstance(m, BoundModule) and _is_plain(m)]
    if len(plain) < len(updates) or weight.device.type != "cpu":
        weight.copy_(_summed(original, updates))
        return
    factors = [
        (_tensor(m.up, weight.device).flatten(1), _down(m, weight.device), s * m.scale)
        for m, s in plain
    ]
    rows = max(PIECE // factors[0][1].shape[1], 1)
    for start in range(0, len(original), rows):
        whole = _single(original[start : start + rows])
        for up, down, factor in factors:
            whole.flatten(1).addmm_(up[start : start + rows], down, alpha=factor)
        weight[start : start + rows].copy_(whole)


def _summed(original: Tensor, updates: Sequence[Update]) -> Tensor:
    (module, strength), *others = updates
    whole = _merge(module, original, strength)
    for module, strength in others:
        if isinstance(module, BoundModule) or module.magnitude is not None:
            whole += _merge(module, original, strength) - original.float()
        else:
            _add_update(module, whole, strength)
    return whole


def _is_plain(module: Module) -> bool:
    return module.down is not None and module.left is None and module.magnitude is None


def _merge(module: Module | BoundModule, original: Tensor, strength: float) -> Tensor:
    """Give original + strength x update, float32, shaped like the original."""
    whole = _single(original)
    if isinstance(module, BoundModule):
        return bound_updates.merge(module, whole, strength)
    if module.magnitude is not None:
        return _decomposed(module, whole, strength)
    _add_update(module, whole, strength)
    return whole


def _single(values: Tensor) -> Tensor:
    """Copy to float32, rows after rows whatever the order in memory was."""
    return values.to(torch.float32, copy=True, memory_format=torch.contiguous_format)


def _add_update(module: Module, whole: Tensor, strength: float) -> None:
    """Add strength x scale x left (x) (up @ down), in place."""
    up = _tensor(module.up, whole.device)
    flat = whole.view(len(whole), -1)
    factor = strength * module.scale
    if module.down is None and module.left is None:
        flat.add_(up.reshape(flat.shape), alpha=factor)
        return
    right = up.reshape(len(up), -1)
    if module.down is not None:
        down = _down(module, whole.device)
        if module.left is None:
            flat.addmm_(right, down, alpha=factor)
            return
        right = right @ down
    assert module.left is not None
    flat.add_(torch.kron(_tensor(module.left, whole.device), right), alpha=factor)


def _decomposed(module: Module, whole: Tensor, strength: float) -> Tensor:
    """Give W0 + strength x (W_dora - W0): the sum's rows or columns brought to stored norms."""
    assert module.magnitude is not None
    original = whole.clone()
    _add_update(module, whole, 1.0)
    magnitude = _tensor(module.magnitude, whole.device)
    norms = _norms_of(module.magnitude, tuple(whole.shape))
    over = tuple(axis for axis in range(whole.ndim) if axis != norms)
    sizes = torch.linalg.vector_norm(whole, dim=over, keepdim=True)
    whole.mul_(magnitude.reshape(sizes.shape) / (sizes + torch.finfo(torch.float32).eps))
    return whole if strength == 1.0 else torch.lerp(original, whole, strength)


def _norms_of(magnitude: Floats, weight: tuple[int, ...]) -> int | None:
    """Say which axis the stored norms belong to: 0 the rows, 1 the columns; None: neither."""
    shape = magnitude.shape
    if len(weight) < 2:
        return None
    if len(shape) > 1 and shape[0] == 1 and shape[1] == magnitude.size == weight[1]:
        return 1
    return 0 if magnitude.size == weight[0] == shape[0] else None


def _down(module: Module, device: torch.device) -> Tensor:
    assert module.down is not None
    return _tensor(module.down, device).flatten(1)


def _tensor(values: Floats, device: torch.device) -> Tensor:
    """Share an array's memory with torch where that is possible."""
    owned = values if values.flags.writeable else values.copy()
    return torch.from_numpy(owned).to(device)
