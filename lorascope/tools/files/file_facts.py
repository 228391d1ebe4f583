"""What a LoRA file says of itself, as rows: metadata, sentences, hashes, differences."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from lorascope.io.lora_facts import RANK_KEY
from lorascope.io.safetensors_file import read_header
from lorascope.io.train_metadata import describe, differences, entries, hashes
from lorascope.records import Row


def about_file(path: Path, metadata: Mapping[str, str]) -> dict[str, list[Row]]:
    """Tell one file's metadata entry by entry and in sentences, and its hashes."""
    known = hashes(path)
    return {
        "metadata": [
            {"file": path.name, "key": e.key, "value": e.text, "theirs": e.theirs}
            for e in entries(metadata)
        ],
        "words": [
            {"file": path.name, "heading": heading, "sentence": sentence}
            for heading, sentence in describe(metadata, rank=_rank(path))
        ],
        "hashes": [
            {
                "file": path.name,
                "autov2": known.autov2,
                "autov3": known.autov3,
                "legacy": known.legacy,
                "sha256": known.sha256,
                "model_hash_ok": known.model_hash_ok,
            }
        ],
    }


def _rank(path: Path) -> int | None:
    """Give the rank that most tensors have, whatever the metadata says; None if not told."""
    entries = read_header(path).entries.items()
    found = Counter(one.shape[0] for name, one in entries if one.shape and RANK_KEY.search(name))
    return found.most_common(1)[0][0] if found else None


def differing_keys(kept: Sequence[tuple[Path, Mapping[str, str]]]) -> list[Row]:
    """List the keys on which the files do not all agree with the first, a row per key and file."""
    _, first = kept[0]
    differ: dict[str, list[str]] = {}
    for place, (_, metadata) in enumerate(kept[1:], start=1):
        for one in differences(first, metadata):
            values = differ.setdefault(one.key, [one.one] * len(kept))
            values[place] = one.other
    return [
        {"key": key, "file": path.name, "value": value}
        for key, values in differ.items()
        for (path, _), value in zip(kept, values, strict=True)
    ]
