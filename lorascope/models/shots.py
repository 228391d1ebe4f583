"""What is asked of a base model for one picture: plain data, without torch."""

from dataclasses import dataclass

SAMPLER_NAMES = ("dpm++2m", "ddim", "euler", "euler_a")  # as `sampling.SAMPLERS` knows them
UNIT = 8  # px: sides of pictures are multiples of it, one cell of a latent


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """Text, noise, and how the noise becomes a picture."""

    prompt: str
    seed: int
    width: int  # px
    height: int
    negative: str = ""
    steps: int = 20
    guidance: float = 5.0  # 1 turns guidance off
    sampler: str = "dpm++2m"
    clip_skip: int = 1
