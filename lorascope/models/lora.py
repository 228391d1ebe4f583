"""A LoRA merged into the base model, exactly, and taken out again bit for bit.

Every weight that a LoRA touches is copied once; each merge starts from that copy, never from the
weights as they stand, so that nothing drifts over any number of swaps.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lorascope.errors import BadInputError
from lorascope.models import bound_updates
from lorascope.models.base import Base
from lorascope.models.bound_updates import BoundModule
from lorascope.models.sources import FAMILIES

Floats = NDArray[np.float32]
Target = tuple[nn.Module, str]  # a layer, and which of its parameters

CROSS = {768: "sd1", 1024: "sd2", 2048: "sdxl"}  # width of the text that cross attention reads
PIECE = 2**18  # entries of a weight that are merged at once
BIAS = ".bias"  # after a layer's name: its bias
NUMBERED = ("unet:", "text_encoder:")  # modules of a file that numbers and does not name them


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


class Lora(Protocol):
    """What is needed of a LoRA (`lorascope.io.lora_file.LoraFile`)."""

    @property
    def path(self) -> Path:
        """Where it was read."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """What its trainer wrote."""

    @property
    def modules(self) -> Mapping[str, Module]:
        """By name."""

    @property
    def bound(self) -> Mapping[str, BoundModule]:
        """By name: modules whose update depends on the base model's weight."""

    @property
    def unsupported(self) -> tuple[str, ...]:
        """What nobody can read."""


class LoraMismatchError(BadInputError):
    """The LoRA was made for another base model."""


class Merger:
    """Puts LoRAs into a base model, one at a time.

    Several mergers of one base model may be used in turn: the copies belong to the base model.

    Parameters
    ----------
    base : Base
    """

    def __init__(self, base: Base) -> None:
        self.base = base
        self.targets = parameters(base)

    @torch.no_grad()
    def apply(
        self, lora: Lora | None, *, strength: float = 1.0, text_strength: float | None = None
    ) -> None:
        """Set every weight to W0 + strength x its update; W0 where the LoRA has none.

        Parameters
        ----------
        lora : LoraFile or None
            None gives the base model back.
        strength : float
            At 0 the weights are the base model's own, bit for bit.
        text_strength : float, optional
            Another strength for the text encoders.

        Raises
        ------
        LoraMismatchError
            The LoRA was made for another model; nothing was changed.
        BadInputError
            It has modules that cannot be merged; nothing was changed.
        """
        modules: dict[str, Module | BoundModule] = {}
        if lora is not None:
            check_fits(self.base, lora, self.targets)
            modules = {**lora.modules, **lora.bound}
        text = strength if text_strength is None else text_strength
        for name in self.base.originals.keys() - modules.keys():
            _parameter(self.targets[name]).copy_(self.base.originals[name])
        for name, module in modules.items():
            weight = _parameter(self.targets[name])
            if name not in self.base.originals:
                self.base.originals[name] = weight.detach().clone()
            factor = strength if name.startswith("lora_unet_") else text
            original = self.base.originals[name]
            if factor == 0.0:
                weight.copy_(original)
            else:
                _merge_into(weight, module, original, factor)

    def restore(self) -> None:
        """Give the base model back, bit for bit."""
        self.apply(None)


@contextmanager
def merged(
    base: Base, lora: Lora | None, *, strength: float = 1.0, text_strength: float | None = None
) -> Iterator[Base]:
    """Have a LoRA in the base model inside this context, and the plain base model after it.

    Raises
    ------
    LoraMismatchError, BadInputError
        As for `Merger.apply`.
    """
    merger = Merger(base)
    merger.apply(lora, strength=strength, text_strength=text_strength)
    try:
        yield base
    finally:
        merger.restore()


def module_names(base: Base) -> dict[str, nn.Module]:
    """List the layers that a LoRA can adapt (linear and convolutional), by kohya's names.

    ``text_model`` is spelt out in them also where CLIP's text model has lost that layer.
    """
    return _named(base, (nn.Linear, nn.Conv2d))


def parameters(base: Base) -> dict[str, Target]:
    """List what a LoRA can change: the weights of layers and norms by name, and their biases.

    Returns
    -------
    dict of str to (layer, name of the parameter)
        A bias has its layer's name and ``.bias``.
    """
    found: dict[str, Target] = {}
    for name, layer in _named(base, (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.GroupNorm)).items():
        for attribute, key in (("weight", name), ("bias", name + BIAS)):
            if getattr(layer, attribute, None) is not None:
                found[key] = (layer, attribute)
    return found


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


