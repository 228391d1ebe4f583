"""Grid: what does each epoch draw, beside the base model, from the same prompts and noise?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lorascope import storage
from lorascope.errors import BadInputError
from lorascope.io.checkpoints import Checkpoint, usable_checkpoints
from lorascope.io.dataset_file import Dataset, read_dataset
from lorascope.io.images import whole_png_size
from lorascope.io.safetensors_file import read_header
from lorascope.io.train_settings import settings as settings_of
from lorascope.models.company import COMPANY
from lorascope.models.shots import SAMPLER_NAMES, UNIT
from lorascope.models.sources import MINIATURE, base_digest
from lorascope.progress import announce
from lorascope.records import Inputs, Measured, Measurement, Row, Scalar, Tool
from lorascope.tools.drawing import axes as reading
from lorascope.tools.drawing import companions
from lorascope.tools.drawing import draw as drawing
from lorascope.tools.drawing.cells import Applied, Cell, drawing_size
from lorascope.tools.drawing.layout import Axes, Placed, as_row, columns, layers, place
from lorascope.tools.drawing.plan import Plan, counted, learn_speed, plan_of
from lorascope.tools.drawing.prompts import (
    WITH_TRIGGER,
    WITHOUT_TRIGGER,
    Prompt,
    as_lines,
    choose_prompts,
    group_of,
    trigger_off,
)
from lorascope.tools.drawing.sheet import row_labels, write_sheet

NO_EPOCH, LAST, ALL = "none", "last", "all"  # what --trigger-off takes beside epochs
MOST_CLIP_SKIP = 12
OF_A_ROW = ("row", "kind", "epoch", "step", "strength", "text_strength", "base", "companions",
            "lora")  # fmt: skip
PROMPTS = "prompts.txt"  # the prompts that were drawn last, to be edited


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A grid before a single picture is drawn."""

    placed: tuple[Placed, ...]
    prompts: tuple[Prompt, ...]
    left_out: tuple[str, ...]  # checkpoints that cannot be read, in words

    @property
    def cells(self) -> list[Cell]:
        """Every picture of the grid, some perhaps at several places."""
        return [one.cell for one in self.placed]


def grid(
    inputs: Inputs,
    *,
    epochs: str = "",
    prompts: str = "",
    strengths: str = "1",
    text_strengths: str = "",
    seeds: str = "1",
    guidance: str = "5",
    steps: str = "20",
    sampler: str = "dpm++2m",
    sizes: str = "",
    negatives: str = "",
    bases: str = "",
    loras: str = "",
    lora_dir: str = "",
    trigger_off: str = "last",
    clip_skip: int = 0,
    batch: int = drawing.BATCH,
    compile: bool = False,
) -> Measured:
    """Draw the same prompts from the same noise with the base model and every epoch.

    Pictures that are there already are not drawn again: a picture is named by the bytes of LoRA
    and base model and by all settings, whatever run or epoch it belongs to. What can be stopped
    can go on: no more than the batch in hand is lost.

    Parameters
    ----------
    inputs : Inputs
        Reads ``lora``, ``dataset`` and ``base``; fills ``samples``.
    epochs : str
        Which epochs, as in "2,4,6-10", "first", "last"; on the command line also "dips" (of the
        logged loss) and "pick" (around the recommended one). All where empty. The base model is
        always drawn.
    prompts : str
        Prompts with a bar between them, or a file with one a line. @train, @held-out: captions;
        @tags: every activation tag by itself; @auto: made from the dataset's own tags, as where
        empty. <lora:name:te:unet> in a prompt adds a LoRA, or scales the run's own.
    strengths : str
        How strongly the LoRA acts, as in "0.6,1,1.4".
    text_strengths : str
        The same in the text encoders, where it differs; every pair is drawn.
    seeds : str
        Seeds of the noise, as in "1,2" or "1-4"; each makes a column of its own.
    guidance : str
        Guidance scales, as in "5,7"; 1 turns guidance off.
    steps : str
        Sampling steps, as in "20,30".
    sampler : str
        dpm++2m, ddim, euler, euler_a; several with commas.
    sizes : str
        Width x height in px, as in "512x512,512x768"; what was trained at, where empty.
    negatives : str
        Negative prompts with a bar between them.
    bases : str
        Other base models with a bar between them, each in rows of its own below the run's.
    loras : str
        Sets of LoRAs that are applied besides, with a bar between them: "<lora:style:0.6> | ".
    lora_dir : str
        The folder in which LoRAs are looked for by name.
    trigger_off : str
        Epochs drawn once more with the trigger left out: last, all, none, or as in "2,4".
    clip_skip : int
        Layer of the text encoder counted from the end; 0 takes what the LoRA was trained with.
    batch : int
        Pictures drawn at once.
    compile : bool
        Have torch compile the UNet first; pays for large grids on a GPU.

    Returns
    -------
    Measured
        Tables ``cells`` (a row per picture; files relative to the run), ``rows`` and
        ``prompts``. Picture ``samples/grid.png`` shows the grid that was drawn last, and
        ``samples/prompts.txt`` holds its prompts, to be edited and given back.

    Raises
    ------
    BadInputError
        A setting cannot be used, or the dataset has no training image.
    MissingInputError
        There is no checkpoint, or a LoRA that was named is not there.
    """
    asked: dict[str, Scalar] = {
        "epochs": epochs,
        "prompts": prompts,
        "strengths": strengths,
        "text_strengths": text_strengths,
        "seeds": seeds,
        "guidance": guidance,
        "steps": steps,
        "sampler": sampler,
        "sizes": sizes,
        "negatives": negatives,
        "bases": bases,
        "loras": loras,
        "lora_dir": lora_dir,
        "trigger_off": trigger_off,
        "clip_skip": clip_skip,
        "compile": compile,
    }
    _check_batch(batch)
    prepared, samples = prepare(inputs, asked), inputs["samples"]
    announce(f"grid: {_plan(prepared, samples, batch)}")
    drawing.draw(prepared.cells, samples, batch=batch)
    write_sheet(samples / "grid.png", prepared.placed, samples)
    storage.write_text(samples / PROMPTS, as_lines(prepared.prompts))
    return _measured(prepared, samples)


