"""Grid: what does each epoch draw, beside the base model, from the same prompts and noise?"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lorascope import storage
from lorascope.errors import BadInputError
from lorascope.io.images import whole_png_size
from lorascope.models.company import COMPANY
from lorascope.models.sources import base_digest
from lorascope.progress import announce
from lorascope.records import Inputs, Measured, Measurement, Row, Scalar, Tool
from lorascope.tools.drawing import axes as reading
from lorascope.tools.drawing import companions
from lorascope.tools.drawing import draw as drawing
from lorascope.tools.drawing.layout import Placed, as_row
from lorascope.tools.drawing.plan import Plan, counted, learn_speed, plan_of
from lorascope.tools.drawing.prepare import Prepared, prepare
from lorascope.tools.drawing.prompts import (
    WITH_TRIGGER,
    WITHOUT_TRIGGER,
    as_lines,
)
from lorascope.tools.drawing.sheet import row_labels, write_sheet

OF_A_ROW = ("row", "kind", "epoch", "step", "strength", "text_strength", "base", "companions",
            "lora")  # fmt: skip
PROMPTS = "prompts.txt"  # the prompts that were drawn last, to be edited


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
        caveats=(*prepared.left_out, *_broken(prepared, samples), *_caveats(prepared)),
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


def _broken(prepared: Prepared, samples: Path) -> list[str]:
    """Name the epochs whose numbers ran over, so that nobody believes their black pictures."""
    names = drawing.broken(prepared.cells, samples)
    epochs = sorted({one.layer.epoch for one in prepared.placed if one.cell.name in names})
    return [
        f"Epoch {epoch} gave pictures of numbers that are not finite: they are black, and what is "
        "measured of them means nothing."
        for epoch in epochs
    ]


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
