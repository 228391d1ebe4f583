"""What a picture says of itself: the text that A1111 and Civitai read, and beside it the truth.

A1111 keeps one text under the keyword ``parameters``: the prompt, a line of the negative prompt,
and a last line of values. That form cannot carry everything (see `write_infotext`), so a second
text, ``lorascope``, holds the same as JSON, without loss.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType, NoneType
from typing import Any, NotRequired, TypedDict, Unpack, cast

from lorascope import __version__
from lorascope.errors import BadInputError
from lorascope.io.lora_tags import LoraTag, plain, tag_name, write_lora_tag

PARAMETERS, OURS = "parameters", "lorascope"  # keywords of the two texts
SCHEMA = 1
NEGATIVE = "Negative prompt:"
LEAST = 3  # values that a last line must have to count as one
KEY = re.compile(r"\w[\w \-/]{1,80}")  # A1111 sets no limit, and takes minutes over long lines
PAIR = re.compile(rf'({KEY.pattern}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
HASHES = re.compile(r", Hashes:\s*(\{[^}]+\})")
SAMPLERS: Mapping[str, str] = MappingProxyType(
    {"dpm++2m": "DPM++ 2M", "ddim": "DDIM", "euler": "Euler", "euler_a": "Euler a"}
)
# A1111's name for the noise levels that a sampler here goes through, by the spacing of timesteps
# in the base model's settings; the test of this module compares them level by level. They are the
# same, but for DPM++ on "leading", which starts lower than anything A1111 has: the nearest is
# named. None of them is Karras. DDIM has one schedule only, for which A1111 has no name.
EULER: Mapping[str, str] = MappingProxyType(
    {"leading": "DDIM", "linspace": "Uniform", "trailing": "Simple"}
)
SCHEDULES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "dpm++2m": {"leading": "SGM Uniform", "linspace": "SGM Uniform", "trailing": "Simple"},
        "euler": EULER,
        "euler_a": EULER,
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraUsed:
    """One LoRA that a picture was drawn with."""

    name: str  # of its file, without the ending
    strength: float = 1.0  # in the UNet
    text_strength: float = 1.0  # in the text encoders
    autov3: str = ""  # 12 digits, of the tensors
    autov2: str = ""  # 10 digits, of the whole file


class Settings(TypedDict):
    """All that decided a picture; what may be left out has a usual value."""

    prompt: str  # without the tags of LoRAs
    steps: int
    sampler: str
    guidance: float
    seed: int
    width: int
    height: int
    model: str
    negative: NotRequired[str]
    model_hash: NotRequired[str | None]  # AutoV2 of a single file; None for a folder, which has no
    clip_skip: NotRequired[int]
    loras: NotRequired[Sequence[LoraUsed]]
    extras: NotRequired[Mapping[str, str | int | float]]  # more values, under names of your own
    spacing: NotRequired[str]  # of timesteps, in the base model's settings


KINDS: Mapping[str, type | tuple[type, ...]] = MappingProxyType(
    dict.fromkeys(("prompt", "sampler", "model", "negative", "spacing"), str)
    | dict.fromkeys(("steps", "seed", "width", "height", "clip_skip"), int)
    | {"guidance": (int, float), "model_hash": (str, NoneType), "extras": dict, "loras": tuple}
)
RESERVED = frozenset(
    ("Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model hash", "Model",
     "Clip skip", "RNG", "Lora hashes", "Version", "Hashes", "Prompt", "Negative prompt")
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Infotext:
    """What an A1111 text says, as it says it."""

    prompt: str  # with the tags of LoRAs
    negative: str
    parameters: Mapping[str, str]  # in order; ``Hashes`` holds Civitai's JSON


def write_infotext(**settings: Unpack[Settings]) -> str:
    """Write the text that A1111 keeps in a picture.

    Parameters
    ----------
    **settings : Settings
        ``prompt``, ``steps``, ``sampler`` (dpm++2m, ddim, euler, euler_a), ``guidance``, ``seed``,
        ``width``, ``height``, ``model`` and, where wanted, ``negative``, ``model_hash``,
        ``clip_skip``, ``loras``, ``extras``, ``spacing``.

    Returns
    -------
    str
        With the LoRAs as tags behind the prompt, and noise from the CPU (``RNG: CPU``), which is
        how A1111 draws the same noise from the same seed.

    Raises
    ------
    BadInputError
        The name of an extra value cannot be read by A1111: it takes letters, digits, spaces,
        ``-`` and ``/``, at least two.

    Notes
    -----
    A1111's reader strips every line, and takes a line that begins with ``Negative prompt:`` for
    the negative prompt wherever it stands. Such a line is therefore put behind the one before it:
    to CLIP a line break is a space, so that A1111 draws the same picture. Where it is the prompt's
    first, its first word is written ``(Negative:1)``, A1111's own form for a word of usual weight.
    """
    tags = [
        LoraTag(name=lora.name, text_strength=lora.text_strength, strength=lora.strength)
        for lora in settings.get("loras", ())
    ]
    words = " ".join([settings["prompt"], *map(write_lora_tag, tags)]) if tags else ""
    prompt = _one_side(words or settings["prompt"])
    if prompt.startswith(NEGATIVE):
        prompt = f"(Negative:1){prompt.removeprefix('Negative')}"
    negative = _one_side(settings.get("negative", ""))
    said = f"{prompt}\n{NEGATIVE} {negative}" if negative else prompt
    text = f"{said}\n{_last_line(settings)}".strip()
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def read_infotext(text: str) -> Infotext:
    """Read an A1111 text, whoever wrote it, as that program does.

    The last line holds the values if there are at least three in it; else it belongs to the
    prompt. Civitai's ``Hashes`` are taken out whole. Anything that is not there is empty.
    """
    *lines, last = text.strip().split("\n")
    if len(PAIR.findall(last)) < LEAST:
        lines, last = [*lines, last], ""
    last, hashes = _hashes_out_of(last)
    sides: dict[bool, list[str]] = {False: [], True: []}
    negative = False
    for line in (line.strip() for line in lines):
        begins = line.startswith(NEGATIVE)
        negative |= begins
        said = line.removeprefix(NEGATIVE).strip() if begins else line
        if said or sides[negative]:
            sides[negative].append(said)
    parameters = {key: _unquoted(value) for key, value in PAIR.findall(last)}
    if hashes:
        parameters["Hashes"] = hashes
    return Infotext(
        prompt="\n".join(sides[False]),
        negative="\n".join(sides[True]),
        parameters=MappingProxyType(parameters),
    )


def write_chunks(**settings: Unpack[Settings]) -> dict[str, str]:
    """Write both texts of a picture: ``parameters`` for other programs, ``lorascope`` lossless."""
    loras = [asdict(lora) for lora in settings.get("loras", ())]
    whole = {"schema": SCHEMA, "version": __version__, **settings, "loras": loras}
    return {
        PARAMETERS: write_infotext(**settings),
        OURS: json.dumps(whole, default=dict),  # ASCII: every reader of PNG text understands it
    }


def read_chunks(chunks: Mapping[str, str]) -> Settings | None:
    """Read back what `write_chunks` wrote; None where a picture says nothing in that form.

    Raises
    ------
    BadInputError
        It does, and is damaged, or was written by a newer program.
    """
    if OURS not in chunks:
        return None
    try:
        raw = json.loads(chunks[OURS])
        if int(raw.pop("schema")) > SCHEMA:
            raise BadInputError(
                "The picture was written by a newer program.\nFix: pip install --upgrade lorascope"
            )
        raw.pop("version", None)
        raw["loras"] = tuple(_lora(row) for row in raw["loras"])
        found = _checked(raw)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInputError(
            f"What the picture says of itself is damaged ({error!r}).\nFix: draw it again."
        ) from error
    return found


def _last_line(settings: Settings) -> str:
    sampler, skip = settings["sampler"], settings.get("clip_skip", 1)
    spacing = settings.get("spacing", "leading")
    hashes = {f"LORA:{_hash_name(u.name)}": u.autov2 for u in settings.get("loras", ()) if u.autov2}
    model_hash = settings.get("model_hash") or None
    values: dict[str, str | int | float | None] = {
        "Steps": settings["steps"],
        "Sampler": SAMPLERS.get(sampler, sampler),
        "Schedule type": SCHEDULES.get(sampler, {}).get(spacing),
        "CFG scale": plain(settings["guidance"]),
        "Seed": settings["seed"],
        "Size": f"{settings['width']}x{settings['height']}",
        "Model hash": model_hash,
        "Model": settings["model"],
        "Clip skip": skip if skip > 1 else None,
        "RNG": "CPU",
        **_extras(settings.get("extras", {})),
        "Lora hashes": _lora_hashes(settings.get("loras", ())) or None,
        "Version": f"lorascope {__version__}",
    }
    line = ", ".join(f"{key}: {_quoted(v)}" for key, v in values.items() if v is not None)
    known = ({"model": model_hash} if model_hash else {}) | hashes
    return f"{line}, Hashes: {json.dumps(known, ensure_ascii=False)}" if known else line


def _lora_hashes(loras: Sequence[LoraUsed]) -> str:
    return ", ".join(f"{_hash_name(lora.name)}: {lora.autov3}" for lora in loras if lora.autov3)


def _hash_name(name: str) -> str:
    """Give a LoRA's name in a list of hashes, which commas, colons and brackets would break."""
    return re.sub(r'[,:{}"\\]', "", tag_name(name))


