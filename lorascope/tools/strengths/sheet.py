"""The sheet of a stress test: strengths down, pictures across."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lorascope.io.checkpoints import Checkpoint
from lorascope.io.contact_sheet import contact_sheet
from lorascope.io.images import write_png
from lorascope.tools.strengths.sampled import Drawn
from lorascope.tools.strengths.x0 import TIMESTEPS, Guesses, Noised

Floats = NDArray[np.float64]
Picture = NDArray[np.uint8]

SHOWN_TIMESTEP = 2  # of TIMESTEPS


@dataclass(frozen=True, kw_only=True, eq=False)
class Sheet:
    """Pictures at rising strengths, a row each."""

    strengths: Floats
    pictures: list[list[Picture]]
    columns: list[tuple[str, str]]


def sheet_of_guesses(asked: Noised, answers: Sequence[tuple[Checkpoint, Guesses]]) -> Sheet:
    """Show the guesses at one timestep, a column for each epoch and image."""
    heads = [
        f"{name.rpartition('/')[2]}, t = {TIMESTEPS[SHOWN_TIMESTEP]:g}" for name in asked.names
    ]
    strengths = answers[0][1].strengths
    return Sheet(
        strengths=strengths,
        pictures=[
            [picture for _, a in answers for picture in a.shown[s, :, SHOWN_TIMESTEP]]
            for s in range(len(strengths))
        ],
        columns=[(head, f"epoch {c.epoch}") for c, _ in answers for head in heads],
    )


def sheet_of_drawn(answers: Sequence[tuple[Checkpoint, Drawn]]) -> Sheet:
    """Show what was drawn, a column for each epoch, prompt and seed."""
    first = answers[0][1]
    shots = [cell.shot for cell in first.cells[0]]
    return Sheet(
        strengths=first.strengths,
        pictures=[
            [picture for _, a in answers for picture in a.thumbs[s]]
            for s in range(len(first.strengths))
        ],
        columns=[
            (f"{s.prompt} (seed {s.seed})", f"epoch {c.epoch}") for c, _ in answers for s in shots
        ],
    )


def write_sheet(path: Path, sheet: Sheet) -> None:
    """Draw a sheet as one picture."""
    rows = [
        (f"strength {strength:g}" if strength else "base model", "") for strength in sheet.strengths
    ]
    write_png(path, contact_sheet(sheet.pictures, rows=rows, columns=sheet.columns))
