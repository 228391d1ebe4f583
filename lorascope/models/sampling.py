"""Pictures from prompts: one visible loop, the same picture whatever else is in the batch."""

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
)
from numpy.typing import NDArray
from torch import Tensor

from lorascope.errors import BadInputError, ShapeError
from lorascope.models.base import Base, Conditioning
from lorascope.models.prompts import chunk_count

Pixels = NDArray[np.uint8]
OnStep = Callable[[int, int], None]  # steps done, of how many; over all batches

SAMPLERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "dpm++2m": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "ddim": (DDIMScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_a": (EulerAncestralDiscreteScheduler, {}),
}


def sample(
    base: Base,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int = 20,
    guidance: float = 5.0,
    negative: str = "",
    width: int | None = None,
    height: int | None = None,
    sampler: str = "dpm++2m",
    batch: int = 16,
    clip_skip: int = 1,
    on_step: OnStep | None = None,
) -> Pixels:
    """Draw one picture for each prompt and seed.

    Parameters
    ----------
    base : Base
        With a LoRA merged in or without.
    prompts, seeds : sequences of the same length
    steps : int
        Sampling steps.
    guidance : float
        Guidance scale; 1 turns guidance off and halves the work.
    negative : str
        Negative prompt.
    width, height : int, optional
        In px; the model's native size otherwise.
    sampler : str
        dpm++2m, ddim, euler or euler_a.
    batch : int
        Pictures at a time; has no influence on them beyond rounding.
    clip_skip : int
        Text encoder layer counted from the end; 1 is the model's own.
    on_step : callable, optional
        Told (steps done, of how many) after each forward.

    Returns
    -------
    (N, height, width, 3) uint8 array

    Raises
    ------
    BadInputError
        An unknown sampler, no steps, sides that do not divide by 8.
    ShapeError
        Prompts and seeds are not of the same number.
    """
    latents = sample_latents(
        base,
        prompts,
        seeds,
        steps=steps,
        guidance=guidance,
        negative=negative,
        width=width,
        height=height,
        sampler=sampler,
        batch=batch,
        clip_skip=clip_skip,
        on_step=on_step,
    )
    return np.concatenate([base.decode(part) for part in latents.split(max(1, batch))])


@torch.no_grad()
def sample_latents(
    base: Base,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int = 20,
    guidance: float = 5.0,
    negative: str = "",
    width: int | None = None,
    height: int | None = None,
    sampler: str = "dpm++2m",
    batch: int = 16,
    clip_skip: int = 1,
    on_step: OnStep | None = None,
) -> Tensor:
    """Do as `sample`, and stop before decoding: (N, C, height / 8, width / 8) float32 latents."""
    width, height = width or base.size, height or base.size
    _check(base, prompts, seeds, steps=steps, width=width, height=height, sampler=sampler)
    texts = _Texts(base, prompts, negative if guidance != 1.0 else None, clip_skip)
    shape = (
        base.latent_channels,
        height // base.pixels_per_latent,
        width // base.pixels_per_latent,
    )
    groups = list(_groups(texts.chunks, max(1, batch)))
    result = torch.empty((len(prompts), *shape))
    done = 0
    for images in groups:
        generators = [torch.Generator("cpu").manual_seed(seeds[i]) for i in images]
        noise = torch.stack([torch.randn(shape, generator=g) for g in generators]).to(base.device)
        positive, unconditional = texts.of(images)
        scheduler = make_scheduler(base, sampler, steps)
        latents = noise * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            scaled = scheduler.scale_model_input(latents, timestep)
            prediction = _guided(
                base, scaled, timestep, positive, unconditional, guidance=guidance, images=images
            )
            latents = scheduler.step(
                prediction, timestep, latents, return_dict=False, **_draws(sampler, generators)
            )[0]
            done += 1
            if on_step is not None:
                on_step(done, steps * len(groups))
        result[images] = latents.float().cpu()
    return result


