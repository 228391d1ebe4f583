"""LoRAs named inside a prompt, ``<lora:name:0.8>``: read, taken out of the text, and written."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from lorascope.errors import BadInputError

TAG = re.compile(r"<(lora|lyco):([^>]+)>", re.IGNORECASE)
# What looks like a tag and is none: nothing inside, or never closed. It must not be drawn as text.
BROKEN = re.compile(r"<(?:lora|lyco)\s*(?::[^>]*)?(?:>|$)", re.IGNORECASE)
HYPERNETWORK = re.compile(r"<hypernet:[^>]*>?", re.IGNORECASE)
MOST = 3  # values after the name
NAMED = ("te", "unet", "dyn")
# Other programs' words for strengths by block or by sampling step; named, so that they are refused.
BY_BLOCK = ("lbw", "lbwe", "in", "mid", "out", "start", "stop", "step", "w")
FORM = "Fix: write <lora:name:0.8>, or <lora:name:0.5:0.8> for text encoder and UNet apart."
UNFIT = re.compile(r"[:>=\r\n]")


@dataclass(frozen=True, slots=True)
class LoraTag:
    """One LoRA, and how strongly it acts."""

    name: str  # of its file without the ending, or its alias
    text_strength: float = 1.0  # in the text encoders
    strength: float = 1.0  # in the UNet
    rank: int | None = None  # DyLoRA: how many of its directions count; all where None


def split_lora_tags(prompt: str) -> tuple[str, tuple[LoraTag, ...]]:
    """Take the LoRAs out of a prompt.

    Parameters
    ----------
    prompt : str
        As people write it for A1111: ``<lora:name:w>``, ``<lora:name:te:unet>``,
        ``<lora:name:te:unet:dyn>``; each value also by name (``te=``, ``unet=``, ``dyn=``), which
        counts before its place. Without a strength it is 1; without one for the UNet, that of the
        text encoders. ``lyco`` is the same as ``lora``.

    Returns
    -------
    text : str
        The prompt without the tags; nothing else is changed, so that the spaces around a tag stay.
    tags : tuple of LoraTag
        In the order of the prompt; a LoRA named twice stands twice.

    Raises
    ------
    BadInputError
        A tag without a name or an end, a strength that is no number, strengths by block or step,
        a hypernetwork.
    """
    tags = tuple(_tag(found) for found in TAG.finditer(prompt))
    text = TAG.sub("", prompt)
    if broken := BROKEN.search(text):
        raise BadInputError(f"{_short(broken[0])!r} is no whole tag of a LoRA.\n{FORM}")
    if other := HYPERNETWORK.search(text):
        raise BadInputError(
            f"{_short(other[0])!r} asks for a hypernetwork, which is not supported.\n"
            "Fix: take it out of the prompt."
        )
    return text, tags


def without_lora_tags(prompt: str) -> str:
    """Give a prompt's words alone, whatever its tags say."""
    return TAG.sub("", prompt)


def write_lora_tag(tag: LoraTag) -> str:
    """Write a LoRA for a prompt: one strength, or two where they differ.

    Of a name, what would end it early (colon, bracket, equals sign, line break) becomes ``_``.
    """
    values = [tag.text_strength]
    if tag.strength != tag.text_strength or tag.rank is not None:
        values.append(tag.strength)
    written = [plain(value) for value in values]
    written += [] if tag.rank is None else [str(tag.rank)]
    return f"<lora:{':'.join([tag_name(tag.name), *written])}>"


def tag_name(name: str) -> str:
    """Give a name the form in which it can stand in a tag."""
    return UNFIT.sub("_", name)


def plain(number: float) -> str:
    """Write a number as people do: without an exponent, without ``.0``; it reads back the same."""
    text = format(Decimal(repr(float(number))), "f") if math.isfinite(number) else str(number)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _tag(found: re.Match[str]) -> LoraTag:
    whole = _short(found[0])
    name, *parts = found[2].split(":")
    if not name.strip():
        raise BadInputError(f"{whole!r} names no LoRA.\n{FORM}")
    places: list[str] = []
    named: dict[str, str] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if equals:
            named[key.strip().lower()] = value
        else:
            places.append(part)
    _check(whole, places, named)
    text = _number(whole, named.get("te", places[0] if places else "1"))
    unet = named.get("unet", places[1] if len(places) > 1 else None)
    rank = named.get("dyn", places[2] if len(places) > 2 else None)
    return LoraTag(
        name=name,
        text_strength=text,
        strength=text if unet is None else _number(whole, unet),
        rank=None if rank is None else _rank(whole, rank),
    )


def _check(whole: str, places: Sequence[str], named: dict[str, str]) -> None:
    """Refuse what would be drawn otherwise than it was meant."""
    by_block = [key for key in named if key in BY_BLOCK]
    if by_block or len(places) > MOST or any("," in p or "@" in p for p in places):
        words = f" ({by_block[0]}=)" if by_block else ""
        raise BadInputError(
            f"{whole!r} has strengths by block or step{words}, which are not supported.\n{FORM}"
        )
    if strange := [key for key in named if key not in NAMED]:
        raise BadInputError(
            f"{whole!r}: {strange[0]!r} is none of {', '.join(NAMED)}.\n{FORM}",
        )


def _number(whole: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise BadInputError(f"{whole!r}: {text!r} is no strength.\n{FORM}") from error
    if not math.isfinite(value):
        raise BadInputError(f"{whole!r}: {text!r} is no strength.\n{FORM}")
    return value


def _rank(whole: str, text: str) -> int:
    if not (text.strip().isascii() and text.strip().isdecimal() and 0 < len(text.strip()) < 7):
        raise BadInputError(f"{whole!r}: {text!r} is no rank.\nFix: dyn=4, a whole number.")
    return int(text)


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
