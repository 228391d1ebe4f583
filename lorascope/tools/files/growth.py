"""How the weights moved from checkpoint to checkpoint: how far, in what direction, where."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lorascope.metrics.lowrank import inner
from lorascope.records import Row
from lorascope.tools.files.checkpoint_facts import Looked, block_of, epoch_row

SAME = 1e-6  # relative distance below which two checkpoints are the same update
FEWEST = 3  # checkpoints behind a slope

Cells = dict[str, str | int | float | bool | None]


@dataclass(slots=True)
class Journey:
    """Checkpoints followed one after the other; two are kept in memory."""

    strangers: bool = False  # files of several trainings: none is compared with another
    rows: list[Cells] = field(default_factory=list)  # one a checkpoint
    growth: list[Row] = field(default_factory=list)  # one a checkpoint and block
    modules: list[Row] = field(default_factory=list)  # one a checkpoint and module
    length: float = 0.0  # of the way the weights went; NaN where a part was not measured
    before: list[Looked] = field(default_factory=list)  # the last two, newest first

    def go_on(self, looked: Looked) -> None:
        """Take the next checkpoint: measure how it moved on from the ones before."""
        row = epoch_row(looked)
        moved = None if self.strangers else _compare(row, looked, self.before)
        self.length = self.length + moved if moved is not None else math.nan
        self.rows.append(row)
        self.growth += _by_block(looked)
        self.modules += _by_module(looked)
        self.before = [looked, *self.before[:1]]

    @property
    def last(self) -> Looked:
        """The newest checkpoint."""
        return self.before[0]

    @property
    def efficiency(self) -> float | None:
        """Size of the end against the length of the way: 1 when it was straight."""
        size = self.rows[-1]["norm"]
        return size / self.length if isinstance(size, float) and self.length > 0 else None

    @property
    def late_slope(self) -> float | None:
        """Slope of log norm over log step in the second half of the checkpoints.

        0.5 for a random walk, 1 for a straight way at one speed.
        """
        if self.strangers:
            return None
        late = self.rows[len(self.rows) // 2 :]
        steps = [row["step"] or row["epoch"] for row in late]
        sizes = [row["norm"] for row in late]
        if len(late) < FEWEST or not all(isinstance(v, int | float) and v > 0 for v in steps):
            return None
        if not all(isinstance(size, float) and size > 0 for size in sizes):
            return None
        x, y = np.log(np.array(steps, dtype=float)), np.log(np.array(sizes, dtype=float))
        return float(np.polyfit(x, y, 1)[0]) if np.ptp(x) > 0 else None


def _compare(row: Cells, now: Looked, before: Sequence[Looked]) -> float | None:
    """Fill in how a checkpoint moved on from the ones before; give the length of the move.

    Before the first checkpoint lies the base model: an update of zero.
    """
    square = now.square
    if not before:
        row["update_norm"] = row["norm"]
        return math.sqrt(square) if now.whole else None
    one = before[0]
    if not (now.whole and one.whole and _same_layers(now, one)):
        return None  # broken or other modules: nothing to compare
    with_one = _product(now, one)
    size = one.square
    moved = math.sqrt(max(square + size - 2 * with_one, 0.0))
    same = moved <= SAME * math.sqrt(max(square, size))
    row |= {
        "update_norm": moved,
        "growth": math.sqrt(square / size) if size else None,
        "identical_to_previous": same,
    }
    two = before[1] if len(before) > 1 else None
    if two is not None and not (two.whole and _same_layers(now, two)):
        return moved
    cross, corner, earlier = 0.0, 0.0, 0.0
    if two is not None:
        cross, corner, earlier = _product(now, two), _product(one, two), two.square
    step = math.sqrt(max(size + earlier - 2 * corner, 0.0))
    if not same and step > SAME * math.sqrt(max(size, earlier)):
        along = with_one - cross - size + corner
        row["update_cosine"] = max(-1.0, min(1.0, along / (moved * step)))
    return moved


def _product(one: Looked, other: Looked) -> float:
    """Inner product of two checkpoints, over all modules."""
    return sum(
        inner(
            module.factors(),
            other.lora.modules[name].factors(),
            left=module.left,
            other_left=other.lora.modules[name].left,
        )
        for name, module in one.lora.modules.items()
        if one.facts[name].square > 0 and other.facts[name].square > 0
    )


def _same_layers(one: Looked, other: Looked) -> bool:
    """Tell whether two files adapt the same layers of the same sizes."""
    mine, theirs = one.lora.modules, other.lora.modules
    return mine.keys() == theirs.keys() and all(
        module.size == theirs[name].size for name, module in mine.items()
    )


def _by_block(looked: Looked) -> list[Row]:
    """Sum a checkpoint up by stage of the model."""
    total = looked.square
    blocks: dict[str, list[Any]] = {}
    for name, one in looked.facts.items():
        blocks.setdefault(block_of(name), []).append(one)
    rows: list[Row] = []
    for block, facts in blocks.items():
        square = sum(one.square for one in facts)
        ranks = [one.effective_rank for one in facts if one.effective_rank is not None]
        rows.append(
            {
                "epoch": looked.epoch,
                "block": block,
                "modules": len(facts),
                "norm": math.sqrt(square),
                "share": square / total if total else None,
                "effective_rank": float(np.median(ranks)) if ranks else None,
            }
        )
    return rows


def _by_module(looked: Looked) -> list[Row]:
    return [
        {
            "epoch": looked.epoch,
            "module": name,
            "norm": math.sqrt(one.square),
            "spectral_norm": one.spectral_norm,
            "effective_rank": one.effective_rank,
            "stable_rank": one.stable_rank,
            "top_share": one.top_share,
        }
        for name, one in looked.facts.items()
    ]
