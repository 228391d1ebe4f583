"""Where a network that describes pictures lies, found and checked without torch.

Nothing is ever downloaded: folders, files, and what the hub's cache already holds.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorascope.errors import BadInputError, MissingInputError
from lorascope.models.sources import HUB_NAME, PICKLES

KNOWN = {"dinov2": "facebook/dinov2-small", "clip": "openai/clip-vit-base-patch32"}
NAMED = ("dreamsim", "sscd")  # their files are always named by the user
KINDS = {  # a configuration's model_type -> what is done with it
    "dinov2": "token",
    "dinov2_with_registers": "token",
    "vit": "token",
    "clip": "clip",
}
NAMES = (
    "dinov2, clip, dreamsim:FOLDER, sscd:FILE, the folder of such a model, or its name on the hub"
)
CONFIG, PREPARATION = "config.json", "preprocessor_config.json"
HUB_PATTERNS = ["*.json", "*.txt", "*.safetensors", "*.bin"]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean, standard deviation
CLIPS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
BICUBIC = 3  # Pillow's number for it, which settings use
DINOV2_SIZES = (256, 224)  # shorter edge, then the middle of it: what its makers use


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """How a picture is made ready for a network."""

    edge: int  # px that the shorter side is resized to; 0: both sides to `size`, skewing them
    size: tuple[int, int]  # height, width of what the network sees, from the middle
    mean: tuple[float, ...] = IMAGENET[0]  # of red, green, blue from 0 to 1
    std: tuple[float, ...] = IMAGENET[1]
    resample: int = BICUBIC


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderFiles:
    """A network on this machine, in the layout of the transformers library."""

    folder: Path
    kind: str  # token: the first token describes the picture; clip: pictures and texts
    pickled: bool
    name: str  # its type and the digest of its weights
    preparation: Preparation


def find_encoder(name: str) -> EncoderFiles:
    """Find a network in a folder or in the hub's cache.

    Parameters
    ----------
    name : str
        dinov2, clip, a folder, a hub name (``owner/model``), or a file of pickled weights
        (``FOLDER/pytorch_model.bin``), which is opened only when it is named like this.

    Raises
    ------
    MissingInputError
        It is not on this machine.
    BadInputError
        It is something else, or damaged, or its weights are a pickle that was not named.
    """
    path = Path(name).expanduser()
    if name in KNOWN:
        return _in_folder(_cached(KNOWN[name], asked=name))
    if path.is_dir():
        return _in_folder(path)
    if path.suffix in PICKLES and path.is_file():
        return _in_folder(path.parent, pickle=path)
    if path.name in (CONFIG, "model.safetensors") and path.is_file():
        return _in_folder(path.parent)
    if HUB_NAME.match(name) and not path.parent.is_dir():
        return _in_folder(_cached(name, asked=name))
    raise MissingInputError(f"There are no features {name!r} here.\nFix: --features {NAMES}.")


def files_digest(files: Sequence[Path]) -> str:
    """Hash names and bytes of some files: twelve hex digits."""
    total = hashlib.sha256()
    for file in sorted(files):
        with file.open("rb") as opened:
            total.update(file.name.encode() + b"\0")
            total.update(hashlib.file_digest(opened, "sha256").digest())
    return total.hexdigest()[:12]


def _cached(hub_name: str, *, asked: str) -> Path:
    """Find the folder of a hub model in the cache, without a network."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = snapshot_download(
            hub_name,
            allow_patterns=HUB_PATTERNS,
            local_files_only=True,
            cache_dir=constants.HF_HUB_CACHE,
        )
    except (LocalEntryNotFoundError, OSError, ValueError) as error:
        what = asked if asked == hub_name else f"{asked} is {hub_name}, which"
        raise MissingInputError(
            f"{what} is not on this machine: looked in {constants.HF_HUB_CACHE}; nothing is "
            f"downloaded.\nFix: hf download {hub_name}, then --features {asked}; or --features "
            "FOLDER that holds it."
        ) from error
    return Path(found)


