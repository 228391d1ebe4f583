"""LoRA files: what kohya's trainers, diffusers and PEFT write becomes one plain record."""

import contextlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import BadInputError
from lorascope.io import lora_names, safetensors_file
from lorascope.io.safetensors_file import Header

Floats = NDArray[np.float32]

PEFT_METADATA = "lora_adapter_metadata"  # where diffusers keeps PEFT's settings
PEFT_CONFIG = "adapter_config.json"  # where PEFT itself keeps them


@dataclass(frozen=True, slots=True, eq=False)
class LoraModule:
    """One adapted layer: its update is ``strength x scale x up @ down``.

    Attributes
    ----------
    name : str
        ``lora_unet_...``, ``lora_te_text_model_...``; SDXL: ``lora_te1_...``, ``lora_te2_...``.
    down : (rank, in) or (rank, in, kh, kw) float32 array
    up : (out, rank) or (out, rank, 1, 1) float32 array
    alpha : float
        Training constant; equal to the rank where the file has none, or 0.
    """

    name: str
    down: Floats
    up: Floats
    alpha: float

    @property
    def rank(self) -> int:
        """Inner size of ``up @ down``."""
        return int(self.down.shape[0])

    @property
    def scale(self) -> float:
        """Alpha / rank."""
        return self.alpha / self.rank


@dataclass(frozen=True, slots=True, eq=False)
class LoraFile:
    """One LoRA as saved.

    Attributes
    ----------
    path : Path
    metadata : dict of str to str
        As the trainer wrote it (``ss_...``).
    modules : dict of str to LoraModule
        By name, sorted.
    dtype : str
        F16, BF16 or F32: how most of the numbers are stored.
    unsupported : tuple of str
        Modules of other network types, each with its type: ``"lora_unet_... (LoHa)"``.
    """

    path: Path
    metadata: dict[str, str]
    modules: dict[str, LoraModule]
    dtype: str
    unsupported: tuple[str, ...]


def read_lora(path: Path) -> LoraFile:
    """Read a LoRA, whoever wrote it.

    NaN and infinity are read as they are: to call them a fault is a rule's work.

    Parameters
    ----------
    path : Path
        A .safetensors file with kohya's, diffusers' or PEFT's keys.

    Raises
    ------
    MissingInputError
        There is no such file.
    BadInputError
        It is a pickle, cut short, no safetensors file, no LoRA, or half of a module is missing.
    """
    path = Path(path)
    header = safetensors_file.read_header(path)
    parts, others = _sort_keys(header)
    if not parts and not any(kind != "unknown" for kind in others.values()):
        raise _not_a_lora(path, header)
    names = _our_names(path, [*parts, *others])
    settings = _peft_settings(path, header.metadata)
    modules, dtypes = {}, Counter[str]()
    for spelling in sorted(parts, key=names.__getitem__):
        if spelling in others:
            continue
        keys = parts[spelling]
        _check_pair(path, names[spelling], keys, header)
        dtypes.update(header.entries[key].dtype for part, key in keys.items() if part != "alpha")
        name = names[spelling]
        modules[name] = _read_module(path, header, name, keys, settings.get(_root(name), {}))
    unsupported = sorted(f"{names[spelling]} ({kind})" for spelling, kind in others.items())
    return LoraFile(
        path=path,
        metadata=header.metadata,
        modules=modules,
        dtype=dtypes.most_common(1)[0][0] if dtypes else _any_dtype(header),
        unsupported=tuple(unsupported),
    )


def read_metadata(path: Path) -> dict[str, str]:
    """Read what the trainer wrote about a LoRA, without its weights.

    Raises
    ------
    MissingInputError, BadInputError
        As for `read_lora`.
    """
    return safetensors_file.read_header(Path(path)).metadata


def write_lora(
    path: Path,
    modules: Sequence[LoraModule],
    metadata: Mapping[str, str],
    *,
    dtype: str = "F16",
) -> None:
    """Write a LoRA with kohya's keys, which every program for Stable Diffusion reads.

    Atomic; the same content gives the same bytes.

    Parameters
    ----------
    path : Path
    modules : sequence of LoraModule
    metadata : mapping of str to str
    dtype : str
        F16, BF16 or F32.

    Raises
    ------
    BadInputError
        Another ``dtype`` was asked for, or two modules have one name.
    StorageError
        The folder cannot be written to, or the disk is full.
    """
    tensors: dict[str, Floats] = {}
    for module in modules:
        if f"{module.name}.alpha" in tensors:
            raise BadInputError(f"Two modules are called {module.name}.")
        tensors[f"{module.name}.lora_down.weight"] = module.down
        tensors[f"{module.name}.lora_up.weight"] = module.up
        tensors[f"{module.name}.alpha"] = np.asarray(module.alpha, dtype=np.float32)
    safetensors_file.write(Path(path), tensors, metadata, dtype=dtype)


