"""The settings that other trainers leave behind, in our words where there are such.

A training's settings come from its checkpoints' metadata (``ss_...``) and from the config files
that its trainer keeps: kohya_ss' JSON and TOML, OneTrainer's JSON, ai-toolkit's and diffusers'
YAML. What has a name in our own config gets it; the rest is kept under the name it had.
"""

import contextlib
import importlib
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorascope.io import train_settings
from lorascope.io.layouts import AI_TOOLKIT, DIFFUSERS, KOHYA, ONETRAINER
from lorascope.io.prompt_files import SamplePrompt, from_line, from_lines, from_rows

Value = str | int | float | bool
Check = Callable[[Any], Value | None]  # brings a foreign value into our form; None: it has none

LIMIT = 4_000_000  # bytes; a larger file is no config
ENDINGS = (".json", ".toml", ".yaml", ".yml")
LONG = 400  # letters of a value that is only kept as a remark
ANY_PATH = re.compile(r"[^\x00-\x1f]+")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is known of how one training was set up."""

    trainer: str = ""
    path: Path | None = None  # the file it was read from
    name: str = ""  # of what it saves
    ours: Mapping[str, Value] = field(default_factory=dict)  # by the names of our own config
    others: Mapping[str, Value] = field(default_factory=dict)  # by the names they had
    datasets: tuple[str, ...] = ()  # folders of training images
    logs: tuple[str, ...] = ()  # folders of event files
    prompt_files: tuple[str, ...] = ()
    prompts: tuple[SamplePrompt, ...] = ()
    saves: tuple[str, ...] = ()  # files that it saves under names without numbers


def _number(value: Any) -> float | None:
    """Read a number of any spelling; None for none, and for what is not finite."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(str(value).strip())
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _whole(low: int, high: float = math.inf) -> Check:
    def read(value: Any) -> int | None:
        number = _number(value)
        return int(number) if number is not None and low <= number <= high else None

    return read


def _real(low: float, high: float = math.inf, *, above: bool = False) -> Check:
    def read(value: Any) -> float | None:
        number = _number(value)
        inside = number is not None and low <= number <= high and not (above and number == low)
        return number if inside else None

    return read


def _truth(value: Any) -> bool | None:
    text = str(value).strip().lower()
    return {"true": True, "false": False, "1": True, "0": False}.get(text)


def _text(value: Any) -> str | None:
    text = str(value or "").strip()
    return text if text not in ("", "None") and ANY_PATH.fullmatch(text) else None


def _scheduler(value: Any) -> str | None:
    text = str(value).strip().lower()
    return text if text in ("cosine", "constant") else None


def _side(value: Any) -> int | None:
    """Read a resolution: 512, "512,512", "(512, 512)"; None where its sides differ."""
    sides = {int(side) for side in re.findall(r"\d+", str(value))}
    return sides.pop() if len(sides) == 1 and 64 <= min(sides) <= 4096 else None


