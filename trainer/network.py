"""The LoRA in training: PEFT puts it into the base model, our own writer takes it out."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer

from lorascope import __version__
from lorascope.errors import BadInputError
from lorascope.io.captions import split_tags
from lorascope.io.dataset_file import Dataset, DatasetImage
from lorascope.io.lora_file import LoraModule
from lorascope.models.lora import module_names
from lorascope.records import seed_from
from trainer.config import TrainConfig

if TYPE_CHECKING:
    from lorascope.models.base import Base

ADAPTER = "default"  # PEFT's name for it
UNET_TARGETS = {"attention": ["to_q", "to_k", "to_v", "to_out.0"]}
TEXT_TARGETS = {"attention": ["q_proj", "k_proj", "v_proj", "out_proj"]}
VERSIONS = {  # family and prediction type -> as other programs write it
    ("sd1", "epsilon"): ("sd_v1", "stable-diffusion-v1"),
    ("sd1", "v_prediction"): ("sd_v1_v", "stable-diffusion-v1"),
    ("sd2", "epsilon"): ("sd_v2", "stable-diffusion-v2-512"),
    ("sd2", "v_prediction"): ("sd_v2_v", "stable-diffusion-v2-768-v"),
    ("sdxl", "epsilon"): ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base"),
    ("sdxl", "v_prediction"): ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base"),
}


@dataclass(frozen=True, eq=False)
class Network:
    """The adapted modules of a base model."""

    unet: Mapping[str, LoraLayer]  # kohya name -> PEFT's layer
    text: Mapping[str, LoraLayer]
    alpha: float

    def weights(self) -> dict[str, torch.nn.Parameter]:
        """Everything that is trained: ``NAME.down`` (rank, in) and ``NAME.up`` (out, rank)."""
        return self._weights(self.unet) | self._weights(self.text)

    def groups(self, unet_lr: float, text_lr: float) -> list[dict[str, Any]]:
        """Give the optimiser's parameter groups, each with its full learning rate."""
        both = (("unet", self.unet, unet_lr), ("text", self.text, text_lr))
        return [
            {"part": part, "params": list(self._weights(layers).values()), "lr": lr, "full_lr": lr}
            for part, layers, lr in both
            if layers
        ]

    def modules(self) -> list[LoraModule]:
        """Copy the network as it stands, for a file."""
        return [
            LoraModule(name, _array(_down(layer)), _array(_up(layer)), self.alpha)
            for name, layer in {**self.unet, **self.text}.items()
        ]

    @staticmethod
    def _weights(layers: Mapping[str, LoraLayer]) -> dict[str, torch.nn.Parameter]:
        found = {}
        for name, layer in layers.items():
            found[f"{name}.down"], found[f"{name}.up"] = _down(layer), _up(layer)
        return found


def add_network(base: "Base", config: TrainConfig) -> Network:
    """Put a new LoRA into a base model, whose own weights are frozen.

    ``down`` starts uniform in +-1/sqrt(in), as everywhere; ``up`` starts at 0, so that the model
    starts as it was. The draws depend on the seed and the module's name; the global random
    generator is left as it was.

    Raises
    ------
    BadInputError
        The base model has no module of the kind that shall be adapted.
    """
    names = {id(module): name for name, module in module_names(base).items()}
    for model in (base.unet, *base.text_encoders):
        model.requires_grad_(False)
    unet: dict[str, LoraLayer] = {}
    text: dict[str, LoraLayer] = {}
    with torch.random.fork_rng(devices=[]):
        if config.unet_lr:
            unet = _inject(base.unet, UNET_TARGETS[config.network_targets], config, names)
        if config.text_lr:
            for encoder in base.text_encoders:
                targets = TEXT_TARGETS[config.network_targets]
                text |= _inject(encoder, targets, config, names)
    return Network(unet=unet, text=text, alpha=config.alpha)


