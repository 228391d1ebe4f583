"""What was told about the pictures of a set: a row for each picture, and for each row of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.io.captions import split_tags
from lorascope.io.dataset_file import Dataset
from lorascope.io.lora_tags import without_lora_tags
from lorascope.metrics import tags as tagging
from lorascope.metrics.adherence import PromptScale
from lorascope.records import Row, cell
from lorascope.tools.pictures.likelihoods import Asked
from lorascope.tools.pictures.rows import over_prompts, row_facts
from lorascope.tools.pictures.sets import BASE, Picture, PictureSet

Array = NDArray[Any]
Prompt = tuple[int, str]  # row of the base model that it is compared with, and what is asked

OTHERS = 8  # pictures of other prompts that a prompt is compared with
CAPTION, NEW, OTHER = "caption", "new", "other"  # what a prompt is to the training
NAMED = 4  # things that a caveat lists


def asked_of(prompt: str, dataset: Dataset) -> str:
    """Say what a prompt asks for, the trigger and any LoRA's tag aside; "" where nothing is left.

    A weight in brackets, ``(red hat:1.2)``, is part of the words.
    """
    tags = split_tags(without_lora_tags(prompt))
    return ", ".join(tagging.without(tags, dataset.trigger) if dataset.trigger else tags)


def kind_of(picture: Picture, dataset: Dataset) -> str:
    """Say what a prompt is to the training: one of its captions, new, or without the trigger."""
    tags = split_tags(without_lora_tags(picture.prompt))
    if dataset.trigger and tagging.position(tags, dataset.trigger) is None:
        return OTHER
    captions = (set(split_tags(image.caption)) for image in dataset.train)
    return CAPTION if set(tags) in captions else NEW


@dataclass(frozen=True, kw_only=True, eq=False)
class Told:
    """What was told about the pictures of a set.

    Attributes
    ----------
    pictures : PictureSet
    dataset : Dataset
    texts : tuple of str
        What each picture's prompt asks for; "" where it asks for nothing but the trigger.
    gains : mapping
        Place and text -> (K,) gains; NaN where the picture cannot be read.
    """

    pictures: PictureSet
    dataset: Dataset
    texts: tuple[str, ...]
    gains: Mapping[Asked, Array]

    def scales(
        self, others: Mapping[Prompt, Sequence[int]], *, floor: float
    ) -> dict[Prompt, PromptScale]:
        """Lay the scale of every prompt that the base model drew."""
        own: dict[Prompt, list[Array]] = {}
        for place, picture in enumerate(self.pictures.pictures):
            if picture.kind == BASE and self.texts[place]:
                key = (picture.row, self.texts[place])
                own.setdefault(key, []).append(self.gains[place, self.texts[place]])
        width = len(next(iter(self.gains.values()), ()))
        found = {}
        for (row, text), rows in own.items():
            strange = [self.gains[place, text] for place in others[row, text]]
            found[row, text] = PromptScale.between(
                np.array(strange).reshape(-1, width), np.array(rows), floor=floor
            )
        return found

    def cells(self, scales: Mapping[Prompt, PromptScale]) -> Iterator[Row]:
        """Give a row for each picture whose prompt asks for something."""
        nothing = PromptScale(zero=np.nan, one=np.nan, known=False)
        for place, picture in enumerate(self.pictures.pictures):
            text = self.texts[place]
            if not text:
                continue
            mean = float(self.gains[place, text].mean())
            scale = scales.get((_base_row(self.pictures, picture), text), nothing)
            yield {
                "cell": place,
                "adherence": cell(float(scale.place(mean))),
                "gain": cell(mean),
                "gain_base": cell(scale.one),
                "gain_other": cell(scale.zero),
                "testable": scale.known,
                "asked": kind_of(picture, self.dataset),
            }

    def epochs(self, cells: Sequence[Row]) -> Iterator[Row]:
        """Give a row for each row of the set: means over its pictures, with their doubt."""
        measured = {row["cell"]: row for row in cells}
        for pictures in self.pictures.rows():
            rows = [measured[p.cell] for p in pictures if p.cell in measured]
            prompts = [self.pictures.pictures[int(row["cell"] or 0)].prompt for row in rows]
            values = np.array([_number(row["adherence"]) for row in rows], dtype=np.float64)
            kinds = np.array([row["asked"] for row in rows])
            found = dict(row_facts(pictures)) | over_prompts("adherence", values, prompts)
            for kind in (CAPTION, NEW, OTHER):
                some = np.where(kinds == kind, values, np.nan) if len(rows) else values
                found |= over_prompts(f"adherence_{kind}", some, prompts)
            gains = np.array([_number(row["gain"]) for row in rows], dtype=np.float64)
            yield (
                found
                | over_prompts("gain", gains, prompts)
                | {"counted": int(np.isfinite(values).sum())}
            )

    def doubts(self, scales: Mapping[Prompt, PromptScale]) -> Iterator[str]:
        """Say what does not count, and why."""
        lost = [
            self.pictures.pictures[place].file
            for place, text in enumerate(self.texts)
            if text and not np.isfinite(self.gains[place, text]).all()
        ]
        if lost:
            yield f"{len(lost)} picture(s) could not be read: {some_of(lost)}."
        if not any(self.texts):
            yield "No prompt asks for anything but the trigger: there is nothing to obey."
        elif not scales:
            yield (
                "The base model drew none of these prompts: gains are given, and no adherence, "
                "which is measured beside the base model's own pictures."
            )
        strange = list(dict.fromkeys(text for (_, text), s in scales.items() if not s.known))
        if strange:
            yield (
                f"Not testable, {len(strange)} prompt(s): the base model does not know its own "
                f"pictures of them from those of others: {some_of(strange)}."
            )


def others_of(pictures: PictureSet, texts: Sequence[str]) -> dict[Prompt, list[int]]:
    """Choose for every prompt some pictures that the base model drew of other prompts.

    One of each prompt, those first that have the fewest tags in common; a prompt that asks for
    all of it as well shows it too, and is not taken.
    """
    drawn = [p for p in pictures.pictures if p.kind == BASE]
    found: dict[Prompt, list[int]] = {}
    for row, text in dict.fromkeys((p.row, texts[p.cell]) for p in drawn if texts[p.cell]):
        tags = set(split_tags(text))
        near: dict[str, tuple[int, int]] = {}  # text -> tags in common, place
        for other in (p for p in drawn if p.row == row):
            told = set(split_tags(texts[other.cell]))
            if not tags <= told:
                near.setdefault(texts[other.cell], (len(tags & told), other.cell))
        found[row, text] = [place for _, place in sorted(near.values())[:OTHERS]]
    return found


def _base_row(pictures: PictureSet, picture: Picture) -> int:
    """Find the row of the base model that a picture is compared with; -1 where there is none."""
    if picture.kind == BASE:
        return picture.row
    return -1 if picture.baseline is None else pictures.pictures[picture.baseline].row


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else np.nan


def some_of(names: Sequence[str]) -> str:
    """Name some things, and count the rest."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return "; ".join(names[:NAMED]) + more
