"""What each trainer calls its files: checkpoints, sample pictures, and the folders they lie in.

Facts about other programs' names stand here and nowhere else.

=============  ==================================================  ================================
trainer        checkpoint                                          sample
=============  ==================================================  ================================
kohya          ``NAME-000004``, ``NAME-step00000400``, ``NAME``    ``NAME_e000004_00_DATE_SEED``
OneTrainer     ``DATE-save-STEP-EPOCH-EPOCHSTEP``                  ``DATE-training-sample-STEP-...``
ai-toolkit     ``NAME_000000400``, ``NAME``                        ``MILLISECONDS__000000400_0``
diffusers      ``checkpoint-400/pytorch_lora_weights``             (none)
=============  ==================================================  ================================
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

KOHYA, ONETRAINER, AI_TOOLKIT, DIFFUSERS = "kohya", "OneTrainer", "ai-toolkit", "diffusers"

STAMP = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d"
ONETRAINER_SAVE = re.compile(
    rf"(?P<name>.*?)(?P<taken>{STAMP})-(?:save|backup)"
    r"-(?P<step>\d+)-(?P<epoch>\d+)-(?P<epoch_step>\d+)"
)
KOHYA_STEP = re.compile(r"(?P<name>.+?)-step(?P<step>\d+)")
KOHYA_EPOCH = re.compile(r"(?P<name>.+?)-(?P<epoch>\d{6})")
AI_TOOLKIT_STEP = re.compile(r"(?P<name>.+)_(?P<step>\d{9})")
DIFFUSERS_FOLDER = re.compile(r"checkpoint-(?P<step>\d+)")
DIFFUSERS_FILES = ("pytorch_lora_weights", "adapter_model")  # the second is PEFT's own

NUMBER = r"(?:e(?P<epoch>\d{6})|(?P<step>\d{6,}))"
SAMPLES = (
    (KOHYA, re.compile(rf"(?:(?P<name>.+)_)?{NUMBER}_(?P<index>\d\d+)_(?P<taken>\d{{14}})"
                       r"(?:_(?P<seed>\d+))?")),
    (KOHYA, re.compile(rf"(?:(?P<name>.+)_)?(?P<taken>\d{{14}})_{NUMBER}_(?P<index>\d\d+)"
                       r"(?:_(?P<seed>\d+))?")),  # until 2024 the date came first
    (ONETRAINER, re.compile(rf"(?P<name>.*?)(?P<taken>{STAMP})-training-sample"
                            r"-(?P<step>\d+)-(?P<epoch>\d+)-(?P<epoch_step>\d+)")),
    (AI_TOOLKIT, re.compile(r"(?P<taken>\d{12,14})__(?P<step>\d{9})_(?P<index>\d+)")),
)  # fmt: skip
ONETRAINER_PROMPT = re.compile(r"(?P<index>\d+) - (?P<prompt>.*?)(?P<raw> - no-ema)?")

STATE_FOLDERS = re.compile(r".+-state|.+-backup-\d+-\d+-\d+|optimizer|backup|onetrainer_config")
EVENT_FILE = re.compile(r".*tfevents\.(?P<start>\d{9,10})\b.*")
CONFIG_TIME = re.compile(rf"(?:.*[^\d])?(\d{{8}}-\d{{6}}|{STAMP})")
MOST_STEPS = 10**9
LOG_FOLDERS = ("logs", "log", "tensorboard", ".tensorboard")
DATASET_FOLDERS = ("img", "image", "images", "dataset", "datasets", "data", "train", "train_data")


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedState:
    """What the name of a checkpoint says."""

    name: str  # of the training, without numbers; may be empty
    epoch: int | None = None  # None: the name does not say
    step: int = 0  # 0: the name does not say
    by_step: bool = False  # it was saved at a step, not at the end of an epoch
    trainer: str = ""  # whose way of naming it is; "" where several have it


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedSample:
    """What the name of a sample picture says."""

    trainer: str
    name: str  # of the training; may be empty
    epoch: int | None  # finished epochs
    step: int | None
    index: int | None  # which of the prompts
    seed: int | None
    prompt: str  # where the folder's name holds it; cut to 32 letters
    taken: str  # ISO date and time, or ""
    raw: bool = False  # drawn without the moving average of the weights


def named_state(path: Path) -> NamedState:
    """Read a checkpoint's name.

    The folder is looked at for the one trainer whose files all have one name (diffusers).
    """
    stem = path.stem
    if stem == "lora" and path.parent.name == "lora":  # the one in a backup of OneTrainer
        stem = path.parent.parent.name
    if stem in DIFFUSERS_FILES:
        folder = path.absolute().parent
        if found := DIFFUSERS_FOLDER.fullmatch(folder.name):
            step = _step(found["step"])
            return NamedState(name=folder.parent.name, step=step, by_step=True, trainer=DIFFUSERS)
        return NamedState(name=folder.name, trainer=DIFFUSERS)
    if found := ONETRAINER_SAVE.fullmatch(stem):
        whole = int(found["epoch_step"]) == 0
        return NamedState(
            name=found["name"].rstrip("-_ "),
            epoch=int(found["epoch"]) + (not whole),
            step=_step(found["step"]),
            by_step=not whole,
            trainer=ONETRAINER,
        )
    if found := KOHYA_STEP.fullmatch(stem):
        step = _step(found["step"])
        return NamedState(name=found["name"], step=step, by_step=True, trainer=KOHYA)
    if found := KOHYA_EPOCH.fullmatch(stem):
        return NamedState(name=found["name"], epoch=int(found["epoch"]), trainer=KOHYA)
    if found := AI_TOOLKIT_STEP.fullmatch(stem):
        step = _step(found["step"])
        return NamedState(name=found["name"], step=step, by_step=True, trainer=AI_TOOLKIT)
    return NamedState(name=stem)


def named_sample(path: Path) -> NamedSample | None:
    """Read a sample picture's name; None where it is not one that a trainer gives."""
    matches = ((trainer, pattern.fullmatch(path.stem)) for trainer, pattern in SAMPLES)
    trainer, match = next((pair for pair in matches if pair[1]), ("", None))
    if match is None:
        return None
    parts = match.groupdict()
    prompt, raw = "", False
    if trainer == ONETRAINER and (folder := ONETRAINER_PROMPT.fullmatch(path.parent.name)):
        parts["index"], prompt, raw = folder["index"], folder["prompt"], bool(folder["raw"])
    epoch = _number(parts.get("epoch"))
    if epoch is not None and _number(parts.get("epoch_step")):
        epoch = None  # in the midst of one
    return NamedSample(
        trainer=trainer,
        name=(parts.get("name") or "").rstrip("-_ "),
        epoch=epoch,
        step=_number(parts.get("step")),
        index=_number(parts.get("index")),
        seed=_number(parts.get("seed")),
        prompt=prompt,
        taken=_time(parts["taken"] or ""),
        raw=raw,
    )


