"""What a trainer wrote into a LoRA's metadata: in sentences, and compared with another file's."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from lorascope.io.lora_hashes import Hashes, hashes
from lorascope.io.metadata_entries import (
    LONGEST,
    LONGEST_KEY,
    MOST_ROWS,
    MOST_TAGS,
    Entry,
    as_text,
    clean,
    count_of,
    entries,
    number_of,
    tag_counts,
)
from lorascope.io.metadata_words import VOLATILE, Value
from lorascope.io.train_settings import (
    AI_TOOLKIT,
    KOHYA,
    UNKNOWN,
    Folder,
    Settings,
    made_by,
    settings,
)

__all__ = [
    "Difference",
    "Entry",
    "Folder",
    "Hashes",
    "Settings",
    "describe",
    "differences",
    "entries",
    "hashes",
    "made_by",
    "settings",
]

WORDING = {  # of numbers that cannot be
    "max_norm": "limit of the norms",
    "unet_lr": "U-Net learning rate",
    "text_lr": "text encoder's learning rate",
    "warmup_steps": "steps of warm-up",
    "batch_size": "batch size",
    "gradient_accumulation": "accumulated batches",
    "steps_per_epoch": "steps per epoch",
}
DEEPEST = 4  # levels of a structure that are compared
MOST_LEAVES = 20_000  # of one file; differences beyond are not looked for


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One key on which two files differ; "" where a file lacks it."""

    key: str
    one: str
    other: str


def describe(metadata: Mapping[str, str], *, rank: int | None = None) -> list[tuple[str, str]]:
    """Tell in sentences how a LoRA was trained.

    Parameters
    ----------
    metadata : mapping of str to str
        A file's own.
    rank : int, optional
        Of most of its tensors, where it is known: told in place of what the metadata states.

    Returns
    -------
    list of (heading, sentence)
        Only what the file says; a heading ``Caution`` for what it says against itself.
    """
    stated = settings(metadata)
    one = replace(stated, rank=rank) if rank else stated
    known = {entry.key: entry.value for entry in entries(metadata)}
    told = [
        ("Trainer", _about_trainer(one, known)),
        ("Network", _about_network(one)),
        ("Learning", _about_learning(one)),
        ("Length", _about_length(one)),
        ("Images", _about_images(one)),
        ("Captions", _about_captions(one)),
        ("Loss and noise", _about_loss(one)),
        ("Base model", _about_base(one)),
    ]
    return [(heading, text) for heading, text in told if text] + [
        ("Caution", text) for text in _cautions(stated, known, rank)
    ]


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[Difference]:
    """List what two files say differently, in our words.

    Names of sessions, times and hashes, which differ between any two files, are left out.

    Returns
    -------
    list of Difference
        Structures are compared part by part: ``network_args.conv_dim``.
    """
    first, second = _leaves(one), _leaves(other)
    keys = [*first, *(key for key in second if key not in first)]
    return [
        Difference(key=key, one=first.get(key, ""), other=second.get(key, ""))
        for key in keys
        if first.get(key, "") != second.get(key, "")
    ][:MOST_ROWS]


def _about_trainer(one: Settings, known: Mapping[str, Value]) -> str:
    if one.trainer == UNKNOWN:
        return "The file does not say what trained it."
    words = f"Trained with {one.trainer}"
    software = known.get("software")
    version = software.get("version") if isinstance(software, dict) else None
    if version := version or known.get("trainer_version") or known.get("onetrainer_revision"):
        words += f" ({clean(str(version), 12)})"
    finished = number_of(known.get("finished"))
    if finished is not None and 0 < finished < 4e9:
        words += f", finished {datetime.fromtimestamp(finished, UTC):%Y-%m-%d %H:%M} UTC"
    return f"{words}."


def _about_network(one: Settings) -> str:
    parts = []
    if one.rank is not None:
        parts.append(f"rank {one.rank}")
    if one.alpha is not None:
        parts.append(f"alpha {one.alpha:g}")
    if one.rank and one.alpha:
        parts.append(f"scale {one.alpha / one.rank:.3g}")
    if one.max_norm:
        parts.append(f"norms kept below {one.max_norm:g}")
    parts += [f"{key} {value}" for key, value in list(one.network_args.items())[:MOST_TAGS]]
    module = f"{one.network_module}: " if one.network_module and parts else one.network_module
    return clean(f"{module}{', '.join(parts)}.") if parts or module else ""


def _about_learning(one: Settings) -> str:
    parts = []
    if one.unet_lr is not None:
        parts.append(f"U-Net learning rate {one.unet_lr:g}")
    if one.text_lr is not None:
        parts.append(f"text encoder {one.text_lr:g}")
    if one.scheduler:
        warm = f" after {one.warmup_steps} steps of warm-up" if one.warmup_steps else ""
        parts.append(f"{one.scheduler}{warm}")
    if one.optimizer:
        inside = ", ".join(f"{key}={value}" for key, value in one.optimizer_args.items())
        parts.append(f"{one.optimizer}({inside})" if inside else one.optimizer)
    return clean(f"{', '.join(parts)}.") if parts else ""


