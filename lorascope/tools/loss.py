"""Loss: how well every saved checkpoint predicts images it never saw, without luck."""

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.captions import split_tags
from lorascope.io.checkpoints import Checkpoint, usable_checkpoints
from lorascope.io.dataset_file import Dataset, DatasetImage, read_dataset
from lorascope.io.images import resize_crop
from lorascope.io.lora_file import read_lora
from lorascope.metrics import similarity
from lorascope.metrics.tags import without
from lorascope.progress import announce, duration, track
from lorascope.records import Inputs, Measured, Row, Tool, seed_from
from lorascope.tools.logged import describe_logs
from lorascope.tools.losses import (
    AUGMENTED,
    KEPT,
    SHUFFLED,
    Answers,
    sum_up,
)
from lorascope.tools.prompts import without_trigger
from lorascope.tools.questions import (
    SAME_ANSWER,
    Asker,
    Item,
    Questions,
    Shelf,
    stratified,
    together,
)
from lorascope.tools.vae import at_training_size

if TYPE_CHECKING:
    from torch import Tensor

    from lorascope.models.base import Base

Array = NDArray[Any]

VERSION = 2
ASKED_TWICE = 8  # training images that are asked about in other ways where nothing is held out
CROP = 0.9  # of each side of an image that is shifted and scaled
KEPT_STEPS, KEPT_GUIDANCE = 12, 5.0  # how the base model draws what it must keep
SNR_LIMIT = 5.0  # gamma of min-SNR weighting; Hang et al., ICCV 2023


def loss(
    inputs: Inputs,
    *,
    strata: int = 10,
    draws: int = 2,
    images: int = 0,
    train_images: int = 16,
    kept: int = 8,
    seed: int = 0,
    dtype: str = "fp32",
    batch: int = 0,
) -> Measured:
    """Measure the loss of every saved checkpoint on held-out images, on fixed noise and timesteps.

    Parameters
    ----------
    inputs : Inputs
        Reads ``lora``. With ``dataset`` and ``base`` it measures; with ``log`` or ``events`` it
        describes what the training logged. ``losses``, a folder, keeps the answers of single
        checkpoints, so that only new ones are asked.
    strata : int
        Timesteps, one from each of so many equal parts of the noise schedule.
    draws : int
        Noises for each image and timestep.
    images : int
        Held-out images to measure; 0 for all that are held out.
    train_images : int
        Training images to measure; 0 for all.
    kept : int
        Pictures that the base model draws of prompts without the trigger, to see what it keeps.
    seed : int
        Of noise and timesteps.
    dtype : str
        What is computed in: fp32, fp16, bf16 or auto. A coarser one is faster and blurs small
        differences between epochs.
    batch : int
        Latents predicted at once; 0 chooses by their size. Has no influence beyond rounding.

    Returns
    -------
    Measured
        Values are mean log-ratios to the loss of the base model: 0 is the base model (epoch 0),
        below 0 is better. Tables: ``epochs``; ``turns``, a row for each of the three sets that
        are kept apart (held-out images, held-out compositions, prompts without the trigger);
        ``images``, ``trajectories``, ``bands``, ``leaks``; ``memory`` where nothing is held out;
        what the log gives. Arrays: ``losses`` (checkpoint, item, stratum, draw), base model
        first, items as in the first rows of ``images``; ``timesteps`` (stratum,).

    Raises
    ------
    MissingInputError
        There is no checkpoint; or neither a log nor a dataset and a base model.
    BadInputError
        An option makes no sense, or the LoRA does not fit the base model.

    Notes
    -----
    The mean over an image's timesteps and noises of ``log(loss / loss of the base model)``: every
    timestep weighs alike, and noise is shared by all checkpoints, so that it cancels. Latents are
    the VAE's posterior mean, captions are used as they are. bf16 rounds the merged weights, which
    shifts an epoch by some 2e-4 on all images alike, so that no resampling of images shows it.
    """
    if min(strata, draws) < 1 or min(images, train_images, kept, batch) < 0:
        raise BadInputError("strata and draws must be 1 or more, the other numbers 0 or more.")
    checkpoints, left_out = usable_checkpoints(inputs["lora"])
    logged = describe_logs(inputs, checkpoints)
    if lacking := [role for role in ("dataset", "base") if role not in inputs]:
        return _log_only(inputs, logged, left_out, lacking)
    dataset = read_dataset(inputs["dataset"])
    chosen, leaks = _choose(dataset, images, train_images)
    from lorascope.models.base import load_base

    base = load_base(str(inputs["base"]), dtype=dtype)
    shelf = Shelf(
        inputs.get("losses"),
        *(VERSION, base.name, dtype, strata, draws, seed, kept, train_images),
        *sorted((i.sha256, i.split, i.caption) for i in chosen),
    )
    asked = _ask(
        base,
        _questions(base, dataset, chosen, shelf, strata=strata, draws=draws, kept=kept, seed=seed),
        checkpoints,
        shelf,
        batch=batch,
    )
    found = sum_up(asked)
    return Measured(
        numbers=(*found.numbers, *logged.numbers),
        tables={**found.tables, "leaks": leaks, **logged.tables},
        arrays=found.arrays,
        caveats=(*left_out, *found.caveats, *logged.caveats),
    )


