"""A cell: one picture of a grid, known by everything that decides what it shows."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lorascope.models.shots import UNIT, Shot
from lorascope.models.sources import base_digest
from lorascope.run import digest

CELL_VERSION = 2  # raised whenever the same settings would draw another picture
FOLDER = "cells"  # in the run's samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """One LoRA at its strengths."""

    path: Path
    strength: float = 1.0  # in the UNet
    text_strength: float = 1.0  # in the text encoders


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What draws: a base model, and the LoRAs merged into it; none is the base model itself."""

    base: str
    loras: tuple[Applied, ...] = ()
    compiled: bool = False  # by torch, whose other kernels round otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One picture that can be drawn, under the name of its content: sixteen hex digits."""

    name: str
    weights: Weights
    shot: Shot

    def path(self, samples: Path) -> Path:
        """Where the picture lies in a run's folder of samples."""
        return samples / FOLDER / f"{self.name}.png"


def make_cell(weights: Weights, shot: Shot) -> Cell:
    """Name a picture.

    The bytes of the LoRAs and of the base model count, never where they lie; a LoRA at strength 0
    does not count, since the base model draws the same.
    """
    active = tuple(a for a in weights.loras if (a.strength, a.text_strength) != (0, 0))
    loras = [[digest(lora.path), lora.strength, lora.text_strength] for lora in active]
    key = [CELL_VERSION, base_digest(weights.base), loras, sorted(asdict(shot).items())]
    key += ["compiled"] if weights.compiled else []
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    return Cell(name=name, weights=replace(weights, loras=active), shot=shot)


def drawing_size(wanted: tuple[int, int], *, native: int = UNIT) -> tuple[int, int]:
    """Width and height that a model can draw, nearest to those wanted, in px.

    Parameters
    ----------
    wanted : (width, height)
        0 where it is not known.
    native : int
        The model's own side, taken in its place.
    """
    width, height = (max(1, round(side / UNIT)) * UNIT if side else native for side in wanted)
    return width, height
