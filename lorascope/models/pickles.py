"""LoRAs in old pickles (.pt, .ckpt, .bin), opened so that nothing in them can run."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lorascope.errors import BadInputError, MissingInputError


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
        It holds more than tensors, or is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(f"{path} does not exist.\nFix: name a LoRA's file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles newer than torch's own
            held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle makes the reader fail in any way there is
        raise BadInputError(
            f"{path} holds more than tensors, or is damaged; lorascope does not open it.\n"
            "Fix: convert it to .safetensors first."
        ) from error
    inner = held.get("state_dict", held) if isinstance(held, Mapping) else None
    if not isinstance(inner, Mapping):
        raise BadInputError(
            f"{path} holds no named tensors.\nFix: convert it to .safetensors first."
        )
    return {str(name): _array(value) for name, value in inner.items() if _is_tensor(value)}


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and not value.is_complex() and not value.is_sparse


def _array(value: torch.Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = value.detach().to(torch.float32).contiguous().numpy()
    return found
