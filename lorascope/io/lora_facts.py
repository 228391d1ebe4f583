"""What a .safetensors file says of itself, read from its header alone and remembered.

Folders that trainers leave behind also hold base models, VAEs, embeddings and states to resume
from; the names of a file's weights tell them apart without reading one of them.
"""

import contextlib
import functools
import json
import math
import re
import stat
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorascope.errors import LorascopeError
from lorascope.io.safetensors_file import Header, read_header

PROMISED = "its header promises more bytes than there are"  # as `safetensors_file` says it
LORA, DAMAGED, UNKNOWN = "LoRA", "damaged", "unknown"
LORA_KEY = re.compile(
    r"(^|[._])(lora_(unet|te\d?|te_text_model)_|lycoris_)|lora_(down|up|A|B|linear_layer|magnitude)"
    r"|\.lora\.|hada_w\d|lokr_w\d|oft_blocks|oft_diag|boft_|dora_scale|^unet:\d+:(up|down)$"
)
OTHERS = (  # the first that a key begins with or contains decides
    ("a base model", ("model.diffusion_model.", "conditioner.embedders.", "cond_stage_model.")),
    ("an embedding", ("emb_params", "string_to_param", "clip_l", "clip_g")),
    ("a VAE", ("first_stage_model.", "encoder.down", "decoder.up", "decoder.mid")),
    ("an optimizer's state", ("optimizer", "exp_avg", "state.0.")),
    ("a text encoder", ("text_model.encoder.", "text_model.embeddings.")),
    ("a U-Net", ("down_blocks.", "conv_in.", "time_embedding.")),
)
MOST_EPOCHS, MOST_STEPS, MOST_RANK = 10**6, 10**9, 10**6  # beyond them a number is no count
CROSS_KEY = re.compile(r"attn2[._](processor[._])?to_[kv]")
RANK_KEY = re.compile(r"lora_down\.weight$|lora_A(\.\w+)?\.weight$|lora\.down\.weight$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What one file says of itself."""

    kind: str  # LORA, DAMAGED, UNKNOWN, or what else it is: "a VAE"
    damage: str = ""  # one sentence
    unfinished: bool = False  # its header promises more bytes than there are
    name: str = ""  # of the training, as its maker gave it
    session: str = ""  # one start of the trainer
    epoch: int | None = None
    step: int = 0  # 0: it does not say
    rank: int = 0
    width: int = 0  # of the text that the adapted cross attention reads; 0: none is adapted
    base: str = ""  # the base model's file name
    version: str = ""  # of the base model's architecture
    started: float = 0.0  # s since 1970; 0: it does not say
    finished: float = 0.0
    keys: tuple[str, ...] = ()  # of the metadata


def facts_of(path: Path) -> Facts:
    """Read what a file says of itself; a damaged file's facts say why it cannot be read."""
    try:
        found = path.stat()
    except OSError as error:
        why = f"{path} cannot be read: {error.strerror or error}."
        return Facts(kind=DAMAGED, damage=why)
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        return Facts(kind=DAMAGED, damage=f"{path} is no regular file.")  # reading it could hang
    return _facts(path, found.st_size, found.st_mtime_ns)


def stated(metadata: Mapping[str, str], key: str) -> str:
    """Give one text of the metadata; "" where it is missing or "None", as Python writes it."""
    text = metadata.get(key, "").strip()
    return "" if text == "None" else text


def whole(text: str) -> int | None:
    """Read a whole number; None where there is none."""
    try:
        return int(text)
    except ValueError:
        return None


def counted(number: object, most: int) -> int | None:
    """Take a whole number that can be a count, from 1; None for one that cannot."""
    return number if type(number) is int and 1 <= number <= most else None


def moment(text: str) -> float:
    """Read a time in s; 0 where there is none."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0


def parsed(text: str) -> dict[str, Any]:
    """Read a JSON object kept in one text; empty where it is none."""
    with contextlib.suppress(ValueError, RecursionError):
        raw = json.loads(text or "{}")
        if isinstance(raw, dict):
            return raw
    return {}


def kind_of(keys: Iterable[str]) -> str:
    """Tell what a file is by the names of its weights: LORA, UNKNOWN, or "a VAE"."""
    names = list(keys)
    if any(LORA_KEY.search(name) for name in names):
        return LORA
    for kind, marks in OTHERS:
        if any(mark in name for name in names for mark in marks):
            return kind
    return UNKNOWN


@functools.lru_cache(maxsize=20_000)
def _facts(path: Path, _size: int, _mtime_ns: int) -> Facts:
    """Read a file's facts once for each state that it was seen in."""
    try:
        header = read_header(path)
    except (LorascopeError, OSError, RecursionError) as error:
        why = str(error).splitlines()[0]
        return Facts(kind=DAMAGED, damage=why, unfinished=PROMISED in why)
    meta = header.metadata
    info = parsed(meta.get("training_info", ""))
    steps = (whole(stated(meta, "ss_steps")), info.get("step"))
    return Facts(
        kind=kind_of(header.entries),
        name=stated(meta, "ss_output_name"),
        session=stated(meta, "ss_session_id"),
        epoch=counted(whole(stated(meta, "ss_epoch")), MOST_EPOCHS),
        step=next((step for step in steps if counted(step, MOST_STEPS)), None) or 0,
        rank=counted(whole(stated(meta, "ss_network_dim")), MOST_RANK) or _rank(header),
        width=_width(header),
        base=stated(meta, "ss_sd_model_name"),
        version=stated(meta, "ss_base_model_version"),
        started=moment(stated(meta, "ss_training_started_at")),
        finished=moment(stated(meta, "ss_training_finished_at")),
        keys=tuple(meta),
    )


def _width(header: Header) -> int:
    """Give the width of the text that cross attention reads: each kind of model has its own."""
    found = {
        entry.shape[1]
        for name, entry in header.entries.items()
        if len(entry.shape) > 1 and RANK_KEY.search(name) and CROSS_KEY.search(name)
    }
    return found.pop() if len(found) == 1 else 0


def _rank(header: Header) -> int:
    """Give the rank that most modules have; 0 where their shapes do not tell."""
    found = Counter(
        entry.shape[0]
        for name, entry in header.entries.items()
        if entry.shape and RANK_KEY.search(name)
    )
    return found.most_common(1)[0][0] if found else 0
