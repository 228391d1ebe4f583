"""Grid: what does each epoch draw, beside the base model, from the same prompts and noise?"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.checkpoints import Checkpoint, usable_checkpoints
from lorascope.io.dataset_file import read_dataset
from lorascope.io.images import read_image, write_png
from lorascope.io.lora_file import read_lora
from lorascope.progress import track
from lorascope.records import Inputs, Measured, Tool
from lorascope.run import digest
from lorascope.tools.pictures import Cell, Layer, drawing_size, measure_pictures
from lorascope.tools.prompts import Prompt, choose_prompts

if TYPE_CHECKING:
    from lorascope.models.base import Base

Settings = Mapping[str, str | int | float]  # sampler, steps, guidance, width, height

CELL_VERSION = 1  # raised whenever the same settings would draw another picture


def grid(
    inputs: Inputs,
    *,
    epochs: str = "",
    prompts: str = "",
    strengths: str = "1",
    seeds: str = "1",
    steps: int = 20,
    guidance: float = 5.0,
    sampler: str = "dpm++2m",
    batch: int = 16,
) -> Measured:
    """Draw the same prompts from the same noise with the base model and every epoch.

    Pictures that are there already are not drawn again: a cell is named by the bytes of LoRA and
    base model and by all settings, whatever run or epoch it belongs to.

    Parameters
    ----------
    inputs : Inputs
        Reads ``lora``, ``dataset`` and ``base``; fills ``samples``.
    epochs : str
        Which epochs, as in "2,4,6-10"; all of them where empty. The base model is always shown.
    prompts : str
        Prompts with a bar between them; the command line also takes a text file with one prompt
        a line. Where empty, made from the dataset's own tags.
    strengths : str
        How strongly the LoRA acts, as in "0.6,1,1.4".
    seeds : str
        Seeds of the noise, as in "1,2"; each makes a column of its own.
    steps : int
        Sampling steps.
    guidance : float
        Guidance scale; 1 turns guidance off.
    sampler : str
        dpm++2m, ddim, euler or euler_a.
    batch : int
        Pictures drawn at once.

    Returns
    -------
    Measured
        Tables ``cells`` (a row per picture; files relative to the run), ``epochs`` (a row per
        checkpoint and strength; epoch 0 is the base model) and ``prompts``. Picture
        ``samples/grid.png`` shows the grid that was drawn last.

    Raises
    ------
    BadInputError
        A setting cannot be used, the dataset has no training image, or an image cannot be read.
    MissingInputError
        There is no checkpoint.

    Notes
    -----
    No network but the base model's own VAE is needed. Pictures are compared by `similarity.layout`
    of their latents: colours, shading and where they lie; a face is not recognised.

    - likeness: mean cosine to the three nearest training images, from the base model's pictures
      of the same prompts (0) to the training images, each against the others (1).
    - class_likeness: likeness of pictures without the trigger, beyond the base model's.
    - diversity: spread of the pictures with the trigger over that of the base model's;
      seed_diversity the same among the seeds of one prompt.
    - moved: distance to the base model's picture of the same prompt and noise, in distances
      between the base model's pictures of two prompts; drift its mean without the trigger,
      unrelated_drift without the class prompt either.
    - change: mean absolute difference to that picture in pixels; unrelated_change its mean
      without the trigger.
    - copy_ratio: distance to the nearest training image over that to the second nearest, on
      pictures blurred to 16 x 16; copy_ratio_held_out is what pictures come to that cannot be
      copies.
    """
    from lorascope.models.base import load_base

    _check(steps=steps, guidance=guidance, batch=batch)
    name, samples = str(inputs["base"]), inputs["samples"]
    dataset = read_dataset(inputs["dataset"])
    if not dataset.train:
        raise BadInputError(
            f"{inputs['dataset']} lists no training image.\nFix: make the run again from images."
        )
    columns = choose_prompts(prompts, dataset, in_world=name == "miniature")
    sound, left_out = usable_checkpoints(inputs["lora"])
    layers = _layers(sound, epochs, _numbers("strengths", strengths))
    sown = tuple(dict.fromkeys(_whole("seeds", text) for text in _listed("seeds", seeds)))
    base = load_base(name)
    width, height = drawing_size(dataset, base)
    settings: Settings = {
        "sampler": sampler,
        "steps": steps,
        "guidance": guidance,
        "width": width,
        "height": height,
    }
    cells = _plan(layers, columns, sown, settings, name=name, folder=samples / "cells")
    draw(base, cells, settings, batch=batch)
    measured = measure_pictures(base, dataset, cells, samples)
    return dataclasses.replace(measured, caveats=(*left_out, *measured.caveats))


def parse_epochs(text: str, available: Sequence[int]) -> tuple[int, ...]:
    """Read which epochs are meant.

    Parameters
    ----------
    text : str
        As in "2,4,6-10": numbers, and ranges that take every saved epoch between their ends; all
        where empty. 0, the base model, may be named and changes nothing.
    available : sequence of int
        The saved epochs.

    Returns
    -------
    tuple of int
        Rising, without 0.

    Raises
    ------
    BadInputError
        It cannot be read, or names an epoch that was not saved.
    """
    if not text.strip():
        return tuple(sorted(set(available)))
    wanted: set[int] = set()
    missing = []
    for part in _listed("epochs", text):
        ends = [_whole("epochs", end) for end in part.split("-")]
        if len(ends) > 2 or ends[0] > ends[-1]:
            raise _unreadable("epochs", part, "2,4,6-10")
        found = {epoch for epoch in (0, *available) if ends[0] <= epoch <= ends[-1]}
        wanted |= found
        missing += [part] if not found else []
    if missing:
        there = _spans(available)
        raise BadInputError(
            f"No checkpoint was saved for epoch {', '.join(missing)}; there are {there}.\n"
            f"Fix: --epochs {there.replace(' ', '')}"
        )
    return tuple(sorted(wanted - {0}))


def draw(base: "Base", cells: Sequence[Cell], settings: Settings, *, batch: int) -> int:
    """Draw the cells that are missing or damaged, one checkpoint after the other.

    Each picture is on disk before the next batch begins: stopping loses one batch at most.

    Returns
    -------
    int
        How many were drawn.
    """
    from lorascope.models.lora import merged
    from lorascope.models.sampling import sample

    width, height = int(settings["width"]), int(settings["height"])
    by_layer: dict[Layer, list[Cell]] = {}
    for path, cell in {cell.path: cell for cell in reversed(cells)}.items():
        if not _usable(path, width, height):
            by_layer.setdefault(cell.layer, []).insert(0, cell)
    forwards = sum(math.ceil(len(c) / batch) for c in by_layer.values()) * int(settings["steps"])
    progress = track(range(forwards), label="grid, sampling steps")

    def advance(_done: int, _total: int) -> None:
        next(progress, None)

    for layer in sorted(by_layer, key=lambda layer: (layer.epoch, layer.strength)):
        lora = read_lora(layer.path) if layer.path else None
        with merged(base, lora, strength=layer.strength):
            for several in _chunks(by_layer[layer], batch):
                pictures = sample(
                    base,
                    [cell.prompt.text for cell in several],
                    [cell.seed for cell in several],
                    steps=int(settings["steps"]),
                    guidance=float(settings["guidance"]),
                    sampler=str(settings["sampler"]),
                    width=width,
                    height=height,
                    batch=batch,
                    on_step=advance,
                )
                for cell, picture in zip(several, pictures, strict=True):
                    write_png(cell.path, picture, text=_label(base, cell, settings))
    next(progress, None)
    return sum(map(len, by_layer.values()))


def _check(*, steps: int, guidance: float, batch: int) -> None:
    wrong = []
    if not 1 <= steps <= 1000:
        wrong.append(f"steps is {steps}, and must be from 1 to 1000")
    if not (math.isfinite(guidance) and guidance >= 0):
        wrong.append(f"guidance is {guidance}, and must be 0 or more")
    if batch < 1:
        wrong.append(f"batch is {batch}, and must be 1 or more")
    if wrong:
        raise BadInputError("; ".join(wrong) + ".\nFix: lorascope grid --help")


def _listed(option: str, text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise _unreadable(option, text, "1,2")
    return parts


def _whole(option: str, text: str) -> int:
    if not text.strip().isdecimal() or int(text) >= 2**63:
        raise _unreadable(option, text, "1,2")
    return int(text)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        values = [float(part) for part in _listed(option, text)]
    except ValueError as error:
        raise _unreadable(option, text, "0.8,1.2") from error
    if not all(map(math.isfinite, values)):
        raise _unreadable(option, text, "0.8,1.2")
    return tuple(dict.fromkeys(values))


def _unreadable(option: str, text: str, example: str) -> BadInputError:
    return BadInputError(f"Cannot read {text!r} in --{option}.\nFix: --{option} {example}")


def _spans(numbers: Sequence[int]) -> str:
    """Write 1, 2, 3, 7 as "1-3, 7"."""
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and number == spans[-1][-1] + 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    return ", ".join(str(s[0]) if len(s) == 1 else f"{s[0]}-{s[-1]}" for s in spans)


def _layers(
    sound: Sequence[Checkpoint], epochs: str, strengths: Sequence[float]
) -> tuple[Layer, ...]:
    saved = {checkpoint.epoch: checkpoint for checkpoint in sound}
    chosen = [saved[epoch] for epoch in parse_epochs(epochs, list(saved))]
    return (
        Layer(epoch=0, step=0, strength=0.0),
        *(
            Layer(checkpoint.epoch, checkpoint.step, strength, checkpoint.path)
            for checkpoint in chosen
            for strength in strengths
            if strength != 0  # that is the base model
        ),
    )


def _plan(
    layers: Sequence[Layer],
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    settings: Settings,
    *,
    name: str,
    folder: Path,
) -> list[Cell]:
    """List every cell, row by row, under the name that its content will have."""
    from lorascope.models.base import base_digest

    model = base_digest(name)
    cells = []
    for layer in layers:
        lora = digest(layer.path) if layer.path else ""
        for column, prompt in enumerate(prompts):
            for seed in seeds:
                key = [CELL_VERSION, model, lora, layer.strength, prompt.text, seed]
                text = json.dumps([*key, sorted(settings.items())])
                stem = hashlib.sha256(text.encode()).hexdigest()[:16]
                cells.append(Cell(layer, column, prompt, seed, folder / f"{stem}.png"))
    return cells


def _usable(path: Path, width: int, height: int) -> bool:
    """Whether a picture is there, whole, and of the right size."""
    try:
        return read_image(path).shape == (height, width, 3)
    except (BadInputError, MissingInputError):
        return False


def _label(base: "Base", cell: Cell, settings: Settings) -> dict[str, str]:
    """Say inside the picture how it was made."""
    return {
        "prompt": cell.prompt.text,
        "group": cell.prompt.group,
        "seed": str(cell.seed),
        "epoch": str(cell.layer.epoch),
        "step": str(cell.layer.step),
        "strength": str(cell.layer.strength),
        "lora": cell.layer.path.name if cell.layer.path else "",
        "base": Path(base.name).name,
        **{key: str(value) for key, value in settings.items()},
    }


def _chunks(cells: Sequence[Cell], size: int) -> Iterable[Sequence[Cell]]:
    return (cells[start : start + size] for start in range(0, len(cells), size))


GRID = Tool(
    name="grid",
    asks="What does each epoch draw?",
    reads=("lora", "dataset", "base"),
    writes=("samples",),
    measure=grid,
)
