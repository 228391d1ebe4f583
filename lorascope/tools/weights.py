"""Weights: what the numbers in the files alone give away."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.io.checkpoints import readable_checkpoints
from lorascope.io.lora_file import LoraFile, LoraModule, read_lora
from lorascope.metrics.lowrank import entropy_rank, inner, singular_values
from lorascope.progress import track
from lorascope.records import Inputs, Measured, Measurement, Row, Tool

Array = NDArray[Any]

SAME = 1e-6  # relative distance below which two checkpoints are the same update
SUBNORMAL = 6.1e-5  # the smallest number that fp16 writes with its full precision
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


@dataclass
class _Looked:
    """One checkpoint, looked at once."""

    epoch: int
    file: str
    lora: LoraFile
    sound: dict[str, LoraModule]  # without those that hold NaN or infinity
    squares: dict[str, float]  # of the norm, per sound module
    ranks: dict[str, float]  # effective rank, per module that was trained
    row: dict[str, str | int | float | bool | None] = field(default_factory=dict)


def weights(inputs: Inputs) -> Measured:
    """Measure size, used rank and soundness of every saved checkpoint, from the files alone.

    Parameters
    ----------
    inputs : Inputs
        Reads ``lora``.

    Returns
    -------
    Measured
        Tables: ``epochs``, a row per checkpoint; ``modules`` and ``blocks`` of the last one;
        ``broken``, a row per file that cannot be opened.
        Norms are Frobenius norms of ``scale * up @ down``; ranks are in directions.

    Raises
    ------
    MissingInputError
        There is no checkpoint.
    BadInputError
        A file is broken or no LoRA.
    """
    checkpoints, broken = readable_checkpoints(inputs["lora"])
    torn: list[Row] = [
        {"epoch": c.epoch, "file": c.path.name, "why": why} for c, why in broken.items()
    ]
    if not checkpoints:
        return Measured(numbers=(), tables={"epochs": [], "broken": torn})
    rows: list[dict[str, str | int | float | bool | None]] = []
    before: list[_Looked] = []  # the last two, newest first
    path = 0.0  # length of the way the weights went
    for checkpoint in track(checkpoints, label="weights"):
        looked = _look(checkpoint.path, checkpoint.epoch)
        looked.row["step"] = checkpoint.step
        moved = _compare(looked, before)
        path = path + moved if moved is not None else math.nan
        rows.append(looked.row)
        before = [looked, *before[:1]]
    last = before[0]
    return Measured(
        numbers=_numbers(rows, last, path),
        tables={
            "epochs": rows,
            "modules": _modules(last),
            "blocks": _blocks(last),
            "broken": torn,
        },
        caveats=_caveats(rows, last),
    )


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


def _look(path: Path, epoch: int) -> _Looked:
    """Measure one checkpoint by itself."""
    lora = read_lora(path)
    looked = _Looked(epoch, path.name, lora, {}, {}, {})
    broken = dead = entries = zeros = subnormal = 0
    for name, module in lora.modules.items():
        if not (np.isfinite(module.up).all() and np.isfinite(module.down).all()):
            broken += 1
            continue
        looked.sound[name] = module
        live = bool(module.up.any() and module.down.any())
        dead += not live
        if live:
            values = singular_values(module.up, module.down, scale=module.scale)
            looked.squares[name] = float((values**2).sum())
            if looked.squares[name] > 0:
                looked.ranks[name] = entropy_rank(values)
            for factor in (module.up, module.down):
                size = np.abs(factor)
                entries += size.size
                zeros += int((size == 0).sum())
                subnormal += int((size < SUBNORMAL).sum())
        else:
            looked.squares[name] = 0.0
    text = sum(v for n, v in looked.squares.items() if n.startswith("lora_te"))
    total = sum(looked.squares.values())
    ranks = list(looked.ranks.values())
    looked.row = {
        "epoch": epoch,
        "step": 0,
        "file": path.name,
        "norm": math.sqrt(total) if looked.sound else None,
        "largest_norm": math.sqrt(max(looked.squares.values(), default=0.0)),
        "text_encoder_share": text / total if total else None,
        "effective_rank": float(np.median(ranks)) if ranks else None,
        "rank": float(np.median([m.rank for m in lora.modules.values()])) if lora.modules else 0.0,
        "modules": len(lora.modules),
        "nan_modules": broken,
        "dead_modules": dead,
        "zero_share": zeros / entries if entries else None,
        "subnormal_share": subnormal / entries if entries else None,
        "dtype": lora.dtype,
        "update_norm": None,
        "update_cosine": None,
        "growth": None,
        "identical_to_previous": False,
    }
    return looked


def _compare(now: _Looked, before: Sequence[_Looked]) -> float | None:
    """Fill in how a checkpoint moved on from the ones before; give the length of the move.

    Before the first checkpoint lies the base model: an update of zero.
    """
    square = sum(now.squares.values())
    if not before:
        now.row["update_norm"] = now.row["norm"]
        return math.sqrt(square) if len(now.sound) == len(now.lora.modules) else None
    one = before[0]
    if not (now.sound.keys() == one.sound.keys() == now.lora.modules.keys()):
        return None  # broken or other modules: nothing to compare
    with_one = _product(now, one)
    size = sum(one.squares.values())
    moved = math.sqrt(max(square + size - 2 * with_one, 0.0))
    same = moved <= SAME * math.sqrt(max(square, size))
    now.row |= {
        "update_norm": moved,
        "growth": math.sqrt(square / size) if size else None,
        "identical_to_previous": same,
    }
    two = before[1] if len(before) > 1 else None
    if two is not None and two.sound.keys() != now.sound.keys():
        return moved
    cross, corner, earlier = 0.0, 0.0, 0.0
    if two is not None:
        cross, corner = _product(now, two), _product(one, two)
        earlier = sum(two.squares.values())
    step = math.sqrt(max(size + earlier - 2 * corner, 0.0))
    if not same and step > SAME * math.sqrt(max(size, earlier)):
        along = with_one - cross - size + corner
        now.row["update_cosine"] = max(-1.0, min(1.0, along / (moved * step)))
    return moved


def _product(one: _Looked, other: _Looked) -> float:
    """Inner product of two checkpoints, over all modules."""
    total = 0.0
    for name, module in one.sound.items():
        match = other.sound[name]
        total += inner((module.up, module.down, module.scale), (match.up, match.down, match.scale))
    return total


def _modules(last: _Looked) -> list[Row]:
    rows: list[Row] = []
    for name, module in last.lora.modules.items():
        sound = name in last.sound
        rows.append(
            {
                "epoch": last.epoch,
                "module": name,
                "block": block_of(name),
                "part": part_of(name),
                "norm": math.sqrt(last.squares[name]) if sound else None,
                "effective_rank": last.ranks.get(name),
                "rank": module.rank,
                "scale": module.scale,
                "dead": sound and last.squares[name] == 0.0,
                "nan": not sound,
            }
        )
    return rows


def _blocks(last: _Looked) -> list[Row]:
    """Share of each stage and part in the squared norm of the last checkpoint."""
    total = sum(last.squares.values())
    sums: dict[tuple[str, str], list[float]] = {}
    for name, square in last.squares.items():
        sums.setdefault((block_of(name), part_of(name)), []).append(square)
    return [
        {
            "epoch": last.epoch,
            "block": block,
            "part": part,
            "modules": len(squares),
            "norm": math.sqrt(sum(squares)),
            "share": sum(squares) / total if total else None,
        }
        for (block, part), squares in sums.items()
    ]


def _numbers(rows: Sequence[Row], last: _Looked, path: float) -> tuple[Measurement, ...]:
    """Sum up the last checkpoint and the way there; what was not measured is left out."""
    end = rows[-1]
    modules = len(last.lora.modules)
    same = sum(bool(r["identical_to_previous"]) for r in rows)
    cosines = [v for r in rows if isinstance(v := r["update_cosine"], float)]
    size = end["norm"]
    found: list[tuple[str, Any, str, int]] = [
        ("checkpoints", len(rows), "files", len(rows)),
        ("modules", modules, "modules", modules),
        ("norm", size, "1", modules),
        ("largest_norm", end["largest_norm"], "1", modules),
        ("effective_rank", end["effective_rank"], "directions", len(last.ranks)),
        ("rank", end["rank"], "directions", modules),
        ("nan_modules", end["nan_modules"], "modules", modules),
        ("dead_modules", end["dead_modules"], "modules", modules),
        ("zero_share", end["zero_share"], "1", modules),
        ("subnormal_share", end["subnormal_share"], "1", modules),
        ("text_encoder_share", end["text_encoder_share"], "1", modules),
        ("update_cosine", float(np.mean(cosines)) if cosines else None, "cosine", len(cosines)),
        ("growth", end["growth"], "1", modules),
        ("identical_files", same, "files", len(rows)),
    ]
    if isinstance(size, float) and path > 0:
        found.append(("path_efficiency", size / path, "1", len(rows)))
    return tuple(
        Measurement(name=name, value=float(value), unit=unit, n=n)
        for name, value, unit, n in found
        if value is not None and math.isfinite(value)
    )


def _caveats(rows: Sequence[Row], last: _Looked) -> tuple[str, ...]:
    caveats = [
        "Weights alone can show that a LoRA is broken, dead or blown up, not that it is good; "
        "sizes compare within one run only."
    ]
    if len(rows) == 1:
        caveats.append("There is one checkpoint: how the weights moved was not measured.")
    if any(r["nan_modules"] for r in rows):
        caveats.append("Modules with NaN or infinity are left out of every sum.")
    if last.lora.unsupported:
        caveats.append(
            f"{len(last.lora.unsupported)} entries of {last.file} are not plain LoRA factors and "
            f"were passed over, {last.lora.unsupported[0]} for one."
        )
    return tuple(caveats)


WEIGHTS = Tool(
    name="weights", asks="Are the LoRA's weights sound?", reads=("lora",), measure=weights
)
