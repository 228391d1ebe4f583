"""Pictures whose subject is known: what likeness is measured on, and what an oracle says of them.

The oracle is the attribute reader (`benchmarks.miniature.reader`), which shares nothing with the
base model: the share of a subject's fixed attributes that it finds in a picture.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.miniature.reader import HEADS, Reader, read
from lorascope import demo
from lorascope.io.checkpoints import usable_checkpoints
from lorascope.io.images import write_png
from lorascope.io.lora_file import read_lora
from lorascope.miniature import world
from lorascope.miniature.datasets import character_avatar
from lorascope.miniature.drawing import draw
from lorascope.models.lora import merged
from lorascope.models.sampling import sample
from lorascope.run import Run

if TYPE_CHECKING:
    from lorascope.models.base import Base

Pictures = NDArray[np.uint8]
FREE = ("expression", "background")  # what a character's captions name
FIXED = tuple(head for head in HEADS if head not in FREE)
CHANGES = (0, 0, 1, 2, 3, 4, 6)  # fixed attributes that are replaced, of those asked for by tags
EACH = 6  # pictures of each number of changes
STRANGERS = 36  # pictures of other characters, of those asked for
REFERENCES, TRAINING = 6, 8  # drawings of each subject: held out, and trained on
STEPS = 20
PLACES = ("white background", "forest", "night", "beach", "pink background", "room", "sky")


@dataclass(frozen=True, eq=False, kw_only=True)
class Case:
    """One subject: its drawings, pictures that may show it, the base model's, and the truth."""

    name: str
    held_out: Pictures  # drawings of the subject
    training: Pictures
    base: Pictures  # what the base model drew of the same prompts, the subject not named
    pictures: Pictures
    share: NDArray[np.float64]  # of the fixed attributes, as the oracle reads them
    epochs: NDArray[np.int64] | None = None  # of each picture; None where nothing was trained


def asked_cases(base: "Base", reader: Reader, *, subjects: int) -> Iterator[Case]:
    """Ask the base model by tags for subjects that it knows, and for others that are less like."""
    rng = random.Random("likeness")
    plain = [", ".join(_free(rng)) for _ in range(24)]
    usual = sample(base, plain, range(900, 924), steps=STEPS)
    for number in range(subjects):
        subject = world.sample_avatar(rng)
        asked = [_changed(subject, changes, rng) for changes in CHANGES for _ in range(EACH)]
        asked += [world.sample_avatar(rng) for _ in range(STRANGERS)]
        prompts = [", ".join(world.tags(avatar)) for avatar in asked]
        pictures = sample(base, prompts, range(len(prompts)), steps=STEPS)
        drawings = _drawings(subject, REFERENCES + TRAINING, rng)
        yield Case(
            name=f"asked {number}",
            held_out=drawings[:REFERENCES],
            training=drawings[REFERENCES:],
            base=usual,
            pictures=pictures,
            share=share_right(reader, pictures, subject),
        )


def trained_case(base: "Base", reader: Reader, run: Run, subject: world.Avatar, name: str) -> Case:
    """Draw what every epoch of a training makes of its trigger, in new places."""
    trigger = demo.TRIGGER
    tails = ["", *PLACES]
    prompts = [f"{trigger}, {tail}" if tail else trigger for tail in tails] * 2
    seeds = [1] * len(tails) + [2] * len(tails)
    drawn, epochs = [], []
    checkpoints, _ = usable_checkpoints(run.input("lora"))
    for checkpoint in (None, *checkpoints):
        lora = read_lora(checkpoint.path) if checkpoint else None
        with merged(base, lora):
            drawn.append(sample(base, prompts, seeds, steps=STEPS))
        epochs += [checkpoint.epoch if checkpoint else 0] * len(prompts)
    drawings = _drawings(subject, REFERENCES + TRAINING, random.Random(name))
    pictures = np.concatenate(drawn)
    return Case(
        name=name,
        held_out=drawings[:REFERENCES],
        training=drawings[REFERENCES:],
        base=drawn[0],
        pictures=pictures,
        share=share_right(reader, pictures, subject),
        epochs=np.array(epochs),
    )


def share_right(reader: Reader, pictures: Pictures, subject: world.Avatar) -> NDArray[np.float64]:
    """Say which share of the subject's fixed attributes and accessories each picture shows."""
    return np.array(
        [
            np.mean(
                [r.attributes[head] == getattr(subject, head) for head in FIXED]
                + [(a in r.accessories) == (a in subject.accessories) for a in world.ACCESSORIES]
            )
            for r in read(reader, pictures)
        ]
    )


def second_subject() -> world.Avatar:
    """Give a character other than the demo's, with an emblem and a mark that no tag describes."""
    return replace(
        world.sample_avatar(random.Random(5)),
        emblem=world.Emblem(shape="ring", colour=(230, 120, 40), size=14.0),
        mark=world.Mark(shape="bolt", colour=(90, 220, 230), side="left", place="hair", size=14.0),
    )


def train_second(out: Path) -> Run:
    """Train the second subject, slowly, so that many epochs lie between nothing and all."""
    from trainer.config import config_from
    from trainer.loop import train

    folder = out.with_name(f"{out.name}-dataset")
    for number, picture in enumerate(_with_avatars(second_subject(), 14, random.Random("second"))):
        avatar, image = picture
        file = folder / "14_second" / f"{number:03}.png"
        write_png(file, image)
        tags = (demo.TRIGGER, avatar.expression, avatar.background)
        file.with_suffix(".txt").write_text(", ".join(tags), encoding="utf-8")
    settings: Mapping[str, Any] = {
        **demo.SETTINGS,
        "unet_lr": 6e-4,
        "held_out_tag": "",
        "epochs": 12,
    }
    return train(config_from({**settings, "dataset": str(folder)}), out)


def demo_subject() -> world.Avatar:
    """Give the demo's character."""
    return character_avatar(random.Random(0))


def _free(rng: random.Random) -> tuple[str, str]:
    return rng.choice(world.EXPRESSIONS), rng.choice(world.BACKGROUNDS)


def _changed(subject: world.Avatar, changes: int, rng: random.Random) -> world.Avatar:
    """Give the subject in another place, with some of its fixed attributes replaced."""
    other = world.sample_avatar(rng)
    names = rng.sample([head for head in FIXED if head != "skin"] + ["skin"], min(changes, 6))
    found = replace(subject, expression=other.expression, background=other.background)
    for name in names:
        values = [v for v in HEADS[name] if v != getattr(subject, name)]
        changed: dict[str, Any] = {name: rng.choice(values)}
        found = replace(found, **changed)
    return found


def _drawings(subject: world.Avatar, count: int, rng: random.Random) -> Pictures:
    return np.stack([image for _, image in _with_avatars(subject, count, rng)])


def _with_avatars(
    subject: world.Avatar, count: int, rng: random.Random
) -> Sequence[tuple[world.Avatar, NDArray[np.uint8]]]:
    """Draw the subject in several places."""
    found = []
    for _ in range(count):
        expression, background = _free(rng)
        avatar = replace(subject, expression=expression, background=background)
        found.append((avatar, draw(avatar, rng).image))
    return found
