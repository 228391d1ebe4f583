"""A LoRA's metadata, read: every entry in our words, and as text that may be shown.

Everything here is text from outside: it is shortened, and what cannot be printed is taken out,
before anybody sees it. Nothing in it can raise.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorascope.io.metadata_words import LONGEST_JSON, WORDS, Value, plain, scalar, structure

LONGEST = 300  # characters of one value that anybody is shown
MOST_ROWS = 400  # unknown keys kept of one file; kohya writes some 110, all known
MOST_TAGS = 12
LONGEST_KEY = 160


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One thing that the trainer wrote.

    Attributes
    ----------
    key : str
        In our words; theirs where we have none.
    theirs : str
        As the file spells it.
    value : scalar, list, dict or None
        Read; None where it says that there is none.
    """

    key: str
    theirs: str
    value: Value

    @property
    def text(self) -> str:
        """The value for people: one line, of bounded length."""
        return as_text(self.key, self.value)


def entries(metadata: Mapping[str, str]) -> list[Entry]:
    """Translate a file's metadata into our words, in the order of our own list.

    Parameters
    ----------
    metadata : mapping of str to str
        As `lorascope.io.lora_file.read_metadata` gives it.

    Returns
    -------
    list of Entry
        Unknown keys follow as they are, as text.
    """
    found: list[Entry] = []
    budget = LONGEST_JSON
    for theirs, (ours, read) in WORDS.items():
        if theirs not in metadata:
            continue
        text = str(metadata[theirs])
        if read is structure:
            read = read if len(text) <= budget else plain
            budget -= len(text)
        found.append(Entry(key=ours, theirs=theirs, value=read(text)))
    rest = [theirs for theirs in metadata if theirs not in WORDS]
    for theirs in rest[:MOST_ROWS]:
        spelt = clean(theirs, LONGEST_KEY)
        found.append(Entry(key=spelt, theirs=spelt, value=plain(str(metadata[theirs]))))
    return found


def as_text(key: str, value: Value) -> str:
    """Write a value for people: one line of bounded length; large ones are summed up."""
    if value is None:
        return "none"
    if key == "tags":
        return _tags_in_words(value)
    if key == "thumbnail":
        return f"a picture ({len(str(value))} characters)"
    if isinstance(value, tuple):
        return f"{value[0]}x{value[1]}"
    if isinstance(value, dict | list):
        kind = "entries" if isinstance(value, list) else "keys"
        text = _dumped(value)
        return text if len(text) <= LONGEST else f"{clean(text)} ({len(value)} {kind})"
    return clean(str(value))


def clean(text: str, longest: int = LONGEST) -> str:
    """Take out what cannot be printed (also what steers a terminal), and shorten."""
    short = text[: longest + 1]
    bare = "".join(c if c.isprintable() else " " for c in short).strip()
    return bare if len(short) <= longest else f"{bare[: longest - 1]}…"


def _dumped(value: dict[str, Any] | list[Any]) -> str:
    """Write the beginning of a structure as JSON, however large the whole is."""
    text = ""
    try:
        for piece in json.JSONEncoder(ensure_ascii=False, default=str).iterencode(value):
            text += piece[:LONGEST]
            if len(text) > LONGEST:
                break
    except (ValueError, RecursionError):
        return "nested too deep to be shown"
    return clean(text, LONGEST + 1)


def tag_counts(value: Value) -> dict[str, dict[str, int]]:
    """Read the counts of tags: folder -> tag -> count; what is none is passed over."""
    if not isinstance(value, dict):
        return {}
    found: dict[str, dict[str, int]] = {}
    for folder, counts in value.items():
        if isinstance(counts, dict):
            found[clean(str(folder), 120)] = {
                clean(str(tag).strip(), 80): number
                for tag, count in counts.items()
                if (number := whole_of(count)) is not None
            }
    return found


def _tags_in_words(value: Value) -> str:
    tags = tag_counts(value)
    if not tags:
        return clean(str(value)) if isinstance(value, str) else "none"
    total: dict[str, int] = {}
    for counts in tags.values():
        for tag, count in counts.items():
            total[tag] = total.get(tag, 0) + count
    most = sorted(total.items(), key=lambda one: (-one[1], one[0]))[:MOST_TAGS]
    listed = ", ".join(f"{tag} ({count})" for tag, count in most)
    return clean(f"{len(total)} tags in {count_of(len(tags), 'folder')}: {listed}")


def text_of(value: Value) -> str:
    """Give a text as it may be shown; "" where there is none."""
    return clean(str(value)) if isinstance(value, str | int | float) else ""


def number_of(value: Any) -> float | None:
    """Give a finite number; JSON and text give theirs too."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str):
        value = scalar(value)
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 1e18:
        return None
    return float(value) if math.isfinite(value) else None


def whole_of(value: Any) -> int | None:
    """Give a whole number; None where it is none."""
    number = number_of(value)
    if number is None or number != int(number):
        return None
    return value if isinstance(value, int) else int(number)


def count_of(number: int, noun: str) -> str:
    """Write ``1 image`` or ``2 images``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
