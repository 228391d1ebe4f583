"""ai-toolkit's settings: a YAML or JSON job, of which the first process is the training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorascope.io.foreign.layouts import AI_TOOLKIT
from lorascope.io.foreign.prompts import SamplePrompt, from_line
from lorascope.io.foreign.settings import Settings
from lorascope.io.foreign.values import (
    OUR_CHECKS,
    flattened,
    remarks,
    seed_of,
    texts,
    translated,
    whole,
)

NAMES = {
    "model.name_or_path": "base",
    "trigger_word": "trigger",
    "network.linear": "rank",
    "network.rank": "rank",
    "network.linear_alpha": "alpha",
    "network.alpha": "alpha",
    "train.batch_size": "batch_size",
    "train.lr": "unet_lr",
    "train.unet_lr": "unet_lr",
    "train.text_encoder_lr": "text_lr",
    "train.lr_scheduler": "scheduler",
    "train.min_snr_gamma": "min_snr_gamma",
    "train.max_grad_norm": "max_grad_norm",
    "training_seed": "seed",
}


def knows(raw: Mapping[str, Any]) -> bool:
    """Tell whether a config is one of ai-toolkit."""
    config = raw.get("config")
    steps = config.get("process") if isinstance(config, dict) else None
    return isinstance(steps, list) and any(isinstance(step, dict) for step in steps)


def read(path: Path, raw: Mapping[str, Any]) -> Settings:
    """Read a config of which that is known."""
    config = raw["config"]
    process = next(p for p in config["process"] if isinstance(p, dict))
    flat = flattened(process)
    data = [one for one in process.get("datasets") or [] if isinstance(one, dict)]
    sample = process.get("sample") or {}
    ours = dict(translated(flat, NAMES))
    if data and (dropout := OUR_CHECKS["caption_dropout"](data[0].get("caption_dropout_rate"))):
        ours["caption_dropout"] = dropout
    return Settings(
        trainer=AI_TOOLKIT,
        path=path,
        name=str(config.get("name") or ""),
        ours=ours,
        others=remarks(flat, NAMES, drop=("datasets", "sample.prompts")),
        datasets=tuple(str(one["folder_path"]) for one in data if one.get("folder_path")),
        logs=texts(process.get("log_dir")),
        prompts=_prompts(sample, str(process.get("trigger_word") or "")),
    )


def _prompts(sample: Mapping[str, Any], trigger: str) -> tuple[SamplePrompt, ...]:
    """Read the prompts: each has the next seed where the seed walks; options in it count first."""
    rows = sample.get("samples") or sample.get("prompts") or []
    found = []
    for place, row in enumerate(rows):
        text = str(row.get("prompt", "") if isinstance(row, dict) else row)
        one = from_line(text.replace("[trigger]", trigger))
        given = row if isinstance(row, dict) else {}
        seed = seed_of(given.get("seed", sample.get("seed")))
        if seed is not None and sample.get("walk_seed") and "seed" not in given:
            seed += place
        width = whole(1)(given.get("width", sample.get("width")))
        height = whole(1)(given.get("height", sample.get("height")))
        found.append(
            SamplePrompt(
                prompt=one.prompt,
                negative=one.negative or str(given.get("neg", sample.get("neg")) or ""),
                seed=one.seed if one.seed is not None else seed,
                width=one.width or width,
                height=one.height or height,
            )
        )
    return tuple(found)
