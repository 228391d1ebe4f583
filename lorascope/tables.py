"""Rows as CSV and back, with their types: what people open in a spreadsheet is what rules read."""

import csv
import io
from collections.abc import Callable, Mapping

from lorascope.records import Row, Scalar, Table

CASTS: Mapping[str, Callable[[str], Scalar]] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": lambda text: text == "True",
    "none": lambda _text: None,  # a column that no row has a value for
}


def column_types(table: Table) -> dict[str, str]:
    """Name the type of every column, in the order of first appearance.

    A column of whole and broken numbers is one of broken ones; any other mixture is text.

    Raises
    ------
    TypeError
        A cell holds something that is not a scalar.
    """
    types: dict[str, set[str]] = {}
    for row in table:
        for name, value in row.items():
            kinds = types.setdefault(name, set())
            if value is not None:
                kinds.add(type(value).__name__)
    return {name: _one_type(name, kinds) for name, kinds in types.items()}


def as_csv(table: Table) -> str:
    """Write rows as CSV; None becomes an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(column_types(table)), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in table)
    return text.getvalue()


def from_csv(text: str, types: Mapping[str, str]) -> list[Row]:
    """Read rows back.

    Raises
    ------
    ValueError, KeyError
        The text does not have these columns.
    """
    rows = csv.DictReader(io.StringIO(text, newline=""))
    return [{name: _cell(raw[name], kind) for name, kind in types.items()} for raw in rows]


def _one_type(name: str, kinds: set[str]) -> str:
    if strange := kinds - set(CASTS):
        raise TypeError(f"column {name} holds a {strange.pop()}")
    if len(kinds) < 2:
        return kinds.pop() if kinds else "none"
    return "float" if kinds == {"int", "float"} else "str"


def _cell(text: str, kind: str) -> Scalar:
    """Read one cell; an empty one is None, except in a column of text."""
    return None if text == "" and kind != "str" else CASTS[kind](text)
