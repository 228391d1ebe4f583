"""A LoRA merged into the base model, exactly, and taken out again bit for bit.

Every weight that a LoRA touches is copied once; each merge starts from that copy, never from the
weights as they stand, so that nothing drifts over any number of swaps.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from lorascope.errors import BadInputError
from lorascope.models import bound_updates
from lorascope.models.base import Base
from lorascope.models.bound_updates import BoundModule
from lorascope.models.sources import FAMILIES
from lorascope.models.updates import Module, Update, delta, merge_into, misfit, sizes

__all__ = [
    "Lora",
    "LoraMismatchError",
    "Merger",
    "Merging",
    "architecture",
    "check_fits",
    "delta",
    "merged",
    "merged_all",
    "module_names",
    "parameters",
    "touches_text",
]

Target = tuple[nn.Module, str]  # a layer, and which of its parameters

CROSS = {768: "sd1", 1024: "sd2", 2048: "sdxl"}  # width of the text that cross attention reads
UNET = "lora_unet_"  # how names of its modules begin; all others are of text encoders
BIAS = ".bias"  # after a layer's name: its bias
NUMBERED = ("unet:", "text_encoder:")  # modules of a file that numbers and does not name them


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


Merging = tuple[Lora, float, float | None]  # strength, and that of the text encoders


class LoraMismatchError(BadInputError):
    """The LoRA was made for another base model."""


class Merger:
    """Puts LoRAs into a base model and takes them out again.

    Several mergers of one base model may be used in turn: the copies belong to the base model.

    Parameters
    ----------
    base : Base
    """

    def __init__(self, base: Base) -> None:
        self.base = base
        self.targets = parameters(base)

    def apply(
        self, lora: Lora | None, *, strength: float = 1.0, text_strength: float | None = None
    ) -> None:
        """Have one LoRA in the base model, or none, as `apply_all` does."""
        self.apply_all([] if lora is None else [(lora, strength, text_strength)])

    def apply_all(self, loras: Sequence[Merging]) -> None:
        """Set every weight to W0 + the sum of strength x update; W0 where no LoRA has one.

        Each weight is written once, and only where it changes. Every update is computed from W0,
        also those that depend on it (DoRA, IA3, OFT, BOFT, GLoRA), so that the order of the LoRAs
        plays no part beyond rounding.

        Parameters
        ----------
        loras : sequence of (lora, strength, text_strength)
            At a strength of 0 the weights are the base model's own, bit for bit. The text
            encoders' strength is the other one where it is None.

        Raises
        ------
        LoraMismatchError
            A LoRA was made for another model; nothing was changed.
        BadInputError
            It has modules that cannot be merged; nothing was changed.
        """
        self._write(self._checked(loras))

    def restore(self) -> None:
        """Give the base model back, bit for bit."""
        self.apply_all([])

    def _checked(self, loras: Sequence[Merging]) -> dict[str, list[Update]]:
        for lora, _, _ in loras:
            check_fits(self.base, lora, self.targets)
        return _updates(loras)

    @torch.no_grad()
    def _write(self, updates: Mapping[str, Sequence[Update]]) -> None:
        originals = self.base.originals
        for name in self.base.merged - updates.keys():
            _parameter(self.targets[name]).copy_(originals[name])
        self.base.merged.intersection_update(updates)
        for name, several in updates.items():
            weight = _parameter(self.targets[name])
            if name not in originals:
                originals[name] = weight.detach().clone()
            self.base.merged.add(name)
            merge_into(weight, originals[name], several)


@contextmanager
def merged(
    base: Base, lora: Lora | None, *, strength: float = 1.0, text_strength: float | None = None
) -> Iterator[Base]:
    """Have a LoRA in the base model inside this context, and the plain base model after it.

    Raises
    ------
    LoraMismatchError, BadInputError
        As for `Merger.apply_all`.
    """
    with merged_all(base, [] if lora is None else [(lora, strength, text_strength)]):
        yield base


@contextmanager
def merged_all(base: Base, loras: Sequence[Merging]) -> Iterator[Base]:
    """Have several LoRAs in the base model at once, and the plain base model after this context.

    Parameters
    ----------
    base : Base
    loras : sequence of (lora, strength, text_strength)
        As for `Merger.apply_all`.

    Raises
    ------
    LoraMismatchError, BadInputError
        As for `Merger.apply_all`.
    """
    merger = Merger(base)
    updates = merger._checked(loras)
    try:
        merger._write(updates)
        yield base
    finally:
        merger.restore()


def touches_text(lora: Lora, text_strength: float = 1.0) -> bool:
    """Tell whether a LoRA at this strength changes the text encoders."""
    names = (*lora.modules, *lora.bound)
    return text_strength != 0 and any(not name.startswith(UNET) for name in names)


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
        if name in targets and misfit(module, tuple(_parameter(targets[name]).shape))
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
            f"{sizes(modules[shapes[0]])}, and the weight in {base.name} ({here}) is {weight}"
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
        if name.startswith(UNET) and name.endswith(("attn2_to_k", "attn2_to_v"))
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


def _updates(loras: Sequence[Merging]) -> dict[str, list[Update]]:
    """Gather by weight what is to be added to it; strengths of 0 add nothing."""
    found: dict[str, list[Update]] = {}
    for lora, strength, text_strength in loras:
        text = strength if text_strength is None else text_strength
        modules: dict[str, Module | BoundModule] = {**lora.modules, **lora.bound}
        for name, module in modules.items():
            factor = strength if name.startswith(UNET) else text
            if factor != 0:
                found.setdefault(name, []).append((module, factor))
    return found
