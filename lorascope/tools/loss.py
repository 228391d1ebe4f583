"""Loss: how well every saved checkpoint predicts images it never saw, without luck."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.captions import split_tags
from lorascope.io.dataset_file import Dataset, DatasetImage, read_dataset
from lorascope.io.lora_file import Checkpoint, list_checkpoints, read_lora
from lorascope.io.train_log import read_log
from lorascope.metrics import curves, intervals
from lorascope.metrics.tags import without
from lorascope.progress import track
from lorascope.records import Inputs, Measured, Measurement, Row, Tool, finite, seed_from
from lorascope.tools.vae import at_training_size

if TYPE_CHECKING:
    from torch import Tensor

    from lorascope.models.base import Base

Array = NDArray[Any]

HELD_OUT, TRAIN = "held-out", "train"
BANDS = {"composition": (0.6, 0.9), "structure": (0.2, 0.6), "detail": (0.0, 0.2)}  # of T
MOST_TRAIN = 16  # images that are measured where nothing is held out
MOST_DRIFT = 8  # images whose noisy latents the drift is measured on
LARGEST_BATCH = 32  # latents predicted at once: all of one image, so that no other one matters
SNR_LIMIT = 5.0  # gamma of min-SNR weighting; Hang et al., ICCV 2023
LOG_POINTS = 1000  # rows that a log is thinned to
LOG_WEIGHT = 0.99  # of TensorBoard's smoothing


@dataclass(frozen=True)
class _Picture:
    """One image, ready to be asked about: its noise is the same for every checkpoint."""

    image: DatasetImage
    prompts: tuple[str, str, str]  # caption, caption without the trigger, nothing
    noisy: "Tensor"  # (strata * draws, C, h, w)
    target: "Tensor"  # the same shape
    timesteps: "Tensor"  # (strata * draws,)


@dataclass(frozen=True)
class _Asked:
    """What every checkpoint answered; the first is the base model."""

    checkpoints: tuple[Checkpoint, ...]
    images: tuple[DatasetImage, ...]
    losses: Array  # (checkpoints, images, strata, draws) float64
    drifts: Array  # (checkpoints, images, 2): without the trigger, without any caption
    timesteps: Array  # (strata,) int
    share: Array  # (strata,) timestep / number of timesteps
    weights: Array  # (strata,) of min-SNR
    forwards: int

    @property
    def held(self) -> Array:
        """(images,) bool: which ones were held out."""
        return np.array([image.split == HELD_OUT for image in self.images])

    @property
    def values(self) -> Array:
        """(checkpoints, images): mean log-ratio to the base model, NaN where one broke."""
        values: Array = self.ratios.mean(axis=(2, 3))
        return values

    @property
    def ratios(self) -> Array:
        """(checkpoints, images, strata, draws): log-ratio to the base model."""
        with np.errstate(all="ignore"):
            ratios = np.log(self.losses / self.losses[:1])
        return np.where(np.isfinite(ratios), ratios, np.nan)


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
    checkpoints = list_checkpoints(inputs["lora"])
    if not checkpoints:
        raise MissingInputError(
            f"{inputs['lora']} holds no checkpoint.\nFix: put the LoRA's .safetensors files there."
        )
    dataset = read_dataset(inputs["dataset"])
    chosen = _choose(dataset, images)
    from lorascope.models.base import load_base

    base = load_base(str(inputs["base"]), dtype=dtype)
    asked = _ask(base, dataset, chosen, checkpoints, strata=strata, draws=draws, seed=seed)
    epochs, numbers = _epochs(asked)
    drift, drift_numbers = _drift(asked)
    logged = _log(inputs["log"], checkpoints) if "log" in inputs else Measured(numbers=())
    return Measured(
        numbers=(*numbers, *drift_numbers, *logged.numbers),
        tables={
            "epochs": epochs,
            "images": _images(asked),
            "bands": _bands(asked),
            "drift": drift,
            **logged.tables,
        },
        arrays={"losses": asked.losses, "timesteps": asked.timesteps},
        caveats=(*_caveats(asked, dataset), *logged.caveats),
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
) -> _Asked:
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
    return _Asked(
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


def _epochs(asked: _Asked) -> tuple[list[Row], list[Measurement]]:
    """Sum up every checkpoint over the images, and find the best."""
    values, held = asked.values, asked.held
    whole = [finite(row) for row in values]
    absolute = (asked.losses.mean(axis=3) * asked.weights).mean(axis=2)  # (checkpoints, images)
    train = _means(values[:, ~held])
    count = int(held.sum())
    heldout = _means(values[:, held])
    low = high = np.full(len(values), np.nan)
    shares, within = np.zeros(len(values)), np.zeros(len(values), dtype=bool)
    rise = np.full(len(values), np.nan)
    others = len(held) - count
    numbers = [
        Measurement(name="images", value=count, unit="images", n=count),
        Measurement(name="train_images", value=others, unit="images", n=others),
        Measurement(name="forwards", value=asked.forwards, unit="forwards", n=len(held)),
    ]
    saved = np.array([c for c in range(1, len(values)) if whole[c]], dtype=int)
    if count and len(saved):
        low, high = intervals.intervals(values[:, held].T)
        shares[saved] = intervals.best_shares(values[saved][:, held].T)
        within[saved] = intervals.confidence_set(values[saved][:, held].T)
        best = saved[heldout[saved].argmin()]
        depth = -heldout[best]
        if depth > 0:
            rise = (heldout + depth) / depth
        numbers += _best(asked, values[:, held], saved, best, shares, within)
    last = len(values) - 1
    for name, of in (("held_out_last", heldout), ("train_last", train), ("rise_last", rise)):
        if np.isfinite(of[last]):
            n = others if name == "train_last" else count
            numbers.append(Measurement(name=name, value=float(of[last]), unit="1", n=n))
    if np.isfinite(gap := heldout[last] - train[last]):
        numbers.append(Measurement(name="gap_last", value=float(gap), unit="1", n=count))
    rows: list[Row] = [
        {
            "epoch": checkpoint.epoch,
            "step": checkpoint.step,
            "file": checkpoint.path.name,
            "held_out": _cell(heldout[c]),
            "held_out_low": _cell(low[c]),
            "held_out_high": _cell(high[c]),
            "train": _cell(train[c]),
            "gap": _cell(heldout[c] - train[c]),
            "rise": _cell(rise[c]),
            "p_best": float(shares[c]) if count else None,
            "in_set": bool(within[c]) if count else None,
            "held_out_loss": _cell(_means(absolute[c : c + 1, held])[0]),
            "train_loss": _cell(_means(absolute[c : c + 1, ~held])[0]),
        }
        for c, checkpoint in enumerate(asked.checkpoints)
    ]
    return rows, numbers


def _best(
    asked: _Asked, held: Array, saved: Array, best: int, shares: Array, within: Array
) -> list[Measurement]:
    """Describe the checkpoint with the lowest held-out value, and how sure that is."""
    count = held.shape[1]
    low, high = intervals.interval(0.0 - held[best])
    first = asked.checkpoints[int(np.flatnonzero(within)[0])]
    numbers = [
        ("best_epoch", asked.checkpoints[best].epoch, "epochs", None),
        ("best_step", asked.checkpoints[best].step, "steps", None),
        ("first_in_set", first.epoch, "epochs", None),
        ("set_size", int(within.sum()), "epochs", None),
        ("p_best", shares[best], "1", None),
        ("depth", 0.0 - held[best].mean(), "1", (low, high)),
        ("turned_p", intervals.above_share(held[saved[-1]] - held[best]), "1", None),
    ]
    if count > 1:
        numbers.append(("depth_halves", -intervals.split_best(held[saved].T), "1", None))
    line = np.concatenate([[0], saved])
    at = np.array([asked.checkpoints[c].epoch for c in line])
    numbers.append(("slope_p", intervals.falling_share(held[line].T, at), "1", None))
    return [
        Measurement(name=name, value=float(value), unit=unit, n=count, interval=between)
        for name, value, unit, between in numbers
    ]


def _images(asked: _Asked) -> list[Row]:
    values = asked.values
    return [
        {
            "epoch": checkpoint.epoch,
            "image": image.file,
            "split": image.split,
            "value": _cell(values[c, i]),
        }
        for c, checkpoint in enumerate(asked.checkpoints)
        for i, image in enumerate(asked.images)
    ]


def _bands(asked: _Asked) -> list[Row]:
    """Sum up every checkpoint over the images, in three bands of timesteps."""
    rows: list[Row] = []
    for c, checkpoint in enumerate(asked.checkpoints):
        for band, (start, stop) in BANDS.items():
            inside = (asked.share >= start) & (asked.share < stop)
            if not inside.any():
                continue
            values = asked.ratios[c][:, inside].mean(axis=(1, 2))[None]
            held, train = _means(values[:, asked.held])[0], _means(values[:, ~asked.held])[0]
            rows.append(
                {
                    "epoch": checkpoint.epoch,
                    "band": band,
                    "held_out": _cell(held),
                    "train": _cell(train),
                    "gap": _cell(held - train),
                    "timesteps": int(inside.sum()),
                }
            )
    return rows


def _drift(asked: _Asked) -> tuple[list[Row], list[Measurement]]:
    """Sum up how far the prediction moved where the trigger was not asked for."""
    rows: list[dict[str, Any]] = []
    numbers: list[Measurement] = []
    for c, checkpoint in enumerate(asked.checkpoints):
        row: dict[str, Any] = {"epoch": checkpoint.epoch}
        for which, name in enumerate(("drift", "empty")):
            values = asked.drifts[c, np.isfinite(asked.drifts[0, :, which]), which]
            row |= {name: None, f"{name}_low": None, f"{name}_high": None}
            if len(values) and np.isfinite(values).all():
                low, high = intervals.interval(values)
                row |= {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    for which, name in enumerate(("drift", "empty")):
        if rows[-1][name] is not None:
            between = (rows[-1][f"{name}_low"], rows[-1][f"{name}_high"])
            count = int(np.isfinite(asked.drifts[0, :, which]).sum())
            numbers.append(
                Measurement(
                    name=f"{name}_last", value=rows[-1][name], unit="1", n=count, interval=between
                )
            )
    return list(rows), numbers


def _log(path: Path, checkpoints: Sequence[Checkpoint]) -> Measured:
    """Describe the logged training loss: smoothed, by epoch, and its dips."""
    rows = read_log(path)
    if not rows:
        return Measured(numbers=(), caveats=("The training log is empty.",))
    steps, epochs, losses = (
        np.array([getattr(row, name) for row in rows]) for name in ("step", "epoch", "loss")
    )
    smooth = curves.smooth(losses, weight=LOG_WEIGHT)
    ends, mean, low, high = curves.thin(np.arange(len(rows)), losses, points=LOG_POINTS)
    names, means, errors, counts = curves.epoch_means(epochs, losses)
    line = curves.savitzky_golay(means)
    places, prominences = curves.dips(line)
    last_step = {int(epoch): int(step) for epoch, step in zip(epochs, steps, strict=True)}
    files = {checkpoint.epoch: checkpoint.path.name for checkpoint in checkpoints}
    broken = int((~np.isfinite(losses)).sum())
    numbers = [
        Measurement(name="log_steps", value=len(rows), unit="steps", n=len(rows)),
        Measurement(name="log_nan", value=broken, unit="steps", n=len(rows)),
        Measurement(name="dips", value=len(places), unit="dips", n=len(names)),
    ]
    if np.isfinite(errors).any():
        share = float(np.nanmedian(errors / means))
        numbers.append(Measurement(name="log_noise", value=share, unit="1", n=len(names)))
    return Measured(
        numbers=tuple(numbers),
        tables={
            "log": [
                {
                    "step": int(steps[end]),
                    "epoch": int(epochs[end]),
                    "loss": _cell(mean[i]),
                    "smooth": _cell(smooth[end]),
                    "low": _cell(low[i]),
                    "high": _cell(high[i]),
                }
                for i, end in enumerate(ends)
            ],
            "log_epochs": [
                {
                    "epoch": int(epoch),
                    "step": last_step[int(epoch)],
                    "loss": _cell(means[i]),
                    "smooth": _cell(line[i]),
                    "noise": _cell(errors[i]),
                    "steps": int(counts[i]),
                }
                for i, epoch in enumerate(names)
            ],
            "dips": [
                {
                    "step": last_step[int(names[place])],
                    "epoch": int(names[place]),
                    "loss": _cell(means[place]),
                    "prominence": float(prominence),
                    "noise": _cell(errors[place]),
                    "file": files.get(int(names[place]), ""),
                }
                for place, prominence in zip(places, prominences, strict=True)
            ],
        },
        caveats=(
            "Dips of a training log choose an epoch no better than chance does: the loss of a "
            "step depends far more on its random timestep than on the LoRA.",
        ),
    )


def _caveats(asked: _Asked, dataset: Dataset) -> list[str]:
    caveats = []
    count = int(asked.held.sum())
    if not count:
        caveats.append(
            "No image was held out: the values are of training images only, which get better "
            "even while they are learnt by heart."
        )
    elif count < intervals.FEWEST:
        caveats.append(
            f"Only {count} held-out image(s): a single picture may decide, and the intervals "
            "are too narrow."
        )
    broken = [
        f"Epoch {checkpoint.epoch} does not give finite numbers; it was left out."
        for checkpoint, row in zip(asked.checkpoints, asked.values, strict=True)
        if not finite(row)
    ]
    caveats += broken
    if not dataset.trigger.strip():
        caveats.append("The dataset names no trigger: drift without it was not measured.")
    return caveats


def _means(values: Array) -> Array:
    """Mean over the images; NaN where there are none."""
    return values.mean(axis=1) if values.shape[1] else np.full(len(values), math.nan)


def _cell(value: Any) -> float | None:
    """Turn a number into a table's cell; what is not finite was not measured."""
    return float(value) if math.isfinite(value) else None


LOSS = Tool(
    name="loss",
    asks="Which checkpoint predicts unseen images best?",
    reads=("lora", "dataset", "base"),
    may_read=("log",),
    measure=loss,
)