def _sort_keys(header: Header) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Sort a file's keys into modules: spelling -> part -> key, and spelling -> other type."""
    parts: dict[str, dict[str, str]] = {}
    others: dict[str, str] = {}
    for key in header.entries:
        if split := lora_names.split_key(key):
            parts.setdefault(split[0], {})[split[1]] = key
        elif other := lora_names.other_type(key):
            others[other[0]] = other[1]
        else:
            others[key] = "unknown"
    return parts, others


def _our_names(path: Path, spellings: Sequence[str]) -> dict[str, str]:
    two = any(s.startswith(("text_encoder_2.", "lora_te2_")) for s in spellings)
    names = {s: lora_names.our_name(s, two_encoders=two) for s in spellings}
    if len(set(names.values())) < len(names):
        twice = Counter(names.values()).most_common(1)[0][0]
        raise BadInputError(f"{path} holds the module {twice} twice, spelt in two ways.")
    return names


def _check_pair(path: Path, name: str, keys: Mapping[str, str], header: Header) -> None:
    missing = {"down", "up"} - keys.keys()
    if missing:
        raise BadInputError(
            f"{path} is damaged: {name} has no {' and no '.join(sorted(missing))} weights.\n"
            "Fix: copy or download the file again."
        )
    down, up = (header.entries[keys[part]].shape for part in ("down", "up"))
    if len(down) not in (2, 4) or len(up) not in (2, 4) or down[0] != up[1] or down[0] == 0:
        raise BadInputError(
            f"{path} is damaged: in {name} up {up} and down {down} do not fit together."
        )


def _read_module(
    path: Path, header: Header, name: str, keys: Mapping[str, str], settings: Mapping[str, Any]
) -> LoraModule:
    down, up = (
        safetensors_file.read_tensor(path, keys[part], header.entries[keys[part]])
        for part in ("down", "up")
    )
    rank = down.shape[0]
    alpha = 0.0
    if "alpha" in keys:
        stored = safetensors_file.read_tensor(path, keys["alpha"], header.entries[keys["alpha"]])
        alpha = float(stored.reshape(-1)[0]) if stored.size else 0.0
    elif settings:
        alpha = _peft_alpha(name, rank, settings)
    return LoraModule(name=name, down=down, up=up, alpha=alpha if alpha != 0.0 else float(rank))


def _peft_settings(path: Path, metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Read PEFT's settings from the metadata or from the file beside: root -> setting -> value."""
    found: dict[str, dict[str, Any]] = {}
    with contextlib.suppress(ValueError, AttributeError):
        for key, value in json.loads(metadata.get(PEFT_METADATA, "{}")).items():
            root, _, setting = str(key).partition(".")
            found.setdefault(root, {})[setting] = value
    beside = path.parent / PEFT_CONFIG
    if not found and beside.is_file():
        with contextlib.suppress(ValueError, OSError):
            found["unet"] = dict(json.loads(beside.read_text()))
    return found


def _peft_alpha(name: str, rank: int, settings: Mapping[str, Any]) -> float:
    """Give the effective alpha, with which alpha / rank is PEFT's own scale."""
    alpha = settings.get("lora_alpha") or rank
    for pattern, value in (settings.get("alpha_pattern") or {}).items():
        if name.endswith("_" + str(pattern).replace(".", "_")):
            alpha = value
    return float(alpha) * (math.sqrt(rank) if settings.get("use_rslora") else 1.0)


def _root(name: str) -> str:
    """Say under which name PEFT's settings speak of the model a module belongs to."""
    if name.startswith("lora_te2_"):
        return "text_encoder_2"
    return "text_encoder" if name.startswith("lora_te") else "unet"


def _any_dtype(header: Header) -> str:
    return Counter(entry.dtype for entry in header.entries.values()).most_common(1)[0][0]


def _not_a_lora(path: Path, header: Header) -> BadInputError:
    what = "it holds no lora_down and lora_up weights"
    if any(
        key.startswith(("model.diffusion_model.", "first_stage_model.")) for key in header.entries
    ):
        what = "it is a whole Stable Diffusion model"
    elif not header.entries:
        what = "it holds nothing"
    return BadInputError(f"{path} is no LoRA: {what}.\nFix: name a LoRA's .safetensors file.")
