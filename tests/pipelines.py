"""Builders of tiny random pipelines in the shapes of SD 1.x, SD 2.x and SDXL; nothing is loaded.

Pictures of 64 px, latents of 8 x 8. Weights are random but seeded; attention is made peaky, since
the nearly uniform attention of a fresh network would let a wrong map pass for a right one.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from lorascope.io.lora_file import LoraModule
from lorascope.models.base import Base, assemble
from lorascope.models.lora import module_names

WORDS = ("cat", "dog", "red", "hat", "photo", "castle", "with", "and", "in", "sks", "person")
START, END = "<|startoftext|>", "<|endoftext|>"
PEAKY = 12.0  # factor on queries and keys
BETAS = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
}


def tokenizer(folder: Path) -> CLIPTokenizer:
    """Make a tokenizer in CLIP's layout that knows the bytes and a few words."""
    folder.mkdir(parents=True, exist_ok=True)
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(c) for c in (*printable, *range(256, 512 - len(printable)))]
    entries = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[str] = []
    for word in WORDS:
        done = word[0]
        for place, letter in enumerate(word[1:], start=2):
            right = letter + ("</w>" if place == len(word) else "")
            if f"{done} {right}" not in merges:
                merges.append(f"{done} {right}")
                entries.append(done + right)
            done += right
    entries = [*dict.fromkeys(entries), START, END]
    (folder / "vocab.json").write_text(json.dumps({e: i for i, e in enumerate(entries)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return CLIPTokenizer.from_pretrained(folder)


def text_config(words: CLIPTokenizer, *, hidden: int = 16, layers: int = 2) -> CLIPTextConfig:
    """Describe a tiny CLIP text encoder."""
    return CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=hidden,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )


def vae(*, channels: int = 4) -> AutoencoderKL:
    """Make a tiny VAE that shrinks eightfold."""
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[8, 8, 8, 8],
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=channels,
        sample_size=64,
    )


def sd1(
    folder: Path, *, seed: int = 0, sample_size: int = 8, channels: int = 4, head: int = 2
) -> StableDiffusionPipeline:
    """Make an SD 1.x-shaped pipeline: epsilon, convolutional projections."""
    return _one_encoder(
        folder, seed=seed, sample_size=sample_size, channels=channels, head=head, linear=False
    )


def sd2(folder: Path, *, seed: int = 0) -> StableDiffusionPipeline:
    """Make an SD 2.x-shaped pipeline: velocity, linear projections."""
    return _one_encoder(folder, seed=seed, sample_size=8, channels=4, head=2, linear=True)


def sdxl(folder: Path, *, seed: int = 0, sample_size: int = 8) -> StableDiffusionXLPipeline:
    """Make an SDXL-shaped pipeline: two text encoders, added conditions."""
    words = tokenizer(folder / "words")
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=sample_size,
        block_out_channels=[8, 16, 16],
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 1, 2],
        attention_head_dim=[2, 2, 2],
        cross_attention_dim=16 + 24,
        norm_num_groups=4,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * 6 + 24,
    )
    return StableDiffusionXLPipeline(
        vae=vae().eval(),
        text_encoder=CLIPTextModel(text_config(words)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(text_config(words, hidden=24)).eval(),
        tokenizer=words,
        tokenizer_2=words,
        unet=_peaky(unet),
        scheduler=EulerDiscreteScheduler(**BETAS, timestep_spacing="leading"),
    )


def saved(pipeline: StableDiffusionPipeline | StableDiffusionXLPipeline, folder: Path) -> Path:
    """Save a pipeline in diffusers' layout."""
    pipeline.save_pretrained(folder)
    return folder


def _one_encoder(
    folder: Path, *, seed: int, sample_size: int, channels: int, head: int, linear: bool
) -> StableDiffusionPipeline:
    words = tokenizer(folder / "words")
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=[8, 8, 8, 8],
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=16,
        attention_head_dim=head,
        norm_num_groups=4,
        use_linear_projection=linear,
    )
    return StableDiffusionPipeline(
        vae=vae(channels=channels).eval(),
        text_encoder=CLIPTextModel(text_config(words)).eval(),
        tokenizer=words,
        unet=_peaky(unet),
        scheduler=DDIMScheduler(
            **BETAS,
            clip_sample=False,
            set_alpha_to_one=False,
            prediction_type="v_prediction" if linear else "epsilon",
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _peaky(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Sharpen cross attention."""
    for name, layer in unet.named_modules():
        if name.endswith("attn2"):
            layer.to_q.weight.data.mul_(PEAKY)
            layer.to_k.weight.data.mul_(PEAKY)
    return unet.eval()


def save_single_file(
    pipeline: StableDiffusionPipeline | StableDiffusionXLPipeline, path: Path
) -> Path:
    """Save a pipeline as one file in the layout of the original Stable Diffusion code."""
    tensors = {
        f"model.diffusion_model.{original_unet_name(name, pipeline.unet.config)}": weight
        for name, weight in pipeline.unet.state_dict().items()
    }
    for name, weight in pipeline.vae.state_dict().items():
        attention = "attentions" in name and name.endswith("weight") and weight.ndim == 2
        shaped = weight[:, :, None, None] if attention else weight
        tensors[f"first_stage_model.{original_vae_name(name)}"] = shaped
    if isinstance(pipeline, StableDiffusionXLPipeline):
        first = "conditioner.embedders.0.transformer.text_model."
        tensors |= open_clip(pipeline.text_encoder_2, "conditioner.embedders.1.model.")
    elif pipeline.unet.config.use_linear_projection:
        first = ""
        tensors |= open_clip(pipeline.text_encoder, "cond_stage_model.model.")
    else:
        first = "cond_stage_model.transformer.text_model."
    if first:
        for name, weight in pipeline.text_encoder.state_dict().items():
            tensors[first + name.removeprefix("text_model.")] = weight
    save_file({name: weight.contiguous().clone() for name, weight in tensors.items()}, path)
    return path


RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def original_unet_name(name: str, config: Any) -> str:
    """Say how the original code calls a weight of a UNet with two layers a block."""
    for ours, theirs in UNET.items():
        if name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    part, *places, rest = re.match(
        r"(down_blocks|up_blocks|mid_block)(?:\.(\d+))?\.(\w+)\.(\d+)\.(.+)", name
    ).groups()
    block, kind, layer = int(places[0] or 0), places[1], int(places[2])
    if kind == "resnets":
        head, _, tail = rest.partition(".")
        rest = f"{RESNET[head]}.{tail}"
    if part == "mid_block":
        return f"middle_block.{1 if kind == 'attentions' else 2 * layer}.{rest}"
    if kind == "downsamplers":
        return f"input_blocks.{3 * block + 3}.0.{rest.replace('conv.', 'op.')}"
    if kind == "upsamplers":
        place = 2 if "CrossAttn" in config.up_block_types[block] else 1
        return f"output_blocks.{3 * block + 2}.{place}.{rest}"
    entry = 3 * block + layer + (1 if part == "down_blocks" else 0)
    side = "input_blocks" if part == "down_blocks" else "output_blocks"
    return f"{side}.{entry}.{1 if kind == 'attentions' else 0}.{rest}"


def original_vae_name(name: str) -> str:
    """Say how the original code calls a weight of a VAE with four blocks."""
    for pattern, new in (
        (r"encoder\.down_blocks\.(\d)", r"encoder.down.\1"),
        (r"decoder\.up_blocks\.(\d)", lambda found: f"decoder.up.{3 - int(found[1])}"),
        (r"mid_block\.resnets\.0", "mid.block_1"),
        (r"mid_block\.resnets\.1", "mid.block_2"),
        (r"mid_block\.attentions\.0", "mid.attn_1"),
        (r"\.resnets\.(\d)", r".block.\1"),
        (r"downsamplers\.0", "downsample"),
        (r"upsamplers\.0", "upsample"),
        (r"conv_norm_out", "norm_out"),
        (r"conv_shortcut", "nin_shortcut"),
        (r"attn_1\.group_norm", "attn_1.norm"),
        (r"attn_1\.to_([qkv])", r"attn_1.\1"),
        (r"attn_1\.to_out\.0", "attn_1.proj_out"),
    ):
        name = re.sub(pattern, new, name)
    return name


def open_clip(encoder: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """Give a text encoder's weights in OpenCLIP's layout."""
    own = {name.removeprefix("text_model."): w for name, w in encoder.state_dict().items()}
    found = {
        "token_embedding.weight": own["embeddings.token_embedding.weight"],
        "positional_embedding": own["embeddings.position_embedding.weight"],
        "ln_final.weight": own["final_layer_norm.weight"],
        "ln_final.bias": own["final_layer_norm.bias"],
    }
    if "text_projection.weight" in own:
        found["text_projection"] = own["text_projection.weight"].T
    for layer in range(encoder.config.num_hidden_layers):
        ours, theirs = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for end in ("weight", "bias"):
            attention = [own[f"{ours}.self_attn.{x}_proj.{end}"] for x in "qkv"]
            found |= {
                f"{theirs}.attn.in_proj_{end}": torch.cat(attention),
                f"{theirs}.attn.out_proj.{end}": own[f"{ours}.self_attn.out_proj.{end}"],
                f"{theirs}.ln_1.{end}": own[f"{ours}.layer_norm1.{end}"],
                f"{theirs}.ln_2.{end}": own[f"{ours}.layer_norm2.{end}"],
                f"{theirs}.mlp.c_fc.{end}": own[f"{ours}.mlp.fc1.{end}"],
                f"{theirs}.mlp.c_proj.{end}": own[f"{ours}.mlp.fc2.{end}"],
            }
    return {prefix + name: weight for name, weight in found.items()}


def base_of(pipeline: StableDiffusionPipeline | StableDiffusionXLPipeline) -> Base:
    """Make a base model of a pipeline's own parts, computing in float32."""
    return assemble(
        "tiny",
        dict(pipeline.components),
        device=torch.device("cpu"),
        compute_dtype=torch.float32,
    )


def random_modules(
    base: Base, names: Iterable[str], *, rank: int = 2, alpha: float = 1.0, seed: int = 0
) -> list[LoraModule]:
    """Make LoRA modules of the right shapes, strong enough to be seen."""
    targets = module_names(base)
    draw = np.random.default_rng(seed)
    modules = []
    for name in names:
        out, inner, *kernel = targets[name].weight.shape
        down = draw.normal(0.0, 0.3, (rank, inner, *kernel)).astype(np.float32)
        up = draw.normal(0.0, 0.3, (out, rank, *(1 for _ in kernel))).astype(np.float32)
        modules.append(LoraModule(name, down, up, alpha))
    return modules