def _log_only(
    inputs: Inputs, logged: Measured, left_out: Sequence[str], lacking: Sequence[str]
) -> Measured:
    """Give what the log alone tells."""
    if not logged.tables:
        run = inputs["lora"].parent
        fix = "\n".join(f"Fix: lorascope add {role} {run} PATH" for role in (*lacking, "logs"))
        raise MissingInputError(
            f"{run} has no {' and no '.join(lacking)} to measure the loss on, and no log.\n{fix}"
        )
    why = (
        f"The held-out loss was not measured: the run has no {' and no '.join(lacking)}. A log "
        "alone never tells which epoch is best."
    )
    return Measured(
        numbers=logged.numbers, tables=logged.tables, caveats=(*left_out, why, *logged.caveats)
    )


def _choose(
    dataset: Dataset, images: int, train_images: int
) -> tuple[tuple[DatasetImage, ...], list[Row]]:
    """Take images of each set, by content and never by their order; no held-out one that leaks."""
    held, composition, train = (
        sorted(dataset.of(split), key=lambda i: (i.sha256, i.file))
        for split in ("held-out", "composition", "train")
    )
    leaks = _leaks(dataset, (*held, *composition), train)
    leaked = {row["image"] for row in leaks}
    sound = [i for i in held if i.file not in leaked][: images or None]
    others = [i for i in composition if i.file not in leaked]
    chosen = (*sound, *others, *train[: train_images or None])
    if not chosen:
        raise BadInputError(
            "The dataset lists no image that can be measured.\n"
            "Fix: lorascope add dataset RUN FOLDER"
        )
    return chosen, leaks


def _leaks(
    dataset: Dataset, held: Sequence[DatasetImage], train: Sequence[DatasetImage]
) -> list[Row]:
    """Find held-out images that are (almost) among the training images."""
    if not held or not train:
        return []
    bytes_of = {i.sha256: i.file for i in train}
    rows: list[Row] = []
    gists = {
        i.file: similarity.gist(at_training_size(dataset, i))
        for i in track((*held, *train), label="looking for near-duplicates")
    }
    seen = np.stack([gists[i.file] for i in train])
    usual = similarity.usual_distance(seen)
    for image in held:
        apart = similarity.distances(gists[image.file][None], seen)[0]
        nearest = int(apart.argmin())
        same = image.sha256 in bytes_of
        if same or apart[nearest] <= similarity.SAME * usual:
            other = bytes_of[image.sha256] if same else train[nearest].file
            share = 0.0 if same else float(apart[nearest] / usual)
            rows.append({"image": image.file, "other": other, "distance": share, "same": same})
    return rows


