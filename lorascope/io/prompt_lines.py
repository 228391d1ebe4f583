r"""Prompts as lines of text, to be typed and edited: one a line, with options behind it.

    # edit
    zyxfern, red hat, forest --n blurry --w 512 --h 768 --d 1 --s 20 --l 7

The options are those of sd-scripts: negative prompt, width, height, seed, sampling steps, guidance.
A bar between prompts is as good as a line break. A line that begins with ``#`` is a remark; one
that is the name of a group, right above a prompt, says what the prompt is for.

A backslash takes the meaning away from what follows it: ``\|`` is a bar, ``\#`` or ``\@`` at the
beginning is that sign, ``\--w`` is no option, and ``\n`` is a line break. Before anything else it
is a backslash like any other, as in ``fern \(plant\)``. ``@empty`` is the empty prompt.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from lorascope.errors import BadInputError
from lorascope.io.foreign.prompts import split_options
from lorascope.io.lora_tags import plain

EMPTY = "@empty"
REMARK = re.compile(r"#\s*(\w+)(?: \([\w-]+\))?")
BAR = re.compile(r"(?<!\\)\|")
# Where a sign would mean something: the backslashes before it. One more is written, one less read.
PLACES = r"(?<!\\)(?:\\{n}(?=\|)|^\\{n}(?=[#@])|(?:^|(?<=\s))\\{n}(?=--\w+(?:\s|$)))"
TO_WRITE = re.compile(PLACES.replace("{n}", "*"))
TO_READ = re.compile(PLACES.replace("{n}", "+"))
BREAK = re.compile(r"(\\*)(\n)|(\\+)n")
WRITTEN_BREAK = re.compile(r"(\\+)n")
PASSED_OVER = ("g", "ss", "cn", "ctr", "rcfg", "fs", "am", "f")  # what other models are asked with
WHOLE: Mapping[str, int] = MappingProxyType({"d": 0, "seed": 0, "w": 1, "h": 1, "s": 1})  # least
FIX = r"Fix: TEXT --n NEGATIVE --w 512 --h 768 --d SEED --s 20 --l 7; \-- where it is plain text."
LIMIT = 2**63


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptLine:
    """One prompt and what is said beside it; None where nothing is."""

    text: str
    negative: str | None = None
    seed: int | None = None
    width: int | None = None  # px
    height: int | None = None
    steps: int | None = None  # sampling steps
    guidance: float | None = None
    group: str = ""  # of the remark above it
    word: bool = False  # the text is a word with a meaning, as in @train


def read_prompt_lines(text: str) -> tuple[PromptLine, ...]:
    """Read prompts with a bar or a line break between them.

    Raises
    ------
    BadInputError
        An option is not known, or its value cannot be.
    """
    return tuple(_read_lines(text))


def write_prompt_line(line: PromptLine) -> str:
    """Write a prompt so that it reads back as it is, but for spaces around it and its remark."""
    parts = [line.text if line.word else _escaped(line.text.strip()) or EMPTY]
    if line.negative is not None:
        parts.append(f"--n {_escaped(line.negative.strip())}".rstrip())
    numbers = {"w": line.width, "h": line.height, "d": line.seed, "s": line.steps}
    parts += [f"--{flag} {value}" for flag, value in numbers.items() if value is not None]
    parts += [] if line.guidance is None else [f"--l {plain(line.guidance)}"]
    return " ".join(parts)


def _read_lines(text: str) -> Iterator[PromptLine]:
    group = ""
    for line in text.removeprefix("\ufeff").split("\n"):
        if line.strip().startswith("#"):
            found = REMARK.fullmatch(line.strip())
            group = found[1] if found else ""
            continue
        for part in BAR.split(line):
            if part.strip():
                yield _read_line(part.strip(), group)
                group = ""


def _read_line(line: str, group: str) -> PromptLine:
    text, options = split_options(line)
    known = ("n", "l", *WHOLE, *PASSED_OVER)
    if strange := [flag for flag in options if flag not in known]:
        raise BadInputError(f"--{strange[0]} behind {_short(text)!r} is no option.\n{FIX}")
    empty = text == EMPTY
    whole = {flag: _whole(text, options, flag, least) for flag, least in WHOLE.items()}
    seed = whole["seed"] if whole["d"] is None else whole["d"]
    return PromptLine(
        text="" if empty else text if text.startswith("@") else _plain(text),
        negative=_plain(options["n"]) if "n" in options else None,
        seed=seed,
        width=whole["w"],
        height=whole["h"],
        steps=whole["s"],
        guidance=_guidance(text, options),
        group=group,
        word=text.startswith("@") and not empty,
    )


def _whole(text: str, options: Mapping[str, str], flag: str, least: int) -> int | None:
    """Read the whole number behind a flag."""
    if flag not in options:
        return None
    try:
        value = int(options[flag])
    except ValueError:
        value = -1
    if not least <= value < LIMIT:
        raise BadInputError(f"--{flag} {_short(options[flag])} behind {_short(text)!r}.\n{FIX}")
    return value


def _guidance(text: str, options: Mapping[str, str]) -> float | None:
    if "l" not in options:
        return None
    try:
        value = float(options["l"])
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise BadInputError(f"--l {_short(options['l'])} behind {_short(text)!r}.\n{FIX}")
    return value


def _escaped(text: str) -> str:
    """Put a backslash before what would mean something; a line break is a backslash and an n."""
    flat = BREAK.sub(lambda m: f"{2 * (m[1] or m[3] or '')}" + ("\\n" if m[2] else "n"), text)
    return TO_WRITE.sub(lambda m: f"{m[0]}\\", flat)


def _plain(text: str) -> str:
    """Take the backslashes away again."""
    bare = TO_READ.sub(lambda m: m[0][1:], text)
    return WRITTEN_BREAK.sub(
        lambda m: m[1][: len(m[1]) // 2] + ("\n" if len(m[1]) % 2 else "n"), bare
    )


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
