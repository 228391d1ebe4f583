"""What a picture says of itself: how it was made, as other programs read it, and losslessly."""

import functools
from collections.abc import Mapping
from pathlib import Path

from lorascope.io.infotext import LoraUsed, write_chunks
from lorascope.io.lora_hashes import Hashes, hashes
from lorascope.models.sources import Kind, base_digest, find
from lorascope.tools.drawing.cells import Applied, Cell

AUTOV2 = 10  # digits of a file's hash that name a base model


def chunks_of(cell: Cell, *, spacing: str) -> Mapping[str, str]:
    """Give the text chunks of a cell's PNG: ``parameters`` as A1111 reads it, and our own.

    Parameters
    ----------
    cell : Cell
    spacing : str
        Of the sampler's timesteps, as the base model's settings have it.
    """
    shot = cell.shot
    return write_chunks(
        prompt=shot.prompt,
        negative=shot.negative,
        steps=shot.steps,
        sampler=shot.sampler,
        guidance=shot.guidance,
        seed=shot.seed,
        width=shot.width,
        height=shot.height,
        clip_skip=shot.clip_skip,
        model=Path(cell.weights.base).stem,
        model_hash=_model_hash(cell.weights.base),
        loras=[_used(lora) for lora in cell.weights.loras],
        spacing=spacing,
    )


def _model_hash(base: str) -> str | None:
    """Name a single file by its bytes; a folder has no hash that other programs know."""
    return base_digest(base)[:AUTOV2] if find(base).kind is Kind.FILE else None


def _used(lora: Applied) -> LoraUsed:
    found = _hashes(lora.path, lora.path.stat().st_mtime_ns)
    return LoraUsed(
        name=lora.path.stem,
        strength=lora.strength,
        text_strength=lora.text_strength,
        autov3=found.autov3,
        autov2=found.autov2,
    )


@functools.lru_cache(maxsize=256)
def _hashes(path: Path, _mtime_ns: int) -> Hashes:
    """Hash a file once for each state that it was seen in."""
    return hashes(path)
