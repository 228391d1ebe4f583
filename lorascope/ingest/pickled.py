"""LoRAs in pickles: passed over and named; converted where the user asks for each by its name."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lorascope.errors import BadInputError
from lorascope.ingest.carry import Say
from lorascope.io import safetensors_file
from lorascope.io.foreign.layouts import printable
from lorascope.io.foreign.pickled import is_pickle, pickled_kind
from lorascope.io.lora_facts import LORA, UNKNOWN
from lorascope.io.lora_file import lora_from_tensors

LISTED = 20  # files in one command
FIX = ".\nFix"


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """What the user typed, to say it again with the option that was missing."""

    run: Path
    files: Sequence[Path]
    allowed: bool  # pickles may be opened
    copy: bool
    say: Say


def pickled_loras(files: Iterable[Path]) -> list[Path]:
    """Pick out the pickles that are LoRAs by the names in them; none is loaded."""
    return [path for path in files if is_pickle(path) and pickled_kind(path) == LORA]


def passed_over(files: Sequence[Path], run: Path, *, join: str = "; to convert") -> str:
    """Say what was passed over and why, and the command that takes it all the same."""
    count = "1 LoRA in a pickle" if len(files) == 1 else f"{len(files)} LoRAs in pickles"
    why = "which can run any program when opened the usual way"
    first = f" (the command names the first {LISTED})" if len(files) > LISTED else ""
    return f"{count}, {why}{first}{join}: {_typed(run, files[:LISTED])}"


def checked_pickle(file: Path, command: Command) -> Path:
    """Check that a pickle may be opened, and is a LoRA.

    Raises
    ------
    BadInputError
        The user did not ask for it, it is something else, it is damaged, or it would run code.
    """
    kind = pickled_kind(file)
    if kind not in (LORA, UNKNOWN):
        raise no_lora(file, kind)
    if not command.allowed:
        what = "a LoRA in a pickle" if kind == LORA else "a pickle"
        again = _typed(command.run, command.files, copy=command.copy)
        raise BadInputError(
            f"{printable(file)} is {what}, which can run any program when it is opened; lorascope "
            f"converts it only when asked to, and runs nothing in it.\nFix: {again}"
        )
    _tensors(file)
    return file


def convert_pickle(source: Path, target: Path) -> None:
    """Write a pickle's tensors, all of them, as a .safetensors file.

    Raises
    ------
    BadInputError
        As for `checked_pickle`.
    StorageError
        The run cannot be written to.
    """
    tensors = _tensors(source)
    safetensors_file.write(target, tensors, {}, dtype=_smallest(tensors))


def no_lora(file: Path, kind: str) -> BadInputError:
    """Say what a file is instead of a LoRA."""
    what = kind if kind != UNKNOWN else "of an unknown kind"
    return BadInputError(f"{printable(file)} is no LoRA: it is {what}.\nFix: name a LoRA file.")


def _tensors(file: Path) -> dict[str, NDArray[np.float32]]:
    from lorascope.models.pickles import read_pickled_tensors  # loads torch

    tensors = read_pickled_tensors(file)
    lora_from_tensors(file, tensors, {})
    return tensors


def _smallest(tensors: Mapping[str, NDArray[np.float32]]) -> str:
    """Give the smallest type that holds every number as it is."""
    values = list(tensors.values())
    if all(_same(one, _as_bfloat(one)) for one in values):
        return "BF16"  # asked first: its few digits fit into half precision too
    if all(_same(one, _as_half(one)) for one in values):
        return "F16"
    return "F32"


def _as_half(values: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return values.astype(np.float16).astype(np.float32)


def _as_bfloat(values: NDArray[np.float32]) -> NDArray[np.float32]:
    bits = values.view(np.uint32) & np.uint32(0xFFFF0000)
    return bits.view(np.float32)


def _same(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return bool(np.array_equal(one, other, equal_nan=True))


def _typed(run: Path, files: Sequence[Path], *, copy: bool = False) -> str:
    named = " ".join(shlex.quote(printable(file)) for file in files)
    options = " --allow-pickle" + (" --copy" if copy else "")
    return f"lorascope add lora {shlex.quote(printable(run))} {named}{options}"