def _one_side(text: str) -> str:
    """Join lines that A1111 would take for the beginning of the negative prompt."""
    first, *others = text.split("\n")
    for line in others:
        begins = line.strip().startswith(NEGATIVE)
        first = f"{first.rstrip()} {line.strip()}" if begins else f"{first}\n{line}"
    return first.strip()


def _extras(extras: Mapping[str, str | int | float]) -> Mapping[str, str | int | float]:
    """Refuse names that A1111 would not read, or would take for another value."""
    for key in extras:
        if not KEY.fullmatch(key) or key in RESERVED:
            raise BadInputError(
                f"A picture's value cannot be called {key!r}.\n"
                "Fix: letters, digits, spaces, - and /, at least two, and no name that is in use."
            )
    return extras


def _hashes_out_of(line: str) -> tuple[str, str]:
    """Take Civitai's list of hashes, JSON without quotes around it, out of a line of values."""
    for found in HASHES.finditer(line):
        try:
            json.loads(found[1])
        except ValueError:
            continue  # part of a quoted value
        return line[: found.start()] + line[found.end() :], found[1]
    return line, ""


def _quoted(value: str | int | float) -> str:
    """Quote as A1111 does, and also what its reader would change: outer spaces, quotes."""
    text = str(value)
    if not text or text != text.strip() or any(mark in text for mark in ',:\n"'):
        return json.dumps(text, ensure_ascii=False)
    return text


def _unquoted(value: str) -> str:
    if not (len(value) > 1 and value.startswith('"') and value.endswith('"')):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value


def _lora(row: Mapping[str, Any]) -> LoraUsed:
    return LoraUsed(**{field.name: row[field.name] for field in fields(LoraUsed)})


def _checked(raw: dict[str, Any]) -> Settings:
    """Let only the fields of `Settings` through, each of its kind."""
    missing = Settings.__required_keys__ - set(raw)
    if missing:
        raise KeyError(*sorted(missing))
    found = {key: raw[key] for key in KINDS if key in raw}
    if wrong := [key for key, value in found.items() if not isinstance(value, KINDS[key])]:
        raise TypeError(f"{wrong[0]} is {found[wrong[0]]!r}")
    return cast(Settings, found)
