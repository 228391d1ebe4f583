"""A base model in one .safetensors file, as most people keep theirs, opened without a network.

The configurations under ``configs/`` are the published ones of SD 1.5, SD 2.1 and SDXL; the
tokenizer is CLIP's, rebuilt from its merges.
"""

import gzip
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from lorascope.errors import BadInputError, MissingInputError
from lorascope.models.sources import file_keys

CONFIGS = Path(__file__).parent / "configs"
MERGES = CONFIGS / "clip_merges.txt.gz"
ENCODERS = {  # the text encoder tells the architectures apart
    "conditioner.embedders.1.model.": "sdxl",
    "cond_stage_model.model.": "sd2",
    "cond_stage_model.transformer.": "sd15",
}
START, END = "<|startoftext|>", "<|endoftext|>"
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
        **{part: clip_tokenizer(padding) for part, padding in PADDING[kind].items()},
    )
    parts: dict[str, Any] = dict(opened.components)
    changes = _schedule(path, kind, keys)
    parts["scheduler"] = type(parts["scheduler"]).from_config(parts["scheduler"].config, **changes)
    return parts


def clip_tokenizer(padding: str = END) -> Any:
    """Rebuild CLIP's tokenizer of 49,408 entries.

    Parameters
    ----------
    padding : str
        The token that fills up short prompts: the end of SD 1.x, "!" of SD 2.x.

    Raises
    ------
    MissingInputError
        The merges are not where they were installed.
    """
    from transformers import CLIPTokenizer

    if not MERGES.is_file():
        raise MissingInputError(
            f"A single file holds no tokenizer, and CLIP's merges are not at {MERGES}.\n"
            "Fix: install lorascope again, or give the model as a folder in diffusers' layout."
        )
    with gzip.open(MERGES, "rt", encoding="utf-8") as opened:
        merges = opened.read().splitlines()
    symbols = _byte_symbols()
    entries = [*symbols, *(f"{s}</w>" for s in symbols), *(m.replace(" ", "") for m in merges)]
    vocabulary = {entry: i for i, entry in enumerate([*entries, START, END])}
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": padding,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        text = "\n".join(["#version: 0.2", *merges, ""])
        (folder / "merges.txt").write_text(text, encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def _byte_symbols() -> list[str]:
    """List the printable stand-ins for the 256 bytes, in CLIP's order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = 256 - len(printable)
    return [chr(code) for code in (*printable, *range(256, 256 + others))]


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
