"""Where the dashboard keeps its own things, and which folders are runs."""

import os
from collections.abc import Sequence
from pathlib import Path

from lorascope.run import BUNDLE

STATIC = "LORASCOPE_STATIC"  # environment: the served folder of this launch
SERVED = "/app/static"  # its address, as Streamlit gives it


def cache_folder() -> Path:
    """Name the user's cache folder; it may not be there yet."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if root else Path.home() / ".cache") / "lorascope"


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """List the runs that the paths name: runs themselves, or folders that hold some."""
    found: dict[Path, None] = {}
    for path in paths:
        if (path / BUNDLE).is_file():
            found[path] = None
        elif path.is_dir():
            found |= dict.fromkeys(sorted(f.parent for f in path.glob(f"*/{BUNDLE}")))
    return list(found)
