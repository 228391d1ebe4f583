"""What a training logged, whoever wrote it: the tables of its loss, its dips and all its tags."""

from collections.abc import Iterator, Sequence

import numpy as np

from lorascope.errors import LorascopeError, MissingInputError
from lorascope.io import log_tags
from lorascope.io.checkpoints import Checkpoint
from lorascope.metrics import curves, trends
from lorascope.records import Inputs, Measured, Measurement, Row, cell
from lorascope.tools.logs.events import event_rows
from lorascope.tools.logs.reading import (
    Curve,
    Epochs,
    Log,
    Means,
    means_by_epoch,
    read_foreign_log,
    read_own_log,
    trend_points,
)

LOG_POINTS = 1000  # rows that a log is thinned to
LOG_WEIGHT = 0.99  # of TensorBoard's smoothing
CURVE_POINTS = 300  # rows that every other tag is thinned to
DAMAGE_NAMED = 5  # damaged places that get a caveat of their own

# The figures are of benchmarks/results/dips.json: four published runs, python -m benchmarks.dips.
NO_BETTER = (
    "Dips of a training log choose an epoch no better than chance does: the loss of a step "
    "depends far more on its random timestep than on the LoRA. On four real runs with a held-out "
    "loss beside the log, an epoch drawn at random lost 0.36 of the range between the best and "
    "the worst, a dip of the smoothed log 0.40. They are listed and never rank."
)


def describe_logs(inputs: Inputs, checkpoints: Sequence[Checkpoint]) -> Measured:
    """Describe whatever log a run has; nothing where it has none.

    Parameters
    ----------
    inputs : Inputs
        ``log``, the run's own, or else ``events``: a folder of TensorBoard's event files.
    checkpoints : sequence of Checkpoint
        What was saved: tells the epochs of a foreign log, and what lies at a dip.

    Returns
    -------
    Measured
        Tables: ``log``, ``log_epochs``, ``dips`` of the training loss where one was logged;
        ``log_tags``, ``log_curves``, ``log_events`` of everything. A log that cannot be read is
        a caveat, so that it does not hide what else a run knows.
    """
    try:
        if "log" in inputs:
            log = read_own_log(inputs["log"], checkpoints)
        elif "events" in inputs:
            log = read_foreign_log(inputs["events"], checkpoints)
        else:
            return Measured(numbers=())
    except MissingInputError:  # a run has the folder, whether or not anything was logged
        return Measured(numbers=())
    except LorascopeError as error:
        left_out = f"The training log was left out: {str(error).splitlines()[0]}"
        return Measured(numbers=(), caveats=(left_out,))
    if not any(len(curve.steps) for curve in log.all):
        return Measured(numbers=(), caveats=("The training log is empty.", *_damage(log)))
    return _describe(log)


def _describe(log: Log) -> Measured:
    means = means_by_epoch(log.main, log.epochs) if log.main else None
    tables: dict[str, list[Row]] = {}
    numbers = [
        Measurement(name="log_tags", value=len(log.all), unit="tags", n=len(log.all)),
    ]
    if log.main and means:
        dips = _dip_rows(log, means)
        tables = {
            "log": _log_rows(log.main, log.epochs),
            "log_epochs": _epoch_rows(means),
            "dips": dips,
        }
        numbers += _numbers(log.main, means, len(dips))
    tables |= {
        "log_tags": [_tag_row(curve) for curve in log.all],
        "log_curves": [row for curve in log.all for row in _curve_rows(curve, log)],
        "log_events": list(event_rows(log, means)),
    }
    return Measured(numbers=tuple(numbers), tables=tables, caveats=tuple(_caveats(log)))


# The training loss


def _numbers(main: Curve, means: Means, dips: int) -> list[Measurement]:
    """Count what the log holds, and how noisy it is."""
    steps, epochs = len(main.values), len(means.names)
    broken = int((~np.isfinite(main.values)).sum())
    numbers = [
        Measurement(name="log_steps", value=steps, unit="steps", n=steps),
        Measurement(name="log_nan", value=broken, unit="steps", n=steps),
        Measurement(name="dips", value=dips, unit="dips", n=epochs),
    ]
    known = np.isfinite(means.errors) & (means.values != 0)
    if known.any():
        share = float(np.median(means.errors[known] / np.abs(means.values[known])))
        numbers.append(Measurement(name="log_noise", value=share, unit="1", n=epochs))
    found = trends.trend(*trend_points(main, means))
    if found is not None:
        change = float(np.expm1(found.change))
        numbers += [
            Measurement(name="log_change", value=change, unit="1", n=steps),
            Measurement(name="log_change_p", value=found.p, unit="1", n=steps),
        ]
    return numbers


def _log_rows(main: Curve, epochs: Epochs) -> list[Row]:
    smooth = curves.smooth(main.values, weight=LOG_WEIGHT)
    places = np.arange(len(main.values))
    ends, mean, low, high = curves.thin(places, main.values, points=LOG_POINTS)
    line = np.full(len(ends), np.nan)
    known = np.isfinite(mean)
    line[known] = curves.lowess(main.steps[ends][known], mean[known])
    of = epochs.of(main.steps[ends])
    return [
        {
            "step": int(main.steps[end]),
            "epoch": int(of[i]),
            "loss": cell(mean[i]),
            "smooth": cell(smooth[end]),
            "lowess": cell(line[i]),
            "low": cell(low[i]),
            "high": cell(high[i]),
        }
        for i, end in enumerate(ends)
    ]