def metadata(
    config: TrainConfig, dataset: Dataset, base: "Base", *, epoch: int, step: int, epoch_steps: int
) -> dict[str, str]:
    """Describe a checkpoint the way other programs read it (``ss_...``, ``modelspec. ...``).

    Nothing in it depends on the clock, so that the same training gives the same bytes.

    Parameters
    ----------
    epoch, step : int
        The checkpoint's own.
    epoch_steps : int
        Steps in one epoch.
    """
    folders: dict[str, list[DatasetImage]] = {}
    for image in dataset.train:
        name = PurePosixPath(image.file).parent.name or dataset.root.resolve().name
        folders.setdefault(name, []).append(image)
    version, architecture = VERSIONS[base.family, base.prediction_type]
    resolution = f"{dataset.resolution[0]}x{dataset.resolution[1]}"
    described: dict[str, Any] = {
        "ss_output_name": config.name,
        "ss_sd_model_name": PurePosixPath(config.base).name,
        "ss_base_model_version": version,
        "ss_v2": base.family == "sd2",
        "ss_network_module": "networks.lora",
        "ss_network_dim": config.rank,
        "ss_network_alpha": config.alpha,
        "ss_epoch": epoch,
        "ss_steps": step,
        "ss_num_epochs": config.epochs,
        "ss_max_train_steps": epoch_steps * config.epochs,
        "ss_num_batches_per_epoch": epoch_steps,
        "ss_num_train_images": sum(image.repeats for image in dataset.train),
        "ss_num_reg_images": 0,
        "ss_batch_size_per_device": config.batch_size,
        "ss_total_batch_size": config.batch_size,
        "ss_learning_rate": config.unet_lr,
        "ss_unet_lr": config.unet_lr,
        "ss_text_encoder_lr": config.text_lr,
        "ss_lr_scheduler": config.scheduler,
        "ss_lr_warmup_steps": config.warmup_steps,
        "ss_optimizer": f"torch.optim.adamw.AdamW(weight_decay={config.weight_decay:g})",
        "ss_max_grad_norm": config.max_grad_norm,
        "ss_min_snr_gamma": config.min_snr_gamma or None,
        "ss_caption_dropout_rate": config.caption_dropout,
        "ss_shuffle_caption": config.shuffle_tags,
        "ss_keep_tokens": config.keep_tags,
        "ss_clip_skip": config.clip_skip,
        "ss_seed": config.seed,
        "ss_resolution": str(dataset.resolution),
        "ss_dataset_dirs": {
            name: {"n_repeats": images[0].repeats, "img_count": len(images)}
            for name, images in folders.items()
        },
        "ss_tag_frequency": {name: _tag_counts(images) for name, images in folders.items()},
        "lorascope_version": __version__,
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": config.name,
        "modelspec.resolution": resolution,
        "modelspec.prediction_type": "v" if base.prediction_type == "v_prediction" else "epsilon",
        "modelspec.trigger_phrase": config.trigger,
    }
    return {key: _as_text(value) for key, value in described.items()}


def _inject(
    model: torch.nn.Module, targets: Sequence[str], config: TrainConfig, names: Mapping[int, str]
) -> dict[str, LoraLayer]:
    """Put LoRA layers into one model and start each from its own seed."""
    settings = LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=list(targets))
    try:
        inject_adapter_in_model(settings, model, adapter_name=ADAPTER)
    except ValueError as error:
        raise BadInputError(
            f"{config.base} has no modules {', '.join(targets)} to adapt ({type(model).__name__})."
        ) from error
    layers = {
        names[id(layer.get_base_layer())]: layer
        for layer in model.modules()
        if isinstance(layer, LoraLayer)
    }
    for name, layer in layers.items():
        draw = torch.Generator().manual_seed(seed_from(config.seed, "init", name))
        down, up = _down(layer), _up(layer)
        bound = down.shape[1] ** -0.5
        start = torch.empty(down.shape).uniform_(-bound, bound, generator=draw)
        down.data = start.to(down.device)
        up.data = torch.zeros(up.shape, device=up.device)
        down.requires_grad_(True)
        up.requires_grad_(True)
    return layers


def _down(layer: LoraLayer) -> torch.nn.Parameter:
    weight: torch.nn.Parameter = layer.lora_A[ADAPTER].weight
    return weight


def _up(layer: LoraLayer) -> torch.nn.Parameter:
    weight: torch.nn.Parameter = layer.lora_B[ADAPTER].weight
    return weight


def _array(weight: torch.nn.Parameter) -> NDArray[np.float32]:
    copied: NDArray[np.float32] = weight.detach().float().cpu().clone().numpy()
    return copied


def _tag_counts(images: Sequence[DatasetImage]) -> dict[str, int]:
    return dict(Counter(tag for image in images for tag in split_tags(image.caption)))


def _as_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
