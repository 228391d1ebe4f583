"""Stress without sampling: what the model takes noised images for, at every strength.

One forward tells how a LoRA would have the picture look (x0, the model's guess at the clean image
behind the noise), and the update of the weights is linear in the strength: a few latents, a few
timesteps and all strengths cost what eight sampled pictures do. The guesses are seen through a
straight map from latents to colours (`models.previews`), so that no VAE has to decode them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.dataset_file import Dataset, DatasetImage
from lorascope.io.lora_file import LoraFile
from lorascope.metrics import artefacts, texture
from lorascope.metrics.artefacts import Measure, Usual
from lorascope.models.previews import Preview
from lorascope.progress import track
from lorascope.records import seed_from
from lorascope.tools.vae import at_training_size

if TYPE_CHECKING:
    from torch import Tensor

    from lorascope.models.base import Base

Floats = NDArray[np.float64]
Picture = NDArray[np.uint8]

LATENTS = 6
TIMESTEPS = (0.2, 0.4, 0.6, 0.8)  # shares of the noise schedule: detail to composition
FITTED_ON = 24  # images at most that the preview is fitted to
WINDOW = 4  # cells a side, of contrast in a preview: a preview is an eighth as wide as its picture
FEWEST = 2  # images, below which nothing can be said of a spread


def _quiet(picture: Picture) -> float:
    return texture.quiet_contrast(picture, window=WINDOW)


def _local(picture: Picture) -> float:
    return texture.local_contrast(picture, window=WINDOW)


# What a picture of a few dozen pixels a side can show: colours, and contrast at its own scale.
PREVIEW_MEASURES: Mapping[str, Measure] = {
    **{
        name: artefacts.MEASURES[name]
        for name in ("colourfulness", "saturation", "saturation_95", "clipped", "clipped_colour")
    },
    "local_contrast": Measure(of=_local, unit="grey levels", least=0.25, ratio=True),
    "quiet_contrast": Measure(of=_quiet, unit="grey levels", least=0.25, ratio=True),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Noised:
    """Latents of the dataset under fixed noise: what every strength is asked about.

    Attributes
    ----------
    names, captions : tuples of str
        Of the N images.
    noisy, noise : (N, T, C, h, w) float32 tensors
    timesteps : (T,) int array
    alpha, sigma : (T,) arrays
        Shares of image and noise in the mixture.
    preview : Preview
    training : Usual
        Previews of the training images, without noise.
    """

    names: tuple[str, ...]
    captions: tuple[str, ...]
    noisy: "Tensor"
    noise: "Tensor"
    timesteps: NDArray[np.int64]
    alpha: Floats
    sigma: Floats
    preview: Preview
    training: Usual


@dataclass(frozen=True, kw_only=True, eq=False)
class Guesses:
    """What one checkpoint answered at every strength.

    Attributes
    ----------
    strengths : (S,) array
        Rising, 0 first.
    values : (S, N, T, K) array
        `PREVIEW_MEASURES` of the previews.
    z : (S, N, T) array
        Artefact z, against strength 0 of the same noise and against the training images.
    worst : (S, N, T) int array
        Which measure that is.
    change, bend : (S, N, T) arrays
        ``|eps_m - eps_0| / |eps_0|``; how far that leaves the straight line through strength 1.
    removed : (S, N, T) array
        Share of strength 0's squared error that is gone: above 0 is better than the base model.
    shown : (S, N, T) object array
        The previews.
    """

    strengths: Floats
    values: Floats
    z: Floats
    worst: NDArray[np.int64]
    change: Floats
    bend: Floats
    removed: Floats
    shown: NDArray[Any]


def noised(base: "Base", dataset: Dataset, *, latents: int, seed: int) -> tuple[Noised, list[str]]:
    """Make the questions ready: held-out images first, then training images.

    Returns
    -------
    questions : Noised
    unread : list of str
        A sentence for each image that was left out.

    Raises
    ------
    BadInputError
        Fewer than two images can be read.
    """
    import torch

    read, unread = _read(dataset, latents)
    if len(read) < FEWEST:
        raise BadInputError(
            f"The dataset has {len(read)} image(s) that can be read, and {FEWEST} are needed.\n"
            "Fix: lorascope add dataset RUN FOLDER"
        )
    codes = [base.encode_images(pixels[None])[0].float().cpu() for _, pixels in read]
    flat = [np.asarray(code.numpy(), dtype=np.float64) for code in codes]
    preview = Preview.fitted(flat, [pixels for _, pixels in read])
    trained = [p for p, (image, _) in zip(flat, read, strict=True) if image.split == "train"]
    clean = [preview.picture(code) for code in trained or flat]
    training = Usual.among(_measured(clean), PREVIEW_MEASURES)
    chosen = [i for i, c in enumerate(codes) if c.shape == codes[0].shape][:latents]
    stacked = torch.stack([codes[i] for i in chosen])
    steps = int(base.noise.config.num_train_timesteps)
    at = np.array([round(share * (steps - 1)) for share in TIMESTEPS])
    level = base.noise.alphas_cumprod.double().cpu().numpy()[at]
    alpha, sigma = np.sqrt(level), np.sqrt(1 - level)
    noise = torch.stack([_noise(seed, read[i][0], len(at), codes[i].shape) for i in chosen])
    mix = [torch.tensor(v, dtype=torch.float32).view(1, -1, 1, 1, 1) for v in (alpha, sigma)]
    return Noised(
        names=tuple(read[i][0].file for i in chosen),
        captions=tuple(read[i][0].caption for i in chosen),
        noisy=mix[0] * stacked[:, None] + mix[1] * noise,
        noise=noise,
        timesteps=at,
        alpha=alpha,
        sigma=sigma,
        preview=preview,
        training=training,
    ), unread


def guesses(
    base: "Base", lora: LoraFile, asked: Noised, strengths: Sequence[float], *, batch: int
) -> Guesses:
    """Ask one LoRA at every strength; the base model is as before afterwards.

    Raises
    ------
    BadInputError
        The LoRA does not fit the base model.
    """
    from lorascope.models.lora import Merger

    merger = Merger(base)
    text = any(not name.startswith("lora_unet_") for name in (*lora.modules, *lora.bound))
    answers = []
    conditions = None
    try:
        for strength in track(strengths, label=f"stress, {lora.path.stem}"):
            merger.apply(lora, strength=strength)
            if conditions is None or text:
                conditions = base.encode_prompts(list(asked.captions))
            answers.append(_predicted(base, asked, conditions, batch))
    finally:
        merger.restore()
    return _compared(asked, np.asarray(strengths, dtype=float), np.stack(answers))


def _read(dataset: Dataset, latents: int) -> tuple[list[tuple[DatasetImage, Picture]], list[str]]:
    """Read the images that are asked about, and enough to fit the preview to."""
    order = {"held-out": 0, "train": 1, "composition": 2}
    ranked = sorted(dataset.images, key=lambda i: (order[i.split], i.sha256, i.file))
    found: list[tuple[DatasetImage, Picture]] = []
    unread: list[str] = []
    for image in ranked:
        if len(found) >= max(latents, FITTED_ON):
            break
        try:
            found.append((image, at_training_size(dataset, image)))
        except (BadInputError, MissingInputError) as error:
            unread.append(f"{str(error).splitlines()[0]} It was left out.")
    return found, unread


def _noise(seed: int, image: DatasetImage, count: int, shape: Sequence[int]) -> "Tensor":
    """Draw an image's noise for every timestep: the same whatever else is asked."""
    import torch

    draws = np.random.default_rng(seed_from("stress", seed, image.sha256))
    return torch.from_numpy(draws.standard_normal((count, *shape)).astype(np.float32))


