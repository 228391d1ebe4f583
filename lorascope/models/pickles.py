"""LoRAs in old pickles (.pt, .ckpt, .bin), opened so that nothing in them can run."""

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lorascope.errors import BadInputError, MissingInputError

FIX = "Fix: ask its maker for a .safetensors file, or convert it to .safetensors first."


def read_pickled_tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """Read the tensors of a pickle with torch's restricted reader.

    Parameters
    ----------
    path : Path
        A dictionary of tensors, or one with such a dictionary under ``state_dict``.

    Returns
    -------
    dict of str to float32 array
        For `lorascope.io.lora_file.lora_from_tensors`.

    Raises
    ------
    MissingInputError
        There is no such file.
    BadInputError
        It holds more than tensors, or is damaged, or its tensors are larger than it is.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(f"{path} does not exist.\nFix: name a LoRA's file.")
    _refuse_packed(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles newer than torch's own
            held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle makes the reader fail in any way there is
        raise BadInputError(
            f"{path} holds more than tensors, or is damaged; nothing in it was run.\n{FIX}"
        ) from error
    inner = held.get("state_dict", held) if isinstance(held, Mapping) else None
    if not isinstance(inner, Mapping):
        raise BadInputError(f"{path} holds no named tensors.\n{FIX}")
    tensors = {str(k): v for k, v in inner.items() if isinstance(v, torch.Tensor)}
    _refuse_odd(path, tensors)
    return {name: _array(value) for name, value in tensors.items()}


def _refuse_packed(path: Path) -> None:
    """Refuse a compressed archive, which could fill the memory; torch never writes one."""
    try:
        with zipfile.ZipFile(path) as opened:
            packed = any(i.compress_type != zipfile.ZIP_STORED for i in opened.infolist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return  # of the older format, or damaged, which torch says
    if packed:
        raise BadInputError(f"{path} is packed, as no trainer leaves it.\n{FIX}")


def _refuse_odd(path: Path, tensors: Mapping[str, Any]) -> None:
    """Refuse tensors without plain numbers, and more numbers than the file has bytes."""
    for name, value in tensors.items():
        plain = value.layout == torch.strided and value.device.type == "cpu"
        if not plain or value.is_complex() or value.is_quantized:
            raise BadInputError(f"{path}: {name} is no tensor of plain numbers.\n{FIX}")
    if sum(value.numel() for value in tensors.values()) > path.stat().st_size:
        raise BadInputError(f"{path} promises more numbers than it has room for.\n{FIX}")


def _array(value: torch.Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = value.detach().to(torch.float32).contiguous().numpy()
    return found
