"""The base model: a frozen Stable Diffusion pipeline, opened by name, asked one step at a time."""

import functools
import threading
from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import DDPMScheduler
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from lorascope.errors import BadInputError, ShapeError
from lorascope.models import folder, single_file
from lorascope.models import prompts as prompting
from lorascope.models.devices import device_of, dtype_of
from lorascope.models.preparing import prepared
from lorascope.models.prompts import Conditioning
from lorascope.models.sources import FAMILIES, Kind, base_digest, find

__all__ = [
    "FAMILIES",
    "Base",
    "Conditioning",
    "Observer",
    "assemble",
    "base_digest",
    "load_base",
    "prepared",
    "shared_base",
]

Pixels = NDArray[np.uint8]

_SHARED: dict[Hashable, "Base"] = {}  # one at most
_OPENING = threading.Lock()
DAMAGE = (
    OSError,
    ValueError,
    RuntimeError,
    KeyError,
    TypeError,
    AttributeError,
    SafetensorError,
)


class Observer(Protocol):
    """Who wants to know which images a forward of the UNet is about (`attention.capture`)."""

    def rows(self, images: Sequence[int], first: int) -> None:
        """Say that row ``first + i`` of the next forward is image ``images[i]``, conditional."""


@dataclass(eq=False, kw_only=True)
class Base:
    """A base model and how to ask it.

    Weights stay as loaded: float32 on a CPU, where computing is done under bfloat16 autocast.

    Attributes
    ----------
    name : str
        As the user gave it.
    family : str
        ``sd1``, ``sd2`` or ``sdxl``.
    unet, vae : diffusers models
    text_encoders, tokenizers : list
        One of each, or two (SDXL).
    noise : DDPMScheduler
        The training schedule.
    prediction_type : str
        ``epsilon`` or ``v_prediction``.
    device : torch.device
    compute_dtype : torch.dtype
    latent_scale : float
        Latent = scale x (VAE code - ``latent_shift``).
    latent_channels : int
    pixels_per_latent : int
        8 for every published Stable Diffusion.
    size : int
        Native side in px.
    forwards : int
        UNet forwards so far, counted in samples; guidance counts twice.
    originals : dict
        Copies of the weights that a LoRA was merged into (`lora.Merger`).
    merged : set
        Names of the weights that differ from these copies now.
    texts : dict
        Encoded texts by the state of the text encoders (`texts.texts_for`).
    lowered, compiled : bool
        Whether the UNet's layers are in `compute_dtype` now (`preparing.lowered`); whether torch
        has compiled it (`preparing.prepared`).
    observer : Observer, optional
    """

    name: str
    family: str
    unet: Any
    vae: Any
    text_encoders: list[Any]
    tokenizers: list[Any]
    noise: Any
    prediction_type: str
    device: torch.device
    compute_dtype: torch.dtype
    latent_scale: float
    latent_shift: float
    latent_channels: int
    pixels_per_latent: int
    size: int
    forwards: int = 0
    originals: dict[str, Tensor] = field(default_factory=dict)
    merged: set[str] = field(default_factory=set)
    texts: dict[Hashable, Any] = field(default_factory=dict)
    lowered: bool = False
    compiled: bool = False
    observer: Observer | None = None

    def encode_prompts(
        self, prompts: Sequence[str], *, clip_skip: int = 1, chunks: int | None = None
    ) -> Conditioning:
        """Encode prompts of any length; see `prompts.encode`.

        Gradients flow into the text encoders where they are enabled.
        """
        return prompting.encode(
            self.tokenizers, self.text_encoders, prompts, clip_skip=clip_skip, chunks=chunks
        )

    @torch.no_grad()
    def encode_images(self, images: Pixels) -> Tensor:
        """Turn pictures into latents: the posterior's mean, scaled.

        Parameters
        ----------
        images : (N, H, W, 3) uint8 array
            H and W are multiples of `pixels_per_latent`.

        Returns
        -------
        (N, C, H / 8, W / 8) float32 tensor

        Raises
        ------
        ShapeError
            The sides do not divide.
        """
        height, width = images.shape[1:3]
        if images.ndim != 4 or height % self.pixels_per_latent or width % self.pixels_per_latent:
            raise ShapeError(
                f"Images of {width} x {height} px: both sides must be multiples of "
                f"{self.pixels_per_latent}."
            )
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        pixels = pixels.permute(0, 3, 1, 2).to(self.vae.dtype) / 127.5 - 1.0
        mean = self.vae.encode(pixels).latent_dist.mean.float()
        return (mean - self.latent_shift) * self.latent_scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Pixels:
        """Turn (N, C, h, w) latents into (N, 8 h, 8 w, 3) uint8 pictures.

        One after the other, so that none depends on the others' number, nor memory.
        """
        codes = latents.to(self.device) / self.latent_scale + self.latent_shift
        pictures = [self._decode_one(code) for code in codes.to(self.vae.dtype).split(1)]
        return np.ascontiguousarray(torch.cat(pictures).permute(0, 2, 3, 1).cpu().numpy())

    def _decode_one(self, code: Tensor) -> Tensor:
        pixels = self.vae.decode(code).sample.float()
        pixels = (pixels / 2 + 0.5).nan_to_num(nan=0.0).clamp(0, 1)  # broken weights give black
        return (pixels * 255).round().to(torch.uint8)

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        cond: Conditioning,
        *,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Run the UNet once.

        Parameters
        ----------
        noisy : (N, C, h, w) tensor
        timesteps : (N,) tensor
        cond : Conditioning
            Of N prompts.
        size : (width, height) in px, optional
            What SDXL is told of the picture's original and target size; its real size otherwise.

        Returns
        -------
        (N, C, h, w) float32 tensor
            Noise or velocity, whichever the model was trained to predict.
        """
        self.forwards += int(noisy.shape[0])
        dtype = self.input_dtype
        added = self._added(noisy, cond, size)
        with self.autocast():
            output = self.unet(
                noisy.to(dtype),
                timesteps.to(self.device),
                encoder_hidden_states=cond.hidden.to(dtype),
                added_cond_kwargs=added,
                return_dict=False,
            )[0]
        return output.float()

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Mix (N, C, h, w) latents with noise as in training at these (N,) timesteps."""
        return self.noise.add_noise(latents, noise, timesteps)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Say what a perfect prediction would be: the noise, or the velocity."""
        if self.prediction_type == "epsilon":
            return noise
        return self.noise.get_velocity(latents, noise, timesteps)

    @property
    def input_dtype(self) -> torch.dtype:
        """What the UNet takes: the precision of its own weights."""
        return torch.float32 if self.lowered else self.unet.dtype

    def autocast(self) -> AbstractContextManager[Any]:
        """Compute in `compute_dtype` inside this context."""
        lower = self.compute_dtype != torch.float32
        return torch.autocast(
            self.device.type, dtype=self.compute_dtype if lower else None, enabled=lower
        )

    def _added(
        self, noisy: Tensor, cond: Conditioning, size: tuple[int, int] | None
    ) -> dict[str, Tensor] | None:
        """Make SDXL's added conditions: pooled text, original size, crop corner, target size."""
        if self.family != "sdxl" or cond.pooled is None:
            return None
        height, width = (int(side) * self.pixels_per_latent for side in noisy.shape[-2:])
        if size is not None:
            width, height = size
        times = _time_ids(width, height, self.device, self.input_dtype)
        return {
            "text_embeds": cond.pooled.to(self.input_dtype),
            "time_ids": times.expand(noisy.shape[0], -1),
        }


