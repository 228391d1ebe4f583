"""The list of the pictures that another trainer drew: ``images.csv`` beside them."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from lorascope import tables
from lorascope.records import Row

LIST = "images.csv"
COLUMNS = ("file", "epoch", "step", "index", "prompt", "negative", "seed", "width", "height",
           "taken")  # fmt: skip
TYPES: Mapping[str, str] = dict.fromkeys(COLUMNS, "str") | dict.fromkeys(
    ("epoch", "step", "index", "seed", "width", "height"), "int"
)


def read_sample_list(folder: Path) -> Sequence[Row]:
    """Read the list of a folder of samples; nothing where there is none, or it is damaged."""
    try:
        return tables.from_csv((folder / LIST).read_text(encoding="utf-8"), TYPES)
    except (OSError, ValueError, KeyError, csv.Error):
        return []
