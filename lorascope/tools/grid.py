"""Grid: what does each epoch draw, beside the base model, from the same prompts and noise?"""

import functools
import hashlib
import json
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.captions import split_tags
from lorascope.io.contact_sheet import contact_sheet, shown_size, thumbnail
from lorascope.io.dataset_file import Dataset, DatasetImage, read_dataset
from lorascope.io.images import read_image, resize_crop, write_png
from lorascope.io.lora_file import list_checkpoints, read_lora
from lorascope.metrics import colour, similarity
from lorascope.metrics import tags as tagging
from lorascope.metrics.intervals import interval
from lorascope.metrics.spread import relative_spread, spread
from lorascope.miniature import world
from lorascope.progress import track
from lorascope.records import Inputs, Measured, Measurement, Row, Scalar, Tool
from lorascope.run import digest

if TYPE_CHECKING:
    from lorascope.models.base import Base

Picture = NDArray[np.uint8]
Settings = Mapping[str, str | int | float]  # sampler, steps, guidance, width, height
Features = NDArray[np.float64]

CELL_VERSION = 1  # raised whenever the same settings would draw another picture
WITH_TRIGGER = ("trigger", "caption", "edit", "unseen")
WITHOUT_TRIGGER = ("class", "unrelated")
FEATURE_PX = 512  # the longer side that pictures are encoded at, to be compared
MOST_REFERENCES = 64  # training images that likeness is measured against
CELLS_A_SIDE = max(similarity.LEVELS)  # latent cells that layout needs at least
ENCODED_AT_ONCE = 8

# Where the dataset never is: what a caption would say of it, and the prompt.
PLACES = {
    "beach": "on a beach",
    "snow": "in the snow",
    "forest": "in a forest",
    "night": "in a city street at night",
}
COLOURS = ("red", "blue", "green", "yellow", "purple", "white", "black", "pink", "brown", "orange")
UNRELATED = ("a wooden house beside a lake, mountains", "a bowl of fruit on a table")
WORLD_VALUES: tuple[tuple[str, ...], ...] = (
    world.EXPRESSIONS,
    tuple(f"{colour} {outfit}" for outfit in world.OUTFITS for colour in world.OUTFIT_COLOURS),
    tuple(world.EYE_COLOURS),
    tuple(world.HAIR_COLOURS),
)
PICTURE_MEASURES: Mapping[str, Callable[[Picture], float]] = {
    "colourfulness": colour.colourfulness,
    "saturation": colour.saturation,
    "clipped": colour.clipped_share,
    "noise": colour.noise_sigma,
}
STRANGERS = (7, 8)  # seeds of avatars that have nothing to do with the LoRA


@dataclass(frozen=True, slots=True)
class Prompt:
    """One column of the grid."""

    text: str
    group: str  # trigger, caption, edit, unseen, class, unrelated
    split: str = ""  # train or held-out, where it is the caption of an image


@dataclass(frozen=True, slots=True)
class Layer:
    """One row of the grid: a checkpoint at a strength; the base model is epoch 0."""

    epoch: int
    step: int
    strength: float
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """One picture of the grid, named by everything that decides what it shows."""

    layer: Layer
    column: int
    prompt: Prompt
    seed: int
    path: Path


