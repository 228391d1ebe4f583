"""One adapted layer of a LoRA: every network type in one form, ``scale x left (x) (up @ down)``.

Key names and shapes are those of kohya's trainers, LyCORIS and PEFT.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

Parts = Mapping[str, Floats]

FULL = "full"
BIAS = ".bias"  # after a layer's name: the module that changes its bias
LARGEST = 2**27  # entries of one layer; ten times the largest of any Stable Diffusion


@dataclass(frozen=True, slots=True, eq=False)
class LoraModule:
    """One adapted layer: its update is ``strength x scale x left (x) (up @ down)``.

    ``(x)`` is the Kronecker product; without a ``left`` the update is ``up @ down``.

    Attributes
    ----------
    name : str
        ``lora_unet_...``, ``lora_te_text_model_...``; SDXL: ``lora_te1_...``, ``lora_te2_...``.
        What is added to a layer's bias is a module of its own: the layer's name and ``.bias``.
    down : (rank, in) or (rank, in, kh, kw) float32 array or None
        None: ``up`` is the whole update, (out, in[, kh, kw]), or (out,) of a bias or a norm.
    up : (out, rank) or (out, rank, 1, 1) float32 array
    alpha : float
        Training constant; equal to the rank where the file has none, or 0.
    kind : str
        Network type: LoRA, LoCon, DoRA, LoHa, LoKr or full.
    left : (a, b) float32 array or None
        LoKr's left Kronecker factor.
    magnitude : array or None
        DoRA's norms: (out,) or (out, 1, ...) of the rows, (1, in, ...) of the columns.
    dim : int
        The trainer's own rank, where it is not the inner size of ``up @ down`` (LoHa's r, not
        r x r); 0: the inner size is meant.
    """

    name: str
    down: Floats | None
    up: Floats
    alpha: float
    kind: str = "LoRA"
    left: Floats | None = None
    magnitude: Floats | None = None
    dim: int = 0

    @property
    def rank(self) -> int:
        """Inner size of ``up @ down``; the most that it can be where ``up`` is all there is."""
        if self.down is not None:
            return int(self.down.shape[0])
        return int(min(len(self.up), self.up[0].size)) if self.up.size else 0

    @property
    def scale(self) -> float:
        """Alpha / the trainer's own rank; 1 where there is none."""
        if self.kind == FULL:
            return 1.0
        return self.alpha / (self.dim or self.rank)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the whole update; a kernel's axes count as columns."""
        last = self.up if self.down is None else self.down
        out, inner = len(self.up), math.prod(last.shape[1:])
        sides = (1, 1) if self.left is None else self.left.shape
        return out * int(sides[0]), inner * int(sides[1])

    def factors(self) -> tuple[Floats, Floats | None, float]:
        """Give up, down and scale, as `lorascope.metrics.lowrank` takes them."""
        return self.up, self.down, self.scale