def is_state_folder(path: Path) -> bool:
    """Tell whether a folder holds what a resumed training needs, and no checkpoints to look at."""
    return STATE_FOLDERS.fullmatch(path.name) is not None


def log_start(path: Path) -> float | None:
    """Read from its name when an event file was begun, in s since 1970."""
    found = EVENT_FILE.fullmatch(path.name)
    return float(found["start"]) if found else None


def config_time(path: Path) -> float | None:
    """Read from its name when a config was written, in s since 1970; its clock is the local one."""
    found = CONFIG_TIME.fullmatch(path.stem)
    text = _time(found[1].replace("-", "") if found[1][8] == "-" else found[1]) if found else ""
    return datetime.fromisoformat(text).timestamp() if text else None


def trainer_of(names: Iterable[str], keys: Sequence[str]) -> str:
    """Say which trainer wrote files, by their names and the keys of their metadata.

    Returns
    -------
    str
        "" where neither tells.
    """
    if any(key.startswith("ot_") for key in keys):
        return ONETRAINER
    if "training_info" in keys or "software" in keys:
        return AI_TOOLKIT
    if any(key.startswith("ss_") for key in keys):
        return KOHYA
    return next((name for name in names if name), "")


def printable(text: object) -> str:
    """Write a foreign name so that it can do nothing to a terminal."""
    plain = str(text).encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in plain)


def _step(text: str) -> int:
    """Read a step; 0, not said, for more than any training has."""
    return step if (step := int(text)) <= MOST_STEPS else 0


def _number(text: str | None) -> int | None:
    return int(text) if text else None


def _time(text: str) -> str:
    """Bring a file's date to ISO; clock times are local, milliseconds are counted in UTC."""
    for form, length in (("%Y%m%d%H%M%S", 14), ("%Y-%m-%d_%H-%M-%S", 19)):
        if len(text) == length:
            try:
                return datetime.strptime(text, form).isoformat(timespec="seconds")
            except ValueError:
                continue
    if text.isdigit() and len(text) <= 14:
        moment = datetime.fromtimestamp(int(text) / 1000, tz=UTC)
        return moment.isoformat(timespec="milliseconds")
    return ""