def plan(inputs: Inputs, **asked: Scalar) -> str:
    """Say what a grid would be and cost, and draw nothing.

    Parameters
    ----------
    inputs : Inputs
    **asked
        The options of `grid`.
    """
    _check_batch(asked.get("batch", drawing.BATCH))
    prepared = prepare(inputs, asked)
    rows = list(dict.fromkeys(one.layer for one in prepared.placed))
    across = [one.column for one in prepared.placed[: len(prepared.placed) // len(rows)]]
    lines = [f"{counted(len(rows), 'row')} x {counted(len(across), 'column')}"]
    lines += [f"  {label}{f' ({more})' if more else ''}" for label, more in row_labels(rows)]
    lines += ["", f"{counted(len(prepared.prompts), 'prompt')}", as_lines(prepared.prompts)]
    said = _plan(prepared, inputs["samples"], int(asked.get("batch") or drawing.BATCH))
    lines += [*prepared.left_out, str(said)]
    return "\n".join(lines)


def prepare(inputs: Inputs, asked: Mapping[str, Scalar]) -> Prepared:
    """Read the options and lay the grid out; nothing is opened but names and metadata."""
    dataset, name = read_dataset(inputs["dataset"]), str(inputs["base"])
    if not dataset.train:
        raise BadInputError(
            f"{inputs['dataset']} lists no training image.\nFix: make the run again from images."
        )
    sound, left_out = usable_checkpoints(inputs["lora"])
    saved = {checkpoint.epoch: checkpoint for checkpoint in sound}
    chosen = reading.epochs(str(asked["epochs"]), list(saved))
    off = _trigger_off(str(asked["trigger_off"]), chosen)
    prompts = choose_prompts(str(asked["prompts"]), dataset, in_world=name == MINIATURE)
    axes = _axes(asked, name, dataset, sound)
    rows = layers(axes, [saved[epoch] for epoch in chosen], trigger_off=off)
    folder = str(asked["lora_dir"])
    across = columns(axes, [_asked(prompt, dataset, sound, folder) for prompt in prompts])
    placed = place(rows, across, compiled=bool(asked["compile"]))
    return Prepared(placed=tuple(placed), prompts=prompts, left_out=left_out)


def is_drawn(inputs: Inputs, measured: Measured) -> bool:
    """Tell whether every picture of a grid is still there, whole."""
    sizes = {
        inputs["samples"].parent / str(row["file"]): (row["width"], row["height"])
        for row in measured.tables["cells"]
    }
    return all(whole_png_size(path) == size for path, size in sizes.items())


def named(asked: Mapping[str, Scalar]) -> Mapping[str, str]:
    """Hash what options name: other base models, other LoRAs."""
    text = f"{asked['prompts']} {asked['loras']}"
    found = dict(companions.named_digests(text, str(asked["lora_dir"])))
    others = [base for base in reading.texts(str(asked["bases"])) if base]
    return found | {f"base {base}": base_digest(base) for base in others}


def _axes(
    asked: Mapping[str, Scalar], base: str, dataset: Dataset, own: Sequence[Checkpoint]
) -> Axes:
    text = {name: str(value) for name, value in asked.items()}
    number = reading.numbers
    found = reading.read_all(
        {
            "companions": lambda: _companions(text["loras"], own, text["lora_dir"]),
            "strengths": lambda: number("strengths", text["strengths"], example="0.8,1.2"),
            "text_strengths": lambda: (
                number("text-strengths", text["text_strengths"], example="0.5,1")
                if text["text_strengths"].strip()
                else ()
            ),
            "seeds": lambda: reading.seeds(text["seeds"]),
            "guidances": lambda: number("guidance", text["guidance"], example="5,7", least=0),
            "steps": lambda: reading.steps(text["steps"]),
            "samplers": lambda: reading.choices("sampler", text["sampler"], SAMPLER_NAMES),
            "sizes": lambda: _sizes(text["sizes"], dataset, base),
            "clip_skip": lambda: _clip_skip(int(asked["clip_skip"] or 0), own),
        }
    )
    others = [name for name in reading.texts(text["bases"]) if name]
    negatives = reading.texts(text["negatives"])
    return Axes(bases=tuple(dict.fromkeys([base, *others])), negatives=negatives, **found)


def _companions(
    text: str, own: Sequence[Checkpoint], folder: str
) -> tuple[tuple[Applied, ...], ...]:
    sets = [companions.asked_of(part, own, folder) for part in reading.texts(text)]
    if strange := next((one.text.strip() for one in sets if one.text.strip()), ""):
        raise BadInputError(f"Cannot read {strange!r} in --loras.\nFix: --loras '<lora:NAME:0.6>'")
    return tuple(one.companions for one in sets)


def _sizes(text: str, dataset: Dataset, base: str) -> tuple[tuple[int, int], ...]:
    if text.strip():
        return reading.sizes(text, unit=UNIT)
    if all(dataset.resolution):
        return (drawing_size(dataset.resolution),)
    from lorascope.models.base import shared_base

    native = shared_base(base).size
    return ((native, native),)


def _clip_skip(asked: int, own: Sequence[Checkpoint]) -> int:
    """Take the text encoder's layer that was asked for, or else the one that was trained with."""
    if asked < 0 or asked > MOST_CLIP_SKIP:
        raise BadInputError(
            f"clip skip is {asked}, and must be from 1 to {MOST_CLIP_SKIP}.\nFix: --clip-skip 2"
        )
    if asked or not own:
        return asked or 1
    return settings_of(read_header(own[-1].path).metadata).clip_skip or 1


def _trigger_off(text: str, chosen: Sequence[int]) -> tuple[int, ...]:
    word = text.strip().lower()
    known = {NO_EPOCH: (), "": (), LAST: tuple(chosen[-1:]), ALL: tuple(chosen)}
    return known[word] if word in known else reading.epochs(text, chosen)


def _asked(
    prompt: Prompt, dataset: Dataset, own: Sequence[Checkpoint], folder: str
) -> tuple[Prompt, Prompt, companions.Asked]:
    """Give a prompt without tags, the same without the trigger, and what its tags ask for."""
    asked = companions.asked_of(prompt.text, own, folder)
    if asked.tags:
        prompt = replace(prompt, text=asked.text, group=group_of(asked.text, dataset))
    return prompt, trigger_off(prompt, dataset), asked


def _plan(prepared: Prepared, samples: Path, batch: int) -> Plan:
    lacking = drawing.missing(prepared.cells, samples)
    learn_speed(lacking, samples, batch=batch)
    return plan_of(prepared.cells, lacking, samples)


def _measured(prepared: Prepared, samples: Path) -> Measured:
    cells: list[Row] = []
    for number, one in enumerate(prepared.placed):
        path = one.cell.path(samples)
        file = f"{samples.name}/{path.parent.name}/{path.name}"
        cells.append(as_row(one, number) | {"file": file})
    rows = list({row["row"]: row for row in reversed(cells)}.values())[::-1]
    width = len(cells) // len(rows)
    return Measured(
        numbers=tuple(_counts(prepared)),
        tables={
            "cells": cells,
            "rows": [{name: row[name] for name in OF_A_ROW} for row in rows],
            "prompts": _prompt_rows(prepared.placed[:width]),
        },
        caveats=(*prepared.left_out, *_caveats(prepared)),
    )


def _prompt_rows(first: Sequence[Placed]) -> list[Row]:
    return [
        {
            "column": one.across,
            "prompt": one.prompt.text,
            "group": one.prompt.group,
            "split": one.prompt.split,
            "tags": one.column.asked.tags,
        }
        for one in first
    ]


def _counts(prepared: Prepared) -> list[Measurement]:
    placed = prepared.placed
    counts = {
        "cells": (len({one.cell.name for one in placed}), "pictures"),
        "prompts": (len(prepared.prompts), "prompts"),
        "seeds": (len({one.cell.shot.seed for one in placed}), "seeds"),
        "epochs": (len({one.layer.epoch for one in placed} - {0}), "epochs"),
    }
    return [Measurement(name=k, value=n, unit=unit, n=n) for k, (n, unit) in counts.items()]


def _caveats(prepared: Prepared) -> list[str]:
    groups = {one.prompt.group for one in prepared.placed}
    found = [COMPANY]
    if not groups.intersection(WITHOUT_TRIGGER):
        found.append("No prompt lacks the trigger: drift cannot be measured.")
    if not groups.intersection(WITH_TRIGGER):
        found.append("No prompt has the trigger: likeness and diversity cannot be measured.")
    return found


def _check_batch(batch: Scalar) -> None:
    if not isinstance(batch, int) or batch < 1:
        raise BadInputError(f"batch is {batch}, and must be 1 or more.\nFix: --batch 16")


GRID = Tool(
    name="grid",
    asks="What does each epoch draw?",
    reads=("lora", "dataset", "base"),
    writes=("samples",),
    measure=grid,
    named=named,
    holds=is_drawn,
    version=2,
)
