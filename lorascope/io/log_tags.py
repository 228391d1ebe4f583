"""What the scalar tags of each trainer mean, and what its metadata says about its log.

Tags are read, never written here. Facts about the trainers: sd-scripts 48d368fa and older,
OneTrainer 23df3832, ai-toolkit, SimpleTuner, EveryDream2 and the examples of diffusers.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

STEP, MEAN, EPOCH, SMOOTHED = "step loss", "mean loss", "epoch loss", "smoothed loss"
FIXED = "fixed training loss"  # of training images on fixed noise: falls while they are learnt
VALIDATION, DIVERGENCE = "validation loss", "validation divergence"
RATE, ADAPTIVE = "learning rate", "adaptive learning rate"
NORM, LARGEST, SCALED, GRADIENT = "norm", "largest norm", "scaled modules", "gradient norm"
OTHER = "other"

KOHYA, ONETRAINER, OURS = "sd-scripts", "OneTrainer", "lorascope"

ABSURD = 1e12  # steps, images or weights that nobody has
LOSSES = (STEP, MEAN, EPOCH, SMOOTHED)  # of training, the most telling first


@dataclass(frozen=True, kw_only=True, slots=True)
class Meaning:
    """What one tag stands for."""

    kind: str
    part: str = ""  # which part of the model, which group, which validation images
    axis: str = "step"  # what its x is: "step" or "epoch"
    trainer: str = ""  # who writes it; empty where several do
    rank: int = 0  # of several tags of one kind, the one with the smallest is taken


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a checkpoint's metadata says about the log; None and 0 where it says nothing."""

    epoch_steps: int | None = None  # optimiser steps in an epoch
    min_snr_gamma: float | None = None
    debiased: bool = False
    validation_split: float = 0.0
    validation_seed: int | None = None
    validation_images: int | None = None
    largest_norm: float | None = None  # what each module's norm is held below


# Of a pattern's one group comes the part. The first that fits counts.
_PATTERNS: tuple[tuple[str, Meaning], ...] = (
    (r"loss/current", Meaning(kind=STEP, trainer=KOHYA)),
    (r"loss/average", Meaning(kind=MEAN, trainer=KOHYA)),
    (r"loss/epoch_average|loss/epoch", Meaning(kind=EPOCH, axis="epoch", trainer=KOHYA)),
    (r"loss/validation/step_(?:average|current)", Meaning(kind=VALIDATION, trainer=KOHYA)),
    (
        r"loss/validation/epoch_(?:average|current)",
        Meaning(kind=VALIDATION, axis="epoch", trainer=KOHYA),
    ),
    (r"loss/validation/step_divergence", Meaning(kind=DIVERGENCE, trainer=KOHYA)),
    (
        r"loss/validation/epoch_divergence",
        Meaning(kind=DIVERGENCE, axis="epoch", trainer=KOHYA),
    ),
    (r"lr/d\*lr(?:[/-](.+))?", Meaning(kind=ADAPTIVE, trainer=KOHYA)),
    (r"max_norm/keys_scaled", Meaning(kind=SCALED, trainer=KOHYA)),
    (r"max_norm/max_key_norm", Meaning(kind=LARGEST, trainer=KOHYA)),
    (r"(?:max_norm/average_key_norm|norm/avg_key_norm)", Meaning(kind=NORM, trainer=KOHYA)),
    (r"norm/avg_grad_norm", Meaning(kind=GRADIENT, trainer=KOHYA)),
    (r"norm/avg_(combined)_norm", Meaning(kind=NORM, trainer=KOHYA)),
    (r"loss/train_step", Meaning(kind=STEP, trainer=ONETRAINER)),
    (r"smooth_loss/train_step", Meaning(kind=SMOOTHED, trainer=ONETRAINER)),
    (r"loss/validation_step/(.+)", Meaning(kind=VALIDATION, trainer=ONETRAINER)),
    (r"lr_(unet|text)", Meaning(kind=RATE, trainer=OURS)),
    (r"lr/(.+)", Meaning(kind=RATE)),
    (r"lr|learning_rate|train/learning_rate|train/lr", Meaning(kind=RATE)),
    (r"hyperparamm?eter/lr[ _](.+)", Meaning(kind=RATE, trainer="EveryDream2")),
    (r"loss/log_step", Meaning(kind=MEAN, trainer="EveryDream2")),
    (r"loss/stabilize-train", Meaning(kind=FIXED, trainer="EveryDream2")),
    (r"test/test", Meaning(kind=FIXED)),  # train_sd.py of demystifying-sd-finetuning
    (r"test/val", Meaning(kind=VALIDATION)),
    (r"loss/(?:val|valid|validation|eval)(?:/(.+))?", Meaning(kind=VALIDATION)),
    (r"(?:val|valid|validation|eval)[/_]loss(?:/(.+))?", Meaning(kind=VALIDATION)),
    (r"loss/(?:train|step|loss)", Meaning(kind=STEP, rank=1)),
    (r"loss|train_loss|train/loss|train/train_loss|step_loss", Meaning(kind=STEP, rank=2)),
    (r"loss/(debiased)", Meaning(kind=STEP, rank=3)),  # another weighting of the same steps
    (r"train/loss_epoch|epoch_loss", Meaning(kind=EPOCH)),
    (r"(?:train[/_])?grad(?:ient)?_(?:norm|absmax)", Meaning(kind=GRADIENT)),
)
PATTERNS = tuple((re.compile(pattern), meaning) for pattern, meaning in _PATTERNS)
TRAPS = {  # what a reader of a foreign log is easily misled by
    "divergence": "It is the validation loss at four fixed timesteps minus the training loss at "
    "random ones: two quantities that do not compare. It is no generalisation gap, and its sign "
    "says nothing.",
    "four timesteps": "The trainer validates at the timesteps 200, 400, 600 and 800 alone and "
    "averages them to one number, which the lowest of them rules; shuffled captions, dropped "
    "captions and weights of the training loss apply there too.",
    "first epoch": "Validations within the first epoch stay in the trainer's list for ever, so "
    "every later value is averaged with them and moves too little.",
    "trailing mean": "In the first epoch it is the mean of all steps so far, later of the last "
    "epoch's steps: it trails by half an epoch, and its early ups and downs are noise of few "
    "steps.",
    "leak": "Without a seed of its own this trainer shuffles the images once for training and once "
    "more for validation. Of two independent draws, nine in ten validation images are to be "
    "expected among those trained on at a split of 0.1, eight in ten at 0.2. Read it as a training "
    "loss.",
    "weighted": "The logged loss is weighted by timestep, so that it does not compare with a log "
    "without that weighting.",
    "one timestep": "OneTrainer validates at one timestep with one noise: other timesteps may "
    "well move the other way.",
}
TEXT = re.compile(r"^(?:text ?encoder|text|te)\b")


