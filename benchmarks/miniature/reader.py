"""An attribute reader: a small network that says what a picture of the drawn world shows.

It is trained on drawings alone and shares nothing with the embedded base model, so that it may
judge it. ``python -m benchmarks.miniature.reader`` trains it anew.
"""

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its name everywhere
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lorascope import storage
from lorascope.miniature import world
from lorascope.miniature.drawing import draw

WEIGHTS = Path(__file__).with_name("reader.safetensors")
HEADS: dict[str, tuple[str, ...]] = {
    "hair": tuple(world.HAIR_COLOURS),
    "hair_style": world.HAIR_STYLES,
    "eyes": tuple(world.EYE_COLOURS),
    "outfit": world.OUTFITS,
    "outfit_colour": tuple(world.OUTFIT_COLOURS),
    "expression": world.EXPRESSIONS,
    "background": world.BACKGROUNDS,
    "skin": tuple(world.SKINS),
}
BATCH = 48
RATE = 2e-3
TRAIN_SEED, TEST_SEED = 51_000_000, 52_000_000


@dataclass(frozen=True, slots=True)
class Reading:
    """What the reader sees in one picture."""

    attributes: Mapping[str, str]  # head -> value
    accessories: tuple[str, ...]


class Reader(nn.Module):
    """Four strided stages, then one linear head an attribute. Input (N, 3, 128, 128), -1 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _stage(3, 24, 2),
            _stage(24, 48, 2),
            _stage(48, 64, 1),
            _stage(64, 96, 2),
            _stage(96, 96, 1),
            _stage(96, 128, 2),
            _stage(128, 128, 2),
            nn.Flatten(),
        )
        self.heads = nn.ModuleDict({k: nn.Linear(2048, len(v)) for k, v in HEADS.items()})
        self.accessories = nn.Linear(2048, len(world.ACCESSORIES))

    def forward(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Give the logits of every head, and those of the accessories."""
        features = self.body(images)
        return {k: head(features) for k, head in self.heads.items()}, self.accessories(features)


def load_reader(file: Path = WEIGHTS) -> Reader:
    """Load the trained reader."""
    reader = Reader()
    reader.load_state_dict({k: v.float() for k, v in load_file(file).items()})
    return reader.eval()


@torch.no_grad()
def read(reader: Reader, images: NDArray[np.uint8]) -> list[Reading]:
    """Read pictures: (N, 128, 128, 3) bytes."""
    found = []
    for start in range(0, len(images), 64):
        logits, worn = reader(as_tensor(images[start : start + 64]))
        chosen = {k: v.argmax(1).tolist() for k, v in logits.items()}
        for i, row in enumerate((worn > 0).tolist()):
            found.append(
                Reading(
                    attributes={k: HEADS[k][chosen[k][i]] for k in HEADS},
                    accessories=tuple(
                        a for a, on in zip(world.ACCESSORIES, row, strict=True) if on
                    ),
                )
            )
    return found


def score(readings: Sequence[Reading], avatars: Sequence[world.Avatar]) -> dict[str, float]:
    """Share of pictures on which each attribute is as asked; recall of each accessory.

    ``exact`` is the share of pictures on which everything is as asked.
    """
    pairs = list(zip(readings, avatars, strict=True))
    found = {
        head: float(np.mean([r.attributes[head] == getattr(a, head) for r, a in pairs]))
        for head in HEADS
    }
    for name in world.ACCESSORIES:
        asked = [name in r.accessories for r, a in pairs if name in a.accessories]
        found[name] = float(
            np.mean([(name in r.accessories) == (name in a.accessories) for r, a in pairs])
        )
        found[f"{name}_recall"] = float(np.mean(asked)) if asked else float("nan")
    found["exact"] = float(
        np.mean(
            [
                all(r.attributes[h] == getattr(a, h) for h in HEADS)
                and set(r.accessories) == set(a.accessories)
                for r, a in pairs
            ]
        )
    )
    return found


def as_tensor(images: NDArray[np.uint8]) -> Tensor:
    """Turn (N, H, W, 3) bytes into (N, 3, H, W) from -1 to 1."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def drawn(seed: int, count: int) -> tuple[NDArray[np.uint8], list[world.Avatar]]:
    """Draw avatars of the tagged world from a seed."""
    rng = random.Random(seed)
    avatars = [world.sample_avatar(rng) for _ in range(count)]
    return np.stack([draw(a, rng).image for a in avatars]), avatars


def train(minutes: float, *, threads: int) -> Reader:
    """Train on fresh drawings, blurred and noised, for some minutes."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    reader = Reader()
    optimizer = torch.optim.AdamW(reader.parameters(), RATE, weight_decay=0.01)
    started, step = time.monotonic(), 0
    while (share := (time.monotonic() - started) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 50) * (1 - share) + 1e-5
        images, avatars = drawn(TRAIN_SEED + step, BATCH)
        with torch.autocast("cpu", torch.bfloat16):
            logits, worn = reader(_roughened(as_tensor(images), blurred=bool(step % 2)))
        loss = _loss(logits, worn, avatars)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 50 == 0:
            click.echo(f"step {step} {time.monotonic() - started:.0f} s loss {loss.item():.4f}")
    return reader.eval()


def _stage(inside: int, outside: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride, 1), nn.BatchNorm2d(outside), nn.ReLU()
    )


def _roughened(images: Tensor, *, blurred: bool) -> Tensor:
    """Blur some, shift contrast and colour, add noise: generated pictures are soft."""
    if blurred:
        images = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    count = len(images)
    contrast = 1 + 0.1 * torch.randn(count, 1, 1, 1)
    tint = 0.05 * torch.randn(count, 3, 1, 1)
    return images * contrast + tint + 0.06 * torch.rand(1) * torch.randn_like(images)


def _loss(logits: dict[str, Tensor], worn: Tensor, avatars: Sequence[world.Avatar]) -> Tensor:
    total: Any = 0.0
    for head, values in HEADS.items():
        wanted = torch.tensor([values.index(getattr(a, head)) for a in avatars])
        total = total + F.cross_entropy(logits[head].float(), wanted)
    on = torch.tensor([[n in a.accessories for n in world.ACCESSORIES] for a in avatars])
    total = total + 3 * F.binary_cross_entropy_with_logits(worn.float(), on.float())
    assert isinstance(total, Tensor)
    return total


@click.command()
@click.option("--minutes", default=8.0, show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(minutes: float, threads: int) -> None:
    """Train the reader, print how often it is right on drawings it never saw, and store it."""
    reader = train(minutes, threads=threads)
    images, avatars = drawn(TEST_SEED, 2000)
    for name, value in score(read(reader, images), avatars).items():
        click.echo(f"{name:<16}{value:.4f}")
    with storage.replacing(WEIGHTS) as partial:
        save_file(
            {k: v.half() if v.is_floating_point() else v for k, v in reader.state_dict().items()},
            partial,
        )
    partial_mode = 0o644
    WEIGHTS.chmod(partial_mode)
    click.echo(f"written: {WEIGHTS}")


if __name__ == "__main__":
    main()
