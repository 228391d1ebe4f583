"""One training's saved files in their order: by what they say of themselves, else by their times.

What tells nothing of its place among the others is not put anywhere.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorascope.io.foreign.layouts import NamedState, named_state, printable
from lorascope.io.lora_facts import DAMAGED, Facts, facts_of


@dataclass(frozen=True, slots=True)
class State:
    """One file, with what its metadata and its name say."""

    path: Path
    facts: Facts
    named: NamedState
    name: str

    @property
    def epoch(self) -> int | None:
        """The metadata's, else the name's."""
        return self.named.epoch if self.facts.epoch is None else self.facts.epoch

    @property
    def step(self) -> int:
        """The metadata's; ai-toolkit counts one more there than in the names of all its files."""
        if "training_info" in self.facts.keys and self.named.step:
            return self.named.step
        return self.facts.step or self.named.step

    @property
    def bare(self) -> bool:
        """Whether the name has no number: so the last state is saved."""
        return self.named.epoch is None and not self.named.by_step


def state_of(path: Path, names: Mapping[Path, str]) -> State:
    """Read what a file and its name say; `names` tells its training where neither does."""
    facts, named = facts_of(path), named_state(path)
    return State(path, facts, named, facts.name or names.get(path) or named.name)


def once(states: Sequence[State]) -> list[State]:
    """Keep one file of a state that was saved twice: the one that is named by its epoch."""
    kept: dict[object, State] = {}
    for state in sorted(states, key=lambda s: (s.named.epoch is None, s.bare, str(s.path))):
        same = (state.facts.session, state.name, state.epoch, state.step)
        told = state.facts.kind != DAMAGED and (state.step or state.facts.epoch is not None)
        kept.setdefault(same if told else state.path, state)
    return list(kept.values())


def ordered(states: Sequence[State]) -> tuple[list[State], list[State]]:
    """Sort states from first to last; give also those whose place among the others nothing tells.

    The epoch leads where it can, because a resumed training counts its steps from 0 again. Where
    some files name only an epoch and others only a step, a file that states both tells how they
    lie to each other, or else the times of writing do; where neither does, the epochs count.
    """
    if all(s.epoch is not None or (s.bare and not s.step) for s in states):
        return sorted(states, key=lambda s: (_or_last(s.epoch), s.step, s.path.name)), []
    if loose := _without_place(states):
        by_time = _by_time([s for s in states if not _is_end(s)])
        if by_time:
            return [*by_time, *(s for s in states if _is_end(s))], []
        return ordered([s for s in states if s not in loose])[0], loose
    return sorted(states, key=lambda s: (*_place(s, states), s.path.name)), []


def unplaced_sentence(states: Sequence[State]) -> str:
    """Say which states have no place in the order, and why; "" where there is none."""
    if not states:
        return ""
    names = [printable(s.path.name) for s in states]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    verb = "were" if len(names) > 1 else "was"
    return (
        f"{names[0]}{more} {verb} left out: saved at steps, and nothing tells where they lie among "
        "the files saved at epochs (no metadata, and the times of the files do not tell it)."
    )


def _without_place(states: Sequence[State]) -> list[State]:
    """List the states of a step alone that may lie before or after one of an epoch alone."""
    epochs = [s for s in states if _of_epoch(s) and not s.bare and s.facts.kind != DAMAGED]
    steps = [s for s in states if s.epoch is None and s.step and not s.bare]
    if not epochs or not steps or len({s.name for s in [*epochs, *steps]}) > 1:
        return []  # of several names: the files of several trainings, which have no common order
    gaps = [_gap(s.epoch or 0, states) for s in epochs]
    return steps if any(low < s.step < high for low, high in gaps for s in steps) else []


def _by_time(states: Sequence[State]) -> list[State]:
    """Sort by the times of writing; nothing where they contradict a number, or are a copy's.

    Files that were copied have times in the order of their names: epochs first, then steps.
    """
    times = [written(s.path) for s in states]
    if not all(times) or len(set(times)) < len(times):
        return []
    found = sorted(states, key=lambda s: written(s.path))
    epochs = [s.epoch for s in found if s.epoch is not None]
    steps = [s.step for s in found if s.step]
    rising = epochs == sorted(set(epochs)) and steps == sorted(set(steps))
    copied = found == sorted(states, key=lambda s: s.path.name)
    return found if rising and not copied else []


def _place(state: State, states: Sequence[State]) -> tuple[float, float]:
    """Give a key to sort by: the step; of an epoch alone, the last step known to lie before it."""
    if _of_epoch(state) and not state.bare:
        low, high = _gap(state.epoch or 0, states)
        known = low or math.isfinite(high) or not any(s.step for s in states)
        return (low if known else math.inf), _or_last(state.epoch)
    return state.step or math.inf, _or_last(state.epoch)


def _gap(epoch: int, states: Sequence[State]) -> tuple[float, float]:
    """Give the steps between which an epoch ended, by the files that state both."""
    both = [(s.epoch, s.step) for s in states if s.epoch is not None and s.step]
    low = max((step for of, step in both if of <= epoch), default=0)
    return low, min((step for of, step in both if of >= epoch), default=math.inf)


def _of_epoch(state: State) -> bool:
    return state.epoch is not None and not state.step


def _is_end(state: State) -> bool:
    return state.bare and state.epoch is None and not state.step


def _or_last(epoch: int | None) -> float:
    return math.inf if epoch is None else epoch


def written(path: Path) -> float:
    """Give when a file was written, in s since 1970; 0 where it went away."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
