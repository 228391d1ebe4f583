"""What happened in a log: NaN, spikes, trends, levels, schedules, limits of norms, and traps.

Every row of the table ``log_events`` is made here. A row states a fact and the number behind it;
whether that is good or bad is for the rules to say.
"""

import contextlib
from collections.abc import Iterable, Iterator

import numpy as np

from lorascope.errors import LorascopeError
from lorascope.io import log_tags
from lorascope.io.checkpoints import Checkpoint
from lorascope.io.safetensors_file import read_header
from lorascope.metrics import curves, trends
from lorascope.records import Row, cell
from lorascope.tools.logs.reading import Curve, Log, Means, trend_points

MOST_EVENTS = 50  # of one kind
SAME_SPIKE = 10  # steps between two spikes that count as one, as neighbours in the log do
CERTAIN = 0.01  # chance of noise below which a change of level is listed
BENT = 0.5  # share of the squares that a knee has to explain, and of the slope that it takes away
NORM_POINTS = 300  # that the curve of a norm is thinned to


def event_rows(log: Log, means: Means | None) -> Iterator[Row]:
    """Tell everything that happened; ``means`` of the training loss where one was logged."""
    yield from _broken_rows(log)
    if log.main and means:
        yield from _spike_rows(log, log.main)
        yield from _trend_rows(log, log.main, means)
        yield from _level_rows(log, log.main, means)
    yield from _rate_rows(log)
    yield from _norm_rows(log)
    yield from _trap_rows(log)


def _event(
    log: Log,
    event: str,
    tag: str,
    text: str,
    *,
    step: int | None = None,
    value: float | None = None,
    threshold: float | None = None,
) -> Row:
    known = step is not None and log.epochs.known
    return {
        "event": event,
        "tag": tag,
        "step": step,
        "epoch": int(log.epochs.of(np.array([step]))[0]) if known else None,
        "value": None if value is None else cell(value),
        "threshold": None if threshold is None else cell(threshold),
        "text": text,
    }


# The training loss


def _broken_rows(log: Log) -> Iterator[Row]:
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


def _spike_rows(log: Log, main: Curve) -> Iterator[Row]:
    """Name single steps far above their surroundings; those near each other count once."""
    if main.moving:
        return
    places, limits = trends.spikes(main.values)
    apart = (np.diff(places) > 1) & (np.diff(main.steps[places]) > SAME_SPIKE)
    groups = np.split(np.arange(len(places)), np.flatnonzero(apart) + 1)
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


def _trend_rows(log: Log, main: Curve, means: Means) -> Iterator[Row]:
    """Say whether the loss rises, and from where on it rests."""
    at, values = trend_points(main, means)
    if (found := trends.rising(at, values)) is not None:
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
    if (found := trends.plateau(at, values)) is not None:
        step = int(at[found.start])
        yield _event(
            log,
            "plateau",
            main.tag,
            f"{main.tag} rests from step {step} on: it moves by less than {trends.FLAT:.0%} of its "
            "level. A LoRA can still learn, or learn by heart, meanwhile.",
            step=step,
            value=float(np.expm1(found.change)),
            threshold=trends.FLAT,
        )


def _level_rows(log: Log, main: Curve, means: Means) -> Iterator[Row]:
    """Name epochs from which on the loss keeps to another level."""
    positive = means.values > 0
    names, steps, values = means.names[positive], means.steps[positive], means.values[positive]
    if len(values) < trends.FEWEST_POINTS:
        return
    relative = means.errors[positive] / values
    noise = float(np.median(relative)) if np.isfinite(relative).all() else None
    logs = np.log(values)
    starts = [*trends.segments(logs, noise=noise).tolist(), len(logs)]
    pairs = len(logs) * (len(logs) - 1) / 2  # pieces that could have been cut out
    for before, here, after in zip(starts, starts[1:], starts[2:], strict=False):
        p = trends.step_noise(logs[before:here], logs[here:after], noise=noise) * pairs
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


# Rates and norms


def _rate_rows(log: Log) -> Iterator[Row]:
    """Describe the schedule of every learning rate, equal ones once."""
    told: set[bytes] = set()
    rates = [c for c in log.all if c.means.kind == log_tags.RATE]
    for curve in sorted(rates, key=lambda c: c.means.part.startswith("group")):
        content = curve.steps.tobytes() + curve.values.tobytes()
        if content in told:
            continue
        told.add(content)
        if (found := trends.schedule(curve.steps, curve.values)) is not None:
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


def _schedule_rows(log: Log, curve: Curve, found: trends.Schedule) -> Iterator[Row]:
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


def _norm_rows(log: Log) -> Iterator[Row]:
    """Find where the largest norm meets its limit, and how many modules are held there."""
    for curve in log.all:
        finite = np.isfinite(curve.values)
        steps, values, _, _ = curves.thin(
            curve.steps[finite], curve.values[finite], points=NORM_POINTS
        )
        if curve.means.kind == log_tags.LARGEST and len(values) >= trends.FEWEST_POINTS:
            place, before, after, gain = trends.knee(steps, values)
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


# Traps


def _trap_rows(log: Log) -> Iterator[Row]:
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
    log: Log, tag: str, name: str, *, before: str = "", after: str = "", value: float | None = None
) -> Row:
    text = " ".join(part for part in (before or f"{tag}:", log_tags.TRAPS[name], after) if part)
    return _event(log, "trap", tag, text, value=value)


def _dense(curve: Curve, log: Log) -> bool:
    """Tell a mean that is logged at every step from one that is logged once an epoch."""
    epochs = len(np.unique(log.epochs.of(curve.steps))) if log.epochs.known else 1
    return len(curve.steps) > 2 * epochs


def _first_epoch_rows(log: Log, curve: Curve) -> Iterator[Row]:
    """Tell how many validations of the first epoch stay in the mean, and take them out again.

    After the k-th one the trainer shows the mean of all so far; from the second epoch on it
    replaces the first alone. So what the others were can be worked back.
    """
    if log.epochs.parts or not log.epochs.known:
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
