"""What a log is, whoever wrote it: curves that know what they mean, cut into epochs.

A run has a log of its own, or event files that another trainer left; both are read into one `Log`,
and everything that is said about a training loss starts from it.
"""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import LorascopeError
from lorascope.io import log_tags
from lorascope.io.checkpoints import Checkpoint
from lorascope.io.event_file import Series, read_events
from lorascope.io.log_tags import Meaning, Settings, meaning, read_settings
from lorascope.io.lora_file import read_metadata
from lorascope.io.train_log import read_log
from lorascope.metrics import curves
from lorascope.tools.logs.sessions import join_sessions

Array = NDArray[Any]

PARTS = 20  # that a log is cut into where nothing tells its epochs
FEWEST_CUTS = 3  # checkpoints that a log is cut at
BLOCKS = 60  # means of steps that trends are read from
HUGE = 1e100  # a value that large counts as infinite: its square is


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
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
class Epochs:
    """Which epoch a step belongs to: by equal lengths, or by the last step of each."""

    length: int = 0
    shift: int = 0  # 1 where steps count from 0: what was saved at step 50 ends with step 49
    ends: Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    names: Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    parts: bool = False  # only parts of the curve; nothing tells the epochs
    note: str = ""

    @property
    def known(self) -> bool:
        """Whether there is anything to tell an epoch by."""
        return bool(self.length or len(self.ends))

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

    def of_saved(self, saved: Array) -> Array:
        """Name the epoch of each step at which a checkpoint was saved."""
        return self.of(saved - self.shift)


@dataclass(frozen=True, kw_only=True, eq=False)
class Log:
    """Everything that was logged, and what is known about it."""

    all: tuple[Curve, ...]
    main: Curve | None  # the training loss
    epochs: Epochs
    settings: Settings
    checkpoints: tuple[Checkpoint, ...]
    damage: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Means:
    """The training loss by epoch."""

    names: Array
    values: Array
    errors: Array  # NaN where they cannot be known
    counts: Array
    steps: Array  # the last of each


# Reading


def read_own_log(path: Path, checkpoints: Sequence[Checkpoint]) -> Log:
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
                Curve(
                    tag=tag,
                    means=meaning(tag),
                    steps=steps,
                    times=np.full(len(steps), np.nan),
                    values=_tamed(values),
                )
            )
    last = _last_of_each(epochs)
    return Log(
        all=tuple(found),
        main=found[0],
        epochs=Epochs(ends=steps[last], names=epochs[last]),
        settings=_settings(checkpoints),
        checkpoints=tuple(checkpoints),
    )


def read_foreign_log(path: Path, checkpoints: Sequence[Checkpoint]) -> Log:
    """Read a folder of event files."""
    events = read_events(path)
    settings = _settings(checkpoints)
    whole = _main_of(_curves(events.series.values()))
    joined = join_sessions(events, whole.tag if whole else None, checkpoints, settings.epoch_steps)
    found = _curves(joined.series)
    main = _main_of(found)
    if main and main.means.axis == "epoch":
        length = settings.epoch_steps or 1
        main = replace(main, steps=main.steps * length)
    return Log(
        all=tuple(found),
        main=main,
        epochs=_epochs(main, found, settings, joined.checkpoints),
        settings=settings,
        checkpoints=joined.checkpoints,
        damage=(*joined.caveats, *events.damage),
    )


def _curves(all_series: Iterable[Series]) -> list[Curve]:
    found = [_translated(series) for series in all_series if len(series.steps)]
    longest = max((int(c.steps[-1]) for c in found if c.means.axis == "step"), default=0)
    return [_with_axis(curve, longest) for curve in found]


def _main_of(found: Iterable[Curve]) -> Curve | None:
    """Choose the training loss."""
    losses = (curve for curve in found if curve.means.kind in log_tags.LOSSES)
    return min(losses, key=_telling, default=None)


def _translated(series: Series) -> Curve:
    return Curve(
        tag=series.tag,
        means=meaning(series.tag),
        steps=series.steps,
        times=series.times,
        values=_tamed(series.values),
    )