def meaning(tag: str) -> Meaning:
    """Say what a tag stands for.

    Parameters
    ----------
    tag : str
        Exactly as the trainer wrote it.

    Returns
    -------
    Meaning
        Of kind ``other`` where nobody is known to write it; its part is then the tag itself.
    """
    for pattern, known in PATTERNS:
        if found := pattern.fullmatch(tag.strip()):
            written = found[1] if pattern.groups else None
            return replace(known, part=_part(written, known.kind)) if written else known
    return Meaning(kind=OTHER, part=tag)


def read_settings(metadata: Sequence[Mapping[str, str]]) -> Settings:
    """Read what the checkpoints of one training say about its log.

    Parameters
    ----------
    metadata : sequence of mappings
        The safetensors metadata of each, first to last. All values are text; "None" is unset.

    Returns
    -------
    Settings
        From the first that says something; a damaged value counts as unset.
    """
    known: dict[str, str] = {}
    for one in metadata:
        known |= {k: v for k, v in one.items() if k not in known and v not in ("None", "", "null")}
    seed = _number(known.get("ss_validation_seed"))
    images = _number(known.get("ss_num_validation_images"))
    return Settings(
        epoch_steps=_epoch_steps(known, metadata),
        min_snr_gamma=_positive(known.get("ss_min_snr_gamma")),
        debiased=known.get("ss_debiased_estimation") == "True",
        validation_split=_positive(known.get("ss_validation_split")) or 0.0,
        validation_seed=None if seed is None else int(seed),
        validation_images=None if images is None else int(images),
        largest_norm=_positive(known.get("ss_scale_weight_norms")),
    )


def _epoch_steps(known: Mapping[str, str], metadata: Sequence[Mapping[str, str]]) -> int | None:
    """Count the optimiser steps of an epoch: from its batches, else from what was saved."""
    batches = _positive(known.get("ss_num_batches_per_epoch"))
    gathered = _positive(known.get("ss_gradient_accumulation_steps")) or 1
    if batches:
        return max(1, math.ceil(batches / gathered))
    ratios: Counter[int] = Counter()
    for one in metadata:
        steps, epoch = (_positive(one.get(name)) for name in ("ss_steps", "ss_epoch"))
        if steps and epoch and steps % epoch == 0:
            ratios[int(steps // epoch)] += 1
    return ratios.most_common(1)[0][0] if ratios else None


def _part(written: str, kind: str) -> str:
    """Put the name of a part into our words; a validation concept keeps its name."""
    if kind == VALIDATION:
        return "all concepts" if written == "total_average" else written
    plain = re.sub(r"(?<=[a-z])(?=\d)", " ", written.replace("_", " "))  # group1 -> group 1
    return TEXT.sub("text encoder", plain)


def _number(text: str | None) -> float | None:
    """Read a number that a trainer wrote as text."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if abs(value) < ABSURD else None


def _positive(text: str | None) -> float | None:
    """Read a number that means nothing unless it is above 0."""
    value = _number(text)
    return value if value is not None and value > 0 else None