@dataclass(frozen=True, slots=True, eq=False)
class BaseBoundModule:
    """One adapted layer whose update depends on the base model's weight: IA3, OFT, BOFT, GLoRA.

    Attributes
    ----------
    name : str
        As of `LoraModule`.
    kind : str
        Network type.
    parts : mapping of str to array
        The file's tensors, by their own ending.
    alpha : float
        Training constant; 0 where the file has none.
    """

    name: str
    kind: str
    parts: Mapping[str, Floats]
    alpha: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What PEFT keeps apart from the weights; None where it says nothing."""

    alpha: float | None = None
    rank: int | None = None
    root_scaled: bool = False  # rank-stabilised: alpha / sqrt(rank)


def build(name: str, parts: Parts, settings: Settings) -> list[LoraModule | BaseBoundModule]:
    """Translate the tensors of one layer; a bias becomes a module of its own.

    Parameters
    ----------
    name : str
        Ours.
    parts : mapping of str to array
        By part, as `lora_names.split_key` calls them.
    settings : Settings

    Returns
    -------
    list of LoraModule or BaseBoundModule
        Empty where no known network type has such parts.

    Raises
    ------
    ValueError
        A part is missing, or two do not fit together; the text goes on after the name.
    """
    found: list[LoraModule | BaseBoundModule] = []
    if maker := next((make for mark, make in MAKERS.items() if mark & parts.keys()), None):
        found.append(maker(name, parts, settings))
    if "diff" in parts:
        if found:
            raise ValueError(f"has {found[0].kind} weights and a full difference")
        found.append(_full(name, parts["diff"]))
    if "w_norm" in parts:
        found.append(_full(name, _line(parts, "w_norm")))
    for bias in ("diff_b", "b_norm"):
        if bias in parts:
            found.append(_full(name + BIAS, _line(parts, bias)))
    if "up_bias" in parts and found and isinstance(found[0], LoraModule):
        found.append(_full(name + BIAS, _line(parts, "up_bias") * np.float32(found[0].scale)))
    return found


def _lora(name: str, parts: Parts, settings: Settings) -> LoraModule:
    down, up = _need(parts, "down"), _need(parts, "up")
    fits = down.ndim in (2, 4) and up.ndim in (2, 4) and len(down) == up.shape[1]
    if not fits or 1 != math.prod(up.shape[2:]):
        raise ValueError(f"has up {up.shape} and down {down.shape}, which do not fit together")
    if "mid" in parts:
        down = _fold_core(_core(parts, "mid"), down.reshape(len(down), -1))
    kind = "LoCon" if down.ndim == 4 and down.shape[2:] != (1, 1) else "LoRA"
    magnitude = _magnitude(parts)
    rank = len(down)
    return LoraModule(
        name=name,
        down=down,
        up=_scaled(up, parts),
        alpha=_alpha(parts, settings, rank),
        kind=kind if magnitude is None else "DoRA",
        magnitude=magnitude,
    )


def _loha(name: str, parts: Parts, settings: Settings) -> LoraModule:
    """Write (a1 @ b1) * (a2 @ b2) as one product: its factors' rows times each other."""
    ups, downs = [], []
    for side in ("1", "2"):
        up, down = _matrix(parts, f"hada_w{side}_a"), _matrix(parts, f"hada_w{side}_b")
        if f"hada_t{side}" in parts:
            up, down = up.T, _fold_core(_core(parts, f"hada_t{side}"), down)
        ups.append(up)
        downs.append(down)
    kernel = downs[0].shape[1:]
    rank, out, inner = len(downs[0]), len(ups[0]), math.prod(kernel)
    if ups[0].shape != ups[1].shape or downs[0].shape != downs[1].shape or ups[0].shape[1] != rank:
        raise ValueError("has four factors that do not fit together")
    _check_size(min(rank * rank * (out + inner), out * inner))
    whole: Floats | None = None
    if rank * rank * (out + inner) < out * inner:
        up = (ups[0][:, :, None] * ups[1][:, None, :]).reshape(out, -1)
        whole = (downs[0][:, None] * downs[1][None]).reshape(-1, *kernel)
    else:
        flat = [one @ other.reshape(rank, -1) for one, other in zip(ups, downs, strict=True)]
        up = (flat[0] * flat[1]).reshape(out, *kernel)
    return LoraModule(
        name=name,
        down=whole,
        up=_scaled(up, parts),
        alpha=_alpha(parts, settings, rank),
        kind="LoHa",
        magnitude=_magnitude(parts),
        dim=rank,
    )


def _lokr(name: str, parts: Parts, settings: Settings) -> LoraModule:
    left, dim = _left(parts)
    down: Floats | None = None
    if "lokr_w2" in parts:
        up = parts["lokr_w2"]
        if up.ndim not in (2, 4):
            raise ValueError(f"has a lokr_w2 of {up.shape}")
    else:
        up, down = _matrix(parts, "lokr_w2_a"), _need(parts, "lokr_w2_b")
        if "lokr_t2" in parts:
            up, down = up.T, _fold_core(_core(parts, "lokr_t2"), _matrix(parts, "lokr_w2_b"))
        if down.ndim not in (2, 4) or up.shape[1] != len(down):
            raise ValueError("has lokr_w2_a and lokr_w2_b that do not fit together")
        dim = len(down)
    # LyCORIS scales two whole factors by nothing, whatever alpha the file states; PEFT scales them.
    rank = dim or settings.rank or 1
    return LoraModule(
        name=name,
        down=down,
        up=_scaled(up, parts),
        alpha=_alpha(parts if dim else {}, settings, rank),
        kind="LoKr",
        left=left,
        magnitude=_magnitude(parts),
        dim=rank,
    )


def _left(parts: Parts) -> tuple[Floats, int]:
    """Give LoKr's left factor and its rank, 0 where it is not a product itself."""
    if "lokr_w1" in parts:
        return _matrix(parts, "lokr_w1"), 0
    up, down = _matrix(parts, "lokr_w1_a"), _matrix(parts, "lokr_w1_b")
    if up.shape[1] != len(down):
        raise ValueError("has lokr_w1_a and lokr_w1_b that do not fit together")
    _check_size(len(up) * down.shape[1])
    return up @ down, len(down)


