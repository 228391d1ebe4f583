"""The safetensors container, read and written with numpy alone.

Layout (https://github.com/huggingface/safetensors#format): eight bytes with the length of the
header, a JSON header of tensor names, types, shapes and places, then the tensors' bytes.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lorascope import storage
from lorascope.errors import BadInputError, MissingInputError

Floats = NDArray[np.float32]

HEADER_LIMIT = 100_000_000  # bytes; the format's own limit
DIMENSIONS = 8  # of one tensor, at most
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


class Reader:
    """An open file, from which tensors are read one by one.

    Parameters
    ----------
    path : Path
    header : Header
        Of this file.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self._path = Path(path)
        self._header = header
        self._opened = _open(self._path)

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def tensor(self, name: str) -> Floats:
        """Read one tensor, raised to float32.

        Raises
        ------
        BadInputError
            Its type is not one that numpy can hold (the 8-bit floats), or the file was cut short
            in the meantime.
        """
        entry = self._header.entries[name]
        if entry.dtype not in TYPES:
            raise BadInputError(
                f"{self._path}: {name} is stored as {entry.dtype}, which lorascope does not read.\n"
                "Fix: save the file as fp16, bf16 or fp32."
            )
        self._opened.seek(entry.start)
        count = math.prod(entry.shape)
        stored = np.fromfile(self._opened, dtype=TYPES[entry.dtype], count=count)
        if stored.size != count:
            raise _truncated(self._path)
        if entry.dtype == "BF16":
            wide = stored.astype(np.uint32)
            wide <<= np.uint32(16)
            return wide.view(np.float32).reshape(entry.shape)
        with np.errstate(over="ignore"):
            return stored.astype(np.float32, copy=False).reshape(entry.shape)


def read_header(path: Path) -> Header:
    """Read what a safetensors file holds, without its tensors.

    Raises
    ------
    MissingInputError
        There is no such file.
    BadInputError
        It is a pickle, no safetensors file, cut short, or its tensors overlap.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise MissingInputError(f"{path} {what}.\nFix: name a .safetensors file.")
    size = path.stat().st_size
    with _open(path) as opened:
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
        raw: dict[str, Any] = json.loads(text.decode("utf-8"), object_pairs_hook=_no_twins)
        metadata = {_clean(k): _clean(v) for k, v in (raw.pop("__metadata__", None) or {}).items()}
        entries = {name: _entry(name, info, 8 + length) for name, info in raw.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _not_safetensors(path, size) from error
    if any(entry.end > size for entry in entries.values()):
        raise _truncated(path)
    for name, entry in entries.items():
        _check_length(path, name, entry)
    _refuse_overlap(path, entries)
    return Header(metadata=metadata, entries=entries)


def read_tensor(path: Path, name: str, entry: Entry) -> Floats:
    """Read one tensor, raised to float32.

    Raises
    ------
    BadInputError
        As for `Reader.tensor`.
    """
    with Reader(path, Header(metadata={}, entries={name: entry})) as reader:
        return reader.tensor(name)


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


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise BadInputError(
            f"{path} cannot be opened: {error.strerror}.\nFix: check the file's permissions."
        ) from error


def _no_twins(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object, and refuse one that has a name twice: which one counts is a guess."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name twice")
    return made


def _clean(text: object) -> str:
    """Give metadata as text that can be written again: no half of a surrogate pair."""
    return str(text).encode("utf-8", "replace").decode("utf-8")


def _entry(name: str, info: Mapping[str, Any], data: int) -> Entry:
    name.encode("utf-8")  # half a surrogate pair in a name is refused here
    start, end = info["data_offsets"]
    shape = tuple(info["shape"])
    numbers = (start, end, *shape)
    if len(shape) > DIMENSIONS or not all(type(n) is int and 0 <= n < 2**62 for n in numbers):
        raise ValueError("no numbers of entries or places")
    if end < start:
        raise ValueError("places out of order")
    return Entry(dtype=_clean(info["dtype"]), shape=shape, start=data + start, end=data + end)


def _check_length(path: Path, name: str, entry: Entry) -> None:
    if entry.dtype not in TYPES:
        return
    needed = math.prod(entry.shape) * np.dtype(TYPES[entry.dtype]).itemsize
    if needed != entry.end - entry.start:
        raise BadInputError(
            f"{path} is damaged: {name} has {entry.end - entry.start} bytes where its shape "
            f"needs {needed}.\nFix: copy or download the file again."
        )


def _refuse_overlap(path: Path, entries: Mapping[str, Entry]) -> None:
    """Refuse two names for the same bytes: a small file would fill the memory."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start < end and entry.end > entry.start:
            raise BadInputError(
                f"{path} is damaged: {name} lies over another tensor.\n"
                "Fix: copy or download the file again."
            )
        end = max(end, entry.end)


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
