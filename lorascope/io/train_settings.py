"""How a LoRA was trained, recovered from its metadata, whoever wrote it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lorascope.io.metadata_entries import (
    MOST_ROWS,
    MOST_TAGS,
    as_text,
    clean,
    entries,
    number_of,
    tag_counts,
    text_of,
    whole_of,
)
from lorascope.io.metadata_words import Value, call, size, structure

MOST_FOLDERS = 50
UNKNOWN = "unknown"
KOHYA, ONETRAINER, AI_TOOLKIT = "kohya sd-scripts", "OneTrainer", "ai-toolkit"
SIMPLETUNER, DIFFUSERS, LYCORIS = "SimpleTuner", "diffusers", "LyCORIS"
CLONEOFSIMO, LORASCOPE = "cloneofsimo/lora", "lorascope"
LEAST = {  # of what counts or sizes something; what is below cannot be
    "rank": 1,
    "max_norm": 0,
    "unet_lr": 0,
    "text_lr": 0,
    "warmup_steps": 0,
    "batch_size": 0,
    "gradient_accumulation": 0,
    "epochs": 0,
    "steps": 0,
    "steps_per_epoch": 0,
    "epoch": 0,
    "step": 0,
}
GUESSED_VERSIONS = ("sd_1.5", "sd_2.1", "sdxl_1.0")  # ai-toolkit's stand-ins


@dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """One folder that was trained on."""

    name: str
    images: int
    repeats: int
    regularisation: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How a LoRA was trained, as far as its file tells; None and "" where it does not."""

    trainer: str
    name: str = ""
    network_module: str = ""
    network_args: Mapping[str, str] = field(default_factory=dict)
    rank: int | None = None
    alpha: float | None = None
    max_norm: float | None = None
    unet_lr: float | None = None
    text_lr: float | None = None  # of the first text encoder where there are two
    optimizer: str = ""
    optimizer_args: Mapping[str, str] = field(default_factory=dict)
    scheduler: str = ""
    warmup_steps: int | None = None
    max_grad_norm: float | None = None
    batch_size: int | None = None
    gradient_accumulation: int | None = None
    epochs: int | None = None  # planned
    steps: int | None = None  # planned
    steps_per_epoch: int | None = None
    epoch: int | None = None  # of this file
    step: int | None = None
    resolution: tuple[int, int] | None = None  # width, height
    seed: int | None = None
    clip_skip: int | None = None
    min_snr_gamma: float | None = None
    noise_offset: float | None = None
    caption_dropout: float | None = None
    shuffle_tags: bool | None = None
    keep_tags: int | None = None
    mixed_precision: str = ""
    base_model: str = ""
    base_version: str = ""
    base_sha256: str = ""
    base_legacy: str = ""
    prediction_type: str = ""  # epsilon or v
    trigger: str = ""
    folders: tuple[Folder, ...] = ()
    tags: tuple[tuple[str, int], ...] = ()  # the most frequent, all folders together
    impossible: tuple[tuple[str, float], ...] = ()  # what the file states and cannot be


def made_by(metadata: Mapping[str, str]) -> str:
    """Name the trainer that wrote a file.

    A graphical interface around kohya's scripts leaves no trace of its own.

    Returns
    -------
    str
        ``kohya sd-scripts``, ``OneTrainer``, ``ai-toolkit``, ``SimpleTuner``, ``diffusers``,
        ``LyCORIS``, ``cloneofsimo/lora``, ``lorascope`` or ``unknown``.
    """
    software = structure(str(metadata.get("software", ""))[:10_000])
    name = software.get("name") if isinstance(software, dict) else None
    if name == AI_TOOLKIT:
        return AI_TOOLKIT
    if any(key.startswith("ot_") for key in metadata):
        return ONETRAINER
    if any(key.startswith("lorascope_") for key in metadata) or _looks_like_ours(metadata):
        return LORASCOPE
    if "ss_sd_scripts_commit_hash" in metadata or "ss_network_module" in metadata:
        return KOHYA
    if "trained_words" in metadata or _looks_like_simpletuner(metadata):
        return SIMPLETUNER
    if "lora_adapter_metadata" in metadata:
        return DIFFUSERS
    if "unet:0:rank" in metadata or "text_encoder:0:rank" in metadata:
        return CLONEOFSIMO
    if "sshs_model_hash" in metadata and not any(key.startswith("ss_") for key in metadata):
        return LYCORIS
    return DIFFUSERS if dict(metadata) == {"format": "pt"} else UNKNOWN