def _epoch_rows(means: Means) -> list[Row]:
    line = curves.savitzky_golay(means.values)
    return [
        {
            "epoch": int(epoch),
            "step": int(means.steps[i]),
            "loss": cell(means.values[i]),
            "smooth": cell(line[i]),
            "noise": cell(means.errors[i]),
            "steps": int(means.counts[i]),
        }
        for i, epoch in enumerate(means.names)
    ]


# Dips, and what was saved there


def _dip_rows(log: Log, means: Means) -> list[Row]:
    places, prominences = curves.dips(curves.savitzky_golay(means.values))
    noise = curves.dip_noise(means.values, means.errors, places)
    rows: list[Row] = []
    keyed = _keyed(log)
    for i, place in enumerate(places):
        saved = _saved_at(log, means, int(place))
        epoch = int(means.names[place]) if keyed else None
        rows.append(
            {
                "step": int(means.steps[place]),
                "epoch": saved[0].epoch if saved else epoch,
                "loss": cell(means.values[place]),
                "prominence": float(prominences[i]),
                "noise": cell(means.errors[place]),
                "p_noise": cell(noise[i]),
                "edge": bool(place in (0, len(means.names) - 1)),
                "file": saved[0].path.name if saved else "",
                "saved": "; ".join(_saved(checkpoint) for checkpoint in saved),
            }
        )
    return rows


def _keyed(log: Log) -> bool:
    """Tell whether epochs of the log and numbers of checkpoints mean the same."""
    placed = [checkpoint for checkpoint in log.checkpoints if checkpoint.step]
    steps, keys = (np.array([getattr(c, name) for c in placed]) for name in ("step", "epoch"))
    alike = not placed or bool((log.epochs.of_saved(steps) == keys).all())
    return alike and not log.epochs.parts


def _saved_at(log: Log, means: Means, place: int) -> list[Checkpoint]:
    """List the checkpoints of one epoch: by their step, else by their number."""
    epoch, keyed = int(means.names[place]), _keyed(log)
    end = log.epochs.end(epoch)
    last = (int(means.steps[place]) if end is None else end) + log.epochs.shift
    return [
        checkpoint
        for checkpoint in log.checkpoints
        if (
            checkpoint.step <= last and int(log.epochs.of_saved(np.array(checkpoint.step))) == epoch
            if checkpoint.step
            else keyed and checkpoint.epoch == epoch
        )
    ]


def _saved(checkpoint: Checkpoint) -> str:
    step = f", step {checkpoint.step}" if checkpoint.step else ""
    return f"epoch {checkpoint.epoch}{step}: {checkpoint.path.name}"


# Every tag


def _tag_row(curve: Curve) -> Row:
    finite = np.flatnonzero(np.isfinite(curve.values))
    lowest = finite[curve.values[finite].argmin()] if len(finite) else None
    return {
        "tag": curve.tag,
        "kind": curve.means.kind,
        "part": curve.means.part,
        "axis": curve.means.axis,
        "points": len(curve.values),
        "broken": len(curve.values) - len(finite),
        "first_step": int(curve.steps[0]),
        "last_step": int(curve.steps[-1]),
        "first": cell(curve.values[0]),
        "last": cell(curve.values[-1]),
        "lowest": None if lowest is None else float(curve.values[lowest]),
        "lowest_step": None if lowest is None else int(curve.steps[lowest]),
    }


def _curve_rows(curve: Curve, log: Log) -> Iterator[Row]:
    """Thin a curve to what a page can draw; the training loss has a table of its own."""
    if curve.means.kind == log_tags.OTHER or (log.main and curve.tag == log.main.tag):
        return
    at, values, _, _ = curves.thin(curve.steps, curve.values, points=CURVE_POINTS)
    for place, value in zip(at, values, strict=True):
        step, axis = int(place), curve.means.axis
        if axis == "epoch" and not log.epochs.parts and (end := log.epochs.end(step)) is not None:
            step, axis = end, "step"
        yield {
            "tag": curve.tag,
            "kind": curve.means.kind,
            "part": curve.means.part,
            "axis": axis,
            "step": step,
            "value": cell(value),
        }


# Doubts


def _caveats(log: Log) -> Iterator[str]:
    if log.main is None:
        yield "The log holds no training loss that is known by its name; see its tags."
    else:
        yield NO_BETTER
        if log.main.means.kind == log_tags.MEAN and log.main.moving:
            yield (
                f"Only {log.main.tag} was logged, a trailing mean over one epoch: how far its "
                "ups and downs are noise cannot be computed."
            )
        elif log.main.moving:
            yield (
                f"Only {log.main.tag} was logged, which is averaged already: how far its ups and "
                "downs are noise cannot be computed."
            )
        if log.epochs.note:
            yield log.epochs.note
    yield from _damage(log)


def _damage(log: Log) -> Iterator[str]:
    yield from log.damage[:DAMAGE_NAMED]
    if len(log.damage) > DAMAGE_NAMED:
        yield f"The log is damaged in {len(log.damage) - DAMAGE_NAMED} more places."
