"""Where a base model lies, found and checked without torch: name, folder, file or hub name."""

import functools
import hashlib
import json
import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import lorascope
from lorascope.errors import BadInputError, MissingInputError

MINIATURE = "miniature"
MINIATURE_VARIABLE = "LORASCOPE_MINIATURE"  # names another folder for the miniature
HUB_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
PICKLES = {".ckpt", ".pt", ".pth", ".bin", ".pkl"}
FAMILIES = {"sd1": "SD 1.x", "sd2": "SD 2.x", "sdxl": "SDXL"}
PIPELINES = {  # what a model_index.json may say
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
}
HUB_PATTERNS = ["model_index.json", "*/*.json", "*/*.txt", "*/*.safetensors"]
HUB_IGNORED = ["safety_checker/*", "feature_extractor/*", "*/*.non_ema.safetensors"]
NAMES = "a folder in diffusers' layout, a .safetensors file, a hub name or `miniature`"


class Kind(StrEnum):
    """How a base model is stored."""

    FOLDER = "folder"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Source:
    """A base model on this machine."""

    kind: Kind
    path: Path


def find(name: str) -> Source:
    """Find a base model; only a hub name that is not yet on this machine is downloaded.

    Parameters
    ----------
    name : str
        ``miniature``, a folder, a .safetensors file or a hub name (``owner/model``).

    Raises
    ------
    MissingInputError
        It is nowhere.
    BadInputError
        It is something else: a LoRA, a pickle, a part of a model, another kind of model.
    """
    if name == MINIATURE:
        return _miniature()
    path = Path(name).expanduser()
    if path.is_dir():
        _check_folder(path)
        return Source(Kind.FOLDER, path)
    if path.suffix.lower() in PICKLES:
        raise BadInputError(
            f"{name} is a pickle, which can run any program when it is opened; "
            "lorascope does not open it.\nFix: name the model's .safetensors file."
        )
    if path.is_file():
        _check_file(path)
        return Source(Kind.FILE, path)
    if HUB_NAME.match(name) and path.suffix != ".safetensors" and not path.parent.is_dir():
        return Source(Kind.FOLDER, _snapshot(name))
    raise MissingInputError(f"There is no base model {name}.\nFix: give {NAMES}.")


def base_digest(name: str) -> str:
    """Hash the weights of a base model.

    Parameters
    ----------
    name : str
        As for `find`.

    Returns
    -------
    str
        sha256 over the names and bytes of the weights files; configurations and tokenizers do
        not count. A single file gives the hash of its bytes.

    Raises
    ------
    MissingInputError, BadInputError
        As for `find`.
    """
    source = find(name)
    if source.kind is Kind.FILE:
        return _hash(source.path)
    total = hashlib.sha256()
    for file in sorted(source.path.glob("*/*.safetensors")):
        total.update(file.relative_to(source.path).as_posix().encode() + b"\0")
        total.update(_hash(file).encode())
    return total.hexdigest()


def file_keys(path: Path) -> dict[str, tuple[int, ...]]:
    """List the tensors of a .safetensors file: key -> shape.

    Raises
    ------
    BadInputError
        It is cut short or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as opened:
            names = opened.keys()
            return {name: tuple(opened.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise BadInputError(
            f"{path} is damaged or no safetensors file ({error}).\n"
            "Fix: copy or download the file again."
        ) from error


def _miniature() -> Source:
    named = os.environ.get(MINIATURE_VARIABLE)
    path = Path(named) if named else Path(lorascope.__file__).parent / "miniature" / "base"
    if not (path / "model_index.json").is_file():
        raise MissingInputError(
            f"The miniature base model is not at {path}.\n"
            f"Fix: install lorascope again, or name its folder in {MINIATURE_VARIABLE}."
        )
    return Source(Kind.FOLDER, path)


def _check_folder(path: Path) -> None:
    index = path / "model_index.json"
    if not index.is_file():
        raise BadInputError(
            f"{path} is no base model: it has no model_index.json ({_contents(path)}).\n"
            f"Fix: give {NAMES}."
        )
    try:
        pipeline: Any = json.loads(index.read_text())["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{index} is damaged ({error}).\nFix: copy the model again.") from error
    if pipeline not in PIPELINES:
        raise BadInputError(
            f"{path} is a {pipeline}; lorascope evaluates LoRAs of SD 1.x, SD 2.x and SDXL.\n"
            f"Fix: give {NAMES}."
        )


def _contents(path: Path) -> str:
    """Say what a folder holds instead of a base model."""
    if (path / "config.json").is_file():
        return "it looks like one part of a model; its parent folder may be meant"
    files = sorted(p.name for p in path.iterdir())
    if not files:
        return "it is empty"
    return f"it holds {', '.join(files[:3])}{' ...' if len(files) > 3 else ''}"


def _check_file(path: Path) -> None:
    keys = file_keys(path)
    if any("lora_down" in key or "lora_A" in key or ".lora." in key for key in keys):
        raise BadInputError(
            f"{path} is a LoRA, not a base model.\nFix: give the model it was trained on: {NAMES}."
        )
    if not any(key.startswith("model.diffusion_model.") for key in keys):
        example = next(iter(keys), "nothing")
        raise BadInputError(
            f"{path} is no whole Stable Diffusion model: it holds no model.diffusion_model "
            f"weights (its first entry is {example}).\nFix: give {NAMES}."
        )


def _snapshot(name: str) -> Path:
    """Find a hub model's folder, downloading what is missing."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = Path(snapshot_download(name, allow_patterns=HUB_PATTERNS, local_files_only=True))
        if (path / "model_index.json").is_file() and list(path.glob("unet/*.safetensors")):
            return path
    except LocalEntryNotFoundError:
        pass
    try:
        path = Path(
            snapshot_download(name, allow_patterns=HUB_PATTERNS, ignore_patterns=HUB_IGNORED)
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise MissingInputError(
            f"{name} is no folder or file here, and as a hub name it cannot be had: "
            f"{str(error).strip().splitlines()[0]}\nFix: give {NAMES}."
        ) from error
    _check_folder(path)
    return path


def _hash(path: Path) -> str:
    stat = path.stat()
    return _hash_of_state(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _hash_of_state(path: Path, _size: int, _mtime_ns: int) -> str:
    """Hash a file once for each state that it was seen in."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
