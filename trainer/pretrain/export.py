"""Puts the trained parts together as a diffusers pipeline folder of half precision."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
from transformers import CLIPTokenizer

from trainer.pretrain import diffusion
from trainer.pretrain.settings import Settings


def export(settings: Settings, out: Path) -> None:
    """Write ``out``, or replace what an earlier training wrote there.

    Anything in ``out`` that is not part of the pipeline (the model card) stays.
    """
    tokenizer = CLIPTokenizer.from_pretrained(settings.work / "tokenizer")
    model = diffusion.load(settings, tokenizer)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(settings.work / "vae"),
        text_encoder=model["text"],
        tokenizer=tokenizer,
        unet=model["unet"],
        scheduler=DDIMScheduler(
            **diffusion.SCHEDULE, clip_sample=False, set_alpha_to_one=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    partial = settings.work / ".partial-base"
    pipeline.to(torch.float16).save_pretrained(partial)
    for name in ("vocab.json", "merges.txt"):  # transformers 5 leaves them out
        shutil.copy(settings.work / "tokenizer" / name, partial / "tokenizer" / name)
    _forget_where(partial)
    for file in partial.rglob("*.safetensors"):
        file.chmod(0o644)
    for part in sorted(partial.iterdir()):
        target = out / part.name
        if target.is_dir():
            shutil.rmtree(target)
        out.mkdir(parents=True, exist_ok=True)
        shutil.move(part, target)
    partial.rmdir()


def _forget_where(folder: Path) -> None:
    """Take this machine's paths out of the configurations."""
    for file in folder.rglob("*config.json"):
        config = json.loads(file.read_text())
        config.pop("_name_or_path", None)
        config.pop("name_or_path", None)
        file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
