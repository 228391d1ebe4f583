"""Heatmap: which part of the picture does each tag draw, with the LoRA and without?"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lorascope.errors import BadInputError
from lorascope.io.captions import split_tags
from lorascope.io.checkpoints import Checkpoint, usable_checkpoints
from lorascope.io.contact_sheet import contact_sheet, shown_size, thumbnail
from lorascope.io.dataset_file import Dataset, read_dataset
from lorascope.io.images import write_png
from lorascope.io.lora_file import LoraFile, read_lora
from lorascope.metrics import similarity
from lorascope.progress import track
from lorascope.records import Inputs, Measured, Measurement, Row, Scalar, Tool, finite
from lorascope.run import digest
from lorascope.tools.drawing.cells import drawing_size

if TYPE_CHECKING:
    from lorascope.models.base import Base

Picture = NDArray[np.uint8]
Maps = NDArray[np.float32]

SIDES = ("base", "lora")
STRONG = 0.4  # of a map's peak: where the method's authors draw its edge (Tang et al., ACL 2023)
COVER = 0.6  # of an overlay is colour, the rest the picture in grey
# Every sixteenth colour of viridis, by van der Walt and Smith (CC0).
VIRIDIS = (
    "440154 481467 482576 453781 404688 39558c 33638d 2d718e "
    "287d8e 238a8d 1f968b 20a386 29af7f 3dbc74 56c667 75d054 95d840 bade28 dde318 fde725"
)
LESS, NONE, MORE = (33, 102, 172), (247, 247, 247), (178, 24, 43)  # ColorBrewer RdBu


def heatmap(
    inputs: Inputs,
    *,
    epoch: int = 0,
    prompt: str = "",
    tags: str = "",
    seed: int = 1,
    steps: int = 20,
    guidance: float = 5.0,
    sampler: str = "dpm++2m",
    strength: float = 1.0,
) -> Measured:
    """Map where each tag acts in one picture, with the LoRA beside the base model.

    The maps are the cross-attention of the conditional half, summed over the sampling steps and
    averaged over layers and heads (DAAM). They show where a word is looked up, not what it
    causes: compare the LoRA with the base model, never read one map alone.

    Parameters
    ----------
    inputs : Inputs
        Reads ``lora``, ``dataset`` and ``base``; fills ``samples``.
    epoch : int
        Which epoch's LoRA; 0 for the last that was saved.
    prompt : str
        What to draw; the first held-out caption, or the first training caption, where empty.
    tags : str
        Which parts of the prompt to map, as in "smile,forest"; all its tags where empty.
    seed : int
        Seed of the noise.
    steps : int
        Sampling steps.
    guidance : float
        Guidance scale; 1 turns guidance off.
    sampler : str
        dpm++2m, ddim, euler or euler_a.
    strength : float
        How strongly the LoRA acts.
    """
    from lorascope.models.attention import token_positions
    from lorascope.models.base import load_base

    dataset = read_dataset(inputs["dataset"])
    checkpoint = _checkpoint(inputs["lora"], epoch)
    prompt = prompt.strip() or _caption(dataset)
    wanted = _tags(tags, prompt)
    base = load_base(str(inputs["base"]))
    pieces = {tag: token_positions(base, prompt, tag) for tag in wanted}
    seen = {tag: places for tag, places in pieces.items() if places}
    if not seen:
        raise BadInputError(
            f"None of {', '.join(wanted)} is in the part of the prompt that the model reads.\n"
            "Fix: a shorter --prompt, or other --tags."
        )

    settings: dict[str, str | int | float] = {
        "sampler": sampler,
        "steps": steps,
        "guidance": guidance,
    }
    pictures, maps = [], []
    for lora in (None, read_lora(checkpoint.path)):
        picture, found = _look(
            base,
            prompt,
            list(seen.values()),
            lora,
            strength,
            seed,
            drawing_size(dataset.resolution, native=base.size),
            settings,
        )
        pictures.append(picture)
        maps.append(found)
    both = np.stack(maps)
    if not finite(both):
        raise BadInputError(
            f"{checkpoint.path.name} gives no finite picture: it is broken.\n"
            "Fix: name an epoch from before with --epoch."
        )
    stem = _stem(checkpoint.path, base.name, [prompt, *seen], seed, strength, settings)
    folder = inputs["samples"] / "heatmap"
    text = {"prompt": prompt, "seed": str(seed), **{k: str(v) for k, v in settings.items()}}
    sheet = overlay_sheet(pictures, both, list(seen), epoch=checkpoint.epoch, strength=strength)
    rows: list[Row] = []
    for which, image in zip((*SIDES, "sheet"), (*pictures, sheet), strict=True):
        write_png(folder / f"{stem}-{which}.png", image, text=text)
        rows.append({"which": which, "file": f"{folder.parent.name}/heatmap/{stem}-{which}.png"})
    return _measured(both, seen, rows, checkpoint, missing=[t for t in wanted if t not in seen])


def overlay_sheet(
    pictures: Sequence[Picture],
    maps: Maps,
    tags: Sequence[str],
    *,
    epoch: int = 0,
    strength: float = 1.0,
) -> Picture:
    """Lay the maps over the pictures: base model, LoRA, and the difference; a column per tag.

    Parameters
    ----------
    pictures : two (H, W, 3) uint8 arrays
        By the base model and with the LoRA.
    maps : (2, T, h, w) array
    tags : sequence of str
        T of them.
    epoch, strength : int, float
        For the label.

    Returns
    -------
    (H, W, 3) uint8 array
        One scale of colours for all maps, another for all differences.
    """
    top = max(float(maps.max()), 1e-12)
    change = maps[1] - maps[0]
    most = max(float(np.abs(change).max()), 1e-12)
    rows = [
        [shown(picture), *(_overlay(picture, viridis(m / top)) for m in side)]
        for picture, side in zip(pictures, maps, strict=True)
    ]
    moved = np.abs(pictures[1].astype(np.int16) - pictures[0]).astype(np.uint8)
    rows.append([shown(moved), *(_overlay(pictures[1], diverging(m / most)) for m in change)])
    below = f"strength {strength:g}"
    return contact_sheet(
        rows,
        title=f"Attention a step: dark 0, yellow {top:.2g}; difference: blue -{most:.2g}, "
        f"red +{most:.2g}",
        rows=[("base model", ""), (f"epoch {epoch}", below), ("difference", "LoRA - base")],
        columns=[("picture", ""), *((tag, "tag") for tag in tags)],
    )


def shown(picture: Picture) -> Picture:
    """Bring a picture to the size that it has on a sheet."""
    size = shown_size(picture.shape[1], picture.shape[0])
    return np.asarray(thumbnail(picture, *size))


def viridis(values: NDArray[np.floating]) -> Picture:
    """Colour values from 0 (dark blue) to 1 (yellow).

    Parameters
    ----------
    values : (H, W) array

    Returns
    -------
    (H, W, 3) uint8 array
    """
    table = np.array([tuple(bytes.fromhex(code)) for code in VIRIDIS.split()], dtype=float)
    return _coloured(values, np.linspace(0, 1, len(table)), table)


def diverging(values: NDArray[np.floating]) -> Picture:
    """Colour values from -1 (blue) over 0 (white) to 1 (red)."""
    return _coloured(values, np.array([-1.0, 0.0, 1.0]), np.array([LESS, NONE, MORE], dtype=float))


def _coloured(
    values: NDArray[np.floating], stops: NDArray[np.float64], table: NDArray[np.float64]
) -> Picture:
    channels = [np.interp(values, stops, table[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _overlay(picture: Picture, colours: Picture) -> Picture:
    """Lay small coloured fields, smoothed, over a picture in grey."""
    small = shown(picture)
    height, width = small.shape[:2]
    large = Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)
    grey = np.asarray(Image.fromarray(small).convert("L"), dtype=float)[:, :, None]
    return np.asarray(COVER * np.asarray(large) + (1 - COVER) * grey, dtype=np.uint8)


def _look(
    base: "Base",
    prompt: str,
    places: Sequence[Sequence[int]],
    lora: LoraFile | None,
    strength: float,
    seed: int,
    size: tuple[int, int],
    settings: dict[str, str | int | float],
) -> tuple[Picture, Maps]:
    """Draw one picture and map where each tag's tokens are looked up, per sampling step."""
    from lorascope.models.attention import capture
    from lorascope.models.lora import merged
    from lorascope.models.sampling import sample

    tokens = sorted({place for tag in places for place in tag})
    progress = track(range(int(settings["steps"])), label="heatmap, sampling steps")

    def advance(_done: int, _total: int) -> None:
        next(progress, None)

    with merged(base, lora, strength=strength), capture(base, tokens) as recorder:
        picture = sample(
            base,
            [prompt],
            [seed],
            steps=int(settings["steps"]),
            guidance=float(settings["guidance"]),
            sampler=str(settings["sampler"]),
            width=size[0],
            height=size[1],
            on_step=advance,
        )[0]
    next(progress, None)
    found = recorder.maps() / float(settings["steps"])
    tags = [found[[tokens.index(place) for place in tag]].mean(axis=0) for tag in places]
    return picture, np.stack(tags).astype(np.float32)