def settings(metadata: Mapping[str, str]) -> Settings:
    """Recover how a LoRA was trained.

    Parameters
    ----------
    metadata : mapping of str to str
        A file's own.

    Returns
    -------
    Settings
        What the file does not say stays None or "", and so does what cannot be: a rank below 1,
        a negative number of steps.
    """
    known = {entry.key: entry.value for entry in entries(metadata)}
    trainer = made_by(metadata)
    if trainer == ONETRAINER:
        known |= _from_onetrainer(known)
    elif trainer == AI_TOOLKIT:
        known |= _from_ai_toolkit(known)
    elif trainer in (DIFFUSERS, SIMPLETUNER):
        known |= _from_peft(known)
    elif trainer == CLONEOFSIMO:
        first = metadata.get("unet:0:rank") or metadata.get("text_encoder:0:rank")
        known |= {"rank": whole_of(first), "alpha": number_of(first)}
    name, arguments = call(text_of(known.get("optimizer")))
    first_set = _first_dataset(known)
    tags = tag_counts(known.get("tags"))
    total: dict[str, int] = {}
    for counts in tags.values():
        for tag, count in counts.items():
            total[tag] = total.get(tag, 0) + count
    stated = Settings(
        trainer=trainer,
        name=text_of(known.get("name") or known.get("title")),
        network_module=text_of(known.get("network_module")),
        network_args=_flat_texts(known.get("network_args")),
        rank=whole_of(known.get("rank")),
        alpha=number_of(known.get("alpha")),
        max_norm=number_of(known.get("max_norm")),
        unet_lr=_rate(known.get("unet_lr"), known.get("learning_rate")),
        text_lr=_rate(known.get("text_lr"), known.get("learning_rate")),
        optimizer=clean(name, 80),
        optimizer_args={clean(k, 80): clean(v, 80) for k, v in arguments.items()},
        scheduler=text_of(known.get("scheduler")),
        warmup_steps=whole_of(known.get("warmup_steps")),
        max_grad_norm=number_of(known.get("max_grad_norm")),
        batch_size=whole_of(
            known.get("batch_size")
            or first_set.get("batch_size_per_device")
            or known.get("total_batch_size")
        ),
        gradient_accumulation=whole_of(known.get("gradient_accumulation")),
        epochs=whole_of(known.get("epochs")),
        steps=whole_of(known.get("steps")),
        steps_per_epoch=whole_of(known.get("steps_per_epoch")),
        epoch=whole_of(known.get("epoch")),
        step=whole_of(known.get("step")),
        resolution=_pair(
            known.get("resolution") or first_set.get("resolution") or known.get("stated_resolution")
        ),
        seed=whole_of(known.get("seed")),
        clip_skip=whole_of(known.get("clip_skip")),
        min_snr_gamma=number_of(known.get("min_snr_gamma")),
        noise_offset=number_of(known.get("noise_offset")),
        caption_dropout=number_of(known.get("caption_dropout")),
        shuffle_tags=_switch(known.get("shuffle_tags")),
        keep_tags=whole_of(known.get("keep_tags")),
        mixed_precision=text_of(known.get("mixed_precision")),
        base_model=text_of(known.get("base_model") or known.get("base_model_stated")),
        base_version=_base_version(known, trainer),
        base_sha256=text_of(known.get("base_sha256")),
        base_legacy=text_of(known.get("base_legacy")),
        prediction_type=_prediction(known),
        trigger=text_of(known.get("trigger") or known.get("trained_words")),
        folders=tuple(_folders(known))[:MOST_FOLDERS],
        tags=tuple(sorted(total.items(), key=lambda one: (-one[1], one[0]))[:MOST_TAGS]),
    )
    return _possible(stated)


def _possible(stated: Settings) -> Settings:
    """Take out what cannot be, and list it."""
    numbers = {name: getattr(stated, name) for name in LEAST}
    wrong = {k: v for k, v in numbers.items() if v is not None and v < LEAST[k]}
    nothing: dict[str, Any] = dict.fromkeys(wrong)
    return replace(stated, impossible=tuple(wrong.items()), **nothing)


def _looks_like_ours(metadata: Mapping[str, str]) -> bool:
    """Tell our own trainer, which writes kohya's keys but nothing that depends on the clock."""
    return (
        metadata.get("ss_network_module") == "networks.lora"
        and {"ss_seed", "ss_keep_tokens", "ss_optimizer", "modelspec.title"} <= metadata.keys()
        and not {"ss_session_id", "ss_training_started_at", "modelspec.date"} & metadata.keys()
        and "ss_sd_scripts_commit_hash" not in metadata
    )


def _looks_like_simpletuner(metadata: Mapping[str, str]) -> bool:
    return (
        metadata.get("modelspec.implementation") == "diffusers"
        and str(metadata.get("modelspec.architecture", "")).endswith("/lora")
        and not any(key.startswith("ss_network") for key in metadata)
    )


