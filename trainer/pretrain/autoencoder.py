"""Trains the autoencoder on both worlds, then encodes the tagged one."""

import functools
import json
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812  # its name everywhere
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from lorascope import storage
from lorascope.miniature.world import REGIONS
from lorascope.progress import track
from lorascope.records import seed_from
from trainer.pretrain.drawings import Drawings, open_drawings
from trainer.pretrain.settings import IMAGE_PX, LATENT_CELLS, LATENT_CHANNELS, Settings
from trainer.pretrain.workers import Learner, Log, calm_start, flat_then_cosine, learn

BATCH = 32  # crops; a quarter as many whole images
CROP_PX = 64
WHOLE_AFTER = 0.6  # share of the time after which whole images follow the crops
RATES = (3e-3, 2e-3)  # Muon, AdamW
KL_WEIGHT = 1e-4
START_LOG_VARIANCE = -6.0  # at 0 the latent begins as unit noise and training stalls
REGION_WEIGHTS = {"eyes": 3, "mouth": 3, "glasses": 2.5, "ribbon": 2, "mark": 3, "emblem": 3}
ENCODE_BATCH = 32


def build() -> AutoencoderKL:
    """Make the untrained autoencoder: 2.3 M parameters, 128 px to 8 x 16 x 16."""
    torch.manual_seed(0)
    model: AutoencoderKL = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 48, 96, 96),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=IMAGE_PX,
    )
    with torch.no_grad():
        model.quant_conv.bias[LATENT_CHANNELS:] = START_LOG_VARIANCE
        model.quant_conv.weight[LATENT_CHANNELS:] *= 0.1
    calm_start(model)
    return model.to(memory_format=torch.channels_last)


def train(settings: Settings) -> None:
    """Train in every process at once; the first writes ``vae/`` at the end."""
    if is_done(settings):
        return
    drawings = open_drawings(settings)
    model = build()
    learner = Learner(model.named_parameters(), learning_rates=RATES, is_hidden=_is_hidden)
    weights = _region_weights()

    def attempt(share: float) -> tuple[Tensor, list[float]]:
        rng = np.random.default_rng(seed_from("vae", dist.get_rank(), learner.steps))
        images, regions = _batch(drawings, rng, whole=share > WHOLE_AFTER)
        return _loss(model, images, weights[regions.long()][:, None])

    learn(
        learner,
        attempt,
        minutes=settings.vae_minutes,
        checkpoint=settings.work / "vae.checkpoint",
        log=Log(settings.work / "vae-log.csv", ("l1", "gradient", "kl", "psnr")),
        factor=functools.partial(flat_then_cosine, warmup=40, flat=0.3, floor=0.03),
    )
    if dist.get_rank() == 0:
        learner.take_average()
        _finish(model, drawings, settings)


def is_done(settings: Settings) -> bool:
    """Tell whether the trained autoencoder lies in the work folder."""
    return (settings.work / "vae" / "config.json").exists()


@torch.no_grad()
def encode_all(settings: Settings) -> NDArray[np.float16]:
    """Encode the tagged world once: (N, 8, 16, 16), scaled to unit spread."""
    file = settings.work / "latents.npy"
    if not file.exists():
        model = AutoencoderKL.from_pretrained(settings.work / "vae").eval()
        model = model.to(memory_format=torch.channels_last)
        images = open_drawings(settings).images[: settings.base]
        starts = range(0, len(images), ENCODE_BATCH)
        shape = (len(images), LATENT_CHANNELS, LATENT_CELLS, LATENT_CELLS)
        latents = np.empty(shape, np.float16)
        for start in track(starts, label="latents"):
            part = slice(start, start + ENCODE_BATCH)
            latents[part] = (_encode(model, images[part]) * model.config.scaling_factor).numpy()
        with storage.replacing(file) as partial:
            np.save(partial, latents)
    stored: NDArray[np.float16] = np.load(file, mmap_mode="r")
    return stored