def _questions(
    base: "Base",
    dataset: Dataset,
    chosen: Sequence[DatasetImage],
    shelf: Shelf,
    *,
    strata: int,
    draws: int,
    kept: int,
    seed: int,
) -> Questions:
    """Make every item ready: latents are encoded, or drawn by the base model, once."""
    pixels = {i.file: at_training_size(dataset, i) for i in chosen}
    items = [
        _item(base, image.split, image, image.caption, pixels[image.file])
        for image in track(chosen, label="encoding images")
    ]
    if not any(i.split == "held-out" for i in chosen):
        train = [i for i in chosen if i.split == "train"][:ASKED_TWICE]
        items += _other_ways(base, dataset, train, pixels)
    prompts = without_trigger(dataset, kept, in_world=base.name == "miniature")
    if prompts:
        stored = shelf.base_answers().get("kept")
        latents = _kept_latents(base, dataset, prompts, seed, stored)
        items += [
            Item(kind=KEPT, name=prompt, key=f"kept {prompt}", prompt=prompt, latent=latent)
            for prompt, latent in zip(prompts, latents, strict=True)
        ]
    timesteps = stratified(int(base.noise.config.num_train_timesteps), strata, seed)
    return Questions(items=tuple(items), timesteps=timesteps, draws=draws, seed=seed)


def _item(base: "Base", kind: str, image: DatasetImage, prompt: str, pixels: Array) -> Item:
    latent = base.encode_images(pixels[None])[0].float().cpu()
    return Item(kind=kind, name=image.file, key=image.sha256, prompt=prompt, latent=latent)


def _other_ways(
    base: "Base",
    dataset: Dataset,
    train: Sequence[DatasetImage],
    pixels: Mapping[str, Array],
) -> Iterator[Item]:
    """Ask about training images with their tags in another order, and shifted a little."""
    for image in train:
        draw = random.Random(seed_from("other ways", image.sha256))
        if caption := _shuffled(image.caption, dataset.trigger, draw):
            yield _item(base, SHUFFLED, image, caption, pixels[image.file])
        moved = _moved(pixels[image.file], draw)
        yield _item(base, AUGMENTED, image, image.caption, moved)


def _shuffled(caption: str, trigger: str, draw: random.Random) -> str:
    """Put a caption's tags in another order, the trigger first; "" where there is no other."""
    tags = split_tags(caption)
    rest = without(tags, trigger)
    if len(set(rest)) < 3:
        return ""
    mixed = rest
    while mixed == rest:
        mixed = draw.sample(rest, len(rest))
    return ", ".join([*(tag for tag in tags if tag not in rest), *mixed])


def _moved(pixels: Array, draw: random.Random) -> Array:
    """Cut a part out of a picture and scale it up to the whole size."""
    height, width = pixels.shape[:2]
    rows, columns = round(height * CROP), round(width * CROP)
    top, left = draw.randint(0, height - rows), draw.randint(0, width - columns)
    part = np.ascontiguousarray(pixels[top : top + rows, left : left + columns])
    return np.array(resize_crop(part, width, height))