def make_scheduler(base: Base, sampler: str, steps: int) -> Any:
    """Make a fresh diffusers scheduler over the base model's own noise schedule."""
    kind, options = SAMPLERS[sampler]
    with warnings.catch_warnings():  # diffusers hands a tensor to numpy in the old way
        warnings.filterwarnings("ignore", message="__array__ implementation")
        scheduler = kind.from_config(base.noise.config, **options)
        scheduler.set_timesteps(steps)
    return scheduler


class _Texts:
    """The distinct prompts, each encoded once, at a length that does not depend on the others."""

    def __init__(
        self, base: Base, prompts: Sequence[str], negative: str | None, clip_skip: int
    ) -> None:
        self.prompts, self.negative = prompts, negative
        least = chunk_count(base.tokenizers, negative) if negative is not None else 1
        needed = {p: max(least, chunk_count(base.tokenizers, p)) for p in dict.fromkeys(prompts)}
        self.chunks = [needed[p] for p in prompts]
        self.encoded: dict[tuple[str, int], Conditioning] = {}
        for chunks in sorted(set(needed.values())):
            distinct = [p for p, k in needed.items() if k == chunks]
            if negative is not None and negative not in distinct:
                distinct.append(negative)
            cond = base.encode_prompts(distinct, clip_skip=clip_skip, chunks=chunks)
            self.encoded |= {(p, chunks): cond[i] for i, p in enumerate(distinct)}

    def of(self, images: Sequence[int]) -> tuple[Conditioning, Conditioning | None]:
        """Give the conditions of these images, and the unconditional ones where guidance is on."""
        keys = [(self.prompts[i], self.chunks[i]) for i in images]
        positive = Conditioning.cat([self.encoded[key] for key in keys])
        if self.negative is None:
            return positive, None
        plain = self.encoded[self.negative, keys[0][1]]
        return positive, plain.take([0] * len(images))


def _guided(
    base: Base,
    latents: Tensor,
    timestep: Tensor,
    positive: Conditioning,
    unconditional: Conditioning | None,
    *,
    guidance: float,
    images: Sequence[int],
) -> Tensor:
    """Predict for a batch; with guidance both halves go through the UNet in one forward."""
    first = 0 if unconditional is None else len(images)
    if base.observer is not None:
        base.observer.rows(images, first)
    if unconditional is None:
        return base.predict(latents, timestep.expand(len(images)), positive)
    both = base.predict(
        torch.cat([latents, latents]),
        timestep.expand(2 * len(images)),
        Conditioning.cat([unconditional, positive]),
    )
    without, having = both.chunk(2)
    return without + guidance * (having - without)


def _draws(sampler: str, generators: list[torch.Generator]) -> dict[str, Any]:
    """Give each picture its own noise, where a sampler draws some at every step."""
    return {"generator": generators} if sampler == "euler_a" else {}


def _groups(chunks: Sequence[int], batch: int) -> Iterator[list[int]]:
    """Batch the images; prompts of one batch have one length."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for image, count in enumerate(chunks):
        by_length[count].append(image)
    for images in by_length.values():
        for start in range(0, len(images), batch):
            yield images[start : start + batch]


def _check(
    base: Base,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int,
    width: int,
    height: int,
    sampler: str,
) -> None:
    if not prompts or len(prompts) != len(seeds):
        raise ShapeError(f"{len(prompts)} prompts and {len(seeds)} seeds: one each is needed.")
    if sampler not in SAMPLERS:
        raise BadInputError(f"{sampler!r} is no sampler.\nFix: {', '.join(SAMPLERS)}.")
    if steps < 1:
        raise BadInputError(f"{steps} sampling steps: at least 1 is needed.")
    unit = base.pixels_per_latent
    if width < unit or height < unit or width % unit or height % unit:
        raise BadInputError(
            f"{width} x {height} px cannot be drawn: both sides must be multiples of {unit}."
        )
