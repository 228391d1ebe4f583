"""The names that other programs give a file by its bytes: AutoV2, AutoV3, the old short hash."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from lorascope.io.safetensors_file import read_header

CHUNK = 1 << 20
LEGACY_START, LEGACY_SIZE = 0x100000, 0x10000
WHOLE = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Hashes:
    """What one file is called, wherever files are known by their hash.

    Attributes
    ----------
    sha256 : str
        Of the whole file.
    tensors : str
        sha256 of everything after the header: unchanged by new metadata.
    legacy : str or None
        Of 64 KiB at 1 MiB, the first 8 digits: what old versions of the web UI show. None for a
        file that ends before: they show the hash of nothing then (e3b0c442), which all small files
        share, so that it names none.
    model_hash_ok : bool or None
        Whether the hash that the trainer wrote (``sshs_model_hash``) is that of the tensors; None
        where it wrote none of that kind.
    """

    sha256: str
    tensors: str
    legacy: str | None
    model_hash_ok: bool | None

    @property
    def autov2(self) -> str:
        """The first 10 digits of the whole file's: new metadata changes it."""
        return self.sha256[:10]

    @property
    def autov3(self) -> str:
        """The first 12 digits of the tensors' own."""
        return self.tensors[:12]


def hashes(path: Path) -> Hashes:
    """Read a file once, a mebibyte at a time.

    The trainer's own ``sshs_legacy_hash`` is not compared: it was taken of the file as it would
    have been with the ``ss_`` metadata alone.

    Raises
    ------
    MissingInputError, BadInputError
        There is no such file, or it is no safetensors file.
    """
    path = Path(path)
    header = read_header(path)
    whole, tensors, old = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    with path.open("rb") as opened:
        start = 8 + int.from_bytes(opened.read(8), "little")
        opened.seek(0)
        place = 0
        while chunk := opened.read(CHUNK):
            whole.update(chunk)
            tensors.update(chunk[max(0, start - place) :])
            old.update(_slice(chunk, place))
            place += len(chunk)
    stated = header.metadata.get("sshs_model_hash", "").strip().lower()
    digest = tensors.hexdigest()
    return Hashes(
        sha256=whole.hexdigest(),
        tensors=digest,
        legacy=old.hexdigest()[:8] if place > LEGACY_START else None,
        model_hash_ok=stated == digest if WHOLE.match(stated) else None,
    )


def _slice(chunk: bytes, place: int) -> bytes:
    """Cut out of a chunk what the old short hash looks at."""
    low, high = LEGACY_START - place, LEGACY_START + LEGACY_SIZE - place
    return chunk[max(0, low) : max(0, high)]