OUR_CHECKS: Mapping[str, Check] = {
    "base": _text,
    "dataset": _text,
    "name": _text,
    "trigger": _text,
    "class_word": _text,
    "epochs": _whole(1, 10_000),
    "batch_size": _whole(1, 1024),
    "repeats": _whole(1, 10_000),
    "resolution": _side,
    "held_out": _real(0, 0.5),
    "seed": _whole(0, 2**63 - 1),
    "save_every_epochs": _whole(1),
    "rank": _whole(1, 1024),
    "alpha": _real(0, above=True),
    "unet_lr": _real(0, 10),
    "text_lr": _real(0, 10),
    "scheduler": _scheduler,
    "warmup_steps": _whole(0),
    "weight_decay": _real(0, 10),
    "max_grad_norm": _real(0),
    "min_snr_gamma": _real(0),
    "caption_dropout": _real(0, 1),
    "shuffle_tags": _truth,
    "keep_tags": _whole(0, 77),
    "clip_skip": _whole(1, 12),
}
KOHYA_NAMES = {  # theirs -> ours; of two for one of ours, the first that has a value counts
    "pretrained_model_name_or_path": "base",
    "train_data_dir": "dataset",
    "output_name": "name",
    "max_train_epochs": "epochs",
    "epoch": "epochs",
    "train_batch_size": "batch_size",
    "max_resolution": "resolution",
    "resolution": "resolution",
    "validation_split": "held_out",
    "seed": "seed",
    "save_every_n_epochs": "save_every_epochs",
    "network_dim": "rank",
    "network_alpha": "alpha",
    "unet_lr": "unet_lr",
    "learning_rate": "unet_lr",
    "text_encoder_lr": "text_lr",
    "lr_scheduler": "scheduler",
    "lr_warmup_steps": "warmup_steps",
    "max_grad_norm": "max_grad_norm",
    "min_snr_gamma": "min_snr_gamma",
    "caption_dropout_rate": "caption_dropout",
    "shuffle_caption": "shuffle_tags",
    "keep_tokens": "keep_tags",
    "clip_skip": "clip_skip",
}
FROM_METADATA = {  # as `train_settings` calls it -> as our config does
    "base_model": "base",
    "name": "name",
    "trigger": "trigger",
    "epochs": "epochs",
    "batch_size": "batch_size",
    "resolution": "resolution",
    "seed": "seed",
    "rank": "rank",
    "alpha": "alpha",
    "unet_lr": "unet_lr",
    "text_lr": "text_lr",
    "scheduler": "scheduler",
    "warmup_steps": "warmup_steps",
    "max_grad_norm": "max_grad_norm",
    "min_snr_gamma": "min_snr_gamma",
    "caption_dropout": "caption_dropout",
    "shuffle_tags": "shuffle_tags",
    "keep_tags": "keep_tags",
    "clip_skip": "clip_skip",
}
ONETRAINER_NAMES = {
    "base_model_name": "base",
    "epochs": "epochs",
    "batch_size": "batch_size",
    "resolution": "resolution",
    "lora_rank": "rank",
    "lora_alpha": "alpha",
    "unet.learning_rate": "unet_lr",
    "learning_rate": "unet_lr",
    "text_encoder.learning_rate": "text_lr",
    "learning_rate_scheduler": "scheduler",
    "learning_rate_warmup_steps": "warmup_steps",
    "clip_grad_norm": "max_grad_norm",
    "text_encoder_layer_skip": "clip_skip",
}
AI_TOOLKIT_NAMES = {
    "model.name_or_path": "base",
    "trigger_word": "trigger",
    "network.linear": "rank",
    "network.rank": "rank",
    "network.linear_alpha": "alpha",
    "network.alpha": "alpha",
    "train.batch_size": "batch_size",
    "train.lr": "unet_lr",
    "train.unet_lr": "unet_lr",
    "train.text_encoder_lr": "text_lr",
    "train.lr_scheduler": "scheduler",
    "train.min_snr_gamma": "min_snr_gamma",
    "train.max_grad_norm": "max_grad_norm",
    "training_seed": "seed",
}
DIFFUSERS_NAMES = {
    "pretrained_model_name_or_path": "base",
    "num_train_epochs": "epochs",
    "train_batch_size": "batch_size",
    "resolution": "resolution",
    "seed": "seed",
    "rank": "rank",
    "learning_rate": "unet_lr",
    "text_encoder_lr": "text_lr",
    "lr_scheduler": "scheduler",
    "lr_warmup_steps": "warmup_steps",
    "adam_weight_decay": "weight_decay",
    "max_grad_norm": "max_grad_norm",
    "snr_gamma": "min_snr_gamma",
    "base_model_name_or_path": "base",  # PEFT's adapter_config.json
    "r": "rank",
    "lora_alpha": "alpha",
}


def from_metadata(metadata: Mapping[str, str]) -> Settings:
    """Read what a checkpoint's metadata says of its training."""
    known = train_settings.settings(metadata)
    ours = _ours({theirs: getattr(known, theirs) for theirs in FROM_METADATA}, FROM_METADATA)
    if (share := OUR_CHECKS["held_out"](metadata.get("ss_validation_split"))) is not None:
        ours["held_out"] = share
    others: dict[str, Value] = {
        key: text
        for key, text in metadata.items()
        if key.startswith("ss_") and text not in ("", "None") and len(text) <= LONG
    }
    return Settings(name=known.name, ours=ours, others=others)


def read_settings(path: Path) -> Settings | None:
    """Read a config file of any trainer; None where it is not one, or cannot be read."""
    raw = _load(path)
    if not isinstance(raw, dict):
        return None
    for knows, read in READERS:
        with contextlib.suppress(TypeError, ValueError, AttributeError, KeyError, IndexError):
            if knows(path, raw):
                return read(path, raw)
    return None


def as_toml(settings: Settings, *, missing: Mapping[str, str]) -> str:
    """Write settings as a config of our own trainer, with the rest as remarks.

    Parameters
    ----------
    settings : Settings
    missing : mapping of str to str
        Settings that our config must have and that are not known -> what stands in their place.
    """
    lines = ["# Recovered from what another trainer left behind. What it did not say has its"]
    lines += ["# default in our trainer, so training with this file is not the same training."]
    given = {"held_out": 0.0, **settings.ours}  # unless it says so, nothing was held out
    for name in OUR_CHECKS:
        if name in given:
            lines.append(f"{name} = {_toml(given[name])}")
        elif name in missing:
            lines.append(f"{name} = {_toml(missing[name])} # not known")
    lines += ["", "# As the other trainer called it, where our config has no name for it:"]
    lines += [f"# {_toml(str(key))[1:-1]} = {_toml(value)}" for key, value in
              sorted(settings.others.items())]  # fmt: skip
    return "\n".join(lines) + "\n"


