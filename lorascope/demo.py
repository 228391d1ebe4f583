"""The demo: a character that the miniature has never seen, trained until it is overfit."""

from pathlib import Path

from lorascope.miniature.datasets import write_character
from lorascope.run import Run

TRIGGER = "zyxfern"
IMAGES = 14  # six are held out
REPEATS = 14
COMPOSITION, COMPOSITION_IMAGES = "beach", 4  # a background that is kept out whole
SEED = 0
# A small set at a rate that never falls: it crosses all three stretches, underfit, usable, overfit.
SETTINGS = {
    "base": "miniature",
    "name": "fern",
    "trigger": TRIGGER,
    "epochs": 14,
    "batch_size": 4,
    "rank": 16,
    "alpha": 16.0,
    "unet_lr": 3e-3,
    "scheduler": "constant",
    "warmup_steps": 40,
    "held_out": 0.45,
    "held_out_tag": COMPOSITION,
    "seed": SEED,
}


def make(out: Path) -> Run:
    """Draw the dataset and train on it; what is there already, mended perhaps, is left as it is.

    Parameters
    ----------
    out : Path
        The run directory; the drawings go beside it.
    """
    from trainer.config import config_from
    from trainer.loop import train

    dataset = out.with_name(f"{out.name}-dataset")
    if not dataset.exists():
        write_character(dataset, trigger=TRIGGER, images=IMAGES, repeats=REPEATS, seed=SEED)
        write_character(
            dataset,
            name=COMPOSITION,
            trigger=TRIGGER,
            images=COMPOSITION_IMAGES,
            repeats=REPEATS,
            seed=SEED,
            backgrounds=(COMPOSITION,),
        )
    return train(config_from({**SETTINGS, "dataset": str(dataset)}), out)
