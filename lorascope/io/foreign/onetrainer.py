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
    concepts = raw.get("concepts") or _listed(path, raw, "concepts.json", "concept_file_name")
    folders = [
        str(concept["path"])
        for concept in concepts or []
        if isinstance(concept, dict)
        and concept.get("path")
        and concept.get("enabled", True)
        and concept.get("type", "STANDARD") == "STANDARD"
    ]
    samples = raw.get("samples") or _listed(
        path, raw, "samples.json", "sample_definition_file_name"
    )
    return Settings(
        trainer=ONETRAINER,
        path=path,
        name=str(raw.get("save_filename_prefix") or "").rstrip("-_ "),
        ours=translated(flat, NAMES),
        others=remarks(flat, NAMES, drop=("concepts", "samples", "secrets")),
        datasets=tuple(folders),
        logs=tuple(f"{folder}/tensorboard" for folder in texts(raw.get("workspace_dir"))),
        prompts=from_rows(samples) if isinstance(samples, list) else (),
        saves=texts(raw.get("output_model_destination")),
    )


def _listed(path: Path, raw: Mapping[str, Any], usual: str, setting: str) -> Any:
    """Load a list that OneTrainer keeps in a file of its own; None where it is not there.

    Its copy beside the config counts first. A relative name is meant from the folder that
    OneTrainer was started in, which the workspace's own relative name tells.
    """
    places = [path.with_name(usual)]
    for name in texts(raw.get(setting)):
        places.append(path.parent / name)  # an absolute name stays what it is
        workspace = Path(*texts(raw.get("workspace_dir")))
        parts = () if workspace.is_absolute() else workspace.parts
        for home in path.absolute().parents:
            if parts and home.parts[-len(parts) :] == parts:
                places.append(home.parents[len(parts) - 1] / name)
    return next((found for place in places if (found := load(place))), None)
