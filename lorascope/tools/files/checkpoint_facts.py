"""What the numbers in one checkpoint are: size, spectrum and soundness of each module."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.io.lora_file import LoraFile, LoraModule, read_lora
from lorascope.io.train_metadata import settings
from lorascope.metrics.lowrank import entropy_rank, norm, spectra
from lorascope.records import Row

Array = NDArray[Any]

SUBNORMAL = 6.1e-5  # the smallest number that fp16 writes with its full precision
VANISHES = 2.98e-8  # what is smaller becomes 0 in fp16
PLAIN = ("LoRA", "LoCon", "DoRA")  # network types whose up and down are the stored numbers
DENSE_LIMIT = 640  # a whole matrix with no side shorter has its norm taken, not its spectrum
CAP_WIDTH = 0.01  # relative; kohya clamps each module's norm to one value
CAP_SPREAD = 0.002  # of the modules that sit there; chance does not pile up so narrowly
CAP_MODULES, CAP_SHARE = 8, 0.2  # at least, before a cap is believed that nobody wrote down
MAD_TO_SIGMA = 1.4826  # of a normal distribution
PARTS = (  # of a module's name, in the order they are looked for
    ("to_q", "query"),
    ("q_proj", "query"),
    ("to_k", "key"),
    ("k_proj", "key"),
    ("to_v", "value"),
    ("v_proj", "value"),
    ("to_out", "attention out"),
    ("out_proj", "attention out"),
    ("ff_net", "feed-forward"),
    ("mlp_fc", "feed-forward"),
    ("proj_in", "projection"),
    ("proj_out", "projection"),
    ("conv", "convolution"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleFacts:
    """One sound module; None where there is no spectrum."""

    square: float  # of the Frobenius norm of the update
    spectral_norm: float | None = None
    effective_rank: float | None = None
    energy_rank: float | None = None
    stable_rank: float | None = None
    top_share: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Precision:
    """How the stored numbers sit in half precision: counts of entries."""

    entries: int = 0
    zeros: int = 0
    subnormal: int = 0  # not zero, but with less than full precision
    ups: int = 0
    folded_zeros: int = 0  # of up, zero once alpha is folded in

    def __add__(self, other: "Precision") -> "Precision":
        """Count two modules together."""
        return Precision(
            entries=self.entries + other.entries,
            zeros=self.zeros + other.zeros,
            subnormal=self.subnormal + other.subnormal,
            ups=self.ups + other.ups,
            folded_zeros=self.folded_zeros + other.folded_zeros,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Looked:
    """One checkpoint, looked at once."""

    epoch: int
    step: int
    lora: LoraFile
    facts: Mapping[str, ModuleFacts]  # per sound module; one with NaN or infinity has none
    precision: Precision
    max_norm: float | None  # the cap, as written down or as found
    outliers: Mapping[str, float]  # robust z of the log norm, per module that was trained

    @property
    def file(self) -> str:
        """Its name."""
        return self.lora.path.name

    @property
    def square(self) -> float:
        """Squared norm of the whole update."""
        return sum(one.square for one in self.facts.values())

    @property
    def whole(self) -> bool:
        """Whether every module is sound."""
        return len(self.facts) == len(self.lora.modules)


def look(path: Path, epoch: int, step: int) -> Looked:
    """Measure one checkpoint by itself.

    Raises
    ------
    MissingInputError, BadInputError
        As for `lorascope.io.lora_file.read_lora`.
    """
    lora = read_lora(path)
    sound = {name: module for name, module in lora.modules.items() if _is_sound(module)}
    live = {name: module for name, module in sound.items() if _is_live(module)}
    facts = {name: ModuleFacts(square=0.0) for name in sound} | _facts(live)
    precision = sum(map(_precision, live.values()), start=Precision())
    sizes = {name: math.sqrt(one.square) for name, one in facts.items() if one.square > 0}
    written = settings(lora.metadata).max_norm
    return Looked(
        epoch=epoch,
        step=step,
        lora=lora,
        facts=facts,
        precision=precision,
        max_norm=written or _found_cap(np.array(list(sizes.values()))),
        outliers=robust_z(sizes),
    )


def epoch_row(looked: Looked) -> dict[str, str | int | float | bool | None]:
    """Sum up one checkpoint in one row; how it moved is left open."""
    lora, facts = looked.lora, looked.facts
    total = looked.square
    live = [one for one in facts.values() if one.square > 0]
    text = sum(one.square for name, one in facts.items() if name.startswith("lora_te"))
    stored = looked.precision
    return {
        "epoch": looked.epoch,
        "step": looked.step,
        "file": looked.file,
        "norm": math.sqrt(total) if facts else None,
        "largest_norm": math.sqrt(max((one.square for one in live), default=0.0)),
        "spectral_norm": max((s for one in live if (s := one.spectral_norm)), default=None),
        "text_encoder_share": text / total if total else None,
        "effective_rank": _median([one.effective_rank for one in live]),
        "energy_rank": _median([one.energy_rank for one in live]),
        "stable_rank": _median([one.stable_rank for one in live]),
        "top_share": _median([one.top_share for one in live]),
        "rank": _median([float(own_rank(m)) for m in lora.modules.values()]) or 0.0,
        "modules": len(lora.modules),
        "nan_modules": len(lora.modules) - len(facts),
        "dead_modules": len(facts) - len(live),
        "zero_share": stored.zeros / stored.entries if stored.entries else None,
        "subnormal_share": stored.subnormal / stored.entries if stored.entries else None,
        "underflow_share": stored.folded_zeros / stored.ups if stored.ups else None,
        "at_cap_share": at_cap_share(looked),
        "dtype": lora.dtype,
        "update_norm": None,
        "update_cosine": None,
        "growth": None,
        "identical_to_previous": False,
    }


def module_rows(looked: Looked) -> list[Row]:
    """List every module of one checkpoint, also those that cannot be measured alone."""
    rows = [_module_row(looked, name, module) for name, module in looked.lora.modules.items()]
    return [*rows, *(_bound_row(looked, name) for name in looked.lora.bound)]


def own_rank(module: LoraModule) -> int:
    """Give the rank that the trainer was asked for."""
    return module.dim or module.rank


def block_of(module: str) -> str:
    """Name the stage of the model that a module belongs to.

    Parameters
    ----------
    module : str
        kohya's name.

    Returns
    -------
    str
        ``down 0``, ``mid``, ``up 3``, ``text encoder``, ``text encoder 2`` or ``other``.
    """
    for prefix in ("lora_te1_", "lora_te2_"):
        if module.startswith(prefix):
            return f"text encoder {prefix[7]}"
    if module.startswith("lora_te_"):
        return "text encoder"
    words = module.split("_")
    for side in ("down", "up"):
        if f"{side}_blocks_" in module:
            return f"{side} {words[words.index('blocks') + 1]}"
    for side, stage in (("input", "in"), ("output", "out")):
        if f"{side}_blocks_" in module:  # SDXL files in the original naming
            return f"{stage} {words[words.index('blocks') + 1]}"
    return "mid" if "mid_block" in module or "middle_block" in module else "other"


def part_of(module: str) -> str:
    """Name what a module does within its stage: query, key, value, feed-forward and so on."""
    return next((part for key, part in PARTS if key in module), "other")


def encoder_of(module: str) -> str:
    """Name the model that a module belongs to: the U-Net or a text encoder."""
    return block_of(module) if module.startswith("lora_te") else "U-Net"


def at_cap_share(looked: Looked) -> float | None:
    """Share of the trained modules whose norm sits at the cap; None where there is no cap."""
    if not looked.max_norm:
        return None
    sizes = np.sqrt([one.square for one in looked.facts.values() if one.square > 0])
    near = np.abs(sizes / looked.max_norm - 1) <= CAP_WIDTH
    return float(near.mean()) if len(sizes) else None


def robust_z(sizes: Mapping[str, float]) -> dict[str, float]:
    """Say how far each size is from the others: z of its logarithm, by median and MAD.

    Parameters
    ----------
    sizes : mapping of str to float
        Above 0.

    Returns
    -------
    dict of str to float
        Empty where more than half of the sizes are the same.
    """
    if not sizes:
        return {}
    logs = np.log(list(sizes.values()))
    off = logs - np.median(logs)
    spread = float(np.median(np.abs(off))) * MAD_TO_SIGMA
    if spread < 1e-9:
        return {}
    return {name: float(z) for name, z in zip(sizes, off / spread, strict=True)}


def _is_sound(module: LoraModule) -> bool:
    parts = (module.up, module.down, module.left, module.magnitude)
    return math.isfinite(module.scale) and all(
        np.isfinite(part).all() for part in parts if part is not None
    )


def _is_live(module: LoraModule) -> bool:
    parts = (module.up, module.down, module.left)
    return module.scale != 0 and all(part.any() for part in parts if part is not None)


def _facts(modules: Mapping[str, LoraModule]) -> dict[str, ModuleFacts]:
    """Measure modules that are sound and were trained, all spectra at once."""
    found: dict[str, ModuleFacts] = {}
    small = {name: module for name, module in modules.items() if not _is_wide(module)}
    values = spectra([m.factors() for m in small.values()], lefts=[m.left for m in small.values()])
    for name, one in zip(small, values, strict=True):
        found[name] = _spectrum_facts(one)
    for name in modules.keys() - small.keys():
        up, down, scale = modules[name].factors()
        size = norm(up, down, scale=scale, left=modules[name].left)
        found[name] = ModuleFacts(square=size**2)
    return found


def _is_wide(module: LoraModule) -> bool:
    """Tell a whole matrix whose spectrum takes longer than it is worth."""
    flat = module.up.reshape(len(module.up), -1)
    return module.down is None and min(flat.shape) > DENSE_LIMIT


def _spectrum_facts(values: Array) -> ModuleFacts:
    squares = values**2
    total = float(squares.sum())
    if not total > 0:
        return ModuleFacts(square=0.0)
    return ModuleFacts(
        square=total,
        spectral_norm=float(values[0]),
        effective_rank=entropy_rank(values),
        energy_rank=entropy_rank(squares / total),
        stable_rank=total / float(squares[0]),
        top_share=float(squares[0]) / total,
    )


def _precision(module: LoraModule) -> Precision:
    """Count what half precision loses; only where up and down are the stored numbers."""
    if module.kind not in PLAIN or module.down is None:
        return Precision()
    up, down = np.abs(module.up), np.abs(module.down)
    zeros = int((up == 0).sum()) + int((down == 0).sum())
    small = int((up < SUBNORMAL).sum()) + int((down < SUBNORMAL).sum())
    return Precision(
        entries=up.size + down.size,
        zeros=zeros,
        subnormal=small - zeros,
        ups=up.size,
        folded_zeros=int((up * abs(module.scale) < VANISHES).sum()),
    )


def _found_cap(sizes: Array) -> float | None:
    """Find the value that many norms were clamped to; None where none piles up."""
    if len(sizes) < CAP_MODULES:
        return None
    top = float(sizes.max())
    pile = sizes[sizes >= top * (1 - CAP_WIDTH)]
    if len(pile) < max(CAP_MODULES, CAP_SHARE * len(sizes)):
        return None
    low, middle, high = np.quantile(pile, [0.25, 0.5, 0.75])
    return float(middle) if high - low <= CAP_SPREAD * top else None


def _module_row(looked: Looked, name: str, module: LoraModule) -> Row:
    one = looked.facts.get(name)
    return {
        "epoch": looked.epoch,
        "module": name,
        "block": block_of(name),
        "part": part_of(name),
        "kind": module.kind,
        "norm": math.sqrt(one.square) if one else None,
        "spectral_norm": one.spectral_norm if one else None,
        "effective_rank": one.effective_rank if one else None,
        "energy_rank": one.energy_rank if one else None,
        "stable_rank": one.stable_rank if one else None,
        "top_share": one.top_share if one else None,
        "rank": own_rank(module),
        "scale": module.scale if math.isfinite(module.scale) else None,
        "outlier": looked.outliers.get(name),
        "dead": one is not None and one.square == 0.0,
        "nan": one is None,
    }


def _bound_row(looked: Looked, name: str) -> Row:
    """List a module whose update depends on the base model: what it is, and no size."""
    return {
        "epoch": looked.epoch,
        "module": name,
        "block": block_of(name),
        "part": part_of(name),
        "kind": looked.lora.bound[name].kind,
        "norm": None,
        "dead": False,
        "nan": not all(np.isfinite(part).all() for part in looked.lora.bound[name].parts.values()),
    }


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
