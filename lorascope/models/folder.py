"""A base model in a folder of diffusers' layout, opened without a network."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer


def read(path: Path, weights: torch.dtype) -> dict[str, Any]:
    """Read a folder's parts, named as in a diffusers pipeline.

    Parameters
    ----------
    path : Path
    weights : torch.dtype
        Of the parts.

    Raises
    ------
    ValueError
        A part is missing; the libraries raise others where one is damaged.
    """
    readers: dict[str, Callable[..., Any]] = {
        "unet": UNet2DConditionModel.from_pretrained,
        "vae": AutoencoderKL.from_pretrained,
        "text_encoder": CLIPTextModel.from_pretrained,
        "text_encoder_2": CLIPTextModelWithProjection.from_pretrained,
    }
    parts: dict[str, Any] = {}
    for part, open_part in readers.items():
        if not (path / part).is_dir():
            continue
        options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True}
        if (variant := _variant(path / part)) is not None:
            options["variant"] = variant
        if part in ("unet", "vae"):
            parts[part] = open_part(str(path), subfolder=part, torch_dtype=weights, **options)
        else:  # the option has two names in two versions
            parts[part] = open_part(str(path), subfolder=part, **options).to(dtype=weights)
    for part in ("tokenizer", "tokenizer_2"):
        if (path / part).is_dir():
            parts[part] = CLIPTokenizer.from_pretrained(path / part, local_files_only=True)
    parts["scheduler"] = DDPMScheduler.from_pretrained(
        str(path), subfolder="scheduler", local_files_only=True
    )
    missing = {"unet", "vae", "tokenizer"} - parts.keys()
    if missing:
        raise ValueError(f"it has no {' and no '.join(sorted(missing))}")
    return parts


def _variant(folder: Path) -> str | None:
    """Find out whether only a variant (``....fp16.safetensors``) of the weights is there."""
    stems = {p.name.removesuffix(".safetensors") for p in folder.glob("*.safetensors")}
    plain = {s for s in stems if "." not in s and "-of-" not in s}
    if plain or not stems:
        return None
    return "fp16" if any(s.endswith(".fp16") for s in stems) else None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' progress bars and remarks away; progress is the caller's to show."""
    libraries = (diffusers.utils.logging, transformers.utils.logging)
    before = [library.get_verbosity() for library in libraries]
    bars = [library.is_progress_bar_enabled() for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, verbosity, bar in zip(libraries, before, bars, strict=True):
            library.set_verbosity(verbosity)
            if bar:
                library.enable_progress_bar()
