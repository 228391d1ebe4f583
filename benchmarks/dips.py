"""Do dips of a training log choose a good epoch? ``python -m benchmarks.dips LOGS``.

LOGS holds one folder a run, each with event files of a training loss at every step and of a
deterministic held-out loss now and then. Regret is how far the held-out loss at a pick lies above
its minimum, in units of its whole range: 0 is the best epoch, 1 the worst. The committed table is
of four runs published in github.com/spacepxl/demystifying-sd-finetuning (Apache-2.0).
"""

import json
from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from lorascope import storage
from lorascope.io.event_file import Series, read_events
from lorascope.metrics import curves

Array = NDArray[np.float64]

RESULTS = Path(__file__).parent / "results" / "dips.json"
TRAIN, HELD_OUT = "loss/train", "test/val"
PARTS = 20  # that a log is cut into, as the tool does where nothing tells the epochs
HEAVY = 0.99  # of TensorBoard's smoothing


def regrets(train: Series, held_out: Series) -> dict[str, float]:
    """Give the regret of each way to pick a step.

    Returns
    -------
    dict
        random (expected), dips (mean over all of them), ema (lowest smoothed value), lowess (lowest
        smoothed part), last.
    """
    measured = held_out.steps > held_out.steps.max() / 100  # step 1 is the base model
    steps, values = held_out.steps[measured], held_out.values[measured]
    scaled = (values - values.min()) / np.ptp(values)

    def at(step: float) -> float:
        return float(scaled[np.abs(steps - step).argmin()])

    parts = np.array_split(np.arange(len(train.steps)), PARTS)
    means = np.array([train.values[part].mean() for part in parts])
    ends = np.array([float(train.steps[part[-1]]) for part in parts])
    places, _ = curves.dips(curves.savitzky_golay(means))
    smooth = curves.smooth(train.values, weight=HEAVY)
    return {
        "random": float(scaled.mean()),
        "dips": float(np.mean([at(ends[place]) for place in places])),
        "ema": at(float(train.steps[smooth.argmin()])),
        "lowess": at(ends[curves.lowess(ends, means).argmin()]),
        "last": float(scaled[-1]),
    }


def table(folder: Path) -> dict[str, Mapping[str, float]]:
    """Measure every run below a folder, and their mean."""
    found: dict[str, Mapping[str, float]] = {}
    for run in sorted(one for one in folder.iterdir() if one.is_dir()):
        series = read_events(run).series
        if TRAIN in series and HELD_OUT in series:
            found[run.name] = regrets(series[TRAIN], series[HELD_OUT])
    if not found:
        raise click.UsageError(f"{folder} has no run that logged {TRAIN} and {HELD_OUT}.")
    names = next(iter(found.values()))
    mean = {n: float(np.mean([row[n] for row in found.values()])) for n in names}
    return {**found, "mean": mean}


@click.command()
@click.argument("logs", type=click.Path(path_type=Path, exists=True, file_okay=False))
def main(logs: Path) -> None:
    """Measure the regret of each way to pick, and write the table."""
    rows = {run: {k: round(v, 2) for k, v in row.items()} for run, row in table(logs).items()}
    for run, row in rows.items():
        click.echo(f"{run:<42}" + "  ".join(f"{k} {v:.2f}" for k, v in row.items()))
    storage.write_text(RESULTS, json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
