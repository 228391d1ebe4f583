"""What this machine can do: versions, device, memory, base models at hand."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "peft",
    "safetensors",
    "streamlit",
    "daam",
)


def look() -> dict[str, Any]:
    """Look at the machine once.

    Returns
    -------
    dict
        Name to text or number; memory in MiB. What is not there is said so.
    """
    from lorascope import __version__

    found: dict[str, Any] = {"lorascope": __version__, "python": platform.python_version()}
    found |= {name: _version(name) for name in PACKAGES}
    return found | _device() | {"cpu_cores": os.cpu_count(), "hub_models": ", ".join(_hub())}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _device() -> dict[str, Any]:
    import torch

    if torch.cuda.is_available():
        about = torch.cuda.get_device_properties(0)
        return {"device": about.name, "device_memory_mib": about.total_memory // 2**20}
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"device": "cpu", "memory_mib": pages // 2**20}


def _hub() -> list[str]:
    """Name the base models in the hub's cache, without asking the network."""
    cache = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface")) / "hub"
    folders = sorted(cache.glob("models--*/snapshots/*/model_index.json"))
    names = {f.parts[-4].removeprefix("models--").replace("--", "/") for f in folders}
    return ["miniature", *sorted(names)]
