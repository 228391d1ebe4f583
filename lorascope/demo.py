"""The demo: a character that the miniature has never seen, trained until it is overfit."""

from pathlib import Path

from lorascope.miniature.datasets import write_character
from lorascope.run import Run

TRIGGER = "zyxfern"
IMAGES = 24
REPEATS = 5
SEED = 0
# Twelve epochs at this rate cross all three stretches: underfit, usable, overfit.
SETTINGS = {
    "base": "miniature",
    "name": "fern",
    "trigger": TRIGGER,
    "epochs": 12,
    "batch_size": 4,
    "rank": 16,
    "alpha": 16.0,
    "unet_lr": 2e-3,
    "held_out": 0.25,
    "seed": SEED,
}


def make(out: Path) -> Run:
    """Draw the dataset and train on it; a demo that is there already is opened as it is.

    Parameters
    ----------
    out : Path
        The run directory; the drawings go beside it.
    """
    from trainer.config import config_from
    from trainer.loop import train

    dataset = out.with_name(f"{out.name}-dataset")
    write_character(dataset, trigger=TRIGGER, images=IMAGES, repeats=REPEATS, seed=SEED)
    return train(config_from({**SETTINGS, "dataset": str(dataset)}), out)