def merged(parts: Iterable[Settings]) -> Settings:
    """Put settings from several places together; earlier ones count first."""
    found = list(parts)
    ours: dict[str, Value] = {}
    others: dict[str, Value] = {}
    for one in reversed(found):
        ours |= one.ours
        others |= one.others
    return Settings(
        trainer=next((one.trainer for one in found if one.trainer), ""),
        name=next((one.name for one in found if one.name), ""),
        ours=ours,
        others=others,
        datasets=next((one.datasets for one in found if one.datasets), ()),
        logs=tuple(dict.fromkeys(log for one in found for log in one.logs)),
        prompt_files=tuple(dict.fromkeys(f for one in found for f in one.prompt_files)),
        prompts=next((one.prompts for one in found if one.prompts), ()),
        saves=tuple(dict.fromkeys(f for one in found for f in one.saves)),
    )


def _is_kohya(_path: Path, raw: Mapping[str, Any]) -> bool:
    return "output_name" in raw and bool({"network_dim", "network_module", "LoRA_type"} & set(raw))


def _kohya(path: Path, raw: Mapping[str, Any]) -> Settings:
    text = str(raw.get("sample_prompts") or "")
    is_file = "\n" not in text and text.lower().endswith((".txt", ".toml", ".json"))
    flat = _flat(raw)
    return Settings(
        trainer=KOHYA,
        path=path,
        name=str(raw.get("output_name") or ""),
        ours=_ours(flat, KOHYA_NAMES),
        others=_others(flat, KOHYA_NAMES, drop=("sample_prompts",)),
        datasets=_texts(raw.get("train_data_dir")),
        logs=_texts(raw.get("logging_dir")),
        prompt_files=(text,) if is_file else (),
        prompts=() if is_file else from_lines(text.splitlines()),
    )


def _is_onetrainer(_path: Path, raw: Mapping[str, Any]) -> bool:
    return "training_method" in raw and "workspace_dir" in raw


def _onetrainer(path: Path, raw: Mapping[str, Any]) -> Settings:
    flat = _flat(raw)
    concepts = raw.get("concepts")
    if not concepts:
        concepts = _load(path.with_name("concepts.json")) or _load(
            Path(str(raw.get("concept_file_name") or "concepts.json"))
        )
    folders = [
        str(concept["path"])
        for concept in concepts or []
        if isinstance(concept, dict)
        and concept.get("path")
        and concept.get("enabled", True)
        and concept.get("type", "STANDARD") == "STANDARD"
    ]
    samples = raw.get("samples") or _load(path.with_name("samples.json"))
    return Settings(
        trainer=ONETRAINER,
        path=path,
        name=str(raw.get("save_filename_prefix") or "").rstrip("-_ "),
        ours=_ours(flat, ONETRAINER_NAMES),
        others=_others(flat, ONETRAINER_NAMES, drop=("concepts", "samples", "secrets")),
        datasets=tuple(folders),
        logs=tuple(f"{folder}/tensorboard" for folder in _texts(raw.get("workspace_dir"))),
        prompts=from_rows(samples) if isinstance(samples, list) else (),
        prompt_files=_texts(raw.get("sample_definition_file_name")),
        saves=_texts(raw.get("output_model_destination")),
    )


def _is_ai_toolkit(_path: Path, raw: Mapping[str, Any]) -> bool:
    config = raw.get("config")
    steps = config.get("process") if isinstance(config, dict) else None
    return isinstance(steps, list) and any(isinstance(step, dict) for step in steps)


def _ai_toolkit(path: Path, raw: Mapping[str, Any]) -> Settings:
    config = raw["config"]
    process = next(p for p in config["process"] if isinstance(p, dict))
    flat = _flat(process)
    data = [one for one in process.get("datasets") or [] if isinstance(one, dict)]
    sample = process.get("sample") or {}
    ours = dict(_ours(flat, AI_TOOLKIT_NAMES))
    if data and (dropout := OUR_CHECKS["caption_dropout"](data[0].get("caption_dropout_rate"))):
        ours["caption_dropout"] = dropout
    return Settings(
        trainer=AI_TOOLKIT,
        path=path,
        name=str(config.get("name") or ""),
        ours=ours,
        others=_others(flat, AI_TOOLKIT_NAMES, drop=("datasets", "sample.prompts")),
        datasets=tuple(str(one["folder_path"]) for one in data if one.get("folder_path")),
        logs=_texts(process.get("log_dir")),
        prompts=_ai_toolkit_prompts(sample, str(process.get("trigger_word") or "")),
    )