def check_fits(base: Base, lora: Lora, targets: Mapping[str, Target] | None = None) -> None:
    """Refuse a LoRA that cannot be merged into this base model.

    Raises
    ------
    LoraMismatchError
        Names or shapes do not fit.
    BadInputError
        It has modules of a network type that nobody here can merge, or that have no names.
    """
    targets = parameters(base) if targets is None else targets
    _refuse_unknown(lora)
    modules: dict[str, Module | BoundModule] = {**lora.modules, **lora.bound}
    strangers = [name for name in modules if name not in targets]
    shapes = [
        name
        for name, module in modules.items()
        if name in targets and _misfit(module, tuple(_parameter(targets[name]).shape))
    ]
    if not strangers and not shapes:
        return
    made_for, here = architecture(lora), FAMILIES[base.family]
    if made_for not in ("", here):
        why = f"it was made for {made_for}; the base model {base.name} is {here}"
    elif strangers:
        why = (
            f"the base model {base.name} ({here}) lacks {len(strangers)} of its "
            f"{len(modules)} modules, such as {strangers[0]}"
        )
    else:
        weight = tuple(_parameter(targets[shapes[0]]).shape)
        why = (
            f"it was made for a model of other sizes: {shapes[0]} is "
            f"{_sizes(modules[shapes[0]])}, and the weight in {base.name} ({here}) is {weight}"
        )
    raise LoraMismatchError(
        f"{lora.path} does not fit: {why}.\nFix: name the base model it was trained on."
    )


def architecture(lora: Lora) -> str:
    """Say for which architecture a LoRA was made; "" where it does not tell.

    Returns
    -------
    str
        ``SD 1.x``, ``SD 2.x``, ``SDXL`` or "".
    """
    names = lora.modules.keys()
    if any(name.startswith("lora_te2_") for name in names):
        return FAMILIES["sdxl"]
    widths = {
        module.size[1]
        for name, module in lora.modules.items()
        if name.startswith("lora_unet_") and name.endswith(("attn2_to_k", "attn2_to_v"))
    }
    if len(widths) == 1 and (family := CROSS.get(widths.pop())):
        return FAMILIES[family]
    stated = lora.metadata.get("ss_base_model_version", "").lower()
    for start, family in (("sdxl", "sdxl"), ("sd_v2", "sd2"), ("sd_v1", "sd1")):
        if stated.startswith(start):
            return FAMILIES[family]
    return ""


def _named(base: Base, types: tuple[type[nn.Module], ...]) -> dict[str, nn.Module]:
    found = _named_layers(base.unet, "lora_unet", "", types)
    two = len(base.text_encoders) > 1
    for number, encoder in enumerate(base.text_encoders, start=1):
        prefix = f"lora_te{number}" if two else "lora_te"
        flat = not hasattr(encoder, "text_model")
        found |= _named_layers(encoder, prefix, "text_model_" if flat else "", types)
    return found


def _named_layers(
    model: nn.Module, prefix: str, inserted: str, types: tuple[type[nn.Module], ...]
) -> dict[str, nn.Module]:
    return {
        f"{prefix}_{inserted}{path.replace('.', '_')}": layer
        for path, layer in model.named_modules()
        if isinstance(layer, types)
    }


def _parameter(target: Target) -> Tensor:
    found: Tensor = getattr(*target)
    return found


def _refuse_unknown(lora: Lora) -> None:
    if lora.unsupported:
        raise BadInputError(
            f"{lora.path} has {len(lora.unsupported)} modules that lorascope cannot merge, "
            f"such as {lora.unsupported[0]}.\nFix: use a LoRA of another network type."
        )
    for name, module in lora.bound.items():
        if module.kind not in bound_updates.KINDS:
            raise BadInputError(
                f"{lora.path} has modules that lorascope cannot merge, such as {name} "
                f"({module.kind}).\nFix: use a LoRA of another network type."
            )
    if numbered := next((name for name in lora.modules if name.startswith(NUMBERED)), None):
        raise BadInputError(
            f"{lora.path} numbers its modules ({numbered}) and does not say which layers they "
            "belong to.\nFix: convert it with the program that made it."
        )


def _misfit(module: Module | BoundModule, weight: tuple[int, ...]) -> bool:
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


def _sizes(module: Module | BoundModule) -> str:
    if isinstance(module, BoundModule):
        return ", ".join(f"{part} {values.shape}" for part, values in module.parts.items())
    down = "" if module.down is None else f" and down {module.down.shape}"
    left = "" if module.left is None else f" and left {module.left.shape}"
    return f"up {module.up.shape}{down}{left}"


def _merge_into(
    weight: Tensor, module: Module | BoundModule, original: Tensor, strength: float
) -> None:
    """Set a weight to original + strength x update, rounded once.

    A plain LoRA goes in pieces of rows that stay in the processor's cache: twice as fast.
    """
    if isinstance(module, BoundModule) or not _is_plain(module) or weight.device.type != "cpu":
        weight.copy_(_merge(module, original, strength))
        return
    assert module.down is not None
    up = _tensor(module.up, weight.device).flatten(1)
    down = _tensor(module.down, weight.device).flatten(1)
    rows = max(PIECE // down.shape[1], 1)
    for start in range(0, len(up), rows):
        piece = original[start : start + rows]
        whole = _single(piece)
        whole.flatten(1).addmm_(up[start : start + rows], down, alpha=strength * module.scale)
        weight[start : start + rows].copy_(whole)


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
        down = _tensor(module.down, whole.device).flatten(1)
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


def _tensor(values: Floats, device: torch.device) -> Tensor:
    """Share an array's memory with torch where that is possible."""
    owned = values if values.flags.writeable else values.copy()
    return torch.from_numpy(owned).to(device)
