"""The plan of a grid: which weights make its rows, which shots its columns, and so its cells."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lorascope.io.checkpoints import Checkpoint
from lorascope.models.shots import Shot
from lorascope.records import Scalar
from lorascope.tools.drawing.cells import Applied, Cell, Weights, make_cell
from lorascope.tools.drawing.companions import Asked, said
from lorascope.tools.drawing.prompts import Prompt
from lorascope.tools.pictures.sets import BASE, LORA, TRIGGER_OFF

USUAL = 1.0  # the strength that most people generate with


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One row: what draws it."""

    kind: str  # base, lora or trigger-off
    base: str
    companions: tuple[Applied, ...] = ()
    epoch: int = 0  # 0: without the LoRA that the grid is about
    step: int = 0
    strength: float = 0.0
    text_strength: float = 0.0
    path: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: what is asked of every row."""

    prompt: Prompt  # without tags
    off: Prompt  # the same without the trigger
    asked: Asked  # what its tags say
    shot: Shot


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A cell at its place."""

    cell: Cell
    layer: Layer
    column: Column
    row: int
    across: int
    baseline: int  # place of what the base model drew of the same prompt and noise

    @property
    def prompt(self) -> Prompt:
        """The prompt as it was drawn in this row."""
        return self.column.off if self.layer.kind == TRIGGER_OFF else self.column.prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """The values of every axis but the prompts and the checkpoints; each has one at least."""

    bases: tuple[str, ...]
    companions: tuple[tuple[Applied, ...], ...]
    strengths: tuple[float, ...]
    text_strengths: tuple[float, ...]  # empty: the same as the UNet's
    seeds: tuple[int, ...]
    negatives: tuple[str, ...]
    guidances: tuple[float, ...]
    steps: tuple[int, ...]
    samplers: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    clip_skip: int

    @property
    def usual(self) -> tuple[float, float]:
        """The strengths nearest to what most people use: of the UNet, of the text encoders."""
        strength = min(self.strengths, key=lambda s: abs(s - USUAL))
        text = min(self.text_strengths, key=lambda s: abs(s - USUAL), default=strength)
        return strength, text


def layers(
    axes: Axes, checkpoints: Sequence[Checkpoint], *, trigger_off: Sequence[int]
) -> list[Layer]:
    """List the rows: the base model first, then every checkpoint, then those without the trigger.

    Parameters
    ----------
    axes : Axes
    checkpoints : sequence of Checkpoint
        In the order of their epochs.
    trigger_off : sequence of int
        Epochs that are drawn once more with the trigger left out; none leaves those rows out.

    Returns
    -------
    list of Layer
        Once for every base model and every set of companions. Strength 0 makes no row of its
        own: that is the base model.
    """
    strengths = [
        (strength, text)
        for strength in axes.strengths
        for text in (axes.text_strengths or (strength,))
        if (strength, text) != (0, 0)
    ]
    found = []
    for base, companions in itertools.product(axes.bases, axes.companions):
        plain = Layer(kind=BASE, base=base, companions=companions)
        found.append(plain)
        found += [
            _layer(LORA, plain, checkpoint, *pair)
            for checkpoint in checkpoints
            for pair in strengths
        ]
        off = [c for c in checkpoints if c.epoch in trigger_off]
        if off and strengths:
            found.append(Layer(kind=TRIGGER_OFF, base=base, companions=companions))
            found += [_layer(TRIGGER_OFF, plain, checkpoint, *axes.usual) for checkpoint in off]
    return found


def columns(axes: Axes, prompts: Sequence[tuple[Prompt, Prompt, Asked]]) -> list[Column]:
    """List the columns: every prompt with every seed and setting that it does not set itself.

    Parameters
    ----------
    axes : Axes
    prompts : sequence of (Prompt, Prompt, Asked)
        A prompt without tags, the same without the trigger, and what its tags ask for.
    """
    found: dict[Column, None] = {}
    for prompt, off, asked in prompts:
        for seed, negative, guidance, steps, sampler, (width, height) in itertools.product(
            axes.seeds if prompt.seed is None else (prompt.seed,),
            axes.negatives if prompt.negative is None else (prompt.negative,),
            axes.guidances if prompt.guidance is None else (prompt.guidance,),
            axes.steps if prompt.steps is None else (prompt.steps,),
            axes.samplers,
            axes.sizes,
        ):
            shot = Shot(
                prompt=prompt.text,
                seed=seed,
                width=prompt.width or width,
                height=prompt.height or height,
                negative=negative,
                steps=steps,
                guidance=guidance,
                sampler=sampler,
                clip_skip=axes.clip_skip,
            )
            found[Column(prompt=prompt, off=off, asked=asked, shot=shot)] = None
    return list(found)


def place(
    rows: Sequence[Layer], across: Sequence[Column], *, compiled: bool = False
) -> list[Placed]:
    """Make the cells of a grid, row by row; ``compiled`` says whether torch compiles the UNet."""
    found: list[Placed] = []
    baselines: dict[tuple[object, ...], int] = {}
    for row, layer in enumerate(rows):
        for number, column in enumerate(across):
            key = (layer.base, layer.companions, layer.kind == TRIGGER_OFF, number)
            if not layer.epoch:
                baselines[key] = len(found)
            found.append(
                Placed(
                    cell=_cell(layer, column, compiled),
                    layer=layer,
                    column=column,
                    row=row,
                    across=number,
                    baseline=baselines[key],
                )
            )
    return found


def as_row(placed: Placed, place: int) -> dict[str, Scalar]:
    """Write a placed cell as a row of the grid's table ``cells``."""
    layer, shot, prompt = placed.layer, placed.cell.shot, placed.prompt
    return {
        "cell": place,
        "row": placed.row,
        "column": placed.across,
        "kind": layer.kind,
        "epoch": layer.epoch,
        "step": layer.step,
        "strength": layer.strength,
        "text_strength": layer.text_strength,
        "prompt": prompt.text,
        "group": prompt.group,
        "seed": shot.seed,
        "width": shot.width,
        "height": shot.height,
        "base": layer.base,
        "baseline": placed.baseline,
        "negative": shot.negative,
        "guidance": shot.guidance,
        "steps": shot.steps,
        "sampler": shot.sampler,
        "clip_skip": shot.clip_skip,
        "lora": layer.path.name if layer.path else "",
        "companions": said(layer.companions),
        "tags": placed.column.asked.tags,
    }


def _layer(
    kind: str, plain: Layer, checkpoint: Checkpoint, strength: float, text_strength: float
) -> Layer:
    return Layer(
        kind=kind,
        base=plain.base,
        companions=plain.companions,
        epoch=checkpoint.epoch,
        step=checkpoint.step,
        strength=strength,
        text_strength=text_strength,
        path=checkpoint.path,
    )


def _cell(layer: Layer, column: Column, compiled: bool) -> Cell:
    shot = column.shot
    if layer.kind == TRIGGER_OFF:
        shot = replace(shot, prompt=column.off.text)
    loras = tuple(_loras(layer, column))
    return make_cell(Weights(base=layer.base, loras=loras, compiled=compiled), shot)


def _loras(layer: Layer, column: Column) -> Iterator[Applied]:
    yield from layer.companions
    yield from column.asked.companions
    if layer.path:
        yield Applied(
            path=layer.path,
            strength=layer.strength * column.asked.strength,
            text_strength=layer.text_strength * column.asked.text_strength,
        )
