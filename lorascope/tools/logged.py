"""What a training logged, whoever wrote it: the loss with its dips, rates, norms, and traps."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import LorascopeError, MissingInputError
from lorascope.io import log_tags
from lorascope.io.checkpoints import Checkpoint
from lorascope.io.event_file import Series, event_runs, read_events
from lorascope.io.log_tags import Meaning, Settings, meaning, read_settings
from lorascope.io.lora_file import read_metadata
from lorascope.io.safetensors_file import read_header
from lorascope.io.train_log import read_log
from lorascope.metrics import curves
from lorascope.records import Inputs, Measured, Measurement, Row, cell

Array = NDArray[Any]

LOG_POINTS = 1000  # rows that a log is thinned to
LOG_WEIGHT = 0.99  # of TensorBoard's smoothing
CURVE_POINTS = 300  # rows that every other tag is thinned to
PARTS = 20  # that a log is cut into where nothing tells its epochs
FEWEST_CUTS = 3  # checkpoints that a log is cut at
BLOCKS = 60  # means of steps that trends are read from
MOST_EVENTS = 50  # of one kind
SAME_SPIKE = 10  # steps between two spikes that count as one
HUGE = 1e100  # a value that large counts as infinite: its square is
CERTAIN = 0.01  # chance of noise below which a change of level is listed
BENT = 0.5  # share of the squares that a knee has to explain, and of the slope that it takes away
DAMAGE_NAMED = 5  # damaged places that get a caveat of their own

NO_BETTER = (
    "Dips of a training log choose an epoch no better than chance does: the loss of a step "
    "depends far more on its random timestep than on the LoRA. On 21 real runs with a held-out "
    "loss beside the log, an epoch drawn at random lost .32 of the range between the best and the "
    "worst, dips of the smoothed log .28 to .31. They are listed and never rank."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Curve:
    """One tag, with what it means."""

    tag: str
    means: Meaning
    steps: Array
    times: Array
    values: Array

    @property
    def moving(self) -> bool:
        """Whether neighbouring values share steps, so that their spread is no noise."""
        trailing = self.means.kind == log_tags.MEAN and self.means.trainer == log_tags.KOHYA
        return trailing or self.means.kind in (log_tags.EPOCH, log_tags.SMOOTHED)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Epochs:
    """Which epoch a step belongs to: by equal lengths, or by the last step of each."""

    length: int = 0
    shift: int = 0  # 1 where steps count from 0
    ends: Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    names: Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    parts: bool = False  # only parts of the curve; nothing tells the epochs
    note: str = ""

    def of(self, steps: Array) -> Array:
        """Name the epoch of each step."""
        if self.length:
            whole: Array = np.maximum(steps - 1 + self.shift, 0) // self.length + 1
            return whole
        later = self.names[-1] + 1 if len(self.names) else 1
        named: Array = np.append(self.names, later)[np.searchsorted(self.ends, steps)]
        return named

    def end(self, epoch: int) -> int | None:
        """Give the last step of an epoch."""
        if self.length:
            return epoch * self.length - self.shift
        here = np.flatnonzero(self.names == epoch)
        return int(self.ends[here[0]]) if len(here) else None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Log:
    """Everything that was logged, and what is known about it."""

    all: tuple[_Curve, ...]
    main: _Curve | None  # the training loss
    epochs: _Epochs
    settings: Settings
    checkpoints: tuple[Checkpoint, ...]
    damage: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Means:
    """The training loss by epoch."""

    names: Array
    values: Array
    errors: Array  # NaN where they cannot be known
    counts: Array
    steps: Array  # the last of each


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
            log = _own_log(inputs["log"], checkpoints)
        elif "events" in inputs:
            log = _foreign_log(inputs["events"], checkpoints)
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


def _describe(log: _Log) -> Measured:
    means = _means(log.main, log.epochs) if log.main else None
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
        "log_events": list(_event_rows(log, means)),
    }
    return Measured(numbers=tuple(numbers), tables=tables, caveats=tuple(_caveats(log)))


# Reading


def _own_log(path: Path, checkpoints: Sequence[Checkpoint]) -> _Log:
    """Read the run's own log; its epochs are in it."""
    rows = read_log(path)
    steps, epochs = (
        np.array([getattr(row, name) for row in rows], dtype=np.int64) for name in ("step", "epoch")
    )
    found = []
    for tag in ("loss", "lr_unet", "lr_text"):
        values = np.array([getattr(row, tag) for row in rows], dtype=np.float64)
        if tag == "loss" or values.any():  # a rate of 0: that part was not trained
            found.append(
                _Curve(
                    tag=tag,
                    means=meaning(tag),
                    steps=steps,
                    times=np.full(len(steps), np.nan),
                    values=_tamed(values),
                )
            )
    last = _last_of_each(epochs)
    return _Log(
        all=tuple(found),
        main=found[0],
        epochs=_Epochs(ends=steps[last], names=epochs[last]),
        settings=_settings(checkpoints),
        checkpoints=tuple(checkpoints),
    )