def _measured(
    maps: Maps,
    pieces: dict[str, list[int]],
    pictures: list[Row],
    checkpoint: Checkpoint,
    *,
    missing: Sequence[str],
) -> Measured:
    """Turn maps into rows: a row per tag, a row per pair of tags."""
    tags = list(pieces)
    rows: list[Row] = []
    for place, tag in enumerate(tags):
        row: dict[str, Scalar] = {
            "tag": tag,
            "pieces": len(pieces[tag]),
            "epoch": checkpoint.epoch,
            "change": 1 - similarity.map_cosine(maps[0, place], maps[1, place]),
        }
        for side, name in enumerate(SIDES):
            row |= {f"{key}_{name}": v for key, v in map_facts(maps[side, place]).items()}
        rows.append(row)
    pairs: list[Row] = [
        {
            "tag": tag,
            "other": other,
            "base": similarity.overlap(maps[0, a], maps[0, b]),
            "lora": similarity.overlap(maps[1, a], maps[1, b]),
        }
        for a, tag in enumerate(tags)
        for b, other in enumerate(tags)
        if a != b
    ]
    found = [Measurement(name="tags", value=len(tags), unit="tags", n=len(tags))]
    found.append(_mean("change", [row["change"] for row in rows]))
    if pairs:
        found += [_mean(f"overlap_{name}", [pair[name] for pair in pairs]) for name in SIDES]
    caveats = ["One prompt and one seed.", "Attention shows where a word is looked up, not why."]
    if missing:
        caveats.append(f"Not in the prompt: {', '.join(missing)}.")
    return Measured(
        numbers=tuple(found),
        tables={"tags": rows, "overlap": pairs, "pictures": pictures},
        arrays={"maps": maps},
        caveats=tuple(caveats),
    )


