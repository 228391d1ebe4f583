"""Where a base model computes, and in which numbers."""

import os

import torch

from lorascope.errors import BadInputError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
RANK = "LOCAL_RANK"  # which of a machine's processes this is; set by torchrun


def device_of(name: str) -> torch.device:
    """Choose a device.

    Parameters
    ----------
    name : str
        cpu, cuda, cuda:1 ...; auto takes CUDA where there is one, and of several the one that
        torchrun gave this process.

    Raises
    ------
    BadInputError
        There is no such device.
    """
    if name == "auto":
        return _own_card() if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadInputError(f"{name!r} is no device.\nFix: cpu, cuda or auto.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BadInputError("There is no CUDA device here.\nFix: use cpu or auto.")
    return device


def dtype_of(name: str, device: torch.device) -> torch.dtype:
    """Choose what is computed in.

    Parameters
    ----------
    name : str
        fp32, bf16, fp16; auto takes bf16, or fp16 on older CUDA cards.
    device : torch.device

    Raises
    ------
    BadInputError
        There is no such format, or not on this device.
    """
    if name == "auto":
        if device.type == "cuda" and not torch.cuda.is_bf16_supported():
            return torch.float16
        return torch.bfloat16
    if name not in DTYPES:
        raise BadInputError(f"{name!r} is no number format.\nFix: {', '.join(DTYPES)} or auto.")
    if name == "fp16" and device.type == "cpu":
        raise BadInputError(
            "fp16 on a CPU is slower than fp32 by far.\nFix: fp32, or bf16, which blurs a little."
        )
    return DTYPES[name]


def _own_card() -> torch.device:
    """Take this process's card; where there are more processes than cards, they share them."""
    rank = os.environ.get(RANK, "")
    if not rank.isdecimal():
        return torch.device("cuda")
    return torch.device("cuda", int(rank) % torch.cuda.device_count())