def grid(
    inputs: Inputs,
    *,
    epochs: str = "",
    prompts: str = "",
    strengths: str = "1",
    seeds: str = "1",
    steps: int = 20,
    guidance: float = 5.0,
    sampler: str = "dpm++2m",
    batch: int = 16,
) -> Measured:
    """Draw the same prompts from the same noise with the base model and every epoch.

    Pictures that are there already are not drawn again: a cell is named by the bytes of LoRA and
    base model and by all settings, whatever run or epoch it belongs to.

    Parameters
    ----------
    inputs : Inputs
        Reads ``lora``, ``dataset`` and ``base``; fills ``samples``.
    epochs : str
        Which epochs, as in "2,4,6-10"; all of them where empty. The base model is always shown.
    prompts : str
        A text file with one prompt a line, or prompts with a bar between them; where empty, made
        from the dataset's own tags.
    strengths : str
        How strongly the LoRA acts, as in "0.6,1,1.4".
    seeds : str
        Seeds of the noise, as in "1,2"; each makes a column of its own.
    steps : int
        Sampling steps.
    guidance : float
        Guidance scale; 1 turns guidance off.
    sampler : str
        dpm++2m, ddim, euler or euler_a.
    batch : int
        Pictures drawn at once.

    Returns
    -------
    Measured
        Tables ``cells`` (a row per picture; files relative to the run), ``epochs`` (a row per
        checkpoint and strength; epoch 0 is the base model) and ``prompts``. Picture
        ``samples/grid.png`` shows the grid that was drawn last.

    Raises
    ------
    BadInputError
        A setting cannot be used, the dataset has no training image, or an image cannot be read.
    MissingInputError
        There is no checkpoint.

    Notes
    -----
    No network but the base model's own VAE is needed. Pictures are compared by `similarity.layout`
    of their latents: colours, shading and where they lie; a face is not recognised.

    - likeness: mean cosine to the three nearest training images, from the base model's pictures
      of the same prompts (0) to the training images, each against the others (1).
    - class_likeness: likeness of pictures without the trigger, beyond the base model's.
    - diversity: spread of the pictures with the trigger over that of the base model's;
      seed_diversity the same among the seeds of one prompt.
    - moved: distance to the base model's picture of the same prompt and noise, in distances
      between the base model's pictures of two prompts; drift its mean without the trigger,
      unrelated_drift without the class prompt either.
    - change: mean absolute difference to that picture in pixels; unrelated_change its mean
      without the trigger.
    - copy_ratio: distance to the nearest training image over that to the second nearest, on
      pictures blurred to 16 x 16; copy_ratio_held_out is what pictures come to that cannot be
      copies.
    """
    from lorascope.models.base import load_base

    _check(steps=steps, guidance=guidance, batch=batch)
    name, samples = str(inputs["base"]), inputs["samples"]
    dataset = read_dataset(inputs["dataset"])
    if not dataset.train:
        raise BadInputError(
            f"{inputs['dataset']} lists no training image.\nFix: make the run again from images."
        )
    columns = choose_prompts(prompts, dataset, in_world=name == "miniature")
    layers = _layers(inputs["lora"], epochs, _numbers("strengths", strengths))
    sown = tuple(dict.fromkeys(_whole("seeds", text) for text in _listed("seeds", seeds)))
    base = load_base(name)
    width, height = drawing_size(dataset, base)
    settings: Settings = {
        "sampler": sampler,
        "steps": steps,
        "guidance": guidance,
        "width": width,
        "height": height,
    }
    cells = _plan(layers, columns, sown, settings, name=name, folder=samples / "cells")
    draw(base, cells, settings, batch=batch)
    return _measured(base, dataset, cells, samples)


def drawing_size(dataset: Dataset, base: "Base") -> tuple[int, int]:
    """Width and height to draw at: what was trained at, in steps that the model can."""
    unit = base.pixels_per_latent
    width, height = (round(side / unit) * unit or base.size for side in dataset.resolution)
    return width, height


def parse_epochs(text: str, available: Sequence[int]) -> tuple[int, ...]:
    """Read which epochs are meant.

    Parameters
    ----------
    text : str
        As in "2,4,6-10": numbers, and ranges that take every saved epoch between their ends; all
        where empty. 0, the base model, may be named and changes nothing.
    available : sequence of int
        The saved epochs.

    Returns
    -------
    tuple of int
        Rising, without 0.

    Raises
    ------
    BadInputError
        It cannot be read, or names an epoch that was not saved.
    """
    if not text.strip():
        return tuple(sorted(set(available)))
    wanted: set[int] = set()
    missing = []
    for part in _listed("epochs", text):
        ends = [_whole("epochs", end) for end in part.split("-")]
        if len(ends) > 2 or ends[0] > ends[-1]:
            raise _unreadable("epochs", part, "2,4,6-10")
        found = {epoch for epoch in (0, *available) if ends[0] <= epoch <= ends[-1]}
        wanted |= found
        missing += [part] if not found else []
    if missing:
        there = _spans(available)
        raise BadInputError(
            f"No checkpoint was saved for epoch {', '.join(missing)}; there are {there}.\n"
            f"Fix: --epochs {there.replace(' ', '')}"
        )
    return tuple(sorted(wanted - {0}))


