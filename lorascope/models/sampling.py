"""Pictures from prompts: one visible loop, the same picture whatever else is in the batch.

Noise comes from each picture's own seed, and texts and latents go through encoders and VAE one by
one, so that company can tell only by how the UNet's kernels round for another number of rows. On a
CPU in bfloat16 none does, and in float32 pictures stay within a step of 255
(`benchmarks/results/drawing.json`). On other devices forwards are steady: of one shape always.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
from lorascope.models.base import Base
from lorascope.models.preparing import lowered
from lorascope.models.prompts import Conditioning
from lorascope.models.shots import Shot
from lorascope.models.texts import TextCache

Pixels = NDArray[np.uint8]
OnStep = Callable[[int, int], None]  # steps done, of how many; over all batches

STEADY = 4  # pictures in each forward of a steady drawing
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
    return base.decode(latents)


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
    if not prompts or len(prompts) != len(seeds):
        raise ShapeError(f"{len(prompts)} prompts and {len(seeds)} seeds: one each is needed.")
    shots = [
        Shot(
            prompt=prompt,
            seed=seed,
            width=width or base.size,
            height=height or base.size,
            negative=negative,
            steps=steps,
            guidance=guidance,
            sampler=sampler,
            clip_skip=clip_skip,
        )
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    drawn: list[Tensor] = [torch.empty(0)] * len(shots)
    for places, latents in draw_shots(base, shots, batch=batch, on_step=on_step):
        for place, one in zip(places, latents.cpu(), strict=True):
            drawn[place] = one
    return torch.stack(drawn)


def draw_shots(
    base: Base,
    shots: Sequence[Shot],
    *,
    batch: int = 16,
    texts: TextCache | None = None,
    steady: bool | None = None,
    on_step: OnStep | None = None,
) -> Iterator[tuple[list[int], Tensor]]:
    """Draw pictures batch by batch, and stop before decoding.

    Prompts, negative prompts, seeds and guidance may differ within a batch. What must be equal in
    one parts the shots into several: size, steps, sampler, clip skip, length of the texts in
    chunks, and whether there is guidance, since without it a picture costs half.

    Parameters
    ----------
    base : Base
        Its weights must not change between the batches.
    shots : sequence of Shot
    batch : int
        Pictures at a time.
    texts : TextCache, optional
        Texts encoded before with the same text encoders.
    steady : bool, optional
        Have `STEADY` pictures in each forward whatever ``batch`` is, the last one repeated where
        there are fewer: then kernels see one shape, and no picture depends on its company. Where
        forwards are small it costs up to a third. By default on all devices but a CPU, where
        lower precision would make another picture of another rounding.
    on_step : callable, optional
        Told (steps done, of how many) after each forward.

    Yields
    ------
    places : list of int
        Which shots these are.
    latents : (n, C, h, w) float32 tensor
        On the base model's device, for `Base.decode`.

    Raises
    ------
    BadInputError
        An unknown sampler, no steps, sides that do not divide by 8; before anything is drawn.
    """
    for shot in shots:
        _check(base, shot)
    texts = TextCache(base) if texts is None else texts
    steady = base.device.type != "cpu" if steady is None else steady
    size = STEADY if steady else max(1, batch)
    return _drawn(base, shots, texts, size, steady=steady, on_step=on_step)


def make_scheduler(base: Base, sampler: str, steps: int) -> Any:
    """Make a fresh diffusers scheduler over the base model's own noise schedule."""
    kind, options = SAMPLERS[sampler]
    with _quiet():
        scheduler = kind.from_config(base.noise.config, **options)
        scheduler.set_timesteps(steps)
    return scheduler


