"""The settings of diffusers' example scripts (hparams.yml), and PEFT's adapter_config.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorascope.io.foreign.layouts import DIFFUSERS
from lorascope.io.foreign.settings import Settings
from lorascope.io.foreign.values import flattened, remarks, texts, translated

NAMES = {
    "pretrained_model_name_or_path": "base",
    "num_train_epochs": "epochs",
    "train_batch_size": "batch_size",
    "resolution": "resolution",
    "seed": "seed",
    "rank": "rank",
    "learning_rate": "unet_lr",
    "text_encoder_lr": "text_lr",
    "lr_scheduler": "scheduler",
    "lr_warmup_steps": "warmup_steps",
    "adam_weight_decay": "weight_decay",
    "max_grad_norm": "max_grad_norm",
    "snr_gamma": "min_snr_gamma",
    "base_model_name_or_path": "base",  # PEFT's adapter_config.json
    "r": "rank",
    "lora_alpha": "alpha",
}


def knows(raw: Mapping[str, Any]) -> bool:
    """Tell whether a config is one of diffusers or PEFT."""
    return "peft_type" in raw or (
        "pretrained_model_name_or_path" in raw and "output_dir" in raw and "output_name" not in raw
    )


def read(path: Path, raw: Mapping[str, Any]) -> Settings:
    """Read a config of which that is known."""
    flat = flattened(raw)
    given = {key: value for key, value in flat.items() if value not in (None, "None", "")}
    return Settings(
        trainer=DIFFUSERS,
        path=path,
        name=Path(str(raw.get("output_dir") or "")).name,
        ours=translated(given, NAMES),
        others=remarks(given, NAMES),
        datasets=texts(raw.get("instance_data_dir")) or texts(raw.get("train_data_dir")),
    )
