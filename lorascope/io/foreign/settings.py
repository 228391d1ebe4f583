"""What is known of how a training was set up, and the config of our own trainer made of it.

What has a name in our own config gets it; the rest is kept under the name it had.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lorascope.io.foreign.prompts import SamplePrompt
from lorascope.io.foreign.values import OUR_CHECKS, Value


@dataclass(frozen=True, kw_only=True)
class Subset:
    """One folder of training images, as a dataset config describes it."""

    folder: str
    repeats: int
    class_tokens: str = ""  # "zyxfern plant"
    caption_ending: str = ""  # ".caption"; "" where it does not say
    resolution: tuple[int, int] | None = None  # width, height in px


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is known of how one training was set up."""

    trainer: str = ""
    path: Path | None = None  # the file it was read from
    name: str = ""  # of what it saves
    ours: Mapping[str, Value] = field(default_factory=dict)  # by the names of our own config
    others: Mapping[str, Value] = field(default_factory=dict)  # by the names they had
    datasets: tuple[str, ...] = ()  # folders of training images
    subsets: tuple[Subset, ...] = ()  # of these folders, where a dataset config tells more
    dataset_config: str = ""  # the file that tells it: as named, or in full where it is there
    logs: tuple[str, ...] = ()  # folders of event files
    prompt_files: tuple[str, ...] = ()
    prompts: tuple[SamplePrompt, ...] = ()
    saves: tuple[str, ...] = ()  # files that it saves under names without numbers


def merged(parts: Iterable[Settings]) -> Settings:
    """Put settings from several places together; earlier ones count first."""
    found = list(parts)
    ours: dict[str, Value] = {}
    others: dict[str, Value] = {}
    for one in reversed(found):
        ours |= one.ours
        others |= one.others
    images = next((one for one in found if one.datasets or one.dataset_config), Settings())
    return Settings(
        trainer=next((one.trainer for one in found if one.trainer), ""),
        name=next((one.name for one in found if one.name), ""),
        ours=ours,
        others=others,
        datasets=images.datasets,
        subsets=images.subsets,
        dataset_config=images.dataset_config,
        logs=tuple(dict.fromkeys(log for one in found for log in one.logs)),
        prompt_files=tuple(dict.fromkeys(f for one in found for f in one.prompt_files)),
        prompts=next((one.prompts for one in found if one.prompts), ()),
        saves=tuple(dict.fromkeys(f for one in found for f in one.saves)),
    )


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


def _toml(value: Value) -> str:
    """Write a value; JSON's texts and truth values are TOML's, but for DEL."""
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else json.dumps(str(value))
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