def _predicted(base: "Base", asked: Noised, conditions: Any, batch: int) -> NDArray[np.float32]:
    """Predict the noise of every latent at every timestep: (N, T, C, h, w)."""
    import torch

    items, times = asked.noisy.shape[:2]
    noisy = asked.noisy.flatten(0, 1)
    at = torch.from_numpy(np.tile(asked.timesteps, items))
    which = np.repeat(np.arange(items), times)
    found = []
    with torch.no_grad():
        for start in range(0, len(noisy), batch):
            some = slice(start, start + batch)
            part = noisy[some].to(base.device)
            cond = conditions.take(which[some].tolist())
            found.append(base.predict(part, at[some].to(base.device), cond).cpu())
    answers = torch.cat(found).view(asked.noisy.shape)
    if base.prediction_type == "v_prediction":  # eps = alpha v + sigma x_t
        alpha, sigma = (
            torch.tensor(v, dtype=torch.float32).view(1, -1, 1, 1, 1)
            for v in (asked.alpha, asked.sigma)
        )
        answers = alpha * answers + sigma * asked.noisy
    return np.asarray(answers.numpy())


def _compared(asked: Noised, strengths: Floats, predicted: NDArray[np.float32]) -> Guesses:
    """Measure every guess beside that of strength 0, which is the first."""
    sides = tuple(range(-3, 0))
    moved = predicted - predicted[:1]
    size = np.linalg.norm(predicted[:1].reshape(*predicted[:1].shape[:3], -1), axis=-1)
    change = np.linalg.norm(moved.reshape(*moved.shape[:3], -1), axis=-1) / np.maximum(size, 1e-12)
    error = ((predicted - asked.noise.numpy()) ** 2).mean(axis=sides)
    alpha, sigma = (v.reshape(1, 1, -1, 1, 1, 1) for v in (asked.alpha, asked.sigma))
    clean = (asked.noisy.numpy()[None] - sigma * predicted) / alpha
    shown: NDArray[Any] = np.empty(clean.shape[:3], dtype=object)
    for place in np.ndindex(*clean.shape[:3]):
        shown[place] = asked.preview.picture(clean[place])
    values = _measured(list(shown.ravel())).reshape(*shown.shape, -1)
    joint = _joint(values, asked.training)
    return Guesses(
        strengths=strengths,
        values=values,
        z=np.maximum(joint.max(axis=-1), 0.0),
        worst=joint.argmax(axis=-1),
        change=change,
        bend=_bend(moved, strengths),
        removed=1 - error / np.maximum(error[:1], 1e-30),
        shown=shown,
    )