def _foreign_log(path: Path, checkpoints: Sequence[Checkpoint]) -> _Log:
    """Read a folder of event files."""
    events = read_events(path)
    settings = _settings(checkpoints)
    found = [_translated(series) for series in events.series.values() if len(series.steps)]
    longest = max((int(c.steps[-1]) for c in found if c.means.axis == "step"), default=0)
    found = [_with_axis(curve, longest) for curve in found]
    losses = [curve for curve in found if curve.means.kind in log_tags.LOSSES]
    main = min(losses, key=_telling, default=None)
    if main and main.means.axis == "epoch":
        length = settings.epoch_steps or 1
        main = replace(main, steps=main.steps * length)
    return _Log(
        all=tuple(found),
        main=main,
        epochs=_epochs(main, found, settings, checkpoints),
        settings=settings,
        checkpoints=tuple(checkpoints),
        damage=(*_begun_again(path, main), *events.damage),
    )


def _begun_again(path: Path, main: _Curve | None) -> Iterator[str]:
    """Say so where a later training counts the same steps again: the curve is made of both.

    Some trainers restart at step 0 when they are resumed. A little overlap is as it should be: what
    came after the last saved state is done again.
    """
    folders = event_runs(path) if main and path.is_dir() else {}
    if main is None or len(folders) < 2:
        return
    spans = []
    for files in folders.values():
        found = [read_events(file).series.get(main.tag) for file in files]
        steps = [series.steps for series in found if series is not None and len(series.steps)]
        if steps:
            spans.append((min(int(s[0]) for s in steps), max(int(s[-1]) for s in steps)))
    again = sum(
        later[0] <= (before[0] + before[1]) / 2 for before, later in itertools.pairwise(spans)
    )
    if again:
        yield (
            f"The log holds {again + 1} trainings that count the same steps (from {spans[0][0]} to "
            f"{spans[0][1]}, again from {spans[-1][0]} to {spans[-1][1]}): where they overlap, the "
            "later one is shown."
        )


def _translated(series: Series) -> _Curve:
    return _Curve(
        tag=series.tag,
        means=meaning(series.tag),
        steps=series.steps,
        times=series.times,
        values=_tamed(series.values),
    )


def _tamed(values: Array) -> Array:
    return np.where(np.abs(values) < HUGE, values, np.where(np.isnan(values), np.nan, np.inf))


def _with_axis(curve: _Curve, longest: int) -> _Curve:
    """Take an axis of epochs for one of steps where its numbers are too large and too few."""
    last = int(curve.steps[-1])
    by_step = (
        curve.means.axis == "epoch" and 2 * last >= longest > 0 and 2 * len(curve.steps) < last
    )
    return replace(curve, means=replace(curve.means, axis="step")) if by_step else curve


def _telling(curve: _Curve) -> tuple[int, int, int, str]:
    """Order training losses: the most telling kind first."""
    kind = log_tags.LOSSES.index(curve.means.kind)
    return kind, curve.means.rank, -len(curve.steps), curve.tag


def _settings(checkpoints: Sequence[Checkpoint]) -> Settings:
    metadata: list[Mapping[str, str]] = []
    for checkpoint in checkpoints:
        with contextlib.suppress(LorascopeError):
            metadata.append(read_metadata(checkpoint.path))
    return read_settings(metadata)