def _tamed(values: Array) -> Array:
    return np.where(np.abs(values) < HUGE, values, np.where(np.isnan(values), np.nan, np.inf))


def _with_axis(curve: Curve, longest: int) -> Curve:
    """Take an axis of epochs for one of steps where its numbers are too large and too few."""
    last = int(curve.steps[-1])
    by_step = (
        curve.means.axis == "epoch" and 2 * last >= longest > 0 and 2 * len(curve.steps) < last
    )
    return replace(curve, means=replace(curve.means, axis="step")) if by_step else curve


def _telling(curve: Curve) -> tuple[int, int, int, str]:
    """Order training losses: the most telling kind first."""
    kind = log_tags.LOSSES.index(curve.means.kind)
    return kind, curve.means.rank, -len(curve.steps), curve.tag


def _settings(checkpoints: Sequence[Checkpoint]) -> Settings:
    metadata: list[Mapping[str, str]] = []
    for checkpoint in checkpoints:
        with contextlib.suppress(LorascopeError):
            metadata.append(read_metadata(checkpoint.path))
    return read_settings(metadata)


# Where epochs end


def _epochs(
    main: Curve | None,
    all_curves: Sequence[Curve],
    settings: Settings,
    checkpoints: Sequence[Checkpoint],
) -> Epochs:
    """Find out where epochs end: from metadata, from the log, else at the checkpoints."""
    if main is None:
        return Epochs(length=settings.epoch_steps or 0)
    shift = int(main.steps[0] == 0)
    if main.means.axis == "epoch" or settings.epoch_steps:
        return Epochs(length=settings.epoch_steps or 1, shift=shift)
    ends = _logged_ends(main, all_curves)
    if len(ends) > 1:
        return Epochs(ends=ends, names=np.arange(1, len(ends) + 1), shift=shift)
    first, last = int(main.steps[0]), int(main.steps[-1])
    saved = _saved_within(main, checkpoints, shift)
    if len(saved) >= FEWEST_CUTS:
        ends = np.array(sorted(saved))
        return Epochs(
            ends=ends,
            names=np.array([saved[int(end)] for end in ends]),
            shift=shift,
            note="Nothing says where an epoch of the log ends: it was cut at the checkpoints.",
        )
    ends = np.unique(np.linspace(first - 1, last, PARTS + 1).astype(np.int64)[1:])
    return Epochs(
        ends=ends,
        names=np.arange(1, len(ends) + 1),
        shift=shift,
        parts=True,
        note=f"Nothing says where an epoch of the log ends: it was cut into {len(ends)} equal "
        "parts, and its epochs are these parts.",
    )


def _saved_within(main: Curve, checkpoints: Sequence[Checkpoint], shift: int) -> dict[int, int]:
    """Give the steps of a log with which checkpoints end, and their epochs.

    Of a log that has every tenth step alone, the last one may come before the last checkpoint.
    """
    between = int(np.median(np.diff(main.steps))) if len(main.steps) > 1 else 1
    first, last = int(main.steps[0]), int(main.steps[-1]) + between - 1
    placed = {c.step - shift: c.epoch for c in checkpoints if c.step}
    return {step: epoch for step, epoch in placed.items() if first <= step <= last}


def _logged_ends(main: Curve, all_curves: Sequence[Curve]) -> Array:
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


def _last_of_each(epochs: Array) -> Array:
    """Places where an epoch ends."""
    return np.flatnonzero(np.append(np.diff(epochs) != 0, True))[: len(epochs)]


# The training loss


def means_by_epoch(main: Curve, epochs: Epochs) -> Means:
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
    return Means(
        names=names,
        values=values,
        errors=errors,
        counts=counts,
        steps=main.steps[last],
    )


def trend_points(main: Curve, means: Means) -> tuple[Array, Array]:
    """Logarithms of the loss that do not share steps: what trends may be read from."""
    if main.moving:
        at, values = means.steps, means.values
    else:
        at, values, _, _ = curves.thin(main.steps, main.values, points=BLOCKS)
    known = np.isfinite(values) & (values > 0)
    return np.asarray(at)[known].astype(np.float64), np.log(values[known])
