"""Loss: how well every saved checkpoint predicts images it never saw, without luck."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import BadInputError
from lorascope.io.captions import split_tags
from lorascope.io.checkpoints import Checkpoint, usable_checkpoints
from lorascope.io.dataset_file import Dataset, DatasetImage, read_dataset
from lorascope.io.lora_file import read_lora
from lorascope.metrics.tags import without
from lorascope.progress import track
from lorascope.records import Inputs, Measured, Tool, seed_from
from lorascope.tools.logged import describe_log
from lorascope.tools.losses import HELD_OUT, Answers, sum_up
from lorascope.tools.vae import at_training_size

if TYPE_CHECKING:
    from torch import Tensor

    from lorascope.models.base import Base

Array = NDArray[Any]

MOST_TRAIN = 16  # images that are measured where nothing is held out
MOST_DRIFT = 8  # images whose noisy latents the drift is measured on
LARGEST_BATCH = 32  # latents predicted at once: all of one image, so that no other one matters
SNR_LIMIT = 5.0  # gamma of min-SNR weighting; Hang et al., ICCV 2023


@dataclass(frozen=True)
class _Picture:
    """One image, ready to be asked about: its noise is the same for every checkpoint."""

    image: DatasetImage
    prompts: tuple[str, str, str]  # caption, caption without the trigger, nothing
    noisy: "Tensor"  # (strata * draws, C, h, w)
    target: "Tensor"  # the same shape
    timesteps: "Tensor"  # (strata * draws,)


def loss(
    inputs: Inputs,
    *,
    strata: int = 10,
    draws: int = 2,
    images: int = 0,
    seed: int = 0,
    dtype: str = "fp32",
) -> Measured:
    """Measure the loss of every saved checkpoint on held-out images, on fixed noise and timesteps.

    Parameters
    ----------
    inputs : Inputs
        Reads ``lora``, ``dataset`` and ``base``; ``log`` where there is one.
    strata : int
        Timesteps, one from each of so many equal parts of the noise schedule.
    draws : int
        Noises for each image and timestep.
    images : int
        Held-out images to measure, and as many training images; 0 for all that are held out.
    seed : int
        Of noise and timesteps.
    dtype : str
        What is computed in: fp32, fp16, bf16 or auto. A coarser one is faster and blurs small
        differences between epochs.

    Returns
    -------
    Measured
        Values are mean log-ratios to the loss of the base model: 0 is the base model (epoch 0),
        below 0 is better. Tables: ``epochs``, ``images``, ``bands``, ``drift``; from the log
        ``log``, ``log_epochs``, ``dips``. Arrays: ``losses`` (checkpoint, image, stratum, draw),
        base model first, images as in the first rows of ``images``; ``timesteps`` (stratum,).

    Raises
    ------
    MissingInputError
        There is no checkpoint.
    BadInputError
        An option makes no sense, or the LoRA does not fit the base model.

    Notes
    -----
    The mean over an image's timesteps and noises of ``log(loss / loss of the base model)``: every
    timestep weighs alike, and noise is shared by all checkpoints, so that it cancels. Latents are
    the VAE's posterior mean, captions are used as they are. bf16 rounds the merged weights, which
    shifts an epoch by some 2e-4 on all images alike, so that no resampling of images shows it.
    """
    if strata < 1 or draws < 1 or images < 0:
        raise BadInputError("strata and draws must be 1 or more, images 0 or more.")
    checkpoints, left_out = usable_checkpoints(inputs["lora"])
    dataset = read_dataset(inputs["dataset"])
    chosen = _choose(dataset, images)
    from lorascope.models.base import load_base

    base = load_base(str(inputs["base"]), dtype=dtype)
    asked = _ask(base, dataset, chosen, checkpoints, strata=strata, draws=draws, seed=seed)
    found = sum_up(asked, trigger=dataset.trigger)
    logged = describe_log(inputs["log"], checkpoints) if "log" in inputs else Measured(numbers=())
    return Measured(
        numbers=(*found.numbers, *logged.numbers),
        tables={**found.tables, **logged.tables},
        arrays=found.arrays,
        caveats=(*left_out, *found.caveats, *logged.caveats),
    )


def _choose(dataset: Dataset, images: int) -> tuple[DatasetImage, ...]:
    """Take the held-out images and as many others, by content and never by their order."""
    held, train = (
        sorted(part, key=lambda i: (i.sha256, i.file)) for part in (dataset.held_out, dataset.train)
    )
    held = held[: images or None]
    chosen = (*held, *train[: len(held) or images or MOST_TRAIN])
    if not chosen:
        raise BadInputError("The dataset lists no image.\nFix: train again on a folder of images.")
    return chosen


def _ask(
    base: "Base",
    dataset: Dataset,
    chosen: Sequence[DatasetImage],
    checkpoints: Sequence[Checkpoint],
    *,
    strata: int,
    draws: int,
    seed: int,
) -> Answers:
    """Let the base model and every checkpoint predict the same noise."""
    import torch

    from lorascope.models.lora import Merger

    before, steps = base.forwards, int(base.noise.config.num_train_timesteps)
    timesteps = _timesteps(steps, strata, seed)
    everyone = (Checkpoint(Path(), 0, 0), *checkpoints)
    losses = np.empty((len(everyone), len(chosen), strata, draws))
    drifts = np.full((len(everyone), len(chosen), 2), np.nan)
    pictures: list[_Picture] = []
    own: list[Tensor] = []  # what the base model predicts, of the images that drift is measured on
    work = [(c, i) for c in range(len(everyone)) for i in range(len(chosen))]
    count = min(sum(i.split == HELD_OUT for i in chosen) or len(chosen), MOST_DRIFT)
    merger = Merger(base)
    try:
        with torch.no_grad():
            for c, i in track(work, label="loss"):
                if c and i == 0:
                    merger.apply(read_lora(everyone[c].path))
                if c == 0:
                    pictures.append(_picture(base, dataset, chosen[i], timesteps, draws, seed))
                found, others = _predict(base, pictures[i], draws, drifts=i < count)
                losses[c, i] = found.reshape(strata, draws)
                if others is not None:
                    own += [others] if c == 0 else []
                    drifts[c, i] = _change(others, own[i])
    finally:
        merger.restore()
    if not dataset.trigger.strip():
        drifts[:, :, 0] = np.nan
    ratio = base.noise.alphas_cumprod.double().cpu().numpy()[timesteps]
    snr = ratio / (1 - ratio)
    v = base.prediction_type == "v_prediction"
    return Answers(
        checkpoints=everyone,
        images=tuple(chosen),
        losses=losses,
        drifts=drifts,
        timesteps=timesteps,
        share=timesteps / steps,
        weights=np.minimum(snr, SNR_LIMIT) / (snr + 1 if v else snr),
        forwards=base.forwards - before,
    )


def _timesteps(steps: int, strata: int, seed: int) -> Array:
    """Draw one timestep from each of ``strata`` equal parts of [0, steps)."""
    inside = [seed_from(seed, "stratum", k) / 2**63 for k in range(strata)]
    return np.array([min(int(steps * (k + u) / strata), steps - 1) for k, u in enumerate(inside)])


def _picture(
    base: "Base", dataset: Dataset, image: DatasetImage, timesteps: Array, draws: int, seed: int
) -> _Picture:
    """Encode one image and draw its noise, from its content alone."""
    import torch

    latent = base.encode_images(at_training_size(dataset, image)[None])
    shape = tuple(latent.shape[1:])
    noise = np.stack(
        [
            np.random.Generator(
                np.random.Philox(key=seed_from(seed, image.sha256, k, r))
            ).standard_normal(shape, dtype=np.float32)
            for k in range(len(timesteps))
            for r in range(draws)
        ]
    )
    drawn = torch.from_numpy(noise).to(latent.device)
    latents = latent.float().expand(len(drawn), *shape)
    at = torch.from_numpy(np.repeat(timesteps, draws)).to(latent.device)
    bare = ", ".join(without(split_tags(image.caption), dataset.trigger))
    return _Picture(
        image=image,
        prompts=(image.caption, bare, ""),
        noisy=base.add_noise(latents, drawn, at),
        target=base.target(latents, drawn, at),
        timesteps=at,
    )


def _predict(
    base: "Base", picture: _Picture, draws: int, *, drifts: bool
) -> tuple[Array, "Tensor | None"]:
    """Predict one image's noise with its caption; and with the two other prompts, for the drift.

    Returns
    -------
    losses : (strata * draws,) float64 array
    others : (2, strata, C, h, w) tensor or None
        Predictions without the trigger and without a caption, on the first draw.
    """
    import torch

    cond = base.encode_prompts(picture.prompts)
    losses = []
    for part in _parts(len(picture.noisy)):
        size = part.stop - part.start
        predicted = base.predict(
            picture.noisy[part], picture.timesteps[part], cond.take([0] * size)
        )
        error = (predicted.double() - picture.target[part].double()) ** 2
        losses.append(error.flatten(1).mean(dim=1).cpu().numpy())
    if not drifts:
        return np.concatenate(losses), None
    noisy, at = picture.noisy[::draws], picture.timesteps[::draws]
    others = [
        torch.cat(
            [
                base.predict(noisy[part], at[part], cond.take([which] * (part.stop - part.start)))
                for part in _parts(len(noisy))
            ]
        )
        for which in (1, 2)
    ]
    return np.concatenate(losses), torch.stack(others)


def _parts(length: int) -> Iterator[slice]:
    for start in range(0, length, LARGEST_BATCH):
        yield slice(start, min(start + LARGEST_BATCH, length))


def _change(others: "Tensor", own: "Tensor") -> Array:
    """Relative change of the prediction, mean over the timesteps, for each of the two prompts."""
    moved = (others.double() - own.double()).flatten(2).square().sum(dim=2)
    change: Array = (moved / own.double().flatten(2).square().sum(dim=2)).mean(dim=1).cpu().numpy()
    return change


LOSS = Tool(
    name="loss",
    asks="Which checkpoint predicts unseen images best?",
    reads=("lora", "dataset", "base"),
    may_read=("log",),
    measure=loss,
)
