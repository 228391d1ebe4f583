"""The prompts that trainers draw their sample pictures from, as each of them stores them."""

import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorascope.errors import BadInputError

LIMIT = 4_000_000  # bytes; a larger file is no list of prompts
OPTION = re.compile(r"\s--(?=\w+(?:\s|$))")
SEEDS, NEGATIVES = ("seed", "random_seed"), ("negative_prompt", "negative", "neg")
STEPS = ("sample_steps", "steps", "diffusion_steps", "num_inference_steps")
GUIDANCES = ("scale", "cfg_scale", "guidance_scale")


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplePrompt:
    """What one sample picture was asked for; None where the file does not say."""

    prompt: str
    negative: str = ""
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None  # sampling steps
    guidance: float | None = None
    enabled: bool = True  # OneTrainer keeps prompts that are switched off in their place


def read_sample_prompts(path: Path) -> tuple[SamplePrompt, ...]:
    """Read a list of prompts: .txt, .toml or .json as sd-scripts and OneTrainer keep them.

    Raises
    ------
    BadInputError
        It cannot be read, or is no such list.
    """
    try:
        if path.stat().st_size > LIMIT:
            raise ValueError("too large for a list of prompts")
        text = path.read_text(encoding="utf-8-sig")
        ending = path.suffix.lower()
        if ending == ".toml":
            return from_toml(tomllib.loads(text))
        if ending == ".json":
            return from_rows(json.loads(text))
        return from_lines(text.splitlines())
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BadInputError(f"{path} holds no prompts that can be read: {error}") from error


def from_lines(lines: Iterable[str]) -> tuple[SamplePrompt, ...]:
    """Read prompts, one a line, with ``--n --w --h --d --l --s`` behind them; # is a remark."""
    kept = (line.strip() for line in lines)
    return tuple(from_line(line) for line in kept if line and not line.startswith("#"))


def from_line(line: str) -> SamplePrompt:
    """Read one prompt and its options; one that is not understood is passed over."""
    prompt, values = split_options(line)
    return SamplePrompt(
        prompt=prompt,
        negative=values.get("n", ""),
        seed=_whole(values.get("d", values.get("seed"))),
        width=_whole(values.get("w")),
        height=_whole(values.get("h")),
        steps=_whole(values.get("s")),
        guidance=_real(values.get("l")),
    )


def split_options(line: str) -> tuple[str, dict[str, str]]:
    """Split a line into its prompt and its options, by flag (small letters); all still text."""
    prompt, *options = OPTION.split(line.strip())
    values: dict[str, str] = {}
    for option in options:
        flag, _, value = option.partition(" ")
        values[flag.lower()] = value.strip()
    return prompt.strip(), values


def from_toml(raw: Mapping[str, Any]) -> tuple[SamplePrompt, ...]:
    """Read ``[prompt]`` with its ``[[prompt.subset]]``, which inherit from it."""
    shared = dict(raw["prompt"]) if isinstance(raw.get("prompt"), Mapping) else {}
    rows = shared.pop("subset", [])
    return from_rows([{**shared, **row} for row in rows])


def from_rows(raw: object) -> tuple[SamplePrompt, ...]:
    """Read a list of prompts: texts, or objects with prompt, seed and size.

    Raises
    ------
    TypeError
        It is no list.
    """
    if isinstance(raw, str) or not isinstance(raw, Sequence):
        raise TypeError("not a list of prompts")
    return tuple(
        from_line(row) if isinstance(row, str) else _from_row(row)
        for row in raw
        if isinstance(row, (str, Mapping))
    )


def _from_row(row: Mapping[str, Any]) -> SamplePrompt:
    seed = next((_whole(row[key]) for key in SEEDS if key in row), None)
    return SamplePrompt(
        prompt=str(row.get("prompt") or ""),
        negative=str(next((row[key] for key in NEGATIVES if row.get(key)), "")),
        seed=None if row.get("random_seed") is True else seed,
        width=_whole(row.get("width")),
        height=_whole(row.get("height")),
        steps=next((_whole(row[key]) for key in STEPS if key in row), None),
        guidance=next((_real(row[key]) for key in GUIDANCES if key in row), None),
        enabled=row.get("enabled") is not False,
    )


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        return int(str(value).strip())
    except ValueError:
        return None


def _real(value: object) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        found = float(str(value).strip())
    except ValueError:
        return None
    return found if math.isfinite(found) else None
