"""What the base model itself sees in a picture: no network but the one that is there anyway.

A picture's latent is noised a little and shown to the UNet without a prompt; what a block of its up
path answers is averaged over some noises. Source: Tang et al., Emergent correspondence from image
diffusion, NeurIPS 2023 (timestep 261, block 1 of 4).
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorascope.models.base import Base
from lorascope.records import seed_from


def middle_block(base: Base) -> int:
    """Say which block of the up path lies in its middle: 1 of 4, 1 of 3, 0 of 2."""
    return (len(base.unet.up_blocks) - 1) // 2


@torch.no_grad()
def seen_by_unet(
    base: Base,
    pictures: NDArray[np.uint8],
    *,
    timestep: float,
    block: int,
    noises: int,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Show pictures to the UNet and take what one block answers.

    Parameters
    ----------
    base : Base
        Without any LoRA: what a LoRA changes must not judge it.
    pictures : (N, H, W, 3) uint8 array
    timestep : float
        How much noise, as a share of the training timesteps.
    block : int
        Of the up path, from the coarse end. What comes after it is not computed.
    noises : int
        How many are averaged; the same for all pictures of one size.
    seed : int
        Of the noises.

    Returns
    -------
    (N, C, h, w) float32 array

    Raises
    ------
    ShapeError
        The sides do not divide by `pixels_per_latent`.
    """
    latents = base.encode_images(pictures)
    steps = int(base.noise.config.num_train_timesteps)
    timesteps = torch.full((len(latents),), min(steps - 1, round(timestep * steps)))
    timesteps = timesteps.to(latents.device)
    conditions = base.encode_prompts([""]).take([0] * len(latents))
    total: Tensor | None = None
    for number in range(noises):
        draws = torch.Generator("cpu").manual_seed(seed_from("features", seed, number))
        noise = torch.randn(latents.shape[1:], generator=draws).to(latents.device)
        noisy = base.add_noise(latents, noise.expand_as(latents), timesteps)
        ask = functools.partial(base.predict, noisy, timesteps, conditions)
        found = answer_of(base.unet.up_blocks[block], ask)
        total = found if total is None else total + found
    assert total is not None
    return np.asarray((total / noises).cpu().numpy(), dtype=np.float32)


class _Answered(Exception):  # noqa: N818  # a signal, not an error
    """The block has answered: what comes after it is not needed."""


def answer_of(block: torch.nn.Module, ask: Callable[[], object]) -> Tensor:
    """Run a network up to one block.

    Parameters
    ----------
    block : Module
    ask : callable
        Runs the network; what it gives back does not count.

    Returns
    -------
    (N, C, h, w) float32 tensor
        The block's output.

    Raises
    ------
    RuntimeError
        The network never came to the block.
    """
    with _stopped_at(block) as answers:
        ask()
    if not answers:
        raise RuntimeError("the network was not asked through its own forward")
    return answers[0].float()


@contextlib.contextmanager
def _stopped_at(block: torch.nn.Module) -> Iterator[list[Tensor]]:
    answers: list[Tensor] = []

    def keep(_block: object, _given: object, output: Any) -> None:
        answers.append(output[0] if isinstance(output, tuple) else output)
        raise _Answered

    handle = block.register_forward_hook(keep)
    try:
        with contextlib.suppress(_Answered):
            yield answers
    finally:
        handle.remove()
