"""The config files of all trainers: each is known by what stands in it."""

import contextlib
from pathlib import Path

from lorascope.io.foreign import ai_toolkit, dataset_config, diffusers, kohya, onetrainer
from lorascope.io.foreign.config_file import load
from lorascope.io.foreign.settings import Settings

FORMATS = (
    (ai_toolkit.knows, ai_toolkit.read),
    (onetrainer.knows, onetrainer.read),
    (diffusers.knows, diffusers.read),
    (kohya.knows, kohya.read),
    (dataset_config.knows, dataset_config.read),
)


def read_settings(path: Path) -> Settings | None:
    """Read a config file of any trainer; None where it is not one, or cannot be read."""
    raw = load(path)
    if not isinstance(raw, dict):
        return None
    for knows, read in FORMATS:
        with contextlib.suppress(TypeError, ValueError, AttributeError, KeyError, IndexError):
            if knows(raw):
                return read(path, raw)
    return None
