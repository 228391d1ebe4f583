"""The settings of a training: validated whole, every problem listed at once; TOML in and out."""

import difflib
import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lorascope import storage
from lorascope.errors import BadInputError, MissingInputError

Check = Callable[[Any], str]  # what is wrong with a value; "" where nothing is

SCHEDULERS = ("cosine", "constant")
TARGETS = ("attention",)
FILE_NAME = re.compile(r"[\w][\w .+-]*")
OTHER_NAMES = {  # as other trainers write it -> as it is written here
    "pretrained_model_name_or_path": "base",
    "train_data_dir": "dataset",
    "output_name": "name",
    "max_train_epochs": "epochs",
    "train_batch_size": "batch_size",
    "num_repeats": "repeats",
    "network_dim": "rank",
    "network_alpha": "alpha",
    "learning_rate": "unet_lr",
    "lr": "unet_lr",
    "text_encoder_lr": "text_lr",
    "lr_scheduler": "scheduler",
    "lr_warmup_steps": "warmup_steps",
    "caption_dropout_rate": "caption_dropout",
    "shuffle_caption": "shuffle_tags",
    "keep_tokens": "keep_tags",
    "validation_split": "held_out",
    "save_every_n_epochs": "save_every_epochs",
    "min_snr_gamma_value": "min_snr_gamma",
}


def number(low: float, high: float = math.inf, *, above: bool = False) -> Check:
    """Make a check of a range; ``above`` shuts the lower end out."""

    def check(value: Any) -> str:
        if math.isfinite(value) and (value > low if above else value >= low) and value <= high:
            return ""
        bound = f"above {low:g}" if above else f"at least {low:g}"
        return f"must be {bound}" + (f" and at most {high:g}" if math.isfinite(high) else "")

    return check


def one_of(choices: tuple[str, ...]) -> Check:
    """Make a check of a list of words."""

    def check(value: Any) -> str:
        if value in choices:
            return ""
        return f"must be {' or '.join(choices)}{_did_you_mean(str(value), choices)}"

    return check


def filled(value: str) -> str:
    """Refuse an empty text."""
    return "" if value.strip() else "must not be empty"


def file_name(value: str) -> str:
    """Refuse what cannot be the beginning of a file's name."""
    fits = not value or FILE_NAME.fullmatch(value)
    return "" if fits else "must be a plain file name (letters, digits, - _ . + and blanks)"


def any_text(_: str) -> str:
    """Accept any text."""
    return ""