def _epochs(
    main: _Curve | None,
    all_curves: Sequence[_Curve],
    settings: Settings,
    checkpoints: Sequence[Checkpoint],
) -> _Epochs:
    """Find out where epochs end: from metadata, from the log, else at the checkpoints."""
    if main is None:
        return _Epochs(length=settings.epoch_steps or 0)
    shift = int(main.steps[0] == 0)
    if main.means.axis == "epoch" or settings.epoch_steps:
        return _Epochs(length=settings.epoch_steps or 1, shift=shift)
    ends = _logged_ends(main, all_curves)
    if len(ends) > 1:
        return _Epochs(ends=ends, names=np.arange(1, len(ends) + 1))
    first, last = int(main.steps[0]), int(main.steps[-1])
    saved = {c.step: c.epoch for c in checkpoints if first <= c.step <= last}
    if len(saved) >= FEWEST_CUTS:
        ends = np.array(sorted(saved))
        return _Epochs(
            ends=ends,
            names=np.array([saved[int(end)] for end in ends]),
            note="Nothing says where an epoch of the log ends: it was cut at the checkpoints.",
        )
    ends = np.unique(np.linspace(first - 1, last, PARTS + 1).astype(np.int64)[1:])
    return _Epochs(
        ends=ends,
        names=np.arange(1, len(ends) + 1),
        parts=True,
        note=f"Nothing says where an epoch of the log ends: it was cut into {len(ends)} equal "
        "parts, and its epochs are these parts.",
    )


def _logged_ends(main: _Curve, all_curves: Sequence[_Curve]) -> Array:
    """Take the ends of epochs from a loss that was logged once an epoch."""
    for curve in all_curves:
        if curve.means.kind != log_tags.EPOCH or curve is main:
            continue
        if curve.means.axis == "step":
            return np.unique(curve.steps)
        order = np.maximum.accumulate(np.where(np.isfinite(main.times), main.times, -np.inf))
        before = np.searchsorted(order, curve.times, side="right") - 1
        return np.unique(main.steps[before[before >= 0]])
    return np.zeros(0, dtype=np.int64)


# The training loss


def _means(main: _Curve, epochs: _Epochs) -> _Means:
    """Sum up the training loss by epoch; of a moving mean, take what an epoch ends with."""
    finite = np.isfinite(main.values)
    of = epochs.of(main.steps)
    if main.moving:
        places = np.flatnonzero(finite)[_last_of_each(of[finite])]
        names, values = of[places], main.values[places]
        errors = np.full(len(names), np.nan)
        counts = np.bincount(np.searchsorted(names, of[finite]), minlength=len(names))
    else:
        names, values, errors, counts = curves.epoch_means(of, main.values)
    every, back = np.unique(of[::-1], return_index=True)
    last = len(of) - 1 - back[np.searchsorted(every, names)]
    return _Means(
        names=names,
        values=values,
        errors=errors,
        counts=counts,
        steps=main.steps[last],
    )


def _last_of_each(epochs: Array) -> Array:
    """Places where an epoch ends."""
    return np.flatnonzero(np.append(np.diff(epochs) != 0, True))[: len(epochs)]


def _numbers(main: _Curve, means: _Means, dips: int) -> list[Measurement]:
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
    found = curves.trend(*_blocks(main, means))
    if found is not None:
        change = float(np.expm1(found.change))
        numbers += [
            Measurement(name="log_change", value=change, unit="1", n=steps),
            Measurement(name="log_change_p", value=found.p, unit="1", n=steps),
        ]
    return numbers


def _log_rows(main: _Curve, epochs: _Epochs) -> list[Row]:
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


def _epoch_rows(means: _Means) -> list[Row]:
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


def _dip_rows(log: _Log, means: _Means) -> list[Row]:
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


def _keyed(log: _Log) -> bool:
    """Tell whether epochs of the log and numbers of checkpoints mean the same."""
    placed = [checkpoint for checkpoint in log.checkpoints if checkpoint.step]
    steps, keys = (np.array([getattr(c, name) for c in placed]) for name in ("step", "epoch"))
    return not log.epochs.parts and (not placed or bool((log.epochs.of(steps) == keys).all()))


def _saved_at(log: _Log, means: _Means, place: int) -> list[Checkpoint]:
    """List the checkpoints of one epoch: by their step, else by their number."""
    start = means.steps[place - 1] if place else means.steps[0] - np.iinfo(np.int32).max
    first = int(start) + 1 if place else 1
    return [
        checkpoint
        for checkpoint in log.checkpoints
        if (
            first <= checkpoint.step <= means.steps[place]
            if checkpoint.step
            else checkpoint.epoch == means.names[place] and not log.epochs.parts
        )
    ]


