"""Networks whose files the user has to name, because opening them may run what is in them."""

import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from lorascope.errors import BadInputError, MissingInputError
from lorascope.models.encoder_files import Preparation, files_digest
from lorascope.models.encoder_network import DAMAGE, Encoder, Network

BILINEAR = 2  # Pillow's number for it
# Skewed to a square, which SSCD's makers advise for batches.
SSCD = Preparation(edge=0, size=(320, 320), resample=BILINEAR)
DREAMSIM = Preparation(edge=0, size=(224, 224), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def sscd(place: str, device: torch.device) -> Encoder:
    """Open a TorchScript file that was named."""
    path = Path(place).expanduser()
    if not place or not path.is_file():
        looked = f"{path} is no file" if place else "no file was named"
        raise MissingInputError(
            f"sscd needs its TorchScript file, and {looked}. Opening it runs what is in the file, "
            "so only a file that is named is opened: take one that you trust.\n"
            "Fix: --features sscd:PATH/sscd_disc_mixup.torchscript.pt"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch would have everybody write another format
            model = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise BadInputError(
            f"{path} is no TorchScript file, or damaged.\n"
            "Fix: take the file that ends in .torchscript.pt."
        ) from error
    return Network(f"sscd-{files_digest([path])}", model, SSCD, device)


def dreamsim(place: str, device: torch.device) -> Encoder:
    """Open DreamSim through its own package."""
    folder = Path(place).expanduser()
    try:
        package = importlib.import_module("dreamsim")
    except ImportError as error:
        raise MissingInputError(
            "dreamsim is not installed here.\nFix: pip install dreamsim, or --features dinov2."
        ) from error
    if not place or not folder.is_dir():
        looked = f"{folder} is no folder" if place else "no folder was named"
        raise MissingInputError(
            f"dreamsim needs the folder of its weights, and {looked}; nothing is downloaded. They "
            "are pickles: name a folder that you trust.\nFix: "
            "python -c \"from dreamsim import dreamsim; dreamsim(device='cpu', "
            "cache_dir='models')\", then --features dreamsim:models"
        )
    try:
        with _no_download(folder), _nothing_said(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = package.dreamsim(pretrained=True, device=str(device), cache_dir=str(folder))[0]
    except DAMAGE as error:
        raise BadInputError(
            f"dreamsim cannot be opened from {folder}: {error}\n"
            "Fix: check with its own package that the folder is whole."
        ) from error
    weights = [f for f in folder.rglob("*") if f.is_file() and f.suffix != ".zip"]
    return Network(f"dreamsim-{files_digest(weights)}", model.embed, DREAMSIM, device)


@contextmanager
def _no_download(folder: Path) -> Iterator[None]:
    """Keep a package from downloading weights with torch's own means."""

    def refuse(*_args: object, **_options: object) -> None:
        raise MissingInputError(
            f"{folder} lacks some of dreamsim's weights; nothing is downloaded.\n"
            "Fix: let its own package download them into that folder."
        )

    kept = torch.hub.download_url_to_file
    torch.hub.download_url_to_file = refuse
    try:
        yield
    finally:
        torch.hub.download_url_to_file = kept


@contextmanager
def _nothing_said() -> Iterator[None]:
    """Keep a package's remarks out of what is printed as a result."""
    kept = sys.stdout
    with Path(os.devnull).open("w", encoding="utf-8") as sink:
        sys.stdout = sink
        try:
            yield
        finally:
            sys.stdout = kept