def _joint(values: Floats, training: Usual) -> Floats:
    """Joint z of every guess; the spread of each timestep is its own, for all are as blurred."""
    found = np.zeros_like(values)
    for t in range(values.shape[2]):
        own = values[0, :, t]
        usual = Usual.among(own, PREVIEW_MEASURES)
        for s in range(len(values)):
            here = values[s, :, t]
            found[s, :, t] = artefacts.joint_z(
                artefacts.z_scores(here, own, usual, PREVIEW_MEASURES),
                artefacts.z_scores(here, None, training, PREVIEW_MEASURES),
            )
    return found


def _bend(moved: NDArray[np.float32], strengths: Floats) -> Floats:
    """Tell how far the change of the prediction leaves the line through 0 and strength 1.

    Where strength 1 was not asked, the nearest to it takes its place.
    """
    one = int(np.abs(strengths - 1).argmin())
    flat = moved.reshape(*moved.shape[:3], -1)
    line = flat[one] / max(strengths[one], 1e-12)
    found = np.zeros(flat.shape[:3])
    for s, strength in enumerate(strengths):
        expected = np.linalg.norm(line, axis=-1) * strength
        apart = np.linalg.norm(flat[s] - strength * line, axis=-1)
        found[s] = np.where(expected > 0, apart / np.maximum(expected, 1e-12), 0.0)
    return found


def _measured(pictures: Sequence[Picture]) -> Floats:
    return np.stack([artefacts.measured(picture, PREVIEW_MEASURES) for picture in pictures])
