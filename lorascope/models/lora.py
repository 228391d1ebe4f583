"""A LoRA merged into the base model, exactly, and taken out again bit for bit.

Every weight that a LoRA touches is copied once; each merge starts from that copy, never from the
weights as they stand, so that nothing drifts over any number of swaps.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lorascope.errors import BadInputError
from lorascope.models.base import Base
from lorascope.models.sources import FAMILIES

Floats = NDArray[np.float32]

CROSS = {768: "sd1", 1024: "sd2", 2048: "sdxl"}  # width of the text that cross attention reads


class Module(Protocol):
    """What is needed of one module of a LoRA (`lorascope.io.lora_file.LoraModule`)."""

    @property
    def down(self) -> Floats:
        """(rank, in[, kh, kw])."""

    @property
    def up(self) -> Floats:
        """(out, rank[, 1, 1])."""

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
    def unsupported(self) -> tuple[str, ...]:
        """Modules of other network types."""


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
        self.targets = module_names(base)

    @torch.no_grad()
    def apply(
        self, lora: Lora | None, *, strength: float = 1.0, text_strength: float | None = None
    ) -> None:
        """Set every weight to W0 + strength x scale x up @ down; W0 where the LoRA has none.

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
            It has modules that cannot be merged (LoHa, LoKr, DoRA); nothing was changed.
        """
        modules = lora.modules if lora is not None else {}
        if lora is not None:
            check_fits(self.base, lora, self.targets)
        text = strength if text_strength is None else text_strength
        for name in self.base.originals.keys() - modules.keys():
            self._set(name, None)
        for name, module in modules.items():
            factor = (strength if name.startswith("lora_unet_") else text) * module.scale
            if name not in self.base.originals:
                self.base.originals[name] = _weight(self.targets[name]).detach().clone()
            self._set(name, None if factor == 0.0 else _delta(module, factor, self.base.device))

    def restore(self) -> None:
        """Give the base model back, bit for bit."""
        self.apply(None)

    def _set(self, name: str, delta: Tensor | None) -> None:
        weight, original = _weight(self.targets[name]), self.base.originals[name]
        if delta is None:
            weight.copy_(original)
        else:
            weight.copy_(original.float() + delta.reshape(original.shape))


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
    found = _named_layers(base.unet, "lora_unet", "")
    two = len(base.text_encoders) > 1
    for number, encoder in enumerate(base.text_encoders, start=1):
        prefix = f"lora_te{number}" if two else "lora_te"
        flat = not hasattr(encoder, "text_model")
        found |= _named_layers(encoder, prefix, "text_model_" if flat else "")
    return found


def check_fits(base: Base, lora: Lora, targets: Mapping[str, nn.Module] | None = None) -> None:
    """Refuse a LoRA that cannot be merged into this base model.

    Raises
    ------
    LoraMismatchError
        Names or shapes do not fit.
    BadInputError
        It has modules of a network type that has no up and down.
    """
    targets = module_names(base) if targets is None else targets
    if lora.unsupported:
        raise BadInputError(
            f"{lora.path} has {len(lora.unsupported)} modules that lorascope cannot merge, "
            f"such as {lora.unsupported[0]}.\nFix: use a plain LoRA or LoCon."
        )
    strangers = [name for name in lora.modules if name not in targets]
    shapes = [
        name for name, m in lora.modules.items() if name in targets and _misfit(m, targets[name])
    ]
    if not strangers and not shapes:
        return
    made_for, here = architecture(lora), FAMILIES[base.family]
    if made_for not in ("", here):
        why = f"it was made for {made_for}; the base model {base.name} is {here}"
    elif strangers:
        why = (
            f"the base model {base.name} ({here}) lacks {len(strangers)} of its "
            f"{len(lora.modules)} modules, such as {strangers[0]}"
        )
    else:
        weight = tuple(_weight(targets[shapes[0]]).shape)
        module = lora.modules[shapes[0]]
        why = (
            f"it was made for a model of other sizes: {shapes[0]} is up {module.up.shape} and down "
            f"{module.down.shape}, and the weight in {base.name} ({here}) is {weight}"
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
        module.down.shape[1]
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


def _named_layers(model: nn.Module, prefix: str, inserted: str) -> dict[str, nn.Module]:
    return {
        f"{prefix}_{inserted}{path.replace('.', '_')}": layer
        for path, layer in model.named_modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d))
    }


def _weight(layer: nn.Module) -> Tensor:
    return layer.weight  # type: ignore[return-value]  # linear and convolutional layers have one


def _misfit(module: Module, layer: nn.Module) -> bool:
    """Tell whether up @ down cannot be added to a layer's weight."""
    weight = _weight(layer).shape
    down, up = module.down.shape, module.up.shape
    kernel = tuple(weight[2:]) or (1, 1)
    return (
        up[0] != weight[0]
        or down[1] != weight[1]
        or (tuple(down[2:]) or (1, 1)) != kernel
        or any(side != 1 for side in up[2:])
    )


def _delta(module: Module, factor: float, device: torch.device) -> Tensor:
    """Compute factor x up @ down, (out, in x kh x kw), in float32."""
    up = torch.tensor(module.up, device=device).flatten(1)
    down = torch.tensor(module.down, device=device).flatten(1)
    return (up @ down).mul_(factor)