def _full(name: str, change: Floats) -> LoraModule:
    return LoraModule(name=name, down=None, up=change, alpha=1.0, kind=FULL)


def _bound(kind: str, needed: tuple[str, ...], allowed: tuple[str, ...] = ()) -> "Maker":
    """Make a module of parts that mean nothing without the base model's weight."""

    def make(name: str, parts: Parts, settings: Settings) -> BaseBoundModule:
        kept = {part: _need(parts, part) for part in needed}
        kept |= {part: parts[part] for part in allowed if part in parts}
        true_kind = "BOFT" if kind == "OFT" and kept["oft_blocks"].ndim == 4 else kind
        blocks = kept.get("oft_blocks")
        if blocks is not None and (
            blocks.ndim not in (3, 4) or blocks.shape[-1] != blocks.shape[-2]
        ):
            raise ValueError(f"has oft_blocks of {blocks.shape}")
        alpha = parts.get("alpha")
        return BaseBoundModule(name, true_kind, kept, _number(alpha) if alpha is not None else 0.0)

    return make


Maker = Callable[[str, Parts, Settings], LoraModule | BaseBoundModule]
MAKERS: dict[frozenset[str], Maker] = {  # which parts tell a network type
    frozenset({"down", "up"}): _lora,
    frozenset(f"hada_w{x}" for x in ("1_a", "1_b", "2_a", "2_b")): _loha,
    frozenset({"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"}): _lokr,
    frozenset({"on_input"}): _bound("IA3", ("weight", "on_input")),
    frozenset({"oft_blocks"}): _bound("OFT", ("oft_blocks",), ("rescale",)),
    frozenset({"a1", "a2", "b1", "b2"}): _bound(
        "GLoRA", ("a1", "a2", "b1", "b2"), ("bm", "scalar")
    ),
}


def _need(parts: Parts, part: str) -> Floats:
    if part not in parts:
        raise ValueError(f"has no {part} weights")
    if parts[part].size == 0:
        raise ValueError(f"has {part} weights without entries")
    return parts[part]


def _matrix(parts: Parts, part: str) -> Floats:
    found = _need(parts, part)
    if found.ndim != 2:
        raise ValueError(f"has {part} of {found.shape}, which is no matrix")
    return found


def _line(parts: Parts, part: str) -> Floats:
    return _need(parts, part).reshape(-1)


def _core(parts: Parts, part: str) -> Floats:
    found = _need(parts, part)
    if found.ndim != 4:
        raise ValueError(f"has {part} of {found.shape}, which is no Tucker core")
    return found


def _fold_core(core: Floats, down: Floats) -> Floats:
    """Multiply a Tucker core (rank, rank, kh, kw) into (rank, in): (rank, in, kh, kw)."""
    if core.shape[1] != len(down):
        raise ValueError(f"has a Tucker core {core.shape} that does not fit to {down.shape}")
    _check_size(core.size // core.shape[1] * down.shape[1])
    folded: Floats = np.einsum("mnkl,ni->mikl", core, down, optimize=True)
    return np.ascontiguousarray(folded, dtype=np.float32)


def _magnitude(parts: Parts) -> Floats | None:
    """Give DoRA's norms; PEFT's are of the rows, whatever their shape."""
    if "magnitude" in parts:
        return _line(parts, "magnitude")
    return _need(parts, "dora_scale") if "dora_scale" in parts else None


def _scaled(up: Floats, parts: Parts) -> Floats:
    """Multiply in LyCORIS' trained scalar, where an old file keeps it apart."""
    return up * np.float32(_number(parts["scalar"])) if "scalar" in parts else up


def _alpha(parts: Parts, settings: Settings, rank: int) -> float:
    """Give the alpha with which alpha / rank is the trainer's own scale."""
    if "alpha" in parts:
        return _number(parts["alpha"]) or float(rank)
    if settings.alpha:
        return settings.alpha * (math.sqrt(rank) if settings.root_scaled else 1.0)
    return float(rank) * (math.sqrt(rank) if settings.root_scaled else 1.0)


def _number(stored: Floats) -> float:
    return float(stored.reshape(-1)[0]) if stored.size else 0.0


def _check_size(entries: int) -> None:
    if entries > LARGEST:
        raise ValueError(f"would have {entries:,} entries, more than any layer")