def _saved(checkpoint: Checkpoint) -> str:
    step = f", step {checkpoint.step}" if checkpoint.step else ""
    return f"epoch {checkpoint.epoch}{step}: {checkpoint.path.name}"


def _blocks(main: _Curve, means: _Means) -> tuple[Array, Array]:
    """Logarithms of the loss that do not share steps: what trends may be read from."""
    if main.moving:
        at, values = means.steps, means.values
    else:
        at, values, _, _ = curves.thin(main.steps, main.values, points=BLOCKS)
    known = np.isfinite(values) & (values > 0)
    return np.asarray(at)[known].astype(np.float64), np.log(values[known])


# Every tag


def _tag_row(curve: _Curve) -> Row:
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


def _curve_rows(curve: _Curve, log: _Log) -> Iterator[Row]:
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


# Events


def _event_rows(log: _Log, means: _Means | None) -> Iterator[Row]:
    yield from _broken_rows(log)
    if log.main and means:
        yield from _spike_rows(log, log.main)
        yield from _trend_rows(log, log.main, means)
        yield from _level_rows(log, log.main, means)
    yield from _rate_rows(log)
    yield from _norm_rows(log)
    yield from _trap_rows(log)


def _event(
    log: _Log,
    event: str,
    tag: str,
    text: str,
    *,
    step: int | None = None,
    value: float | None = None,
    threshold: float | None = None,
) -> Row:
    known = step is not None and (log.epochs.length or len(log.epochs.ends))
    return {
        "event": event,
        "tag": tag,
        "step": step,
        "epoch": int(log.epochs.of(np.array([step]))[0]) if known else None,
        "value": None if value is None else cell(value),
        "threshold": None if threshold is None else cell(threshold),
        "text": text,
    }


def _broken_rows(log: _Log) -> Iterator[Row]:
    """Name the first value of every tag that is not a number."""
    for curve in log.all:
        broken = np.flatnonzero(~np.isfinite(curve.values))
        if curve.means.kind == log_tags.OTHER or not len(broken):
            continue
        count, first = len(broken), int(broken[0])
        healed = np.isfinite(curve.values[first:]).any()
        where = f"{curve.means.axis} {int(curve.steps[first])}"
        many = f"{count} of {len(curve.values)} values, the first at {where}"
        yield _event(
            log,
            "nan",
            curve.tag,
            f"{curve.tag} is NaN or infinite in {many}"
            + (", with numbers again later." if healed else ", and never a number again."),
            step=int(curve.steps[first]) if curve.means.axis == "step" else None,
            value=count,
            threshold=0,
        )


def _spike_rows(log: _Log, main: _Curve) -> Iterator[Row]:
    """Name single steps far above their surroundings; neighbours count once."""
    if main.moving:
        return
    places, limits = curves.spikes(main.values)
    groups = np.split(np.arange(len(places)), np.flatnonzero(np.diff(places) > SAME_SPIKE) + 1)
    tops = [g[main.values[places[g]].argmax()] for g in groups if len(g)]
    tops = sorted(tops, key=lambda i: -main.values[places[i]])
    for i in sorted(tops[:MOST_EVENTS]):
        step, value = int(main.steps[places[i]]), float(main.values[places[i]])
        yield _event(
            log,
            "spike",
            main.tag,
            f"{main.tag} jumps to {value:.3g} at step {step}; around it, everything below "
            f"{limits[i]:.3g} is usual.",
            step=step,
            value=value,
            threshold=float(limits[i]),
        )


def _trend_rows(log: _Log, main: _Curve, means: _Means) -> Iterator[Row]:
    """Say whether the loss rises, and from where on it rests."""
    at, values = _blocks(main, means)
    if (found := curves.rising(at, values)) is not None:
        step = int(at[found.start])
        yield _event(
            log,
            "diverging",
            main.tag,
            f"{main.tag} rises from step {step} on, by {np.expm1(found.change):.0%} up to the end "
            f"(p {found.p:.1g} that chance alone orders it so).",
            step=step,
            value=float(np.expm1(found.change)),
            threshold=0,
        )
    if (found := curves.plateau(at, values)) is not None:
        step = int(at[found.start])
        yield _event(
            log,
            "plateau",
            main.tag,
            f"{main.tag} rests from step {step} on: it moves by less than {curves.FLAT:.0%} of its "
            "level. A LoRA can still learn, or learn by heart, meanwhile.",
            step=step,
            value=float(np.expm1(found.change)),
            threshold=curves.FLAT,
        )


