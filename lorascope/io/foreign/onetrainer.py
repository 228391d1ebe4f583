"""OneTrainer's settings: one JSON file, with concepts and samples in it or beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorascope.io.foreign.config_file import load
from lorascope.io.foreign.layouts import ONETRAINER
from lorascope.io.foreign.prompts import from_rows
from lorascope.io.foreign.settings import Settings
from lorascope.io.foreign.values import flattened, remarks, texts, translated

NAMES = {
    "base_model_name": "base",
    "epochs": "epochs",
    "batch_size": "batch_size",
    "resolution": "resolution",
    "lora_rank": "rank",
    "lora_alpha": "alpha",
    "unet.learning_rate": "unet_lr",
    "learning_rate": "unet_lr",
    "text_encoder.learning_rate": "text_lr",
    "learning_rate_scheduler": "scheduler",
    "learning_rate_warmup_steps": "warmup_steps",
    "clip_grad_norm": "max_grad_norm",
    "text_encoder_layer_skip": "clip_skip",
}


def knows(raw: Mapping[str, Any]) -> bool:
    """Tell whether a config is one of OneTrainer."""
    return "training_method" in raw and "workspace_dir" in raw


def read(path: Path, raw: Mapping[str, Any]) -> Settings:
    """Read a config of which that is known."""
    flat = flattened(raw)
    concepts = raw.get("concepts")
    if not concepts:
        concepts = load(path.with_name("concepts.json")) or load(
            Path(str(raw.get("concept_file_name") or "concepts.json"))
        )
    folders = [
        str(concept["path"])
        for concept in concepts or []
        if isinstance(concept, dict)
        and concept.get("path")
        and concept.get("enabled", True)
        and concept.get("type", "STANDARD") == "STANDARD"
    ]
    samples = raw.get("samples") or load(path.with_name("samples.json"))
    return Settings(
        trainer=ONETRAINER,
        path=path,
        name=str(raw.get("save_filename_prefix") or "").rstrip("-_ "),
        ours=translated(flat, NAMES),
        others=remarks(flat, NAMES, drop=("concepts", "samples", "secrets")),
        datasets=tuple(folders),
        logs=tuple(f"{folder}/tensorboard" for folder in texts(raw.get("workspace_dir"))),
        prompts=from_rows(samples) if isinstance(samples, list) else (),
        prompt_files=texts(raw.get("sample_definition_file_name")),
        saves=texts(raw.get("output_model_destination")),
    )