def _about_length(one: Settings) -> str:
    parts = []
    if one.epoch is not None or one.step is not None:
        epoch = f"epoch {one.epoch}" if one.epoch is not None else ""
        step = f"step {one.step}" if one.step is not None else ""
        parts.append(f"this file is {', '.join(p for p in (epoch, step) if p)}")
    if one.epochs or one.steps:
        whole = [count_of(one.epochs, "epoch")] if one.epochs else []
        whole += [count_of(one.steps, "step")] if one.steps else []
        parts.append(f"planned: {', '.join(whole)}")
    if one.batch_size:
        more = one.gradient_accumulation or 1
        times = f" x {more} accumulated" if more > 1 else ""
        parts.append(f"batch size {one.batch_size}{times}")
    return _sentence(parts)


def _about_images(one: Settings) -> str:
    parts = [
        f"{f.name}: {count_of(f.images, 'image')} x {f.repeats}"
        + (" (regularisation)" if f.regularisation else "")
        for f in one.folders[:MOST_TAGS]
    ]
    if len(one.folders) > MOST_TAGS:
        parts.append(f"{len(one.folders) - MOST_TAGS} more folders")
    if one.resolution:
        parts.append(f"{one.resolution[0]}x{one.resolution[1]} px")
    return clean("; ".join(parts) + ".", LONGEST * 2) if parts else ""


def _about_captions(one: Settings) -> str:
    parts = []
    if one.trigger:
        parts.append(f"trigger {one.trigger}")
    if one.tags:
        parts.append("most frequent: " + ", ".join(f"{tag} ({n})" for tag, n in one.tags))
    if one.shuffle_tags:
        parts.append(f"tags shuffled, the first {one.keep_tags or 0} kept")
    if one.caption_dropout:
        parts.append(f"{one.caption_dropout:.0%} of the captions dropped")
    if one.clip_skip:
        parts.append(f"clip skip {one.clip_skip}")
    return clean(_sentence(parts), LONGEST * 2)


def _about_loss(one: Settings) -> str:
    parts = []
    if one.min_snr_gamma:
        parts.append(f"min-SNR gamma {one.min_snr_gamma:g}")
    if one.noise_offset:
        parts.append(f"noise offset {one.noise_offset:g}")
    if one.prediction_type:
        parts.append(f"the base model predicts {one.prediction_type}")
    if one.seed is not None:
        parts.append(f"seed {one.seed}")
    return _sentence(parts)


def _about_base(one: Settings) -> str:
    parts = [part for part in (one.base_model, one.base_version) if part]
    if one.base_sha256:
        parts.append(f"AutoV2 {one.base_sha256[:10]}")
    elif one.base_legacy:
        parts.append(f"old hash {one.base_legacy[:10]}")
    return f"{', '.join(parts)}." if parts else ""


def _cautions(one: Settings, known: Mapping[str, Value], rank: int | None) -> Iterator[str]:
    if one.impossible:
        wrong = ", ".join(f"{WORDING.get(key, key)} {value:g}" for key, value in one.impossible)
        yield f"The metadata states what cannot be, and what is not believed here: {wrong}."
    if rank and one.rank and rank != one.rank:
        yield f"The metadata states rank {one.rank}, but most of the tensors have rank {rank}."
    split = number_of(known.get("validation_split"))
    if one.trainer == KOHYA and split and known.get("validation_seed") is None:
        yield (
            "A part of the images was held out without a validation seed: sd-scripts then trains "
            "on most of them too, and its validation loss is a training loss."
        )
    for folder, counts in tag_counts(known.get("tags")).items():
        images = next((f.images for f in one.folders if f.name == folder), 0)
        if len(counts) == 1 and images > 1:
            ((tag, count),) = counts.items()
            if count == images and folder.rpartition("_")[2].strip().lower() == tag.lower():
                yield (
                    f"Every image of {folder} has the one tag {tag}, the folder's own name: its "
                    "captions were probably not read (kohya looks for .caption unless told)."
                )
    if one.trainer == AI_TOOLKIT and not one.base_version:
        yield "ai-toolkit names a base model's version even where it does not know it; not shown."


def _leaves(metadata: Mapping[str, str]) -> dict[str, str]:
    """Take a file's entries apart: dotted key -> text. None and a missing key are the same."""
    found: dict[str, str] = {}
    for entry in entries(metadata):
        if entry.key not in VOLATILE:
            for key, text in _walk(entry.key, entry.value):
                found[clean(key, LONGEST_KEY)] = text
                if len(found) >= MOST_LEAVES:
                    return found
    return found


def _walk(key: str, value: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    if value is None:
        return
    if isinstance(value, dict) and value and depth < DEEPEST:
        for name, inner in value.items():
            yield from _walk(f"{key}.{name}", inner, depth + 1)
    elif isinstance(value, list) and value and depth < DEEPEST:
        for place, inner in enumerate(value, start=1):
            yield from _walk(f"{key}.{place}", inner, depth + 1)
    else:
        yield key, as_text("" if depth else key, value)


def _sentence(parts: Sequence[str]) -> str:
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""
