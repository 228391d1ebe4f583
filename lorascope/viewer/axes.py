"""Which axes a grid has: what differs from picture to picture, and so can go down or across."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorascope.records import Row, Scalar
from lorascope.tools.pictures.sets import BASE, LORA, TRIGGER_OFF

DOWN, ACROSS = "down", "across"
ANY = -1  # a value that does not apply: the base model has no strength
BASE_MODEL = "Base model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis, and where on it every picture lies."""

    key: str
    name: str
    side: str  # down or across, where it is laid first
    labels: tuple[str, ...]
    places: tuple[int, ...]  # of each picture; ANY where the axis does not apply to it
    groups: tuple[str, ...] = ()  # a fainter word with each label


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What may become an axis."""

    key: str
    name: str
    side: str
    value: Callable[[Row], Hashable | None]  # None: it does not apply
    label: Callable[[Any], str] = str
    follows: str = ""  # an axis that settles it in most grids; then it is none of its own


def file_name(text: Scalar) -> str:
    """Give the last part of a path: a page that is sent around tells nobody's folders."""
    return Path(str(text)).name or str(text)


def number(value: Scalar) -> str:
    """Write a number as people type it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _strength(name: str) -> Callable[[Row], Hashable | None]:
    return lambda row: row.get(name) if row["epoch"] or row["kind"] == LORA else None


def _size(row: Row) -> Hashable | None:
    return (row["width"], row["height"]) if row.get("width") and row.get("height") else None


KINDS = (
    Kind(key="epoch", name="Epoch", side=DOWN, value=lambda r: r["epoch"],
         label=lambda e: f"Epoch {e}" if e else BASE_MODEL),
    Kind(key="lora", name="LoRA", side=DOWN, value=lambda r: r.get("lora") or None,
         label=file_name, follows="epoch"),
    Kind(key="strength", name="Strength", side=DOWN, value=_strength("strength"),
         label=lambda s: f"strength {number(s)}"),
    Kind(key="text_strength", name="Text strength", side=DOWN, value=_strength("text_strength"),
         label=lambda s: f"text strength {number(s)}", follows="strength"),
    Kind(key="trigger", name="Trigger", side=DOWN, value=lambda r: r["kind"] == TRIGGER_OFF,
         label=lambda off: "trigger left out" if off else "with trigger"),
    Kind(key="base", name="Base model", side=DOWN, value=lambda r: r.get("base") or None,
         label=file_name),
    Kind(key="companions", name="Companions", side=DOWN,
         value=lambda r: r.get("companions") or "", label=lambda text: text or "none"),
    Kind(key="prompt", name="Prompt", side=ACROSS, value=lambda r: r["shown"]),
    Kind(key="seed", name="Seed", side=ACROSS, value=lambda r: r.get("seed"),
         label=lambda s: f"seed {s}"),
    Kind(key="guidance", name="Guidance", side=ACROSS, value=lambda r: r.get("guidance"),
         label=lambda g: f"guidance {number(g)}"),
    Kind(key="steps", name="Sampling steps", side=ACROSS, value=lambda r: r.get("steps"),
         label=lambda s: f"{s} steps"),
    Kind(key="sampler", name="Sampler", side=ACROSS, value=lambda r: r.get("sampler") or None),
    Kind(key="size", name="Size", side=ACROSS, value=_size,
         label=lambda size: f"{size[0]} x {size[1]} px"),
    Kind(key="negative", name="Negative prompt", side=ACROSS,
         value=lambda r: r.get("negative") or "",
         label=lambda text: f"negative: {text}" if text else "no negative prompt"),
    Kind(key="clip_skip", name="Clip skip", side=ACROSS, value=lambda r: r.get("clip_skip"),
         label=lambda s: f"clip skip {s}"),
)  # fmt: skip
# Taken where two pictures would lie on one place: another trainer's samples of one prompt.
LAST_RESORT = (
    Kind(key="column", name="Column", side=ACROSS, value=lambda r: r["column"],
         label=lambda c: f"column {c + 1}"),
    Kind(key="row", name="Row", side=DOWN, value=lambda r: r["row"],
         label=lambda r: f"row {r + 1}"),
    Kind(key="cell", name="Picture", side=ACROSS, value=lambda r: r["cell"],
         label=lambda c: f"picture {c}"),
)  # fmt: skip


UNTOLD = ("trigger", "epoch", "prompt", "lora", "companions", "clip_skip")  # where all are alike


def complete(rows: Sequence[Row]) -> list[dict[str, Scalar]]:
    """Fill in what older grids and other trainers do not say, and refuse nothing.

    Parameters
    ----------
    rows : sequence of Row
        Pictures; at least ``epoch``, ``prompt`` and ``file`` are expected.

    Returns
    -------
    list of dict
        With ``cell``, ``row``, ``column``, ``kind`` and ``baseline``, and ``shown``: the prompt
        that stands over a column, where single rows leave the trigger out.
    """
    full: list[dict[str, Scalar]] = []
    for place, row in enumerate(rows):
        usual: dict[str, Scalar] = {
            "cell": place, "row": 0, "column": 0, "epoch": 0, "prompt": "", "file": "",
            "kind": LORA if row.get("epoch") else BASE, "baseline": None, "group": "",
        }  # fmt: skip
        full.append(usual | {k: v for k, v in row.items() if v is not None or k not in usual})
    if not any(row["baseline"] is not None for row in full):
        first = {r["column"]: r["cell"] for r in reversed(full) if r["kind"] == BASE}
        for row in full:
            row["baseline"] = first.get(row["column"])
    heads = {r["column"]: r for r in reversed(full) if r["kind"] != TRIGGER_OFF}
    for row in full:
        head = heads.get(row["column"], row)
        row["shown"] = f"{head['prompt']} {head.get('tags') or ''}".strip()
        row["shown_group"] = head["group"]
    return full


def axes_of(rows: Sequence[Row]) -> tuple[Axis, ...]:
    """Choose what varies.

    Parameters
    ----------
    rows : sequence of Row
        As `complete` gives them.

    Returns
    -------
    tuple of Axis
        Those with at least two values, and epoch and prompt in any case; together they tell
        every two pictures apart.
    """
    found: dict[str, Axis] = {}
    for kind in KINDS:
        axis = _axis(kind, rows)
        if len(axis.labels) > 1 and not (
            kind.follows in found and _settled(axis, found[kind.follows])
        ):
            found[kind.key] = axis
    for key in ("epoch", "prompt"):
        found.setdefault(key, _axis(next(k for k in KINDS if k.key == key), rows))
    for kind in LAST_RESORT:
        if _apart(list(found.values()), len(rows)):
            break
        found[kind.key] = _axis(kind, rows)
    order = [kind.key for kind in (*KINDS, *LAST_RESORT)]
    return tuple(found[key] for key in order if key in found)


def settings_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """Say what is the same in every picture: guidance, sampling steps, sampler, size ..."""
    said = []
    for kind in KINDS:
        if kind.key in UNTOLD:
            continue
        axis = _axis(kind, rows)
        if len(axis.labels) == 1 and axis.labels[0] != "no negative prompt":
            said.append(axis.labels[0])
    return tuple(said)


def _axis(kind: Kind, rows: Sequence[Row]) -> Axis:
    values = [kind.value(row) for row in rows]
    known: list[Any] = list(dict.fromkeys(v for v in values if v is not None))
    if all(isinstance(value, int | float | tuple) for value in known):
        known.sort()  # numbers, or pairs of them
    index: Mapping[Hashable | None, int] = {value: place for place, value in enumerate(known)}
    groups: Mapping[Hashable | None, str] = {}
    if kind.key == "prompt":
        groups = {r["shown"]: str(r["shown_group"] or "") for r in reversed(rows)}
    return Axis(
        key=kind.key,
        name=kind.name,
        side=kind.side,
        labels=tuple(kind.label(value) for value in known),
        places=tuple(index.get(value, ANY) for value in values),
        groups=tuple(groups[value] for value in known) if any(groups.values()) else (),
    )


def _settled(axis: Axis, other: Axis) -> bool:
    """Tell whether one axis has nothing to say beside another."""
    return len(set(zip(axis.places, other.places, strict=True))) == len(set(other.places))


def _apart(axes: Sequence[Axis], pictures: int) -> bool:
    return len(set(zip(*(axis.places for axis in axes), strict=True))) == pictures