def setting(
    about: str, check: Check = any_text, default: Any = MISSING, *, heading: str = ""
) -> Any:
    """Declare one setting: what it means, what it may be, where a new group begins."""
    meta = {"about": about, "check": check, "heading": heading}
    return field(default=default, metadata=meta)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Every setting of one training.

    Raises
    ------
    BadInputError
        A setting cannot be used; the message lists every one that cannot.
    """

    base: str = setting(
        "the base model: miniature, a folder, a .safetensors file or a hub name",
        filled,
        heading="What is trained on what",
    )
    dataset: str = setting("the folder with <repeats>_<name> folders, or with pictures", filled)
    name: str = setting("how the LoRA's files begin; empty = as the run", file_name, "")
    trigger: str = setting("the tag meant to call the subject up", default="")
    class_word: str = setting("the plain noun for the subject: plant, woman", default="")

    epochs: int = setting(
        "every image x repeats once each", number(1, 10_000), 10, heading="How long, how many"
    )
    batch_size: int = setting("images in one step", number(1, 1024), 4)
    repeats: int | None = setting(
        "how often an image is shown in one epoch; unset = from folder names",
        number(1, 10_000),
        None,
    )
    resolution: int | None = setting(
        "px, the side of a square of the images' area; unset = the base model's own",
        number(64, 4096),
        None,
    )
    held_out: float = setting(
        "share of the images never trained on, to judge by; 0 = none", number(0, 0.5), 0.2
    )
    held_out_tag: str = setting(
        "a background or outfit kept out whole, to see what the LoRA does with it", default=""
    )
    seed: int = setting("decides every random draw", number(0, 2**63 - 1), 0)
    save_every_epochs: int = setting("a checkpoint every so many epochs", number(1), 1)

    rank: int = setting("inner size of up @ down", number(1, 1024), 16, heading="The network")
    alpha: float = setting("scale = alpha / rank", number(0, above=True), 8.0)
    network_targets: str = setting("which modules are adapted", one_of(TARGETS), "attention")

    unet_lr: float = setting("U-Net learning rate", number(0, 10), 1e-4, heading="How it learns")
    text_lr: float = setting(
        "text encoder learning rate; 0 = the text encoder is not trained", number(0, 10), 0.0
    )
    scheduler: str = setting("cosine or constant", one_of(SCHEDULERS), "cosine")
    warmup_steps: int = setting("steps in which the learning rates rise from 0", number(0), 0)
    weight_decay: float = setting("of AdamW", number(0, 10), 0.01)
    max_grad_norm: float = setting("longer gradients are shortened to it; 0 = off", number(0), 1.0)
    min_snr_gamma: float = setting(
        "caps the weight of low-noise timesteps (min-SNR); 0 = off", number(0), 5.0
    )

    caption_dropout: float = setting(
        "share of the steps in which an image has no caption", number(0, 1), 0.0, heading="Captions"
    )
    shuffle_tags: bool = setting("new order of the tags each time", default=False)
    keep_tags: int = setting("so many tags stay first when shuffling", number(0, 77), 1)
    clip_skip: int = setting("text encoder layer from the end; 1 = the last", number(1, 12), 1)

    def __post_init__(self) -> None:
        """Look at every setting, then refuse all bad ones at once."""
        problems: list[str] = []
        for one in fields(self):
            value, problem = _typed(one, getattr(self, one.name))
            if value is not None and not problem:
                object.__setattr__(self, one.name, value)
                problem = one.metadata["check"](value)
            if problem:
                problems.append(f"{one.name} = {_toml(getattr(self, one.name))}: {problem}")
        if not problems and self.unet_lr == self.text_lr == 0:
            problems.append("unet_lr and text_lr are both 0: nothing would be trained")
        if problems:
            raise BadInputError(_all("These settings cannot be used", problems))


def config_from(raw: Mapping[str, Any]) -> TrainConfig:
    """Make a configuration from names and values.

    Raises
    ------
    BadInputError
        A name is unknown, a required one is missing, or a value cannot be used: all of them
        are listed.
    """
    known = {one.name: one for one in fields(TrainConfig)}
    problems = [f"{name}: unknown{_hint(name, tuple(known))}" for name in raw if name not in known]
    needed = [n for n, one in known.items() if one.default is MISSING and n not in raw]
    problems += [f"{name}: missing ({known[name].metadata['about']})" for name in needed]
    fillers: dict[str, Any] = dict.fromkeys(needed, "-")
    try:
        config = TrainConfig(**fillers, **{n: v for n, v in raw.items() if n in known})
    except BadInputError as error:
        problems += [line.removeprefix("  ") for line in str(error).splitlines()[1:]]
    if problems:
        raise BadInputError(_all("These settings cannot be used", problems))
    return config


def read_config(path: Path) -> TrainConfig:
    """Read a configuration file.

    Raises
    ------
    MissingInputError
        There is no such file.
    BadInputError
        It is not TOML, or a setting cannot be used.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise MissingInputError(
            f"{path} does not exist.\nFix: lorascope new {path} writes one to start from."
        ) from error
    except (OSError, ValueError) as error:  # not TOML and not UTF-8 are ValueErrors
        raise BadInputError(f"{path} cannot be read: {error}") from error
    try:
        return config_from(raw)
    except BadInputError as error:
        raise BadInputError(f"{path}: {error}") from error


def write_config(path: Path, config: TrainConfig) -> None:
    """Write a configuration file, each setting with what it means.

    Raises
    ------
    StorageError
        The file cannot be written.
    """
    storage.write_text(path, as_toml(config))


def as_toml(config: TrainConfig) -> str:
    """Write a configuration as TOML; unset settings stand there as comments."""
    lines: list[str] = []
    for one in fields(config):
        value = getattr(config, one.name)
        if one.metadata["heading"]:
            lines += ["", f"# {one.metadata['heading']}"]
        text = f"# {one.name} =" if value is None else f"{one.name} = {_toml(value)}"
        lines.append(f"{text:<30} # {one.metadata['about']}")
    return "\n".join(lines[1:]) + "\n"


def differences(one: TrainConfig, other: TrainConfig) -> list[str]:
    """List the settings in which two configurations differ: ``rank 8, now 16``."""
    old, new = asdict(one), asdict(other)
    return [f"{k} {_toml(old[k])}, now {_toml(new[k])}" for k in old if old[k] != new[k]]


def _typed(one: Field[Any], value: Any) -> tuple[Any, str]:
    """Bring a value to the type that its setting is declared with, or say why it cannot be."""
    wanted = str(one.type.__name__ if isinstance(one.type, type) else one.type)
    if value is None and wanted.endswith("| None"):
        return None, ""
    wanted = wanted.removesuffix(" | None")
    if wanted == "float" and type(value) is int:
        return float(value), ""
    if wanted == "str" and isinstance(value, Path):
        return str(value), ""
    if type(value).__name__ == wanted:
        return value, ""
    words = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false"}
    return value, f"must be {words[wanted]}"


def _hint(name: str, known: tuple[str, ...]) -> str:
    same = OTHER_NAMES.get(name)
    return f"; it is called {same} here" if same else _did_you_mean(name, known)


def _did_you_mean(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word.lower(), known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _all(what: str, problems: list[str]) -> str:
    return f"{what}:\n" + "\n".join(f"  {problem}" for problem in problems)


def _toml(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    # JSON's text and truth values are TOML's, but for DEL
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")