def _loss(model: AutoencoderKL, images: Tensor, weights: Tensor) -> tuple[Tensor, list[float]]:
    """Region-weighted L1 of pixels, gradients and 4 x 4 means, and a little KL."""
    with torch.autocast("cpu", torch.bfloat16):
        posterior = model.encode(images).latent_dist
        mean, log_variance = posterior.mean.float(), posterior.logvar.float()
        noise = torch.randn(mean.shape)
        decoded = model.decode(mean + torch.exp(0.5 * log_variance) * noise).sample
    difference = decoded.float() - images
    l1 = (difference.abs() * weights).mean()
    across = ((difference[..., 1:] - difference[..., :-1]).abs() * weights[..., 1:]).mean()
    down = difference[..., 1:, :] - difference[..., :-1, :]
    gradient = across + (down.abs() * weights[..., 1:, :]).mean()
    coarse = (F.avg_pool2d(difference, 4).abs() * F.max_pool2d(weights, 4)).mean()
    kl = 0.5 * (mean * mean + log_variance.exp() - 1 - log_variance).mean()
    psnr = -10 * torch.log10(difference.detach().pow(2).mean() / 4)
    loss = l1 + 0.5 * gradient + 0.5 * coarse + KL_WEIGHT * kl
    return loss, [float(v.detach()) for v in (l1, gradient, kl, psnr)]


def _batch(drawings: Drawings, rng: np.random.Generator, *, whole: bool) -> tuple[Tensor, Tensor]:
    """Half tagged world, half wide: crops that favour the face, or whole images."""
    torch.manual_seed(int(rng.integers(2**62)))  # the posterior's noise of this step
    count, px = (BATCH // 4, IMAGE_PX) if whole else (BATCH, CROP_PX)
    images = np.empty((count, px, px, 3), np.uint8)
    regions = np.empty((count, px, px), np.uint8)
    for j in range(count):
        i = rng.choice(drawings.train_indices("wide" if j % 2 else "base"))
        top, left = (0, 0) if whole else _corner(rng)
        part = (i, slice(top, top + px), slice(left, left + px))
        images[j], regions[j] = drawings.images[part], drawings.regions[part]
    return as_tensor(images), torch.from_numpy(regions)


def _corner(rng: np.random.Generator) -> tuple[int, int]:
    """Choose a crop: 40 % the face, 10 % the chest, the rest anywhere."""
    kind = rng.random()
    if kind < 0.4:
        return int(rng.integers(16, 48)), int(rng.integers(16, 48))
    if kind < 0.5:
        return IMAGE_PX - CROP_PX, int(rng.integers(16, 48))
    return int(rng.integers(0, 65)), int(rng.integers(0, 65))


def as_tensor(images: NDArray[np.uint8]) -> Tensor:
    """Turn (N, H, W, 3) bytes into (N, 3, H, W) from -1 to 1, channels last in memory."""
    scaled = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float()
    return scaled.div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)


def _region_weights() -> Tensor:
    weights = torch.ones(len(REGIONS))
    for name, weight in REGION_WEIGHTS.items():
        weights[REGIONS[name]] = weight
    return weights


def _is_hidden(name: str, parameter: Tensor) -> bool:
    """Muon serves matrices of at least 16 rows and columns, but not what touches data or code."""
    if parameter.ndim < 2 or any(k in name for k in ("conv_in", "conv_out", "quant_conv")):
        return False
    return min(parameter.shape[0], parameter.numel() // parameter.shape[0]) >= 16


def _encode(model: AutoencoderKL, images: NDArray[np.uint8]) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        mode: Tensor = model.encode(as_tensor(images)).latent_dist.mode()
    return mode.float()


@torch.no_grad()
def _finish(model: AutoencoderKL, drawings: Drawings, settings: Settings) -> None:
    """Measure the spread of the latents on kept drawings and write the model."""
    model.eval()
    kept = drawings.test_indices("base")
    parts = [
        _encode(model, drawings.images[i : i + ENCODE_BATCH])
        for i in range(kept.start, kept.stop, ENCODE_BATCH)
    ]
    scale = 1 / float(torch.cat(parts).std())
    model.register_to_config(scaling_factor=scale)
    _save_whole(model, settings.work / "vae")
    print(json.dumps({"scaling_factor": scale}), flush=True)


def _save_whole(model: AutoencoderKL, folder: Path) -> None:
    """Write beside, then rename: a half-written folder never counts as done."""
    partial = folder.with_name(".partial-vae")
    model.save_pretrained(partial)
    partial.rename(folder)
