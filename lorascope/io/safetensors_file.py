"""The safetensors container, read and written with numpy alone.

Layout (https://github.com/huggingface/safetensors#format): eight bytes with the length of the
header, a JSON header of tensor names, types, shapes and places, then the tensors' bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorascope import storage
from lorascope.errors import BadInputError, MissingInputError

Floats = NDArray[np.float32]

HEADER_LIMIT = 100_000_000  # bytes; the format's own limit
PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl"}
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",  # the upper half of a float32
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "u1",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """Where one tensor lies in the file."""

    dtype: str  # as the format spells it: F16, BF16, F32 ...
    shape: tuple[int, ...]
    start: int  # bytes from the beginning of the file
    end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What a safetensors file holds."""

    metadata: dict[str, str]
    entries: dict[str, Entry]


def read_header(path: Path) -> Header:
    """Read what a safetensors file holds, without its tensors.

    Raises
    ------
    MissingInputError
        There is no such file.
    BadInputError
        It is a pickle, no safetensors file, or cut short.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise MissingInputError(f"{path} {what}.\nFix: name a .safetensors file.")
    size = path.stat().st_size
    with path.open("rb") as opened:
        first = opened.read(9)
        _refuse_pickle(path, first)
        opened.seek(8)
        first = first[:8]
        length = int.from_bytes(first, "little")
        if len(first) < 8 or not 2 <= length <= HEADER_LIMIT:
            raise _not_safetensors(path, size)
        if length > size - 8:
            raise _truncated(path) if opened.read(1) == b"{" else _not_safetensors(path, size)
        text = opened.read(length)
    try:
        raw: dict[str, Any] = json.loads(text)
        metadata = {str(k): str(v) for k, v in (raw.pop("__metadata__", None) or {}).items()}
        entries = {name: _entry(info, 8 + length) for name, info in raw.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _not_safetensors(path, size) from error
    if any(entry.end > size for entry in entries.values()):
        raise _truncated(path)
    for name, entry in entries.items():
        _check_length(path, name, entry)
    return Header(metadata=metadata, entries=entries)


def read_tensor(path: Path, name: str, entry: Entry) -> Floats:
    """Read one tensor, raised to float32.

    Raises
    ------
    BadInputError
        Its type is not one that numpy can hold (the 8-bit floats).
    """
    if entry.dtype not in TYPES:
        raise BadInputError(
            f"{path}: {name} is stored as {entry.dtype}, which lorascope does not read.\n"
            "Fix: save the file as fp16, bf16 or fp32."
        )
    count = (entry.end - entry.start) // np.dtype(TYPES[entry.dtype]).itemsize
    stored = np.fromfile(path, dtype=TYPES[entry.dtype], count=count, offset=entry.start)
    if entry.dtype == "BF16":
        values = (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    else:
        with np.errstate(over="ignore"):
            values = stored.astype(np.float32)
    return values.reshape(entry.shape)


def write(
    path: Path, tensors: Mapping[str, Floats], metadata: Mapping[str, str], *, dtype: str
) -> None:
    """Write a safetensors file, atomically; the same content gives the same bytes.

    Parameters
    ----------
    path : Path
    tensors : mapping of str to float32 array
    metadata : mapping of str to str
    dtype : str
        F16, BF16 or F32. What does not fit into half precision becomes infinite.

    Raises
    ------
    BadInputError
        Another ``dtype`` was asked for.
    StorageError
        The folder cannot be written to, or the disk is full.
    """
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    parts: list[bytes] = []
    place = 0
    for name in sorted(tensors):
        content = _as_bytes(tensors[name], dtype)
        header[name] = {
            "dtype": dtype,
            "shape": list(np.shape(tensors[name])),
            "data_offsets": [place, place + len(content)],
        }
        place += len(content)
        parts.append(content)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    storage.write_bytes(Path(path), b"".join([len(text).to_bytes(8, "little"), text, *parts]))


def copy_with_metadata(source: Path, target: Path, more: Mapping[str, str]) -> None:
    """Copy a file with more metadata; the tensors stay as they are, byte for byte.

    Raises
    ------
    MissingInputError, BadInputError
        The source cannot be read.
    StorageError
        The target cannot be written.
    """
    read_header(source)
    with source.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        raw = json.loads(opened.read(length))
        tensors = opened.read()
    raw["__metadata__"] = {**(raw.get("__metadata__") or {}), **more}
    header = json.dumps(raw, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    storage.write_bytes(target, len(header).to_bytes(8, "little") + header + tensors)


def _as_bytes(values: Floats, dtype: str) -> bytes:
    single = np.ascontiguousarray(values, dtype=np.float32)
    if dtype == "F32":
        return single.astype("<f4").tobytes()
    if dtype == "F16":
        with np.errstate(over="ignore"):
            return single.astype("<f2").tobytes()
    if dtype == "BF16":
        return _to_bfloat16(single).astype("<u2").tobytes()
    raise BadInputError(f"dtype {dtype!r} is not one of F16, BF16, F32.")


def _to_bfloat16(single: Floats) -> NDArray[np.uint16]:
    """Round to the nearest bfloat16, ties to even; NaN stays NaN."""
    bits = single.view(np.uint32).astype(np.uint64)
    rounded = (bits + np.uint64(0x7FFF) + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)
    return np.where(np.isnan(single), np.uint64(0x7FC0), rounded).astype(np.uint16)


def _entry(info: Mapping[str, Any], data: int) -> Entry:
    start, end = (int(place) for place in info["data_offsets"])
    shape = tuple(int(side) for side in info["shape"])
    if start < 0 or end < start or any(side < 0 for side in shape):
        raise ValueError("places out of order")
    return Entry(dtype=str(info["dtype"]), shape=shape, start=data + start, end=data + end)


def _check_length(path: Path, name: str, entry: Entry) -> None:
    if entry.dtype not in TYPES:
        return
    needed = int(np.prod(entry.shape, dtype=np.int64)) * np.dtype(TYPES[entry.dtype]).itemsize
    if needed != entry.end - entry.start:
        raise BadInputError(
            f"{path} is damaged: {name} has {entry.end - entry.start} bytes where its shape "
            f"needs {needed}.\nFix: copy or download the file again."
        )


def _refuse_pickle(path: Path, first: bytes) -> None:
    """Go by the name or the first bytes; a header may begin with a pickle's bytes by chance."""
    pickled = first.startswith(PICKLE_STARTS) and first[8:] != b"{"
    if path.suffix.lower() in PICKLES or pickled:
        raise BadInputError(
            f"{path} is a pickle, which can run any program when it is opened; "
            "lorascope does not open it.\nFix: convert it to .safetensors first."
        )


def _truncated(path: Path) -> BadInputError:
    return BadInputError(
        f"{path} is cut short: its header promises more bytes than there are.\n"
        "Fix: copy or download the file again."
    )


def _not_safetensors(path: Path, size: int) -> BadInputError:
    what = "is empty" if size == 0 else "is no safetensors file"
    return BadInputError(f"{path} {what}.\nFix: name a .safetensors file.")