def _ai_toolkit_prompts(sample: Mapping[str, Any], trigger: str) -> tuple[SamplePrompt, ...]:
    """Read the prompts: each has the next seed where the seed walks; options in it count first."""
    rows = sample.get("samples") or sample.get("prompts") or []
    found = []
    for place, row in enumerate(rows):
        text = str(row.get("prompt", "") if isinstance(row, dict) else row)
        one = from_line(text.replace("[trigger]", trigger))
        given = row if isinstance(row, dict) else {}
        seed = OUR_CHECKS["seed"](given.get("seed", sample.get("seed")))
        if isinstance(seed, int) and sample.get("walk_seed") and "seed" not in given:
            seed += place
        width = _whole(1)(given.get("width", sample.get("width")))
        height = _whole(1)(given.get("height", sample.get("height")))
        found.append(
            SamplePrompt(
                prompt=one.prompt,
                negative=one.negative or str(given.get("neg", sample.get("neg")) or ""),
                seed=one.seed if one.seed is not None else _int(seed),
                width=one.width or _int(width),
                height=one.height or _int(height),
            )
        )
    return tuple(found)


def _is_diffusers(path: Path, raw: Mapping[str, Any]) -> bool:
    return "peft_type" in raw or (
        "pretrained_model_name_or_path" in raw and "output_dir" in raw and "output_name" not in raw
    )


def _diffusers(path: Path, raw: Mapping[str, Any]) -> Settings:
    flat = _flat(raw)
    given = {key: value for key, value in flat.items() if value not in (None, "None", "")}
    return Settings(
        trainer=DIFFUSERS,
        path=path,
        name=Path(str(raw.get("output_dir") or "")).name,
        ours=_ours(given, DIFFUSERS_NAMES),
        others=_others(given, DIFFUSERS_NAMES, drop=()),
        datasets=_texts(raw.get("instance_data_dir")) or _texts(raw.get("train_data_dir")),
    )


READERS = (
    (_is_ai_toolkit, _ai_toolkit),
    (_is_onetrainer, _onetrainer),
    (_is_diffusers, _diffusers),
    (_is_kohya, _kohya),
)


def _load(path: Path) -> Any:
    """Read a JSON, TOML or YAML file; None where it cannot be read."""
    try:
        if path.suffix.lower() not in ENDINGS or path.stat().st_size > LIMIT:
            return None
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            return json.loads(text)
        if path.suffix.lower() == ".toml":
            raw = tomllib.loads(text)
            return {k: v for part in _sections(raw) for k, v in part.items()}
        return _yaml(text)
    except (OSError, ValueError, RecursionError):
        return None


def _sections(raw: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Flatten a TOML's tables, as sd-scripts does with its config files."""
    yield {key: value for key, value in raw.items() if not isinstance(value, dict)}
    yield from (value for value in raw.values() if isinstance(value, dict))


def _yaml(text: str) -> Any:
    """Read YAML where PyYAML is installed; without it, the flat ``key: value`` lines."""
    try:
        yaml = importlib.import_module("yaml")  # other packages bring it; it is none of ours
    except ImportError:
        pairs = (line.split(":", 1) for line in text.splitlines() if re.match(r"\w+: ", line))
        return {key: value.strip().strip("'\"") for key, value in pairs}
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _flat(raw: Mapping[str, Any], prefix: str = "", depth: int = 3) -> dict[str, Any]:
    """Write nested settings as ``network.linear``."""
    found: dict[str, Any] = {}
    for key, value in raw.items():
        if isinstance(value, Mapping) and depth:
            found |= _flat(value, f"{prefix}{key}.", depth - 1)
        else:
            found[f"{prefix}{key}"] = value
    return found


def _ours(raw: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Value]:
    """Translate what has a name in our config and a value that it takes."""
    found: dict[str, Value] = {}
    for theirs, name in names.items():
        if name in found or theirs not in raw or raw[theirs] in (None, ""):
            continue
        value = OUR_CHECKS[name](raw[theirs])
        if value is not None:
            found[name] = value
    return found


def _others(raw: Mapping[str, Any], names: Mapping[str, str], *, drop: tuple[str, ...]) -> dict[
    str, Value
]:  # fmt: skip
    """Keep what was set and was not translated, as far as it is short."""
    found: dict[str, Value] = {}
    for key, value in raw.items():
        if key.startswith(drop) if drop else False:
            continue
        if value in (None, "", [], {}) or "token" in key or "api_key" in key:
            continue
        translated = key in names and OUR_CHECKS[names[key]](value) is not None
        if not translated and len(str(value)) <= LONG:
            found[key] = value if isinstance(value, (str, int, float, bool)) else str(value)
    return found


def _texts(value: Any) -> tuple[str, ...]:
    text = _text(value)
    return (text,) if text else ()


def _int(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _toml(value: Value) -> str:
    """Write a value; JSON's texts and truth values are TOML's, but for DEL."""
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else json.dumps(str(value))
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