def map_facts(found: Maps) -> dict[str, float]:
    """Say how strong a map is and where.

    Parameters
    ----------
    found : (h, w) array
        Of values from 0.

    Returns
    -------
    dict
        mean and peak in the map's unit; centre_x and centre_y of its mass, from 0 (left, top) to
        1; area: share of the picture where it is above 0.4 of its peak.
    """
    values = found.astype(np.float64)
    height, width = values.shape
    mass = values.sum()
    across, down = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    return {
        "mean": float(values.mean()),
        "peak": float(values.max()),
        "centre_x": float((values.sum(axis=0) @ across) / mass) if mass > 0 else 0.5,
        "centre_y": float((values.sum(axis=1) @ down) / mass) if mass > 0 else 0.5,
        "area": float((values > STRONG * values.max()).mean()),
    }


def _mean(name: str, values: Sequence[Scalar]) -> Measurement:
    numbers = np.array(values, dtype=np.float64)
    return Measurement(name=name, value=float(numbers.mean()), unit="1", n=len(numbers))


def _checkpoint(folder: Path, epoch: int) -> Checkpoint:
    saved, _ = usable_checkpoints(folder)
    chosen = [checkpoint for checkpoint in saved if epoch in (0, checkpoint.epoch)]
    if not chosen:
        there = ", ".join(str(checkpoint.epoch) for checkpoint in saved)
        raise BadInputError(f"No checkpoint was saved for epoch {epoch}.\nFix: one of {there}.")
    return chosen[-1]


def _caption(dataset: Dataset) -> str:
    captions = [image.caption for image in (*dataset.held_out, *dataset.train) if image.caption]
    if not captions and not dataset.trigger:
        raise BadInputError("The dataset has neither captions nor a trigger.\nFix: --prompt P")
    return captions[0] if captions else dataset.trigger


def _tags(text: str, prompt: str) -> list[str]:
    """List the tags to map, each once."""
    wanted = list(dict.fromkeys(split_tags(text or prompt)))
    strangers = [tag for tag in wanted if tag.lower() not in prompt.lower()]
    if strangers or not wanted:
        raise BadInputError(
            f"Not in the prompt {prompt!r}: {', '.join(strangers) or 'any tag'}.\n"
            "Fix: --tags with parts of the prompt, or another --prompt."
        )
    return wanted


def _stem(
    path: Path,
    base: str,
    words: Sequence[str],
    seed: int,
    strength: float,
    settings: dict[str, str | int | float],
) -> str:
    """Name the pictures by everything that decides what they show."""
    from lorascope.models.base import base_digest

    key = [digest(path), base_digest(base), *words, seed, strength, sorted(settings.items())]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]


HEATMAP = Tool(
    name="heatmap",
    asks="Where does each tag act?",
    reads=("lora", "dataset", "base"),
    writes=("samples",),
    measure=heatmap,
)