def _from_onetrainer(known: Mapping[str, Value]) -> dict[str, Value]:
    """Read OneTrainer's own settings; it names no steps."""
    config = known.get("onetrainer_config")
    if not isinstance(config, dict):
        return {}
    optimizer = config.get("optimizer")
    unet, text = config.get("unet"), config.get("text_encoder")
    base = config.get("learning_rate")
    gamma = config.get("loss_weight_strength")
    found = {
        "rank": config.get("lora_rank"),
        "alpha": config.get("lora_alpha"),
        "network_module": config.get("peft_type"),
        "optimizer": optimizer.get("optimizer") if isinstance(optimizer, dict) else optimizer,
        "scheduler": config.get("learning_rate_scheduler"),
        "warmup_steps": config.get("learning_rate_warmup_steps"),
        "learning_rate": base,
        "unet_lr": unet.get("learning_rate") if isinstance(unet, dict) else None,
        "text_lr": text.get("learning_rate") if isinstance(text, dict) else None,
        "batch_size": config.get("batch_size"),
        "gradient_accumulation": config.get("gradient_accumulation_steps"),
        "epochs": config.get("epochs"),
        "resolution": size(str(config.get("resolution", ""))[:20]),
        "seed": config.get("seed"),
        "base_model": config.get("base_model_name"),
        "noise_offset": config.get("offset_noise_weight"),
        "min_snr_gamma": gamma if config.get("loss_weight_fn") == "MIN_SNR_GAMMA" else None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _from_ai_toolkit(known: Mapping[str, Value]) -> dict[str, Value]:
    info = known.get("training_info")
    if not isinstance(info, dict):
        return {}
    return {key: info[key] for key in ("step", "epoch") if key in info}


def _from_peft(known: Mapping[str, Value]) -> dict[str, Value]:
    """Read rank and alpha of the U-Net, else of whatever PEFT speaks of first."""
    peft = known.get("peft")
    if not isinstance(peft, dict):
        return {}
    found: dict[str, Value] = {}
    for ours, theirs in (("rank", "r"), ("alpha", "lora_alpha")):
        keys = [f"unet.{theirs}", theirs, *(k for k in peft if k.endswith(f".{theirs}"))]
        value = next((peft[key] for key in keys if key in peft), None)
        if value is not None:
            found[ours] = value
    return found


def _base_version(known: Mapping[str, Value], trainer: str) -> str:
    """Give the version of the base model; ai-toolkit writes one where it knows none."""
    version = text_of(known.get("base_version"))
    if trainer == AI_TOOLKIT and version in GUESSED_VERSIONS:
        return ""
    if trainer == ONETRAINER:
        version = version.rstrip("_")
    return version or text_of(known.get("architecture"))


def _prediction(known: Mapping[str, Value]) -> str:
    stated = text_of(known.get("prediction_type")).lower()
    if stated in ("v", "v_prediction", "velocity"):
        return "v"
    if stated == "epsilon":
        return stated
    return "v" if text_of(known.get("base_version")).endswith("_v") else ""


def _first_dataset(known: Mapping[str, Value]) -> dict[str, Any]:
    """Give the first of the datasets of a training from a dataset file."""
    sets = known.get("datasets")
    first = sets[0] if isinstance(sets, list) and sets else {}
    return first if isinstance(first, dict) else {}


def _folders(known: Mapping[str, Value]) -> Iterator[Folder]:
    seen = False
    for key, regularisation in (("dataset_folders", False), ("regularisation_folders", True)):
        folders = known.get(key)
        for name, about in folders.items() if isinstance(folders, dict) else ():
            seen = True
            about = about if isinstance(about, dict) else {}
            yield Folder(
                name=clean(str(name), 120),
                images=whole_of(about.get("img_count")) or 0,
                repeats=whole_of(about.get("n_repeats")) or 1,
                regularisation=regularisation,
            )
    sets = known.get("datasets")
    for one in sets if isinstance(sets, list) and not seen else ():
        subsets = one.get("subsets") if isinstance(one, dict) else None
        for about in subsets if isinstance(subsets, list) else ():
            if isinstance(about, dict):
                name = about.get("image_dir") or about.get("metadata_file") or ""
                yield Folder(
                    name=clean(str(name), 120),
                    images=whole_of(about.get("img_count")) or 0,
                    repeats=whole_of(about.get("num_repeats")) or 1,
                    regularisation=about.get("is_reg") is True,
                )


def _flat_texts(value: Value) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    items = list(value.items())[:MOST_ROWS]
    return {clean(str(k), 80): as_text("", v) for k, v in items if v is not None}


def _rate(own: Value, shared: Value) -> float | None:
    """Give a part's own learning rate; kohya and OneTrainer take the shared one where it is none.

    Of two rates, ``5e-05, 1e-05``, the first.
    """
    first = str(own).split(",")[0] if isinstance(own, str) else own
    rate = number_of(first)
    return rate if rate is not None else number_of(shared)


def _switch(value: Value) -> bool | None:
    return value if isinstance(value, bool) else None


def _pair(value: Any) -> tuple[int, int] | None:
    if isinstance(value, list | tuple) and len(value) == 2:
        width, height = whole_of(value[0]), whole_of(value[1])
        return (width, height) if width and height else None
    side = whole_of(value)
    return (side, side) if side else None
