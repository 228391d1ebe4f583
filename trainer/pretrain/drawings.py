"""Draws what the miniature learns from, once, into memory-mapped arrays."""

import json
import multiprocessing
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lorascope import storage
from lorascope.miniature import world
from lorascope.miniature.drawing import draw
from lorascope.progress import track
from trainer.pretrain.settings import IMAGE_PX, Settings

BLOCK = 256  # drawings per job


@dataclass(frozen=True, slots=True)
class Drawings:
    """All drawings: first those of the tagged world, then the wide, then the withheld ones."""

    images: NDArray[np.uint8]  # (N, 128, 128, 3)
    regions: NDArray[np.uint8]  # (N, 128, 128), values of world.REGIONS
    tags: list[list[str]]  # of the tagged world alone
    base: int
    wide: int
    test: int

    def train_indices(self, kind: str) -> range:
        """Which drawings of a kind may be trained on."""
        start, stop = self._span(kind)
        return range(start, stop - self.test)

    def test_indices(self, kind: str) -> range:
        """Which drawings of a kind are kept for measuring; all of the withheld ones."""
        start, stop = self._span(kind)
        return range(start, stop) if kind == "withheld" else range(stop - self.test, stop)

    def _span(self, kind: str) -> tuple[int, int]:
        ends = {
            "base": (0, self.base),
            "wide": (self.base, self.base + self.wide),
            "withheld": (self.base + self.wide, len(self.images)),
        }
        return ends[kind]


def open_drawings(settings: Settings) -> Drawings:
    """Draw what is missing and open the arrays."""
    done = settings.work / "tags.json"
    if not done.exists():
        _draw_all(settings, done)
    return Drawings(
        images=np.load(settings.work / "images.npy", mmap_mode="r"),
        regions=np.load(settings.work / "regions.npy", mmap_mode="r"),
        tags=json.loads(done.read_text()),
        base=settings.base,
        wide=settings.wide,
        test=settings.test,
    )


def _draw_all(settings: Settings, done: Path) -> None:
    kinds = (
        ["base"] * (settings.base // BLOCK)
        + ["wide"] * (settings.wide // BLOCK)
        + ["withheld"] * (settings.withheld // BLOCK)
    )
    storage.make_folder(settings.work)
    shape = (len(kinds) * BLOCK, IMAGE_PX, IMAGE_PX)
    new = np.lib.format.open_memmap
    images = new(settings.work / "images.npy", "w+", np.uint8, (*shape, 3))
    regions = new(settings.work / "regions.npy", "w+", np.uint8, shape)
    tags: list[list[str]] = []
    jobs = [(settings.seed + k, kind) for k, kind in enumerate(kinds)]
    with multiprocessing.get_context("spawn").Pool(settings.processes) as pool:
        blocks = track(pool.imap(_draw_block, jobs), label="drawings", total=len(jobs))
        for k, (block, labels, block_tags) in enumerate(blocks):
            images[k * BLOCK : (k + 1) * BLOCK] = block
            regions[k * BLOCK : (k + 1) * BLOCK] = labels
            tags += block_tags
    storage.write_text(done, json.dumps(tags))  # last: its presence says that all is there


def _draw_block(
    job: tuple[int, str],
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[list[str]]]:
    seed, kind = job
    rng = random.Random(seed)
    images = np.empty((BLOCK, IMAGE_PX, IMAGE_PX, 3), np.uint8)
    regions = np.empty((BLOCK, IMAGE_PX, IMAGE_PX), np.uint8)
    tags = []
    for i in range(BLOCK):
        avatar = world.sample_avatar(rng)
        if kind == "base":
            tags.append(list(world.tags(avatar)))
        else:
            avatar = world.widen(avatar, rng, withheld=kind == "withheld")
        drawing = draw(avatar, rng)
        images[i], regions[i] = drawing.image, drawing.regions
    return images, regions, tags