def choose_prompts(text: str, dataset: Dataset, *, in_world: bool) -> tuple[Prompt, ...]:
    """Read the prompts that were asked for, or make some that suit the dataset.

    Parameters
    ----------
    text : str
        A text file with one prompt a line (empty lines and lines with # at the beginning do not
        count), or prompts with a bar or a line break between them; may be empty.
    dataset : Dataset
    in_world : bool
        The base model knows the miniature's drawn world only.

    Returns
    -------
    tuple of Prompt
        No text twice.

    Raises
    ------
    BadInputError
        The file cannot be read or holds no prompt.
    """
    if not text.strip():
        made = _prompts_of_world(dataset) if in_world else _prompts_of_photographs(dataset)
        return tuple({prompt.text: prompt for prompt in reversed(made)}.values())[::-1]
    if "\n" not in text and "|" not in text:
        try:
            text = Path(text).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInputError(
                f"Cannot read prompts from {text}: {error}.\n"
                "Fix: --prompts FILE, a text file with one prompt a line."
            ) from error
    lines = (line.strip() for line in text.replace("|", "\n").splitlines())
    found = dict.fromkeys(line for line in lines if line and not line.startswith("#"))
    if not found:
        raise BadInputError("There is no prompt.\nFix: --prompts FILE with one prompt a line.")
    return tuple(Prompt(line, group_of(line, dataset), _split_of(line, dataset)) for line in found)


def group_of(prompt: str, dataset: Dataset) -> str:
    """Tell what a prompt asks of the LoRA, from the tags that the training captions show.

    Returns
    -------
    str
        trigger (nothing else), caption (a caption of the dataset), edit (known tags put together
        in a new way), unseen (with a tag that no caption has), class (without the trigger, with
        a known tag), unrelated (neither).
    """
    tags, shown = split_tags(prompt), _shown(dataset)
    if dataset.trigger and tagging.position(tags, dataset.trigger) is None:
        return "class" if shown.intersection(tags) else "unrelated"
    others = tagging.without(tags, dataset.trigger)
    if not others:
        return "trigger"
    if _split_of(prompt, dataset):
        return "caption"
    return "edit" if shown.issuperset(others) else "unseen"


def draw(base: "Base", cells: Sequence[Cell], settings: Settings, *, batch: int) -> int:
    """Draw the cells that are missing or damaged, one checkpoint after the other.

    Each picture is on disk before the next batch begins: stopping loses one batch at most.

    Returns
    -------
    int
        How many were drawn.
    """
    from lorascope.models.lora import merged
    from lorascope.models.sampling import sample

    width, height = int(settings["width"]), int(settings["height"])
    by_layer: dict[Layer, list[Cell]] = {}
    for path, cell in {cell.path: cell for cell in reversed(cells)}.items():
        if not _usable(path, width, height):
            by_layer.setdefault(cell.layer, []).insert(0, cell)
    forwards = sum(math.ceil(len(c) / batch) for c in by_layer.values()) * int(settings["steps"])
    progress = track(range(forwards), label="grid, sampling steps")

    def advance(_done: int, _total: int) -> None:
        next(progress, None)

    for layer in sorted(by_layer, key=lambda layer: (layer.epoch, layer.strength)):
        lora = read_lora(layer.path) if layer.path else None
        with merged(base, lora, strength=layer.strength):
            for several in _chunks(by_layer[layer], batch):
                pictures = sample(
                    base,
                    [cell.prompt.text for cell in several],
                    [cell.seed for cell in several],
                    steps=int(settings["steps"]),
                    guidance=float(settings["guidance"]),
                    sampler=str(settings["sampler"]),
                    width=width,
                    height=height,
                    batch=batch,
                    on_step=advance,
                )
                for cell, picture in zip(several, pictures, strict=True):
                    write_png(cell.path, picture, text=_label(base, cell, settings))
    next(progress, None)
    return sum(map(len, by_layer.values()))


