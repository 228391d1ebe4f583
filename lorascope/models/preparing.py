"""A base model made ready for many forwards: weights lowered once, compiled where that is asked."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from lorascope.errors import BadInputError

if TYPE_CHECKING:
    from lorascope.models.base import Base

COMPILERS = ("c++", "g++", "clang++", "cl")  # what torch.compile needs for a CPU


def prepared(base: "Base", *, compiled: bool = False) -> "Base":
    """Have the UNet compiled by torch, or not.

    The first forwards take minutes then, and kernels that were fused round otherwise: pictures
    differ as those of float32 and bfloat16 do. Attention cannot be captured of a compiled UNet.

    Parameters
    ----------
    base : Base
        Changed in place, and back by another call.
    compiled : bool

    Raises
    ------
    BadInputError
        This machine lacks what torch.compile needs.
    """
    if compiled and not base.compiled:
        _check_compiler(base.device)
        base.unet.compile()  # in place: the layers keep the names that LoRAs know
    elif base.compiled and not compiled:
        base.unet._compiled_call_impl = None
    base.compiled = compiled
    return base


@contextmanager
def lowered(base: "Base") -> Iterator[None]:
    """Have the UNet's layers in the precision that autocast computes in, for this context.

    Autocast itself turns float32 weights down in every forward, which takes SD 1.x as long as two
    samples do. The numbers are the same to the bit. Nothing may be merged inside this context.
    """
    if not _can_be_lowered(base):
        yield
        return
    layers = [m for m in base.unet.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    kept = [dict(layer._parameters) for layer in layers]
    try:
        for layer in layers:
            layer._parameters.update(_lower(layer, base.compute_dtype))
        base.lowered = True
        yield
    finally:
        base.lowered = False
        for layer, own in zip(layers, kept, strict=True):
            layer._parameters.update(own)


def _can_be_lowered(base: "Base") -> bool:
    return (
        base.compute_dtype != torch.float32
        and not base.lowered
        and not torch.is_grad_enabled()
        and base.unet.dtype == torch.float32
    )


def _lower(layer: nn.Module, dtype: torch.dtype) -> dict[str, nn.Parameter]:
    return {
        name: nn.Parameter(values.to(dtype), requires_grad=False)
        for name, values in layer._parameters.items()
        if values is not None
    }


def _check_compiler(device: torch.device) -> None:
    if device.type == "cpu":
        if any(map(shutil.which, (os.environ.get("CXX", "c++"), *COMPILERS))):
            return
        lacking = "a C++ compiler"
    else:
        if importlib.util.find_spec("triton") is not None:
            return
        lacking = "triton"
    raise BadInputError(
        f"torch cannot compile the UNet here: this machine has no {lacking.removeprefix('a ')}.\n"
        f"Fix: install {lacking}, or draw without compiling."
    )
