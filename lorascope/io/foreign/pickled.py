"""What a pickled file holds, told from the names in it: its program is read and never run."""

import contextlib
import io
import itertools
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lorascope.io.lora_facts import kind_of
from lorascope.io.safetensors_file import PICKLES

LARGEST = 64 << 20  # bytes of one pickle; the weights themselves lie outside of it
MOST_STEPS = 400_000  # of the pickle's program; a LoRA of 1,000 modules has some 60,000
HEADS = 4  # pickles before the weights in the older format: marks, versions, then the tensors


def is_pickle(path: Path) -> bool:
    """Tell by its ending whether a file is a pickle."""
    return path.suffix.lower() in PICKLES


def pickled_kind(path: Path) -> str:
    """Tell what a pickle is by the names in it, as `lora_facts.kind_of` does of other files."""
    found: list[str] = []
    with contextlib.suppress(Exception):  # damaged, it makes its readers fail in any way there is
        found.extend(_texts(path))
    return kind_of(found)


def _texts(path: Path) -> Iterator[str]:
    """Give the texts in a pickle of torch's, in either of its formats."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as opened:
            for name in opened.namelist():
                if name.endswith("/data.pkl"):
                    with opened.open(name) as member:
                        yield from _of_one(io.BytesIO(member.read(LARGEST)))
        return
    with path.open("rb") as plain:
        for _ in range(HEADS):
            yield from _of_one(plain)


def _of_one(opened: BinaryIO | io.BytesIO) -> Iterator[str]:
    """Give the texts of one pickle, up to its end."""
    for _, argument, _ in itertools.islice(pickletools.genops(opened), MOST_STEPS):
        if isinstance(argument, str):
            yield argument
