"""kohya_ss' and sd-scripts' settings: the JSON of the user interface, the TOML of a training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorascope.io.foreign import dataset_config
from lorascope.io.foreign.layouts import KOHYA
from lorascope.io.foreign.prompts import from_lines
from lorascope.io.foreign.settings import Settings
from lorascope.io.foreign.values import flattened, remarks, texts, translated

NAMES = {  # theirs -> ours; of two for one of ours, the first that has a value counts
    "pretrained_model_name_or_path": "base",
    "train_data_dir": "dataset",
    "output_name": "name",
    "max_train_epochs": "epochs",
    "epoch": "epochs",
    "train_batch_size": "batch_size",
    "max_resolution": "resolution",
    "resolution": "resolution",
    "validation_split": "held_out",
    "seed": "seed",
    "save_every_n_epochs": "save_every_epochs",
    "network_dim": "rank",
    "network_alpha": "alpha",
    "unet_lr": "unet_lr",
    "learning_rate": "unet_lr",
    "text_encoder_lr": "text_lr",
    "lr_scheduler": "scheduler",
    "lr_warmup_steps": "warmup_steps",
    "max_grad_norm": "max_grad_norm",
    "min_snr_gamma": "min_snr_gamma",
    "caption_dropout_rate": "caption_dropout",
    "shuffle_caption": "shuffle_tags",
    "keep_tokens": "keep_tags",
    "clip_skip": "clip_skip",
}


def knows(raw: Mapping[str, Any]) -> bool:
    """Tell whether a config is one of kohya_ss or sd-scripts."""
    return "output_name" in raw and bool({"network_dim", "network_module", "LoRA_type"} & set(raw))


def read(path: Path, raw: Mapping[str, Any]) -> Settings:
    """Read a config of which that is known."""
    text = str(raw.get("sample_prompts") or "")
    is_file = "\n" not in text and text.lower().endswith((".txt", ".toml", ".json"))
    flat = flattened(raw)
    names = {k: v for k, v in NAMES.items() if v != "dataset" or not raw.get("dataset_config")}
    config = next(iter(texts(raw.get("dataset_config"))), "")
    images = dataset_config.named_by(path, config) if config else None
    if images is None:  # with a dataset config, sd-scripts looks at no other folder
        folders = () if config else texts(raw.get("train_data_dir"))
        images = Settings(datasets=folders, dataset_config=config)
    return Settings(
        trainer=KOHYA,
        path=path,
        name=str(raw.get("output_name") or ""),
        ours={**translated(flat, names), **images.ours},
        others=remarks(flat, NAMES, drop=("sample_prompts",)),
        datasets=images.datasets,
        subsets=images.subsets,
        dataset_config=images.dataset_config,
        logs=texts(raw.get("logging_dir")),
        prompt_files=(text,) if is_file else (),
        prompts=() if is_file else from_lines(text.splitlines()),
    )