def _drawn(
    base: Base,
    shots: Sequence[Shot],
    texts: TextCache,
    size: int,
    *,
    steady: bool,
    on_step: OnStep | None,
) -> Iterator[tuple[list[int], Tensor]]:
    batches = list(_batches(shots, texts, size))
    total = sum(shots[places[0]].steps for places in batches)
    schedulers: dict[tuple[str, int], Any] = {}
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if on_step is not None:
            on_step(done, total)

    for places in batches:
        one = shots[places[0]]
        kind = (one.sampler, one.steps)
        if kind not in schedulers:
            schedulers[kind] = make_scheduler(base, *kind)
        rows = size if steady else len(places)
        several = [shots[place] for place in places]
        with torch.no_grad(), lowered(base):
            asked = _asked(base, several, places, texts, rows)
            latents = _denoised(asked, several, schedulers[kind], step)
        yield places, latents


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What stays the same over the steps of a batch."""

    base: Base
    places: list[int]
    cond: Conditioning  # of all rows: those without the prompt first, where there is guidance
    guidance: Tensor | None  # (n, 1, 1, 1)
    rows: Tensor  # which picture each row is, where some are repeated; empty otherwise

    def predict(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """Predict for n pictures; with guidance both halves go through the UNet in one forward."""
        count = len(latents)
        noisy = latents[self.rows] if len(self.rows) else latents
        first = 0 if self.guidance is None else len(noisy)
        if self.base.observer is not None:
            self.base.observer.rows(self.places, first)
        if self.guidance is None:
            return self.base.predict(noisy, timestep.expand(len(noisy)), self.cond)[:count]
        noisy = torch.cat([noisy, noisy])
        both = self.base.predict(noisy, timestep.expand(len(noisy)), self.cond)
        without, having = (half[:count] for half in both.chunk(2))
        return without + self.guidance * (having - without)


def _asked(
    base: Base, shots: Sequence[Shot], places: list[int], texts: TextCache, rows: int
) -> _Asked:
    guided, chunks = shots[0].guidance != 1.0, _chunks(shots[0], texts)
    padded = [*shots, *[shots[-1]] * (rows - len(shots))]
    wanted = [(shot.prompt, chunks, shot.clip_skip) for shot in padded]
    if guided:
        wanted = [(shot.negative, chunks, shot.clip_skip) for shot in padded] + wanted
    cond = texts.of(wanted)
    scales = torch.tensor([shot.guidance for shot in shots], dtype=torch.float32)
    numbers = torch.arange(rows).clamp(max=len(shots) - 1) if rows > len(shots) else torch.empty(0)
    return _Asked(
        base=base,
        places=places,
        cond=Conditioning(cond.hidden.to(base.input_dtype), cond.pooled),
        guidance=scales.view(-1, 1, 1, 1).to(base.device) if guided else None,
        rows=numbers.to(base.device),
    )


def _denoised(
    asked: _Asked, shots: Sequence[Shot], scheduler: Any, step: Callable[[], None]
) -> Tensor:
    """Take the noise of each seed through all steps."""
    base, sampler = asked.base, shots[0].sampler
    generators = [torch.Generator("cpu").manual_seed(shot.seed) for shot in shots]
    unit = base.pixels_per_latent
    shape = (base.latent_channels, shots[0].height // unit, shots[0].width // unit)
    noise = torch.stack([torch.randn(shape, generator=own) for own in generators])
    # each picture its own noise, where a sampler draws some at every step
    draws = {"generator": generators} if sampler == "euler_a" else {}
    with _quiet():
        scheduler.set_timesteps(shots[0].steps)  # forgets the batch before
    latents = noise.to(base.device) * scheduler.init_noise_sigma
    on_device = scheduler.timesteps.to(base.device)  # once, since a copy waits for the device
    for timestep, there in zip(scheduler.timesteps, on_device, strict=True):
        scaled = scheduler.scale_model_input(latents, timestep)
        prediction = asked.predict(scaled, there)
        latents = scheduler.step(prediction, timestep, latents, return_dict=False, **draws)[0]
        step()
    return latents.float()


def _batches(shots: Sequence[Shot], texts: TextCache, size: int) -> Iterator[list[int]]:
    """Batch the shots that can go through the UNet together, in their order."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, shot in enumerate(shots):
        kind = (shot.width, shot.height, shot.steps, shot.sampler, shot.clip_skip)
        key = (*kind, shot.guidance != 1.0, _chunks(shot, texts))
        groups.setdefault(key, []).append(place)
    for places in groups.values():
        for start in range(0, len(places), size):
            yield places[start : start + size]


def _chunks(shot: Shot, texts: TextCache) -> int:
    """Count the chunks of a shot's texts, which are encoded at one length."""
    least = texts.chunks(shot.negative) if shot.guidance != 1.0 else 1
    return max(least, texts.chunks(shot.prompt))


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():  # diffusers hands a tensor to numpy in the old way
        warnings.filterwarnings("ignore", message="__array__ implementation")
        yield


def _check(base: Base, shot: Shot) -> None:
    if shot.sampler not in SAMPLERS:
        raise BadInputError(f"{shot.sampler!r} is no sampler.\nFix: {', '.join(SAMPLERS)}.")
    if shot.steps < 1:
        raise BadInputError(f"{shot.steps} sampling steps: at least 1 is needed.")
    unit, sides = base.pixels_per_latent, (shot.width, shot.height)
    if any(side < unit or side % unit for side in sides):
        raise BadInputError(
            f"{shot.width} x {shot.height} px cannot be drawn: both sides must be multiples of "
            f"{unit}."
        )
