"""What the answers of a stress test come to: its rows, its numbers and what its sheet shows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lorascope.io.checkpoints import Checkpoint
from lorascope.metrics.artefacts import MEASURES
from lorascope.metrics.intervals import intervals
from lorascope.metrics.strengths import Estimate, StressCurve, crossing
from lorascope.records import Measured, Measurement, Row, Scalar
from lorascope.tools.drawing.cells import FOLDER
from lorascope.tools.strengths.sampled import Drawn
from lorascope.tools.strengths.sheet import Sheet, sheet_of_drawn, sheet_of_guesses
from lorascope.tools.strengths.x0 import PREVIEW_MEASURES, Guesses, Noised

Floats = NDArray[np.float64]

X0, SAMPLED = "x0", "sampled"
LEAST_REMOVED = 0.02  # of the base model's error, at the best strength: below it there is no gain
NAMES = ("saturation", "headroom", "half", "slope", "best", "lost", "break_even")


@dataclass(frozen=True, kw_only=True, eq=False)
class Told:
    """What one form of the test tells."""

    form: str
    curve: list[Row]
    strengths: list[Row]
    items: list[Row]
    numbers: tuple[Measurement, ...]
    sheet: Sheet
    caveats: tuple[str, ...]


def of_guesses(
    asked: Noised, answers: Sequence[tuple[Checkpoint, Guesses]], unread: Sequence[str]
) -> Told:
    """Sum the x0 form up; its items are the latents, each at its worst timestep."""
    curves: list[Row] = []
    derived: list[Row] = []
    items: list[Row] = []
    found: dict[str, Estimate] = {}
    for checkpoint, answer in answers:
        removed = answer.removed.mean(axis=2)
        most = float(removed.mean(axis=1).max())
        curve = StressCurve(
            strengths=answer.strengths,
            artefacts=answer.z.max(axis=2),
            gain=removed / most if most >= LEAST_REMOVED else None,
        )
        found = estimates(curve, removed)
        columns = {
            "removed": removed,
            "change": answer.change.mean(axis=2),
            "bend": answer.bend.mean(axis=2),
            **_by_measure(answer.values.mean(axis=2), tuple(PREVIEW_MEASURES)),
        }
        curves += curve_rows(checkpoint, X0, curve, columns)
        derived.append(_derived_row(checkpoint, X0, curve, found))
        items += _latent_rows(checkpoint, asked, answer)
    last = answers[-1][1]
    numbers = _numbers("x0_", found, len(asked.names), int(last.z.size))
    explained = Measurement(
        name="preview_explained_share",
        value=asked.preview.explained,
        unit="1",
        n=len(asked.names),
    )
    return Told(
        form=X0,
        curve=curves,
        strengths=derived,
        items=items,
        numbers=(*numbers, explained),
        sheet=sheet_of_guesses(asked, answers),
        caveats=(*unread, *_said(X0, derived), *_said_of_x0(asked)),
    )


def of_drawn(
    samples: Path, answers: Sequence[tuple[Checkpoint, Drawn]], doubts: Sequence[str]
) -> Told:
    """Sum the sampled form up; its items are the prompts with their seeds."""
    curves: list[Row] = []
    derived: list[Row] = []
    items: list[Row] = []
    found: dict[str, Estimate] = {}
    for checkpoint, answer in answers:
        curve = StressCurve(
            strengths=answer.strengths, artefacts=answer.z, gain=_gain(answer.likeness)
        )
        found = estimates(curve, None)
        columns = _by_measure(answer.values, tuple(MEASURES))
        if curve.gain is not None and answer.likeness is not None:
            columns = {"likeness": answer.likeness, **columns}
        curves += curve_rows(checkpoint, SAMPLED, curve, columns)
        derived.append(_derived_row(checkpoint, SAMPLED, curve, found))
        items += _cell_rows(checkpoint, answer, samples)
    cells = answers[-1][1].cells
    return Told(
        form=SAMPLED,
        curve=curves,
        strengths=derived,
        items=items,
        numbers=_numbers("", found, len(cells[0]), sum(map(len, cells))),
        sheet=sheet_of_drawn(answers),
        caveats=(*doubts, *_said(SAMPLED, derived)),
    )


def together(told: Sequence[Told]) -> Measured:
    """Put the forms that were asked into one answer."""
    tables: dict[str, list[Row]] = {
        "curve": [row for one in told for row in one.curve],
        "strengths": [row for one in told for row in one.strengths],
    }
    tables |= {"cells" if one.form == SAMPLED else "latents": one.items for one in told}
    return Measured(
        numbers=tuple(number for one in told for number in one.numbers),
        tables=tables,
        caveats=tuple(dict.fromkeys(text for one in told for text in one.caveats)),
    )


def estimates(curve: StressCurve, removed: Floats | None) -> dict[str, Estimate]:
    """Derive every number that the curve gives; what it does not reach is left out."""
    saturation = curve.saturation()
    found = {
        "saturation": saturation,
        "headroom": _less(saturation, 1.0),
        "half": curve.half(),
        "slope": curve.slope(),
        "best": curve.best(),
        "lost": curve.lost(),
    }
    if removed is not None:
        found["break_even"] = curve.estimate(
            lambda _, lost: crossing(curve.strengths, lost, 0.0), values=-removed
        )
    return {name: estimate for name, estimate in found.items() if estimate is not None}


def curve_rows(
    checkpoint: Checkpoint, form: str, curve: StressCurve, columns: Mapping[str, Floats]
) -> Iterator[Row]:
    """Write one row a strength: the median artefact z, and the mean of everything else."""
    low, high = curve.artefact_bounds()
    several = curve.artefacts.shape[1] > 1  # one item gives no interval
    utility = curve.utilities()
    gain = {} if curve.gain is None else {"gain": curve.gain}
    means = {name: _mean_bounds(values) for name, values in {**gain, **columns}.items()}
    for place, strength in enumerate(curve.strengths):
        row: dict[str, Scalar] = {
            "epoch": checkpoint.epoch,
            "step": checkpoint.step,
            "form": form,
            "strength": float(strength),
            "items": curve.artefacts.shape[1],
            "artefact_z": float(np.median(curve.artefacts[place])),
            "artefact_z_low": float(low[place]) if several else None,
            "artefact_z_high": float(high[place]) if several else None,
            "utility": None if utility is None else float(utility[place]),
        }
        for name, (mean, below, above) in means.items():
            row |= {
                name: float(mean[place]),
                f"{name}_low": float(below[place]) if several else None,
                f"{name}_high": float(above[place]) if several else None,
            }
        yield row


def _mean_bounds(values: Floats) -> tuple[Floats, Floats, Floats]:
    low, high = intervals(values.T)
    return values.mean(axis=1), low, high


def _by_measure(values: Floats, names: Sequence[str]) -> dict[str, Floats]:
    return {name: values[..., place] for place, name in enumerate(names)}


def _gain(likeness: Floats | None) -> Floats | None:
    """Let the likeness begin at 0 where the LoRA is off.

    The pictures at strength 0 laid the scale themselves, and lie a little below its 0, which is
    where another picture by the base model would be.
    """
    if likeness is None or not np.isfinite(likeness).all():
        return None
    start = float(likeness[0].mean())
    return (likeness - start) / (1 - start) if start < 1 else None


def _less(estimate: Estimate | None, by: float) -> Estimate | None:
    if estimate is None:
        return None
    return Estimate(
        value=estimate.value - by,
        low=estimate.low - by,
        high=estimate.high - by,
        n=estimate.n,
        open=estimate.open,
    )


def _derived_row(
    checkpoint: Checkpoint, form: str, curve: StressCurve, found: Mapping[str, Estimate]
) -> Row:
    row: dict[str, Scalar] = {
        "epoch": checkpoint.epoch,
        "step": checkpoint.step,
        "form": form,
        "items": curve.artefacts.shape[1],
        "highest": float(curve.strengths[-1]),
        "saturation_open": found["saturation"].open if "saturation" in found else None,
    }
    for name in NAMES:
        one = found.get(name)
        row |= {
            name: one.value if one else None,
            f"{name}_low": one.low if one and one.n > 1 else None,
            f"{name}_high": one.high if one and one.n > 1 else None,
        }
    return row


def _numbers(
    prefix: str, found: Mapping[str, Estimate], items: int, asked: int
) -> tuple[Measurement, ...]:
    counts = {"items": items, "pictures": asked}
    return (
        *(
            Measurement(name=f"{prefix}{name}", value=value, unit=name, n=value)
            for name, value in counts.items()
        ),
        *(
            Measurement(
                name=f"{prefix}{name}",
                value=one.value,
                unit="1",
                n=one.n,
                interval=(one.low, one.high) if one.n > 1 else None,
            )
            for name, one in found.items()
        ),
    )


def _latent_rows(checkpoint: Checkpoint, asked: Noised, answer: Guesses) -> Iterator[Row]:
    names = tuple(PREVIEW_MEASURES)
    for s, i, t in np.ndindex(*answer.z.shape):
        yield {
            "epoch": checkpoint.epoch,
            "strength": float(answer.strengths[s]),
            "image": asked.names[i],
            "timestep": int(asked.timesteps[t]),
            "artefact_z": float(answer.z[s, i, t]),
            "worst": names[answer.worst[s, i, t]] if answer.z[s, i, t] > 0 else "",
            "change": float(answer.change[s, i, t]),
            "bend": float(answer.bend[s, i, t]),
            "removed": float(answer.removed[s, i, t]),
            **{
                name: float(value)
                for name, value in zip(names, answer.values[s, i, t], strict=True)
            },
        }


def _cell_rows(checkpoint: Checkpoint, answer: Drawn, samples: Path) -> Iterator[Row]:
    names = tuple(MEASURES)
    for s, i in np.ndindex(*answer.z.shape):
        cell = answer.cells[s][i]
        yield {
            "epoch": checkpoint.epoch,
            "strength": float(answer.strengths[s]),
            "prompt": cell.shot.prompt,
            "seed": cell.shot.seed,
            "artefact_z": float(answer.z[s, i]),
            "worst": names[answer.worst[s, i]] if answer.z[s, i] > 0 else "",
            "likeness": None if answer.likeness is None else float(answer.likeness[s, i]),
            **{name: float(value) for name, value in zip(names, answer.values[s, i], strict=True)},
            "file": f"{samples.name}/{FOLDER}/{cell.name}.png",
        }


def _said(form: str, derived: Sequence[Row]) -> Iterator[str]:
    """Say what the curves did not reach."""
    for row in derived:
        about = f"Epoch {row['epoch']} ({form})"
        if row["saturation"] is None:
            yield f"{about}: not spoilt at any strength up to {row['highest']:g}."
        elif row["saturation_open"]:
            yield (
                f"{about}: the upper end of the interval of saturation may lie beyond strength "
                f"{row['highest']:g}, the highest that was asked."
            )
        if row["best"] is None:
            yield f"{about}: no gain was measured, so that no strength can be called best."


def _said_of_x0(asked: Noised) -> Iterator[str]:
    yield (
        "The x0 form asks about images of the dataset in one forward and knows no guidance: "
        "pictures drawn with a high guidance scale spoil earlier (--form sampled)."
    )
    if asked.preview.explained < 0.5:
        yield (
            f"The map from latents to colours explains {asked.preview.explained:.0%} of these "
            "images' variance: the x0 form sees colours poorly here."
        )
