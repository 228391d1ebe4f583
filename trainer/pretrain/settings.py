"""What the miniature is made of, and how long it learns."""

from dataclasses import dataclass
from pathlib import Path

LATENT_CHANNELS = 8  # at 4, marks and emblems smear: see ARCHITECTURE.md, "The miniature"
IMAGE_PX = 128
LATENT_CELLS = IMAGE_PX // 8


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One training of the miniature, from drawings to export.

    Parameters
    ----------
    work : Path
        Where drawings, checkpoints and logs lie; a second start goes on from there.
    vae_minutes, diffusion_minutes : float
        Time of the two trainings, pauses not counted.
    processes : int
        Processes of one thread each; two beat one of two threads on two cores.
    seed : int
        Decides the drawings and the order of training.
    base, wide, withheld : int
        Drawings of the tagged world, of the wider world that only the autoencoder sees,
        and of what neither ever sees (a test).
    """

    work: Path
    vae_minutes: float = 42.0  # on two cores: what the shipped weights took
    diffusion_minutes: float = 56.0
    processes: int = 2
    seed: int = 9000
    base: int = 28_672
    wide: int = 16_384
    withheld: int = 256
    test: int = 256  # the last so many of base and of wide are kept for measuring
