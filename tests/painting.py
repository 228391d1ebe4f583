"""A base model that draws in microseconds: noise that prompt, seed and LoRA decide."""

import hashlib

import numpy as np
import torch

from lorascope.models import base as base_module
from lorascope.tools.drawing import cells as naming
from lorascope.tools.drawing import draw as drawing
from lorascope.tools.drawing import plan


class Noise:
    class config:  # noqa: N801 - as diffusers has it
        timestep_spacing = "leading"


class Painter:
    """Stands for a base model; `painted` lists the prompts in the order they were drawn."""

    name, size, pixels_per_latent, noise = "painter", 64, 8, Noise

    def __init__(self):
        self.painted = []
        self.fail_at = None

    def encode_images(self, images):
        height, width = images.shape[1:3]
        fields = images.reshape(len(images), height // 8, 8, width // 8, 8, 3).mean(axis=(2, 4))
        return torch.from_numpy(np.moveaxis(fields, 3, 1))

    def decode(self, latents):
        return latents

    def paint(self, cell):
        shot = cell.shot
        words = [shot.prompt, shot.seed, shot.guidance, shot.negative, shot.steps, shot.sampler]
        for lora in cell.weights.loras:
            words += [lora.path.read_bytes(), lora.strength, lora.text_strength]
        seed = int(hashlib.sha256(repr(words).encode()).hexdigest()[:8], 16)
        rng = np.random.default_rng(seed)
        return rng.integers(0, 256, (shot.height, shot.width, 3), dtype=np.uint8)


def replace_engine(monkeypatch):
    """Have cells painted; everything around the engine stays real."""
    painter = Painter()

    class Ready:
        def __init__(self, weights):
            self.weights = weights

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def draw(self, cells, writer, *, on_step):
            if not cells:
                return
            if painter.fail_at is not None and len(painter.painted) + len(cells) > painter.fail_at:
                raise KeyboardInterrupt
            painter.painted += [cell.shot.prompt for cell in cells]
            writer.put(painter, np.stack([painter.paint(cell) for cell in cells]), cells)

    monkeypatch.setattr(drawing, "_Ready", Ready)
    monkeypatch.setattr(drawing, "chunks_of", lambda _cell, *, spacing: {"spacing": spacing})
    monkeypatch.setattr(base_module, "shared_base", lambda _name: painter, raising=False)
    monkeypatch.setattr(plan, "_tried", lambda *_args: 2.0e6)
    for module in (naming, plan):
        monkeypatch.setattr(module, "base_digest", lambda _name: "0" * 64)
    return painter
