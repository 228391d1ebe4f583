"""LoRA files: what kohya's trainers, diffusers and PEFT write becomes one plain record."""

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lorascope.errors import BadInputError
from lorascope.io import lora_modules, lora_names, safetensors_file
from lorascope.io.lora_modules import BaseBoundModule, Floats, LoraModule, Settings
from lorascope.io.lora_names import ALPHA, DORA_SCALE, MAGNITUDE, UP_BIAS, WEIGHT
from lorascope.io.safetensors_file import Entry, Header

__all__ = [
    "BaseBoundModule",
    "LoraFile",
    "LoraModule",
    "lora_from_tensors",
    "read_lora",
    "read_metadata",
    "write_lora",
]

LARGEST_ALPHA = 1e30  # what is larger is no number that a person set
PEFT_METADATA = "lora_adapter_metadata"  # where diffusers keeps PEFT's settings
PEFT_CONFIG = "adapter_config.json"  # where PEFT itself keeps them


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
        What nobody here can read, each with its type: ``"lora_unet_... (unknown)"``.
    bound : dict of str to BaseBoundModule
        By name, sorted: modules whose update depends on the base model's weight.
    embeddings : dict of str to array
        Textual-inversion tokens that the file brings along, by their trigger.
    """

    path: Path
    metadata: dict[str, str]
    modules: dict[str, LoraModule]
    dtype: str
    unsupported: tuple[str, ...]
    bound: dict[str, BaseBoundModule] = field(default_factory=dict)
    embeddings: dict[str, Floats] = field(default_factory=dict)


def read_lora(path: Path) -> LoraFile:
    """Read a LoRA, whoever wrote it and of whichever network type.

    NaN and infinity are read as they are: to call them a fault is a rule's work. What nobody here
    knows is listed in ``unsupported``, and the rest is read.

    Parameters
    ----------
    path : Path
        A .safetensors file of kohya's trainers, OneTrainer, ai-toolkit, LyCORIS, diffusers, PEFT
        or cloneofsimo's lora.

    Raises
    ------
    MissingInputError
        There is no such file.
    BadInputError
        It is a pickle, cut short, no safetensors file, no LoRA, or half of a module is missing.
    """
    path = Path(path)
    header = safetensors_file.read_header(path)
    with safetensors_file.Reader(path, header) as reader:
        return _assemble(path, header, reader.tensor)


def lora_from_tensors(
    path: Path, tensors: Mapping[str, Floats], metadata: Mapping[str, str]
) -> LoraFile:
    """Make a LoRA of tensors that were read by other means, such as an old pickle.

    Parameters
    ----------
    path : Path
        Where they came from, for messages and for PEFT's settings beside it.
    tensors : mapping of str to float32 array
    metadata : mapping of str to str

    Raises
    ------
    BadInputError
        They are no LoRA, or half of a module is missing.
    """
    entries = {
        name: Entry(dtype="F32", shape=values.shape, start=0, end=values.nbytes)
        for name, values in tensors.items()
    }
    header = Header(metadata=dict(metadata), entries=entries)
    return _assemble(Path(path), header, lambda name: np.asarray(tensors[name], dtype=np.float32))


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
    names: set[str] = set()
    for module in modules:
        if module.name in names:
            raise BadInputError(f"Two modules are called {module.name}.")
        names.add(module.name)
        tensors |= _kohya_tensors(module)
    safetensors_file.write(Path(path), tensors, metadata, dtype=dtype)


def _kohya_tensors(module: LoraModule) -> dict[str, Floats]:
    """Give one module as kohya's and LyCORIS' keys; LoHa becomes the LoRA that it equals."""
    if module.down is None and module.left is None:
        if module.magnitude is not None:
            raise BadInputError(f"{module.name}: a full difference with magnitudes has no keys.")
        layer = module.name.removesuffix(lora_modules.BIAS)
        ending = "diff" if layer == module.name else "diff_b"
        return {f"{layer}.{ending}": module.up * np.float32(module.scale)}
    alpha = module.scale * module.rank if module.down is not None else 1.0
    found = {"alpha": np.asarray(alpha, dtype=np.float32)}
    if module.left is not None:
        scale = np.float32(module.scale if module.down is None else 1.0)
        found["lokr_w1"] = module.left * scale
    if module.down is None:
        found["lokr_w2"] = module.up
    elif module.left is None:
        found |= {"lora_up.weight": module.up, "lora_down.weight": module.down}
    else:
        found |= {"lokr_w2_a": module.up, "lokr_w2_b": module.down}
    if module.magnitude is not None:
        last = module.up if module.down is None else module.down
        rows = (len(module.magnitude), *(1 for _ in last.shape[1:]))
        flat = module.magnitude.ndim == 1
        found["dora_scale"] = module.magnitude.reshape(rows) if flat else module.magnitude
    return {f"{module.name}.{part}": values for part, values in found.items()}


def _assemble(path: Path, header: Header, tensor: Callable[[str], Floats]) -> LoraFile:
    sorted_keys = _sort_keys(header)
    if not sorted_keys.parts and not sorted_keys.strangers:
        raise _not_a_lora(path, header)
    names = _our_names(path, sorted_keys.parts)
    settings = _peft_settings(path, header.metadata)
    modules: dict[str, LoraModule] = {}
    bound: dict[str, BaseBoundModule] = {}
    dtypes = Counter[str]()
    for spelling in sorted(sorted_keys.parts, key=names.__getitem__):
        name, keys = names[spelling], sorted_keys.parts[spelling]
        dtypes.update(header.entries[key].dtype for part, key in keys.items() if part != ALPHA)
        parts = {part: tensor(key) for part, key in keys.items()}
        for module in _build(path, name, parts, _settings_of(settings, name, spelling)):
            if isinstance(module, BaseBoundModule):
                bound[module.name] = module
            else:
                modules[module.name] = module
    return LoraFile(
        path=path,
        metadata=header.metadata,
        modules=modules,
        dtype=dtypes.most_common(1)[0][0] if dtypes else _any_dtype(header),
        unsupported=tuple(sorted(sorted_keys.unsupported())),
        bound=bound,
        embeddings={trigger: tensor(key) for trigger, key in sorted_keys.embeddings.items()},
    )


@dataclass(frozen=True, slots=True)
class _SortedKeys:
    """A file's keys, by what they are."""

    parts: dict[str, dict[str, str]]  # spelling -> part -> key
    strangers: dict[str, str]  # spelling -> a network type that nobody here reads
    unknown: list[str]  # keys
    embeddings: dict[str, str]  # trigger -> key

    def unsupported(self) -> Iterator[str]:
        two = _two_encoders([*self.parts, *self.strangers])
        for spelling, kind in self.strangers.items():
            yield f"{lora_names.our_name(spelling, two_encoders=two)} ({kind})"
        for key in self.unknown:
            yield f"{key} (unknown)"


