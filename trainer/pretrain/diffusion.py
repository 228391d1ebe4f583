"""Trains text encoder and U-Net together, on latents of the tagged world."""

import functools
import random

import numpy as np
import torch
import torch.distributed as dist
from diffusers import DDPMScheduler, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from lorascope import storage
from lorascope.miniature import world
from lorascope.miniature.world import REGIONS
from lorascope.records import seed_from
from trainer.pretrain.autoencoder import encode_all
from trainer.pretrain.drawings import Drawings, open_drawings
from trainer.pretrain.settings import LATENT_CELLS, LATENT_CHANNELS, Settings
from trainer.pretrain.workers import Learner, Log, flat_then_cosine, learn

BATCH = 32  # per process
HIDDEN = 160
RATES = (1.5e-3, 1e-3)  # Muon, AdamW
TEXT_FACTOR = 0.5  # on AdamW's rate
MIN_SNR = 5.0  # Hang et al. 2023
STEPS = 1000  # of the noise schedule
SCHEDULE = {
    "num_train_timesteps": STEPS,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
REGION_WEIGHTS = {"eyes": 4, "mouth": 5, "ribbon": 3, "glasses": 2.5, "hat": 1.3, "hair": 1.2}


def build(tokenizer: CLIPTokenizer) -> nn.ModuleDict:
    """Make the untrained pair: ``text`` (.9 M parameters) and ``unet`` (4.3 M)."""
    torch.manual_seed(0)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=HIDDEN,
            intermediate_size=HIDDEN * 3,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=77,
            projection_dim=HIDDEN,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=LATENT_CELLS,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=(64, 128),
        layers_per_block=1,
        cross_attention_dim=HIDDEN,
        attention_head_dim=(4, 4),
        norm_num_groups=16,
    )
    return nn.ModuleDict({"text": text, "unet": unet.to(memory_format=torch.channels_last)})


def train(settings: Settings) -> None:
    """Train in every process at once; the first writes ``diffusion.pt`` at the end."""
    if is_done(settings):
        return
    tokenizer = CLIPTokenizer.from_pretrained(settings.work / "tokenizer")
    model = build(tokenizer)
    learner = Learner(
        model.named_parameters(),
        learning_rates=RATES,
        is_hidden=_is_hidden,
        slower=lambda name: TEXT_FACTOR if name.startswith("text.") else 1.0,
    )
    latents, drawings = encode_all(settings), open_drawings(settings)
    weights = _latent_weights(drawings, settings)
    alphas = DDPMScheduler(**SCHEDULE).alphas_cumprod

    def attempt(_share: float) -> tuple[Tensor, list[float]]:
        seed = seed_from("diffusion", dist.get_rank(), learner.steps)
        chosen, captions = _choose(drawings, random.Random(seed))
        torch.manual_seed(seed)
        clean = torch.from_numpy(np.asarray(latents[chosen], np.float32))
        return _loss(model, tokenizer, clean, captions, weights[chosen], alphas)

    learn(
        learner,
        attempt,
        minutes=settings.diffusion_minutes,
        checkpoint=settings.work / "diffusion.checkpoint",
        log=Log(settings.work / "diffusion-log.csv", ("weighted", "min_snr", "mse")),
        factor=functools.partial(flat_then_cosine, warmup=60, flat=0.5, floor=0.04),
    )
    if dist.get_rank() == 0:
        learner.take_average()
        with storage.replacing(settings.work / "diffusion.pt") as partial:
            torch.save(model.state_dict(), partial)


def is_done(settings: Settings) -> bool:
    """Tell whether the trained pair lies in the work folder."""
    return (settings.work / "diffusion.pt").exists()


def load(settings: Settings, tokenizer: CLIPTokenizer) -> nn.ModuleDict:
    """Read what ``train`` wrote; while it still runs, the average of the newest checkpoint."""
    model = build(tokenizer)
    if is_done(settings):
        model.load_state_dict(torch.load(settings.work / "diffusion.pt", weights_only=True))
        return model
    state = torch.load(settings.work / "diffusion.checkpoint", weights_only=True)
    with torch.no_grad():
        for p, mean in zip(model.parameters(), state["average"], strict=True):
            p.copy_(mean)
    return model


def _loss(
    model: nn.ModuleDict,
    tokenizer: CLIPTokenizer,
    clean: Tensor,
    captions: list[str],
    weights: Tensor,
    alphas: Tensor,
) -> tuple[Tensor, list[float]]:
    """Squared error of the noise, weighted by region and min-SNR; timesteps stratified."""
    count = len(clean)
    timesteps = ((torch.arange(count) + torch.rand(count)) / count * STEPS).long()
    timesteps = timesteps.clamp(0, STEPS - 1)[torch.randperm(count)]
    noise = torch.randn_like(clean)
    kept = alphas[timesteps].view(-1, 1, 1, 1)
    noisy = (kept.sqrt() * clean + (1 - kept).sqrt() * noise).contiguous(
        memory_format=torch.channels_last
    )
    ids = tokenizer(
        captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model["text"](ids).last_hidden_state
        predicted = model["unet"](noisy, timesteps, hidden).sample
    error = (predicted.float() - noise).pow(2)
    snr = alphas[timesteps] / (1 - alphas[timesteps])
    balance = snr.clamp(max=MIN_SNR) / snr
    plain = error.detach().mean((1, 2, 3))
    loss = ((error * weights[:, None]).mean((1, 2, 3)) * balance).mean()
    return loss, [float(loss.detach()), float((plain * balance).mean()), float(plain.mean())]


def _choose(drawings: Drawings, rng: random.Random) -> tuple[list[int], list[str]]:
    allowed = drawings.train_indices("base")
    chosen = [rng.choice(allowed) for _ in range(BATCH)]
    return chosen, [world.shuffled_caption(drawings.tags[i], rng) for i in chosen]


def _latent_weights(drawings: Drawings, settings: Settings) -> Tensor:
    """Average the weight of each pixel's region over each latent cell: (N, 16, 16), mean 1."""
    by_label = np.ones(len(REGIONS), np.float32)
    for name, weight in REGION_WEIGHTS.items():
        by_label[REGIONS[name]] = weight
    cell = drawings.regions.shape[1] // LATENT_CELLS
    parts: list[NDArray[np.float32]] = []
    for start in range(0, settings.base, 512):
        block = by_label[np.asarray(drawings.regions[start : min(start + 512, settings.base)])]
        cells = block.reshape(-1, LATENT_CELLS, cell, LATENT_CELLS, cell)
        parts.append(cells.mean((2, 4), dtype=np.float32))
    weights = np.concatenate(parts)
    return torch.from_numpy(weights / weights.mean())


def _is_hidden(name: str, parameter: Tensor) -> bool:
    return parameter.ndim >= 2 and not any(k in name for k in ("conv_in", "conv_out", "embeddings"))