def _level_rows(log: _Log, main: _Curve, means: _Means) -> Iterator[Row]:
    """Name epochs from which on the loss keeps to another level."""
    positive = means.values > 0
    names, steps, values = means.names[positive], means.steps[positive], means.values[positive]
    if len(values) < curves.FEWEST_POINTS:
        return
    relative = means.errors[positive] / values
    noise = float(np.median(relative)) if np.isfinite(relative).all() else None
    logs = np.log(values)
    starts = [*curves.segments(logs, noise=noise).tolist(), len(logs)]
    pairs = len(logs) * (len(logs) - 1) / 2  # pieces that could have been cut out
    for before, here, after in zip(starts, starts[1:], starts[2:], strict=False):
        p = curves.step_noise(logs[before:here], logs[here:after], noise=noise) * pairs
        if p < CERTAIN:
            change = float(np.expm1(logs[here:after].mean() - logs[before:here].mean()))
            yield _event(
                log,
                "level",
                main.tag,
                f"{main.tag} keeps to another level from epoch {int(names[here])} on: "
                f"{change:+.0%}.",
                step=int(steps[here]),
                value=change,
                threshold=CERTAIN,
            )


def _rate_rows(log: _Log) -> Iterator[Row]:
    """Describe the schedule of every learning rate, equal ones once."""
    told: set[bytes] = set()
    rates = [c for c in log.all if c.means.kind == log_tags.RATE]
    for curve in sorted(rates, key=lambda c: c.means.part.startswith("group")):
        content = curve.steps.tobytes() + curve.values.tobytes()
        if content in told:
            continue
        told.add(content)
        if (found := curves.schedule(curve.steps, curve.values)) is not None:
            yield from _schedule_rows(log, curve, found)
    for curve in log.all:
        known = curve.values[np.isfinite(curve.values) & (curve.values > 0)]
        if curve.means.kind == log_tags.ADAPTIVE and len(known):
            yield _event(
                log,
                "adaptive rate",
                curve.tag,
                f"The optimiser took {curve.tag} from {known[0]:.3g} to {known[-1]:.3g}.",
                value=float(known[-1] / known[0]),
            )


def _schedule_rows(log: _Log, curve: _Curve, found: curves.Schedule) -> Iterator[Row]:
    finite = np.isfinite(curve.values)
    steps, values = curve.steps[finite], curve.values[finite]
    top = float(values.max())
    if found.warmup:
        step = int(steps[found.warmup])
        text = f"{curve.tag} has warmed up to {top:.3g} at step {step}."
        yield _event(log, "warmup end", curve.tag, text, step=step, value=top)
    shape = "constant" if found.shape == "constant" else f"{found.shape}-like"
    again = f", with {len(found.restarts)} restart(s)" if found.restarts else ""
    yield _event(
        log,
        "schedule",
        curve.tag,
        f"{curve.tag} is {shape} at {top:.3g} at most{again}.",
        step=int(steps[0]),
        value=top,
    )
    for place in found.restarts[:MOST_EVENTS]:
        step = int(steps[place])
        text = f"{curve.tag} starts again at step {step}."
        yield _event(log, "restart", curve.tag, text, step=step, value=float(values[place]))
    yield _event(
        log,
        "final rate",
        curve.tag,
        f"{curve.tag} ends at {found.final:.0%} of its highest value.",
        step=int(steps[-1]),
        value=found.final,
    )