def _sort_keys(header: Header) -> _SortedKeys:
    found = _SortedKeys({}, {}, [], {})
    for key in header.entries:
        if trigger := _trigger(key, header.metadata):
            found.embeddings[trigger] = key
        elif other := lora_names.other_type(key):
            found.strangers[other[0]] = other[1]
        elif split := lora_names.split_key(key):
            layer = found.parts.setdefault(split[0], {})
            if split[1] in layer:
                found.unknown.append(key)
            else:
                layer[split[1]] = key
        else:
            found.unknown.append(key)
    for spelling, keys in list(found.parts.items()):
        if spelling in found.strangers:
            del found.parts[spelling]
        elif not _tells_a_type(keys.keys()):
            found.unknown.extend(found.parts.pop(spelling).values())
    return found


def _tells_a_type(parts: Collection[str]) -> bool:
    """Tell whether a layer's parts are more than an alpha, or some other model's ``weight``."""
    return not set(parts) <= {ALPHA, WEIGHT, "scalar", "rescale", DORA_SCALE, MAGNITUDE, UP_BIAS}


def _trigger(key: str, metadata: Mapping[str, str]) -> str:
    """Give the word of a bundled textual inversion; "" where the key is none."""
    if metadata.get(key) == "<embed>":  # cloneofsimo's
        return key
    found = lora_names.EMBEDDING.match(key)
    return found[1] if found else ""


def _two_encoders(spellings: Iterable[str]) -> bool:
    return any(s.startswith(("text_encoder_2.", "lora_te2_", "lora_te2.")) for s in spellings)


def _our_names(path: Path, spellings: Collection[str]) -> dict[str, str]:
    two = _two_encoders(spellings)
    names = {s: lora_names.our_name(s, two_encoders=two) for s in spellings}
    if len(set(names.values())) < len(names):
        twice = Counter(names.values()).most_common(1)[0][0]
        raise BadInputError(f"{path} holds the module {twice} twice, spelt in two ways.")
    return names


def _build(
    path: Path, name: str, parts: Mapping[str, Floats], settings: Settings
) -> list[LoraModule | BaseBoundModule]:
    try:
        return lora_modules.build(name, parts, settings)
    except (ValueError, IndexError) as error:
        raise BadInputError(
            f"{path} is damaged: {name} {error}.\nFix: copy or download the file again."
        ) from error


def _peft_settings(path: Path, metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Read PEFT's settings from the metadata or from the file beside: root -> setting -> value.

    The file beside speaks of the whole LoRA: its root is "".
    """
    found: dict[str, dict[str, Any]] = {}
    with contextlib.suppress(ValueError, AttributeError, RecursionError):
        for key, value in json.loads(metadata.get(PEFT_METADATA, "{}")).items():
            root, _, setting = str(key).partition(".")
            found.setdefault(root, {})[setting] = value
    beside = path.parent / PEFT_CONFIG
    if not found and beside.is_file():
        with contextlib.suppress(ValueError, TypeError, OSError, RecursionError):
            found[""] = dict(json.loads(beside.read_text(encoding="utf-8")))
    return found


def _settings_of(settings: Mapping[str, Mapping[str, Any]], name: str, spelling: str) -> Settings:
    """Give what PEFT's settings say of one module."""
    stated = settings.get(_root(name)) or settings.get("")
    if not stated:
        return Settings()
    dotted = lora_names.dotted_name(spelling)
    alpha = _of_pattern(stated.get("alpha_pattern"), dotted)
    rank = _of_pattern(stated.get("rank_pattern"), dotted) or _positive(stated.get("r"))
    return Settings(
        alpha=alpha or _positive(stated.get("lora_alpha")) or _positive(stated.get("alpha")),
        rank=int(rank) if rank else None,
        root_scaled=stated.get("use_rslora") is True,
    )


def _of_pattern(patterns: object, dotted: str) -> float | None:
    """Look a module up in PEFT's patterns, which are ends of paths (their anchors are dropped)."""
    if not isinstance(patterns, Mapping):
        return None
    for pattern, value in patterns.items():
        end = str(pattern).removeprefix("^").removesuffix("$").replace("\\", "")
        if dotted == end or dotted.endswith(f".{end}"):
            return _positive(value)
    return None


def _positive(value: object) -> float | None:
    """Give a number of somebody's JSON; None where it is none."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < LARGEST_ALPHA:
        return float(value)
    return None


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
