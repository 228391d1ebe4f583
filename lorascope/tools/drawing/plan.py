"""What drawing will cost, said before it begins: cells, forwards, time, disk."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lorascope import storage
from lorascope.models.shots import Shot
from lorascope.models.sources import base_digest
from lorascope.progress import duration
from lorascope.tools.drawing.cells import FOLDER, Cell

RECORD = "speed.json"  # in the samples: how fast drawing went, last time
BYTES_A_PIXEL = 3  # of a picture before it is packed: the most that it takes on the disk
MIB = 2**20
TRIED = 3  # sampling steps that tell how fast drawing goes
LEAST_SIDE = 64  # px; forwards of less tell nothing about larger ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be drawn, and its price."""

    cells: int  # distinct ones
    there: int  # of them drawn already
    forwards: int  # of the UNet, one picture wide
    seconds: float | None  # None: nobody knows how fast it goes here
    mebibytes: float

    def __str__(self) -> str:
        """Say it in one line."""
        if self.there == self.cells:
            return f"{counted(self.cells, 'picture')}, all drawn already"
        there = f" ({self.there} of {self.cells} are drawn already)" if self.there else ""
        time = "" if self.seconds is None else f", about {duration(max(self.seconds, 1))}"
        return (
            f"{counted(self.cells - self.there, 'picture')} to draw{there}: "
            f"{counted(self.forwards, 'forward')} of the UNet{time}, "
            f"at most {max(self.mebibytes, 0.1):.1f} MiB"
        )


def plan_of(cells: Sequence[Cell], missing: Sequence[Cell], samples: Path) -> Plan:
    """Work out what drawing the missing cells costs.

    The time is that of the last drawing in this run with the same base model; the disk space is
    that of the cells that are there, a pixel, and that of unpacked pictures where there are none.
    """
    names = {cell.name for cell in cells}
    lacking = {cell.name for cell in missing}
    drawn = [cell for cell in cells if cell.name not in lacking]
    work = [forwards(cell.shot) * pixels(cell.shot) for cell in missing]
    rates = [_rate(samples, cell.weights.base) for cell in missing]
    known = [w / rate for w, rate in zip(work, rates, strict=True) if rate]
    return Plan(
        cells=len(names),
        there=len(names) - len(lacking),
        forwards=sum(forwards(cell.shot) for cell in missing),
        seconds=sum(known) if len(known) == len(work) else None,
        mebibytes=sum(pixels(cell.shot) for cell in missing) * _packed(drawn, samples) / MIB,
    )


def learn_speed(missing: Sequence[Cell], samples: Path, *, batch: int) -> None:
    """Try how fast a base model draws here, where that is not known yet.

    A few sampling steps of the first batch, for every base model that was never timed; none of
    pictures too small to tell.
    """
    for name in dict.fromkeys(cell.weights.base for cell in missing):
        if _rate(samples, name):
            continue
        shots = [cell.shot for cell in missing if cell.weights.base == name]
        shots = [shot for shot in shots if tells_speed(shot)]
        alike = [replace(shot, steps=TRIED) for shot in shots if _alike(shot, shots[0])][:batch]
        if alike and (rate := _tried(name, alike, batch)):
            keep_speed(samples, name, rate)


def forwards(shot: Shot) -> int:
    """Count the forwards of the UNet, one picture wide, that a shot costs."""
    return shot.steps * (1 if shot.guidance == 1 else 2)


def pixels(shot: Shot) -> int:
    """Count the pixels of a shot's picture."""
    return shot.width * shot.height


def tells_speed(shot: Shot) -> bool:
    """Tell whether a shot is large enough that its speed says something of others'."""
    return min(shot.width, shot.height) >= LEAST_SIDE


def keep_speed(samples: Path, base: str, rate: float) -> None:
    """Remember how fast drawing went: forwards x pixels a second."""
    known = _record(samples) | {base_digest(base)[:12]: rate}
    storage.write_text(samples / RECORD, json.dumps(known, indent=1) + "\n")


def counted(count: int, what: str) -> str:
    """Count in words: "1 picture", "2,400 pictures"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _tried(name: str, shots: Sequence[Shot], batch: int) -> float:
    """Give forwards x pixels a second; the first step warms up and does not count."""
    from lorascope.models.base import shared_base
    from lorascope.models.sampling import draw_shots

    times: list[float] = []
    for _ in draw_shots(
        shared_base(name), shots, batch=batch, on_step=lambda *_: times.append(time.monotonic())
    ):
        pass
    work = sum(forwards(shot) * pixels(shot) for shot in shots) * (TRIED - 1) / TRIED
    return work / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 0.0


def _alike(shot: Shot, first: Shot) -> bool:
    size = (shot.width, shot.height, shot.guidance == 1, shot.sampler, shot.clip_skip)
    return size == (
        first.width, first.height, first.guidance == 1, first.sampler, first.clip_skip
    )  # fmt: skip


def _rate(samples: Path, base: str) -> float:
    return _record(samples).get(base_digest(base)[:12], 0.0)


def _record(samples: Path) -> dict[str, float]:
    try:
        raw = json.loads((samples / RECORD).read_text())
        return {str(key): float(rate) for key, rate in raw.items() if float(rate) > 0}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _packed(drawn: Sequence[Cell], samples: Path) -> float:
    """Bytes a pixel on the disk."""
    sizes = {cell.name: cell for cell in drawn[:64]}
    room = sum(pixels(cell.shot) for cell in sizes.values())
    bytes_there = sum((samples / FOLDER / f"{name}.png").stat().st_size for name in sizes)
    return bytes_there / room if room else BYTES_A_PIXEL