def _norm_rows(log: _Log) -> Iterator[Row]:
    """Find where the largest norm meets its limit, and how many modules are held there."""
    for curve in log.all:
        finite = np.isfinite(curve.values)
        steps, values, _, _ = curves.thin(
            curve.steps[finite], curve.values[finite], points=CURVE_POINTS
        )
        if curve.means.kind == log_tags.LARGEST and len(values) >= curves.FEWEST_POINTS:
            place, before, after, gain = curves.knee(steps, values)
            if before > 0 and gain > BENT and after < BENT * before:
                yield _event(
                    log,
                    "max-norm knee",
                    curve.tag,
                    f"The largest norm rises up to {values[place]:.3g} at step {int(steps[place])} "
                    "and is held there.",
                    step=int(steps[place]),
                    value=float(values[place]),
                    threshold=log.settings.largest_norm,
                )
        if curve.means.kind == log_tags.SCALED and len(values):
            count = float(np.median(values[-max(1, len(values) // 10) :]))
            modules = _modules(log.checkpoints)
            share = f" of {modules}" if modules else ""
            yield _event(
                log,
                "max-norm scaled",
                curve.tag,
                f"{count:.0f}{share} modules are scaled back at each step towards the end.",
                step=int(steps[-1]),
                value=count / modules if modules else count,
            )


def _modules(checkpoints: Iterable[Checkpoint]) -> int:
    """Count the modules of the last checkpoint; 0 where none can be read."""
    for checkpoint in reversed(tuple(checkpoints)):
        with contextlib.suppress(LorascopeError):
            return len({key.split(".")[0] for key in read_header(checkpoint.path).entries})
    return 0


def _trap_rows(log: _Log) -> Iterator[Row]:
    """List what misleads readers of this log."""
    for curve in log.all:
        kind, trainer = curve.means.kind, curve.means.trainer
        if kind == log_tags.DIVERGENCE:
            yield _trap(log, curve.tag, "divergence")
        elif kind == log_tags.VALIDATION and trainer == log_tags.KOHYA:
            yield _trap(log, curve.tag, "four timesteps")
            if curve.means.axis == "step":
                yield from _first_epoch_rows(log, curve)
        elif kind == log_tags.VALIDATION and trainer == log_tags.ONETRAINER:
            yield _trap(log, curve.tag, "one timestep")
        elif kind == log_tags.MEAN and trainer == log_tags.KOHYA and _dense(curve, log):
            yield _trap(log, curve.tag, "trailing mean")
    known = log.settings
    if known.validation_split and known.validation_seed is None:
        count = known.validation_images
        here = f" Here: {count} validation images." if count else ""
        text = f"A share of {known.validation_split:g} was kept for validation.{here}"
        yield _trap(log, "ss_validation_split", "leak", before=text)
    if known.min_snr_gamma:
        text = f"min-SNR, gamma {known.min_snr_gamma:g}."
        yield _trap(log, "ss_min_snr_gamma", "weighted", before=text)
    if known.debiased:
        yield _trap(log, "ss_debiased_estimation", "weighted", before="Debiased estimation.")


def _trap(
    log: _Log, tag: str, name: str, *, before: str = "", after: str = "", value: float | None = None
) -> Row:
    text = " ".join(part for part in (before or f"{tag}:", log_tags.TRAPS[name], after) if part)
    return _event(log, "trap", tag, text, value=value)


def _dense(curve: _Curve, log: _Log) -> bool:
    """Tell a mean that is logged at every step from one that is logged once an epoch."""
    known = log.epochs.length or len(log.epochs.ends)
    epochs = len(np.unique(log.epochs.of(curve.steps))) if known else 1
    return len(curve.steps) > 2 * epochs


def _first_epoch_rows(log: _Log, curve: _Curve) -> Iterator[Row]:
    """Tell how many validations of the first epoch stay in the mean, and take them out again.

    After the k-th one the trainer shows the mean of all so far; from the second epoch on it
    replaces the first alone. So what the others were can be worked back.
    """
    if log.epochs.parts or not (log.epochs.length or len(log.epochs.ends)):
        return
    count = int((log.epochs.of(curve.steps) == 1).sum())
    if count < 2:
        return
    values, after, value = curve.values, "", None
    if len(values) > count and np.isfinite(values).all():
        stale = count * values[count - 1] - values[0]
        value = float(count * values[-1] - stale)
        after = f"Worked back, the last one is {value:.4g} where the log shows {values[-1]:.4g}."
    before = f"{curve.tag} has {count} values in the first epoch."
    yield _trap(log, curve.tag, "first epoch", before=before, after=after, value=value)


# Doubts


def _caveats(log: _Log) -> Iterator[str]:
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


def _damage(log: _Log) -> Iterator[str]:
    yield from log.damage[:DAMAGE_NAMED]
    if len(log.damage) > DAMAGE_NAMED:
        yield f"The log is damaged in {len(log.damage) - DAMAGE_NAMED} more places."
