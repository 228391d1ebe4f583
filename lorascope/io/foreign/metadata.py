"""What a checkpoint's own metadata (``ss_...``) says of how it was trained."""

from collections.abc import Mapping

from lorascope.io import train_settings
from lorascope.io.foreign.settings import Settings
from lorascope.io.foreign.values import LONG, OUR_CHECKS, Value, translated

NAMES = {  # as `train_settings` calls it -> as our config does
    "base_model": "base",
    "name": "name",
    "trigger": "trigger",
    "epochs": "epochs",
    "batch_size": "batch_size",
    "resolution": "resolution",
    "seed": "seed",
    "rank": "rank",
    "alpha": "alpha",
    "unet_lr": "unet_lr",
    "text_lr": "text_lr",
    "scheduler": "scheduler",
    "warmup_steps": "warmup_steps",
    "max_grad_norm": "max_grad_norm",
    "min_snr_gamma": "min_snr_gamma",
    "caption_dropout": "caption_dropout",
    "shuffle_tags": "shuffle_tags",
    "keep_tags": "keep_tags",
    "clip_skip": "clip_skip",
}


def from_metadata(metadata: Mapping[str, str]) -> Settings:
    """Read what a checkpoint's metadata says of its training."""
    known = train_settings.settings(metadata)
    ours = translated({theirs: getattr(known, theirs) for theirs in NAMES}, NAMES)
    if (share := OUR_CHECKS["held_out"](metadata.get("ss_validation_split"))) is not None:
        ours["held_out"] = share
    others: dict[str, Value] = {
        key: text
        for key, text in metadata.items()
        if key.startswith("ss_") and text not in ("", "None") and len(text) <= LONG
    }
    return Settings(name=known.name, ours=ours, others=others)