def _check(*, steps: int, guidance: float, batch: int) -> None:
    wrong = []
    if not 1 <= steps <= 1000:
        wrong.append(f"steps is {steps}, and must be from 1 to 1000")
    if not (math.isfinite(guidance) and guidance >= 0):
        wrong.append(f"guidance is {guidance}, and must be 0 or more")
    if batch < 1:
        wrong.append(f"batch is {batch}, and must be 1 or more")
    if wrong:
        raise BadInputError("; ".join(wrong) + ".\nFix: lorascope grid --help")


def _listed(option: str, text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise _unreadable(option, text, "1,2")
    return parts


def _whole(option: str, text: str) -> int:
    if not text.strip().isdecimal() or int(text) >= 2**63:
        raise _unreadable(option, text, "1,2")
    return int(text)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        values = [float(part) for part in _listed(option, text)]
    except ValueError as error:
        raise _unreadable(option, text, "0.8,1.2") from error
    if not all(map(math.isfinite, values)):
        raise _unreadable(option, text, "0.8,1.2")
    return tuple(dict.fromkeys(values))


def _unreadable(option: str, text: str, example: str) -> BadInputError:
    return BadInputError(f"Cannot read {text!r} in --{option}.\nFix: --{option} {example}")


def _spans(numbers: Sequence[int]) -> str:
    """Write 1, 2, 3, 7 as "1-3, 7"."""
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and number == spans[-1][-1] + 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    return ", ".join(str(s[0]) if len(s) == 1 else f"{s[0]}-{s[-1]}" for s in spans)


def _layers(folder: Path, epochs: str, strengths: Sequence[float]) -> tuple[Layer, ...]:
    saved = {checkpoint.epoch: checkpoint for checkpoint in list_checkpoints(folder)}
    if not saved:
        raise MissingInputError(
            f"{folder} has no checkpoint (.safetensors).\nFix: lorascope train CONFIG.toml"
        )
    chosen = [saved[epoch] for epoch in parse_epochs(epochs, list(saved))]
    return (
        Layer(epoch=0, step=0, strength=0.0),
        *(
            Layer(checkpoint.epoch, checkpoint.step, strength, checkpoint.path)
            for checkpoint in chosen
            for strength in strengths
            if strength != 0  # that is the base model
        ),
    )


def _plan(
    layers: Sequence[Layer],
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    settings: Settings,
    *,
    name: str,
    folder: Path,
) -> list[Cell]:
    """List every cell, row by row, under the name that its content will have."""
    from lorascope.models.base import base_digest

    model = base_digest(name)
    cells = []
    for layer in layers:
        lora = digest(layer.path) if layer.path else ""
        for column, prompt in enumerate(prompts):
            for seed in seeds:
                key = [CELL_VERSION, model, lora, layer.strength, prompt.text, seed]
                text = json.dumps([*key, sorted(settings.items())])
                stem = hashlib.sha256(text.encode()).hexdigest()[:16]
                cells.append(Cell(layer, column, prompt, seed, folder / f"{stem}.png"))
    return cells


def _usable(path: Path, width: int, height: int) -> bool:
    """Whether a picture is there, whole, and of the right size."""
    try:
        return read_image(path).shape == (height, width, 3)
    except (BadInputError, MissingInputError):
        return False


def _label(base: "Base", cell: Cell, settings: Settings) -> dict[str, str]:
    """Say inside the picture how it was made."""
    return {
        "prompt": cell.prompt.text,
        "group": cell.prompt.group,
        "seed": str(cell.seed),
        "epoch": str(cell.layer.epoch),
        "step": str(cell.layer.step),
        "strength": str(cell.layer.strength),
        "lora": cell.layer.path.name if cell.layer.path else "",
        "base": Path(base.name).name,
        **{key: str(value) for key, value in settings.items()},
    }


def _prompts_of_world(dataset: Dataset) -> list[Prompt]:
    """Make prompts that the miniature can draw."""
    shown = _shown(dataset)
    places = [place for place in world.BACKGROUNDS if place not in shown]
    extras = [extra for extra in reversed(world.ACCESSORIES) if extra not in shown]
    edits = _edits(dataset, functools.partial(_other_of_world, shown=shown))
    if not edits and extras:  # the captions have nothing to replace: add something
        edits = [_with(dataset.trigger, extras[0])]
    avatars = (world.sample_avatar(random.Random(seed)) for seed in STRANGERS)
    return _prompts(dataset, edits, places, [", ".join(world.tags(a)) for a in avatars])


def _prompts_of_photographs(dataset: Dataset) -> list[Prompt]:
    """Make prompts that any large model can draw."""
    captions = " ".join(image.caption for image in dataset.images).lower()
    words = set(captions.replace(",", " ").replace(".", " ").split())
    places = [prompt for word, prompt in PLACES.items() if word not in words]
    edits = _edits(dataset, functools.partial(_other_colour, shown=_shown(dataset)))
    return _prompts(dataset, edits, places, UNRELATED)


def _prompts(
    dataset: Dataset, edits: Sequence[str], places: Sequence[str], unrelated: Sequence[str]
) -> list[Prompt]:
    """Put the groups together: about nine prompts."""
    trigger = dataset.trigger
    trained = list(dict.fromkeys(i.caption for i in dataset.train if i.caption))
    held_out = [i.caption for i in dataset.held_out if i.caption and i.caption not in trained]
    found = [Prompt(trigger, "trigger")] if trigger else []
    found += [Prompt(text, "caption", "train") for text in _spread_out(trained, 2)]
    found += [Prompt(text, "caption", "held-out") for text in held_out[:1]]
    found += [Prompt(text, "edit") for text in edits[:1]]
    found += [Prompt(_with(trigger, place), "unseen") for place in places[:2]]
    bare = tagging.without(split_tags(trained[0]), trigger) if trained and trigger else []
    plain = ", ".join(part for part in (dataset.class_word, *bare) if part)
    found += [Prompt(plain, "class")] if plain else []
    return [*found, *(Prompt(text, "unrelated") for text in unrelated)]


def _edits(dataset: Dataset, other: Callable[[str], str]) -> list[str]:
    """Replace one tag of a training caption by a value that the dataset never shows."""
    for image in dataset.train:
        tags = split_tags(image.caption)
        for place, tag in enumerate(tags):
            if tag != dataset.trigger and (value := other(tag)):
                return [", ".join([*tags[:place], value, *tags[place + 1 :]])]
    return []


def _other_of_world(tag: str, shown: set[str]) -> str:
    values = next((values for values in WORLD_VALUES if tag in values), ())
    return next((value for value in reversed(values) if value not in shown), "")


def _other_colour(tag: str, shown: set[str]) -> str:
    first, _, noun = tag.partition(" ")
    if first not in COLOURS or not noun:
        return ""
    return next((f"{c} {noun}" for c in COLOURS if f"{c} {noun}" not in shown), "")


def _shown(dataset: Dataset) -> set[str]:
    """Every tag of the training captions but the trigger."""
    captions = (split_tags(image.caption) for image in dataset.train)
    return {tag for tags in captions for tag in tagging.without(tags, dataset.trigger)}


def _split_of(prompt: str, dataset: Dataset) -> str:
    """Say which images have the prompt's tags for a caption: train, held-out or none."""
    wanted = set(split_tags(prompt))
    images = (*dataset.train, *dataset.held_out)
    return next((i.split for i in images if set(split_tags(i.caption)) == wanted), "")


def _with(trigger: str, text: str) -> str:
    return f"{trigger}, {text}" if trigger else text


def _spread_out(texts: Sequence[str], count: int) -> list[str]:
    """Pick some, as far apart in the list as can be."""
    places = np.linspace(0, len(texts), count, endpoint=False).astype(int)
    return [texts[place] for place in dict.fromkeys(places.tolist())] if texts else []


def _chunks(cells: Sequence[Cell], size: int) -> Iterable[Sequence[Cell]]:
    return (cells[start : start + size] for start in range(0, len(cells), size))


def _measured(base: "Base", dataset: Dataset, cells: Sequence[Cell], samples: Path) -> Measured:
    """Read every picture once, row by row, measure it, and put it on the sheet."""
    layers = list(dict.fromkeys(cell.layer for cell in cells))
    across = len(cells) // len(layers)
    size = drawing_size(dataset, base)
    shown = shown_size(*size, cells=len(cells))
    copies, training = _training(base, dataset, size)
    rows: list[dict[str, Scalar]] = []
    codes: list[Features] = []
    thumbs: list[list[Picture]] = []
    origin: list[Picture] = []
    for number in track(range(len(layers)), label="grid, rows measured"):
        several = cells[number * across : (number + 1) * across]
        pictures = [read_image(cell.path) for cell in several]
        origin = origin or pictures
        codes.append(_codes(base, pictures))
        thumbs.append([np.asarray(thumbnail(picture, *shown)) for picture in pictures])
        for cell, picture, first in zip(several, pictures, origin, strict=True):
            nearest, ratio = copies.nearest(picture)
            rows.append(
                _cell_row(cell, number, samples)
                | {name: measure(picture) for name, measure in PICTURE_MEASURES.items()}
                | {"change": similarity.pixel_change(picture, first)}
                | {"nearest_train": nearest, "copy_ratio": ratio}
            )
    _write_sheet(samples / "grid.png", thumbs, layers, cells[:across])
    asks = np.array([cell.prompt.group in WITH_TRIGGER for cell in cells[:across]])
    scale = similarity.LikenessScale.between(codes[0][asks if asks.any() else ...], training)
    likeness = scale.likeness(np.concatenate(codes))
    moved = _moved(scale, codes, ~asks)
    for place, row in enumerate(rows):
        row["likeness"] = None if likeness is None else float(likeness[place])
        row["moved"] = None if moved is None else float(moved[place])
    by_layer: list[Row] = []
    for number, layer in enumerate(layers):
        here = rows[number * across : (number + 1) * across]
        features = scale.features(codes[number]), scale.features(codes[0])
        by_layer.append(_layer_row(layer, across) | _summary(here, rows[:across], *features))
    usual = scale.features(codes[0])[asks]
    columns = list(dict.fromkeys(cell.prompt for cell in cells))
    return Measured(
        numbers=(*_counts(cells), *_marks(dataset, size, copies, scale, usual)),
        tables={"cells": rows, "epochs": by_layer, "prompts": _prompt_rows(columns)},
        caveats=_caveats(dataset, columns, across // len(columns), scale),
    )


def _moved(
    scale: similarity.LikenessScale, codes: Sequence[Features], plain: NDArray[np.bool_]
) -> NDArray[np.float64] | None:
    """How far each picture is from the base model's of the same prompt and noise.

    In usual distances between the base model's pictures of two prompts: those without the
    trigger where there are several, which the LoRA should leave alone.
    """
    origin = scale.features(codes[0])
    several = origin[plain] if plain.sum() > 1 else origin
    usual = spread(several) if len(several) > 1 else 0.0
    if usual == 0:
        return None
    apart = [np.sqrt(np.mean((scale.features(c) - origin) ** 2, axis=1)) for c in codes]
    return np.concatenate(apart) / usual


def _training(
    base: "Base", dataset: Dataset, size: tuple[int, int]
) -> tuple[similarity.Copies, Features]:
    """Read the training images: all of them to look for copies, some for likeness."""
    every = math.ceil(len(dataset.train) / MOST_REFERENCES)
    gists, codes = [], []
    for number, image in enumerate(track(dataset.train, label="grid, training images")):
        picture = _at_size(dataset, image, size)
        gists.append(similarity.gist(picture))
        if number % every == 0:
            codes.append(_codes(base, [picture]))
    files = [image.file for image in dataset.train]
    return similarity.Copies.among(files, np.stack(gists)), np.concatenate(codes)


def _at_size(dataset: Dataset, image: DatasetImage, size: tuple[int, int]) -> Picture:
    return resize_crop(read_image(dataset.path(image)), *size)


def _codes(base: "Base", pictures: Sequence[Picture]) -> Features:
    """Describe pictures by the layout of the base model's image codes."""
    height, width, _ = pictures[0].shape
    share, unit = min(1.0, FEATURE_PX / max(height, width)), base.pixels_per_latent
    size = [max(CELLS_A_SIDE, round(side * share / unit)) * unit for side in (width, height)]
    found = []
    for start in range(0, len(pictures), ENCODED_AT_ONCE):
        several = [resize_crop(p, *size) for p in pictures[start : start + ENCODED_AT_ONCE]]
        found.append(similarity.layout(base.encode_images(np.stack(several)).cpu().numpy()))
    return np.concatenate(found)


def _cell_row(cell: Cell, number: int, samples: Path) -> dict[str, Scalar]:
    return {
        "epoch": cell.layer.epoch,
        "step": cell.layer.step,
        "strength": cell.layer.strength,
        "row": number,
        "column": cell.column,
        "prompt": cell.prompt.text,
        "group": cell.prompt.group,
        "seed": cell.seed,
        "file": f"{samples.name}/{cell.path.parent.name}/{cell.path.name}",
    }


def _layer_row(layer: Layer, pictures: int) -> dict[str, Scalar]:
    return {
        "epoch": layer.epoch,
        "step": layer.step,
        "strength": layer.strength,
        "file": layer.path.name if layer.path else "",
        "pictures": pictures,
    }


def _prompt_rows(columns: Sequence[Prompt]) -> list[Row]:
    return [
        {"column": place, "prompt": prompt.text, "group": prompt.group, "split": prompt.split}
        for place, prompt in enumerate(columns)
    ]


def _summary(
    rows: Sequence[Row], first: Sequence[Row], here: Features, origin: Features
) -> dict[str, Scalar]:
    """Sum one row of the grid up.

    Parameters
    ----------
    rows, first : sequences of Row
        Its cells, and the base model's.
    here, origin : (cells, F) arrays
        The features of their pictures.

    Returns
    -------
    dict
        The columns of the table ``epochs`` that are measured; None where nothing can be.
    """
    asks = np.array([row["group"] in WITH_TRIGGER for row in rows])
    prompts = np.array([row["column"] for row in rows])
    likeness, copies = _column(rows, "likeness"), _column(rows, "copy_ratio")
    moved = _column(rows, "moved")
    unrelated = np.array([row["group"] == "unrelated" for row in rows])
    low, high = _interval(likeness[asks], prompts[asks])
    return {
        "likeness": _mean(likeness[asks]),
        "likeness_low": low,
        "likeness_high": high,
        "class_likeness": _mean((likeness - _column(first, "likeness"))[~asks]),
        "diversity": relative_spread(here[asks], origin[asks]),
        "seed_diversity": _seed_diversity(here[asks], origin[asks], prompts[asks]),
        "drift": _mean(moved[~asks]),
        "unrelated_drift": _mean(moved[unrelated]),
        "unrelated_change": _mean(_column(rows, "change")[~asks]),
        "copy_ratio": _mean(copies[asks]),
        "copy_ratio_lowest": float(copies[asks].min()) if _mean(copies[asks]) else None,
        **{name: _mean(_column(rows, name)) for name in PICTURE_MEASURES},
    }


def _column(rows: Sequence[Row], name: str) -> NDArray[np.float64]:
    """Give a column as numbers; what was not measured is not a number."""
    return np.array([math.nan if row[name] is None else row[name] for row in rows], dtype=float)


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if values.size and np.isfinite(values).all() else None


def _interval(
    values: NDArray[np.float64], prompts: NDArray[np.int64]
) -> tuple[float | None, float | None]:
    """95 % interval of a mean over the prompts; the seeds of one prompt are one item."""
    items = [values[prompts == prompt].mean() for prompt in np.unique(prompts)]
    if len(items) < 2 or not np.isfinite(items).all():
        return None, None
    return interval(np.array(items))


def _seed_diversity(here: Features, origin: Features, prompts: NDArray[np.int64]) -> float | None:
    """Diversity among the seeds of one prompt, averaged over the prompts."""
    sets = [prompts == prompt for prompt in np.unique(prompts)]
    ratios = [relative_spread(here[some], origin[some]) for some in sets]
    known = [ratio for ratio in ratios if ratio is not None]
    return float(np.mean(known)) if known else None


def _counts(cells: Sequence[Cell]) -> list[Measurement]:
    counts = {
        "cells": (len(cells), "pictures"),
        "prompts": (len({cell.column for cell in cells}), "prompts"),
        "seeds": (len({cell.seed for cell in cells}), "seeds"),
        "epochs": (len({cell.layer.epoch for cell in cells} - {0}), "epochs"),
    }
    return [Measurement(name=k, value=n, unit=unit, n=n) for k, (n, unit) in counts.items()]


def _marks(
    dataset: Dataset,
    size: tuple[int, int],
    copies: similarity.Copies,
    scale: similarity.LikenessScale,
    usual: Features,
) -> list[Measurement]:
    """Give what the measures of the epochs are to be compared with."""
    count = len(scale.references)
    found = [Measurement(name="anchor_base", value=scale.zero, unit="cosine", n=count)]
    if count > 1:
        found.append(Measurement(name="anchor_training", value=scale.one, unit="cosine", n=count))
    if wide := relative_spread(scale.references, usual):
        found.append(Measurement(name="diversity_training", value=wide, unit="1", n=count))
    ratios = [copies.nearest(_at_size(dataset, image, size))[1] for image in dataset.held_out]
    known = np.array([ratio for ratio in ratios if ratio is not None])
    if known.size:
        found.append(
            Measurement(
                name="copy_ratio_held_out",
                value=float(known.mean()),
                unit="1",
                n=known.size,
                interval=interval(known),
            )
        )
    return found


def _caveats(
    dataset: Dataset, columns: Sequence[Prompt], seeds: int, scale: similarity.LikenessScale
) -> tuple[str, ...]:
    groups = {prompt.group for prompt in columns}
    found = [
        "Likeness, diversity and drift compare colours, shading and their layout; "
        "a face is not recognised."
    ]
    if scale.one - scale.zero < similarity.LEAST:
        found.append("Likeness was not measured: the base model's pictures are as near already.")
    if len(dataset.train) > MOST_REFERENCES:
        found.append(f"Likeness is measured against {len(scale.references)} training images.")
    if not groups.intersection(WITHOUT_TRIGGER):
        found.append("No prompt lacks the trigger: drift was not measured.")
    if not groups.intersection(WITH_TRIGGER):
        found.append("No prompt has the trigger: likeness and diversity were not measured.")
    if seeds == 1:
        found.append("One seed: diversity is the spread over prompts, not over seeds.")
    return tuple(found)


def _write_sheet(
    path: Path,
    pictures: Sequence[Sequence[Picture]],
    layers: Sequence[Layer],
    columns: Sequence[Cell],
) -> None:
    """Draw the grid as one picture: epochs down, prompts across."""
    strengths = {layer.strength for layer in layers if layer.epoch}
    rows = [
        (
            f"epoch {layer.epoch}" if layer.epoch else "base model",
            f"strength {layer.strength:g}" if layer.epoch and strengths != {1.0} else "",
        )
        for layer in layers
    ]
    several = len({cell.seed for cell in columns}) > 1
    heads = [
        (
            f"{cell.prompt.text} (seed {cell.seed})" if several else cell.prompt.text,
            cell.prompt.group,
        )
        for cell in columns
    ]
    write_png(path, contact_sheet(pictures, rows=rows, columns=heads))


GRID = Tool(
    name="grid",
    asks="What does each epoch draw?",
    reads=("lora", "dataset", "base"),
    writes=("samples",),
    measure=grid,
)
