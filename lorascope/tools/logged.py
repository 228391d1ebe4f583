"""The logged training loss: smoothed, by epoch, and its dips."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lorascope.io.checkpoints import Checkpoint
from lorascope.io.train_log import read_log
from lorascope.metrics import curves
from lorascope.records import Measured, Measurement, cell

LOG_POINTS = 1000  # rows that a log is thinned to
LOG_WEIGHT = 0.99  # of TensorBoard's smoothing


def describe_log(path: Path, checkpoints: Sequence[Checkpoint]) -> Measured:
    """Describe the logged training loss: smoothed, by epoch, and its dips."""
    rows = read_log(path)
    if not rows:
        return Measured(numbers=(), caveats=("The training log is empty.",))
    steps, epochs, losses = (
        np.array([getattr(row, name) for row in rows]) for name in ("step", "epoch", "loss")
    )
    smooth = curves.smooth(losses, weight=LOG_WEIGHT)
    ends, mean, low, high = curves.thin(np.arange(len(rows)), losses, points=LOG_POINTS)
    names, means, errors, counts = curves.epoch_means(epochs, losses)
    line = curves.savitzky_golay(means)
    places, prominences = curves.dips(line)
    last_step = {int(epoch): int(step) for epoch, step in zip(epochs, steps, strict=True)}
    files = {checkpoint.epoch: checkpoint.path.name for checkpoint in checkpoints}
    broken = int((~np.isfinite(losses)).sum())
    numbers = [
        Measurement(name="log_steps", value=len(rows), unit="steps", n=len(rows)),
        Measurement(name="log_nan", value=broken, unit="steps", n=len(rows)),
        Measurement(name="dips", value=len(places), unit="dips", n=len(names)),
    ]
    if np.isfinite(errors).any():
        share = float(np.nanmedian(errors / means))
        numbers.append(Measurement(name="log_noise", value=share, unit="1", n=len(names)))
    return Measured(
        numbers=tuple(numbers),
        tables={
            "log": [
                {
                    "step": int(steps[end]),
                    "epoch": int(epochs[end]),
                    "loss": cell(mean[i]),
                    "smooth": cell(smooth[end]),
                    "low": cell(low[i]),
                    "high": cell(high[i]),
                }
                for i, end in enumerate(ends)
            ],
            "log_epochs": [
                {
                    "epoch": int(epoch),
                    "step": last_step[int(epoch)],
                    "loss": cell(means[i]),
                    "smooth": cell(line[i]),
                    "noise": cell(errors[i]),
                    "steps": int(counts[i]),
                }
                for i, epoch in enumerate(names)
            ],
            "dips": [
                {
                    "step": last_step[int(names[place])],
                    "epoch": int(names[place]),
                    "loss": cell(means[place]),
                    "prominence": float(prominence),
                    "noise": cell(errors[place]),
                    "file": files.get(int(names[place]), ""),
                }
                for place, prominence in zip(places, prominences, strict=True)
            ],
        },
        caveats=(
            "Dips of a training log choose an epoch no better than chance does: the loss of a "
            "step depends far more on its random timestep than on the LoRA.",
        ),
    )