def _kept_latents(
    base: "Base", dataset: Dataset, prompts: Sequence[str], seed: int, stored: Array | None
) -> "Tensor":
    """Let the base model draw pictures of prompts without the trigger; they are never decoded."""
    import torch

    from lorascope.models.sampling import sample_latents

    if stored is not None and len(stored) == len(prompts):
        return torch.from_numpy(stored)
    side = base.pixels_per_latent
    width, height = (max(side, edge // side * side) for edge in dataset.resolution)
    return sample_latents(
        base,
        prompts,
        [seed_from(seed, "kept", prompt) for prompt in prompts],
        steps=KEPT_STEPS,
        guidance=KEPT_GUIDANCE,
        width=width,
        height=height,
        batch=4 if base.family == "sdxl" else 16,
    )


def _ask(
    base: "Base",
    questions: Questions,
    checkpoints: Sequence[Checkpoint],
    shelf: Shelf,
    *,
    batch: int,
) -> Answers:
    """Let the base model and every checkpoint predict the same noise."""
    from lorascope.models.lora import Merger

    asker = Asker(base, questions, batch)
    digests = {c: _digest(c.path) for c in checkpoints}
    merger = Merger(base)
    merger.restore()
    own, seconds = _of_base(asker, shelf)
    found = {c: shelf.checkpoint(digests[c], own) for c in checkpoints}
    new = [c for c in checkpoints if found[c] is None]
    _say_cost(asker, len(checkpoints), len(new), seconds)
    work = [(c, b) for c in new for b in range(len(asker.batches))]
    answers: list[Array] = []
    try:
        for checkpoint, b in track(work, label="loss"):
            if b == 0:
                lora = read_lora(checkpoint.path)
                merger.apply(lora)
                adapted = (*lora.modules, *lora.bound)
                text = any(not name.startswith("lora_unet_") for name in adapted)
                answers = []
            answers.append(asker.losses(asker.batches[b], own_text=text))
            if b == len(asker.batches) - 1:
                losses = together(asker.batches, answers, questions.shape)
                shelf.keep(digests[checkpoint], own, losses)
                found[checkpoint] = losses
    finally:
        merger.restore()
    steps = int(base.noise.config.num_train_timesteps)
    ratio = base.noise.alphas_cumprod.double().cpu().numpy()[questions.timesteps]
    snr = ratio / (1 - ratio)
    v = base.prediction_type == "v_prediction"
    return Answers(
        checkpoints=(Checkpoint(Path(), 0, 0), *checkpoints),
        kinds=np.array([item.kind for item in questions.items], dtype=object),
        names=tuple(item.name for item in questions.items),
        losses=np.stack([own, *(losses for losses in found.values() if losses is not None)]),
        timesteps=questions.timesteps,
        share=questions.timesteps / steps,
        weights=np.minimum(snr, SNR_LIMIT) / (snr + 1 if v else snr),
        forwards=(1 + len(checkpoints)) * asker.forwards(),
    )


def _of_base(asker: Asker, shelf: Shelf) -> tuple[Array, float]:
    """Ask the plain base model, or find its answers; and say how long one model takes, in s."""
    first, seconds = asker.first()
    stored = shelf.base_answers().get("losses")
    if stored is not None and stored.shape == asker.questions.shape:
        again = stored.reshape(-1)[asker.batches[0].places]
        if np.allclose(np.log(again), np.log(first), atol=SAME_ANSWER, rtol=0):
            return stored, seconds
    rest = [
        asker.losses(batch, own_text=False)
        for batch in track(asker.batches[1:], label="loss of the base model")
    ]
    own = together(asker.batches, [first, *rest], asker.questions.shape)
    kept = [item.latent.numpy() for item in asker.questions.items if item.kind == KEPT]
    shelf.keep_base({"losses": own} | ({"kept": np.stack(kept)} if kept else {}))
    return own, seconds


def _say_cost(asker: Asker, checkpoints: int, new: int, seconds: float) -> None:
    """Say what is about to be done, before it is done."""
    items, strata, draws = asker.questions.shape
    known = "" if new == checkpoints else f" ({checkpoints - new} known already)"
    announce(
        f"loss: {checkpoints} checkpoints{known} x {items} pictures x {strata} timesteps x "
        f"{draws} noises: {new * asker.forwards():,} forwards, about {duration(new * seconds)}"
    )


def _digest(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


LOSS = Tool(
    name="loss",
    asks="Which checkpoint predicts unseen images best?",
    reads=("lora",),
    may_read=("dataset", "base", "log", "events"),
    writes=("losses",),
    measure=loss,
    version=VERSION,
)
