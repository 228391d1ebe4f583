"""The values of foreign settings: brought into the form that our own config takes, or left out."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

Value = str | int | float | bool
Check = Callable[[Any], Value | None]  # brings a foreign value into our form; None: it has none

LONG = 400  # letters of a value that is only kept as a remark
ANY_PATH = re.compile(r"[^\x00-\x1f]+")
DIGITS = re.compile(r"[+-]?\d+")
SECRET = re.compile(r"(^|_)token$|(auth|access|api|hub)_tokens$|api_?key|secret|passw|credential")
NO_SECRET = re.compile(  # tokens that are words of a caption
    r"(instance|class|concept|subject|trigger|placeholder|init(iali[sz]er)?|pad|bos|eos|unk)_token$"
)
SECRET_VALUE = re.compile(r"\bhf_[A-Za-z0-9]{20,}")
NAME = re.compile(r"[A-Za-z][\w-]*[_-][\w-]*")


def _number(value: Any) -> float | None:
    """Read a number of any spelling; None for none, and for what is not finite."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(str(value).strip())
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def whole(low: int, high: float = math.inf) -> Callable[[Any], int | None]:
    """Make a check that takes whole numbers of some range."""

    def read(value: Any) -> int | None:
        number = _number(value)
        if number is None or not number.is_integer():
            return None
        text = str(value).strip()
        exact = int(text) if DIGITS.fullmatch(text) else int(number)  # a float holds 53 bits
        return exact if low <= exact <= high else None

    return read


def _real(low: float, high: float = math.inf, *, above: bool = False) -> Check:
    def read(value: Any) -> float | None:
        number = _number(value)
        inside = number is not None and low <= number <= high and not (above and number == low)
        return number if inside else None

    return read


def _truth(value: Any) -> bool | None:
    text = str(value).strip().lower()
    return {"true": True, "false": False, "1": True, "0": False}.get(text)


def _text(value: Any) -> str | None:
    text = str(value or "").strip()
    return text if text not in ("", "None") and ANY_PATH.fullmatch(text) else None


def _scheduler(value: Any) -> str | None:
    text = str(value).strip().lower()
    return text if text in ("cosine", "constant") else None


def _side(value: Any) -> int | None:
    """Read a resolution: 512, "512,512", "(512, 512)"; None where its sides differ."""
    sides = {int(side) for side in re.findall(r"\d+", str(value))}
    return sides.pop() if len(sides) == 1 and 64 <= min(sides) <= 4096 else None


seed_of = whole(0, 2**63 - 1)
OUR_CHECKS: Mapping[str, Check] = {
    "base": _text,
    "dataset": _text,
    "name": _text,
    "trigger": _text,
    "class_word": _text,
    "epochs": whole(1, 10_000),
    "batch_size": whole(1, 1024),
    "repeats": whole(1, 10_000),
    "resolution": _side,
    "held_out": _real(0, 0.5),
    "seed": seed_of,
    "save_every_epochs": whole(1),
    "rank": whole(1, 1024),
    "alpha": _real(0, above=True),
    "unet_lr": _real(0, 10),
    "text_lr": _real(0, 10),
    "scheduler": _scheduler,
    "warmup_steps": whole(0),
    "weight_decay": _real(0, 10),
    "max_grad_norm": _real(0),
    "min_snr_gamma": _real(0),
    "caption_dropout": _real(0, 1),
    "shuffle_tags": _truth,
    "keep_tags": whole(0, 77),
    "clip_skip": whole(1, 12),
}


def flattened(raw: Mapping[str, Any], prefix: str = "", depth: int = 3) -> dict[str, Any]:
    """Write nested settings as ``network.linear``."""
    found: dict[str, Any] = {}
    for key, value in raw.items():
        if isinstance(value, Mapping) and depth:
            found |= flattened(value, f"{prefix}{key}.", depth - 1)
        else:
            found[f"{prefix}{key}"] = value
    return found


def translated(raw: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Value]:
    """Translate what has a name in our config and a value that it takes."""
    found: dict[str, Value] = {}
    for theirs, name in names.items():
        if name in found or theirs not in raw or raw[theirs] in (None, ""):
            continue
        value = OUR_CHECKS[name](raw[theirs])
        if value is not None:
            found[name] = value
    return found


def remarks(
    raw: Mapping[str, Any], names: Mapping[str, str], *, drop: tuple[str, ...] = ()
) -> dict[str, Value]:
    """Keep what was set and was not translated, as far as it is short and no secret."""
    found: dict[str, Value] = {}
    for key, value in raw.items():
        if key.startswith(drop):
            continue
        if value in (None, "", [], {}) or _is_secret(key) or _has_secret(str(value)):
            continue
        known = key in names and OUR_CHECKS[names[key]](value) is not None
        if not known and len(str(value)) <= LONG:
            found[key] = value if isinstance(value, (str, int, float, bool)) else str(value)
    return found


def _is_secret(key: str) -> bool:
    """Tell whether a setting opens somebody's account; one about the text's tokens does not."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower()
    name = re.sub(r"[^a-z0-9]+", "_", spaced)
    return SECRET.search(name) is not None and NO_SECRET.search(name) is None


def _has_secret(text: str) -> bool:
    """Tell whether a value names a secret, as a line of options or a nested setting does."""
    named = any(_is_secret(name) for name in NAME.findall(text.replace("--", " ")))
    return named or SECRET_VALUE.search(text) is not None


def texts(value: Any) -> tuple[str, ...]:
    """Give a text as a tuple of one; an empty one where there is none."""
    text = _text(value)
    return (text,) if text else ()