def load_base(name: str, *, dtype: str = "auto", device: str = "auto") -> Base:
    """Open a base model. Only a hub name can reach the network.

    Parameters
    ----------
    name : str
        ``miniature``, a folder in diffusers' layout, a .safetensors file or a hub name.
    dtype : str
        What is computed in: fp32, bf16, fp16; auto takes bf16, or fp16 on older CUDA cards.
    device : str
        cpu, cuda, cuda:1 ...; auto takes CUDA where there is one.

    Raises
    ------
    MissingInputError
        There is no such model.
    BadInputError
        It is something else, damaged, or of another kind; or the device is not there.
    """
    where = device_of(device)
    compute = dtype_of(dtype, where)
    source = find(name)
    weights = torch.float32 if where.type == "cpu" else compute
    read = folder.read if source.kind is Kind.FOLDER else single_file.read
    try:
        with folder.quiet():
            parts = read(source.path, weights)
    except DAMAGE as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInputError(
            f"{name} cannot be opened as a base model: {first}\n"
            "Fix: its files may be incomplete or damaged; copy or download the model again."
        ) from error
    return assemble(name, parts, device=where, compute_dtype=compute)


def shared_base(name: str) -> Base:
    """Open a base model, or give the last one again that was opened in this process.

    For those who leave its weights as they found them, so that the tools of one command open a
    large model once. It is opened anew where its files have changed.

    Parameters
    ----------
    name : str
        As for `load_base`.

    Raises
    ------
    MissingInputError, BadInputError
        As for `load_base`.
    """
    key = (name, load_base, *_file_states(name))  # with what opens it: tests put another there
    with _OPENING:
        if key not in _SHARED:
            _SHARED.clear()  # before the next one takes memory
            _SHARED[key] = load_base(name)
        return _SHARED[key]


