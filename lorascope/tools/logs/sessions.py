"""Trainings whose logs count the same steps: one that was resumed, or several tries.

Some trainers begin at step 0 again when they are resumed, in a folder of its own. What was saved
tells whether a later one went on where an earlier one ended: then both are one curve. Else the
latest is shown alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lorascope.io.checkpoints import Checkpoint
from lorascope.io.event_file import Events, Series
from lorascope.io.log_tags import meaning
from lorascope.io.lora_facts import facts_of

MOST_STEPS = 2**53  # of all trainings together; more is damage
NAMED = 3  # trainings of one log whose steps are named

Folder = Mapping[str, Series]  # by tag


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Joined:
    """The series of one training, and what was saved meanwhile, on one count of steps."""

    series: tuple[Series, ...]
    checkpoints: tuple[Checkpoint, ...]
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Session:
    """One start of a trainer: the folders that it logged to, and the training loss in them."""

    folders: tuple[Folder, ...]
    main: Series

    @property
    def first(self) -> int:
        return int(self.main.steps[0])

    @property
    def last(self) -> int:
        return int(self.main.steps[-1])

    @property
    def length(self) -> int:
        """How many steps it made; counted from 0, the last one comes before the end."""
        if self.first:
            return self.last
        return self.last + (int(np.median(np.diff(self.main.steps))) if self.last else 1)

    @property
    def times(self) -> tuple[float, float]:
        known = self.main.times[np.isfinite(self.main.times)]
        return (float(known.min()), float(known.max())) if len(known) else (np.inf, np.inf)


def join_sessions(
    events: Events, tag: str | None, checkpoints: Sequence[Checkpoint], epoch_steps: int | None
) -> Joined:
    """Make one training of a log.

    Parameters
    ----------
    events : Events
    tag : str or None
        The training loss; without one nothing is told apart.
    checkpoints : sequence of Checkpoint
        First to last.
    epoch_steps : int or None
        Steps of an epoch, where they are known.

    Returns
    -------
    Joined
        A resumed training's steps are counted on, those of its checkpoints too. Where nothing
        tells that one went on, the latest with what was saved since it began.
    """
    sessions = _sessions(events.sessions, tag) if tag else []
    if len(sessions) < 2:
        return Joined(series=tuple(events.series.values()), checkpoints=tuple(checkpoints))
    of = _session_of(sessions, checkpoints)
    joinable = meaning(sessions[0].main.tag).axis == "step"
    joinable = joinable and sum(abs(one.last) for one in sessions) < MOST_STEPS
    chain = _chain(sessions, checkpoints, of) if joinable else [len(sessions) - 1]
    told = _named(sessions)
    if len(chain) == 1:
        (latest,) = chain
        return Joined(
            series=_joined_series([sessions[latest]], [0]),
            checkpoints=tuple(
                c for c, at in zip(checkpoints, of, strict=True) if at in (latest, None)
            ),
            caveats=(
                f"{told}: nothing tells that one went on from another, so the latest is shown "
                "alone, and no dip is matched to a file that was saved before it began.",
            ),
        )
    offsets, counted = _count_on(
        [sessions[at] for at in chain], chain, checkpoints, of, epoch_steps
    )
    shifts = " and ".join(str(offset) for offset in offsets[1:])
    left = len(sessions) - len(chain)
    dropped = f"; {left} of them that it did not go on from left out" if left else ""
    return Joined(
        series=_joined_series([sessions[at] for at in chain], offsets),
        checkpoints=counted,
        caveats=(
            f"{told}: what was saved tells that the training was resumed, so the later steps are "
            f"counted on, by {shifts}{dropped}.",
        ),
    )


def _sessions(folders: Sequence[Folder], tag: str) -> list[_Session]:
    """Tell folders apart in which the steps begin anew.

    A little overlap is as it should be: what came after the last saved state is done again.
    """
    groups: list[list[Folder]] = []
    before: Series | None = None
    for folder in folders:
        main = folder.get(tag)
        if main is None:
            if groups:
                groups[-1].append(folder)
            continue
        anew = before is not None and main.steps[0] <= (before.steps[0] + before.steps[-1]) / 2
        if anew or not groups:
            groups.append([])
        groups[-1].append(folder)
        before = main
    return [
        _Session(
            folders=tuple(group), main=_merged([folder[tag] for folder in group if tag in folder])
        )
        for group in groups
    ]


def _named(sessions: Sequence[_Session]) -> str:
    spans = ", then ".join(f"{one.first} to {one.last}" for one in sessions[:NAMED])
    more = ", ..." if len(sessions) > NAMED else ""
    return f"The log holds {len(sessions)} trainings that count the same steps ({spans}{more})"


# Which training a checkpoint belongs to


def _session_of(
    sessions: Sequence[_Session], checkpoints: Sequence[Checkpoint]
) -> list[int | None]:
    """Find the session of each checkpoint by its times.

    Of one from before all of them it is -1, from after them their number; None where nothing tells.
    Where times do not tell as many starts apart as there are, their order does.
    """
    facts = [facts_of(checkpoint.path) for checkpoint in checkpoints]
    begins, ends = np.array([one.times for one in sessions]).T
    found: list[int | None] = []
    for one in facts:
        if one.started:  # before the first event, while models are loaded
            at = int(np.searchsorted(np.maximum.accumulate(ends), one.started))
            early = 0 < one.finished < begins[min(at, len(begins) - 1)]
            found.append(-1 if early else at)
        elif one.finished:
            found.append(int(np.searchsorted(begins, one.finished, "right")) - 1)
        else:
            found.append(None)
    starts = sorted({one.started for one in facts if one.started})
    told = {at for at, one in zip(found, facts, strict=True) if one.started}
    if len(told) < len(starts) == len(sessions):
        return [starts.index(one.started) if one.started else None for one in facts]
    return found


def _chain(
    sessions: Sequence[_Session], checkpoints: Sequence[Checkpoint], of: Sequence[int | None]
) -> list[int]:
    """Give the sessions that went on from one another, the latest last."""
    keys: dict[int | None, list[int]] = {}
    for checkpoint, at in zip(checkpoints, of, strict=True):
        keys.setdefault(at, []).append(checkpoint.epoch)
    chain = [len(sessions) - 1]
    if set(keys) <= {None}:
        # Files whose steps go beyond the longest log, and not beyond all of them together.
        whole = sum(one.length for one in sessions)
        furthest = max((checkpoint.step for checkpoint in checkpoints), default=0)
        on = max(one.last for one in sessions) + 1 < furthest <= whole
        return list(range(len(sessions))) if on else chain
    for at in reversed(range(len(sessions) - 1)):
        if chain[0] in keys and at in keys:
            if max(keys[at]) >= min(keys[chain[0]]):
                break
            chain.insert(0, at)
    return chain


def _count_on(
    chain: Sequence[_Session],
    numbers: Sequence[int],
    checkpoints: Sequence[Checkpoint],
    of: Sequence[int | None],
    epoch_steps: int | None,
) -> tuple[list[int], tuple[Checkpoint, ...]]:
    """Find where each session begins on the count of all, and count its checkpoints on too.

    Their steps may be counted on already. They are not where they fall among those before.
    """
    offsets = [0]
    untold = {c for c, at in zip(checkpoints, of, strict=True) if at is None}
    counted = {c: c for c, at in zip(checkpoints, of, strict=True) if at in (None, numbers[0])}
    for place, number in enumerate(numbers[1:], start=1):
        own = [c for c, at in zip(checkpoints, of, strict=True) if at == number]
        steps = [c.step for c in own if c.step]
        before = max((c.step for c in counted.values() if c not in untold), default=0)
        end = offsets[-1] + chain[place - 1].length
        anew = bool(steps) and min(steps) <= before
        if anew and epoch_steps and (begun := _stated_offset(own, epoch_steps, end)) is not None:
            end = begun  # it went on from a state saved before the end of the log
        offsets.append(end)
        for c in own:
            counted[c] = Checkpoint(c.path, c.epoch, c.step + end) if anew and c.step else c
    return offsets, tuple(counted[c] for c in checkpoints if c in counted)


def _stated_offset(own: Sequence[Checkpoint], epoch_steps: int, most: int) -> int | None:
    """Compute the offset from files saved at the ends of epochs, which were counted on."""
    told = {
        epoch * epoch_steps - c.step
        for c in own
        if c.step and (epoch := facts_of(c.path).epoch) is not None
    }
    return told.pop() if len(told) == 1 and 0 < min(told) <= most else None


# One curve of several


def _joined_series(sessions: Sequence[_Session], offsets: Sequence[int]) -> tuple[Series, ...]:
    tags = sorted({tag for one in sessions for folder in one.folders for tag in folder})
    return tuple(_joined(tag, sessions, offsets) for tag in tags)


def _joined(tag: str, sessions: Sequence[_Session], offsets: Sequence[int]) -> Series:
    """Put one tag's sessions behind each other; one on an axis of epochs goes on by itself."""
    parts: list[Series] = []
    for one, offset in zip(sessions, offsets, strict=True):
        inside = [folder[tag] for folder in one.folders if tag in folder]
        if not inside:
            continue
        part = _merged(inside)
        if meaning(tag).axis == "epoch" and 2 * int(part.steps[-1]) < one.last:
            end = int(parts[-1].steps[-1]) if parts else 0
            shift = end if part.steps[0] <= end / 2 else 0
        else:
            shift = offset
        parts.append(replace(part, steps=part.steps + shift))
    return _merged(parts, by_time=False)


def _merged(parts: Sequence[Series], *, by_time: bool = True) -> Series:
    """Merge the parts of one tag; of one step, the later wall time wins, else the later part."""
    steps, times, values = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("steps", "times", "values")
    )
    order: list[NDArray[np.float64]] = [times, steps] if by_time else [steps]
    order_of = np.lexsort([np.arange(len(steps)), *order])
    last = np.append(np.diff(steps[order_of]) != 0, True)[: len(order_of)]
    kept = order_of[last]
    return Series(tag=parts[0].tag, steps=steps[kept], times=times[kept], values=values[kept])
