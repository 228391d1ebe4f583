"""A base model in one .safetensors file, as most people keep theirs, opened without a network.

The configurations under ``configs/`` are the published ones of SD 1.5, SD 2.1 and SDXL; the
tokenizer is CLIP's, from wherever this machine has it.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from lorascope.errors import BadInputError, MissingInputError
from lorascope.models.sources import file_keys

CONFIGS = Path(__file__).parent / "configs"
ENCODERS = {  # the text encoder tells the architectures apart
    "conditioner.embedders.1.model.": "sdxl",
    "cond_stage_model.model.": "sd2",
    "cond_stage_model.transformer.": "sd15",
}
END = "<|endoftext|>"
PADDING = {  # what each tokenizer pads with
    "sd15": {"tokenizer": END},
    "sd2": {"tokenizer": "!"},
    "sdxl": {"tokenizer": END, "tokenizer_2": "!"},
}


def read(path: Path, weights: torch.dtype) -> dict[str, Any]:
    """Read a single file's parts, named as in a diffusers pipeline.

    Parameters
    ----------
    path : Path
    weights : torch.dtype
        Of the parts.

    Raises
    ------
    BadInputError
        It is a UNet without its text encoder, a refiner, or damaged.
    """
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    keys = file_keys(path)
    kind = _architecture(path, keys)
    pipeline = StableDiffusionXLPipeline if kind == "sdxl" else StableDiffusionPipeline
    opened = pipeline.from_single_file(
        str(path),
        config=str(CONFIGS / kind),
        local_files_only=True,
        torch_dtype=weights,
        **{part: clip_tokenizer(path, padding) for part, padding in PADDING[kind].items()},
    )
    parts: dict[str, Any] = dict(opened.components)
    changes = _schedule(path, kind, keys)
    parts["scheduler"] = type(parts["scheduler"]).from_config(parts["scheduler"].config, **changes)
    return parts


def clip_tokenizer(model: Path, padding: str = END) -> Any:
    """Open CLIP's tokenizer, which a single file lacks: all Stable Diffusion models share it.

    Looked for in ``tokenizer/`` beside the file, in the folder that ``LORASCOPE_TOKENIZER`` names,
    and in every model of the hub's cache.

    Parameters
    ----------
    model : Path
        The single file.
    padding : str
        The token that fills up short prompts: the end of SD 1.x, "!" of SD 2.x.

    Raises
    ------
    MissingInputError
        It is in none of these places.
    """
    from transformers import CLIPTokenizer

    for folder in _tokenizer_folders(model):
        if all((folder / name).is_file() for name in ("vocab.json", "merges.txt")):
            return CLIPTokenizer.from_pretrained(folder, local_files_only=True, pad_token=padding)
    raise MissingInputError(
        f"{model} is a single file, which holds no tokenizer, and none was found: looked in "
        f"{model.parent / 'tokenizer'}, $LORASCOPE_TOKENIZER and the hub's cache.\n"
        "Fix: copy the tokenizer folder (vocab.json, merges.txt) of any Stable Diffusion model "
        "beside the file."
    )


def _tokenizer_folders(model: Path) -> Iterator[Path]:
    yield model.parent / "tokenizer"
    if named := os.environ.get("LORASCOPE_TOKENIZER"):
        yield Path(named)
    cache = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface")) / "hub"
    yield from sorted(cache.glob("models--*/snapshots/*/tokenizer"))
    yield from sorted(cache.glob("models--openai--clip-*/snapshots/*"))


def _architecture(path: Path, keys: Iterable[str]) -> str:
    for start, kind in ENCODERS.items():
        if any(key.startswith(start) for key in keys):
            return kind
    if any(key.startswith("conditioner.embedders.0.model.") for key in keys):
        raise BadInputError(
            f"{path} is SDXL's refiner.\nFix: give the model that the LoRA was trained on."
        )
    raise BadInputError(
        f"{path} holds a UNet without its text encoder.\n"
        "Fix: give a file that holds the whole model, or a folder in diffusers' layout."
    )


def _schedule(path: Path, kind: str, keys: Iterable[str]) -> dict[str, Any]:
    """Find out what a file says of its prediction type, which its weights do not show.

    Sources, the first that speaks: the marks ``v_pred`` and ``ztsnr`` among the weights, the
    metadata ``modelspec.prediction_type``, a ``.yaml`` of the same name beside the file.
    """
    from safetensors import safe_open

    if "v_pred" in keys:
        return {"prediction_type": "v_prediction", "rescale_betas_zero_snr": "ztsnr" in keys}
    with safe_open(path, framework="numpy") as opened:
        stated = (opened.metadata() or {}).get("modelspec.prediction_type", "")
    if stated in ("v", "epsilon"):
        return {"prediction_type": "v_prediction" if stated == "v" else "epsilon"}
    beside = path.with_suffix(".yaml")
    if kind == "sd2" and beside.is_file():
        text = beside.read_text(encoding="utf-8", errors="replace").replace("'", '"')
        velocity = 'parameterization: "v"' in text or "parameterization: v" in text
        return {"prediction_type": "v_prediction" if velocity else "epsilon"}
    return {}
