"""A config file of any trainer, as it stands: JSON, TOML or YAML."""

import importlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

LIMIT = 4_000_000  # bytes; a larger file is no config
ENDINGS = (".json", ".toml", ".yaml", ".yml")


def load(path: Path) -> Any:
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