def _file_states(name: str) -> Iterator[tuple[str, int, int]]:
    path = find(name).path
    for file in [path] if path.is_file() else sorted(path.glob("*/*")):
        state = file.stat()
        yield str(file), state.st_size, state.st_mtime_ns


def assemble(
    name: str, parts: dict[str, Any], *, device: torch.device, compute_dtype: torch.dtype
) -> Base:
    """Make a base model of a pipeline's parts.

    Parameters
    ----------
    name : str
    parts : dict
        As a diffusers pipeline names them: unet, vae, text_encoder, tokenizer, scheduler ...
    device : torch.device
    compute_dtype : torch.dtype

    Raises
    ------
    BadInputError
        The UNet is of another kind: inpainting, a refiner.
    """
    unet, vae = parts["unet"], parts["vae"]
    encoders = [parts[k] for k in ("text_encoder", "text_encoder_2") if parts.get(k) is not None]
    tokenizers = [parts[k] for k in ("tokenizer", "tokenizer_2") if parts.get(k) is not None]
    family = _family(unet)
    _check_parts(name, unet, vae, family, len(encoders))
    if device.type != "cpu" and vae.config.force_upcast and compute_dtype == torch.float16:
        vae = vae.float()  # its values leave half precision's range
    for model in (unet, vae, *encoders):
        model.to(device).eval().requires_grad_(False)
    if device.type != "cpu":  # on a CPU it made bfloat16 forwards a fifth slower, batch 32
        unet.to(memory_format=torch.channels_last)
        vae.to(memory_format=torch.channels_last)
    noise = DDPMScheduler.from_config(parts["scheduler"].config)
    per_latent = 2 ** (len(vae.config.block_out_channels) - 1)
    side = unet.config.sample_size
    return Base(
        name=name,
        family=family,
        unet=unet,
        vae=vae,
        text_encoders=encoders,
        tokenizers=tokenizers,
        noise=noise,
        prediction_type=noise.config.prediction_type,
        device=device,
        compute_dtype=compute_dtype,
        latent_scale=float(vae.config.scaling_factor),
        latent_shift=float(vae.config.shift_factor or 0.0),
        latent_channels=int(vae.config.latent_channels),
        pixels_per_latent=per_latent,
        size=int(side if isinstance(side, int) else max(side)) * per_latent,
    )


@functools.lru_cache(maxsize=16)
def _time_ids(width: int, height: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Make what SDXL is told of a size; kept, since a copy to the device waits for it."""
    return torch.tensor([[height, width, 0, 0, height, width]], device=device).to(dtype)


def _family(unet: Any) -> str:
    if unet.config.addition_embed_type == "text_time":
        return "sdxl"
    return "sd2" if unet.config.use_linear_projection else "sd1"


def _check_parts(name: str, unet: Any, vae: Any, family: str, encoders: int) -> None:
    if unet.config.in_channels != vae.config.latent_channels:
        raise BadInputError(
            f"{name} takes {unet.config.in_channels} channels where its VAE gives "
            f"{vae.config.latent_channels}: an inpainting or editing model.\n"
            "Fix: give the plain text-to-image model that the LoRA was trained on."
        )
    if encoders != (2 if family == "sdxl" else 1):
        raise BadInputError(
            f"{name} is {FAMILIES[family]} with {encoders} text encoder(s): a refiner, or a part "
            "is missing.\nFix: give the plain text-to-image model that the LoRA was trained on."
        )