def _in_folder(folder: Path, *, pickle: Path | None = None) -> EncoderFiles:
    """Check what a folder holds."""
    config = _settings(folder / CONFIG) if (folder / CONFIG).is_file() else None
    if config is None:
        what = "is a base model" if (folder / "model_index.json").is_file() else "holds no model"
        raise BadInputError(
            f"{folder} {what}: features need a folder with {CONFIG} and weights, as the "
            f"transformers library writes it.\nFix: --features {NAMES}."
        )
    model_type = str(config.get("model_type", "(none)"))
    if model_type not in KINDS:
        raise BadInputError(
            f"{folder} holds a model of type {model_type}; features are known from "
            f"{', '.join(KINDS)}.\nFix: --features {NAMES}."
        )
    weights = _weights(folder, pickle)
    return EncoderFiles(
        folder=folder,
        kind=KINDS[model_type],
        pickled=pickle is not None,
        name=f"{model_type}-{files_digest([*weights, *_decisive(folder)])}",
        preparation=_preparation(folder, config),
    )


def _weights(folder: Path, pickle: Path | None) -> list[Path]:
    if pickle is not None:
        if pickle.name != "pytorch_model.bin":
            raise BadInputError(
                f"{pickle} is no weights file of such a folder.\nFix: --features {NAMES}."
            )
        return [pickle]
    found = sorted(folder.glob("*.safetensors"))
    if found:
        return found
    pickled = folder / "pytorch_model.bin"
    if pickled.is_file():
        raise BadInputError(
            f"{folder} has its weights in a pickle, which could run a program when it is opened; "
            "it is opened only when it is named, with a reader that runs nothing.\n"
            f"Fix: --features {pickled}, or get a version with model.safetensors."
        )
    raise MissingInputError(
        f"{folder} has no weights: looked for *.safetensors.\n"
        "Fix: copy or download the model again."
    )


def _decisive(folder: Path) -> Iterator[Path]:
    """List the small files that decide what the network makes of a picture."""
    yield from (folder / name for name in (CONFIG, PREPARATION) if (folder / name).is_file())


def _settings(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no settings")
    except (OSError, ValueError) as error:
        raise BadInputError(
            f"{file} is damaged ({error}).\nFix: copy or download the model again."
        ) from error
    return found


def _preparation(folder: Path, config: Mapping[str, Any]) -> Preparation:
    """Read how pictures are made ready; a model without settings is given its makers' usual."""
    file = folder / PREPARATION
    told = _settings(file) if file.is_file() else {}
    vision = config.get("vision_config", config)
    try:
        usual = int(vision.get("image_size", 224))
        edge, size = (usual, usual)
        if str(config["model_type"]).startswith("dinov2"):
            edge, size = DINOV2_SIZES
        colours = CLIPS if config["model_type"] == "clip" else IMAGENET
        asked = _sizes(told.get("size"), edge)
        crop = _sizes(told.get("crop_size"), size)
        cropped = bool(told.get("do_center_crop", "crop_size" in told or not told))
        seen = crop if cropped else asked
        return Preparation(
            edge=0 if isinstance(asked, tuple) else max(asked, *_pair(seen)),
            size=_pair(seen),
            mean=_three(told.get("image_mean", colours[0])),
            std=_three(told.get("image_std", colours[1])),
            resample=int(told.get("resample", BICUBIC)),
        )
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise BadInputError(
            f"{file} cannot be understood ({error!r}).\nFix: copy or download the model again."
        ) from error


def _sizes(told: Any, usual: int) -> int | tuple[int, int]:
    """Read a size: the shorter edge, or (height, width)."""
    if told is None:
        return usual
    if isinstance(told, dict):
        if "shortest_edge" in told:
            return int(told["shortest_edge"])
        return int(told["height"]), int(told["width"])
    return int(told)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def _three(values: Any) -> tuple[float, ...]:
    found = tuple(float(v) for v in values)
    if len(found) != 3:
        raise ValueError(f"{len(found)} colours")
    return found
