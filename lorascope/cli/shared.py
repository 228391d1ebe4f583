"""What several commands share: arguments, options, and how a line is said."""

import sys
from pathlib import Path

import click

from lorascope.io.foreign.layouts import printable

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
A_RUN = click.argument("run", type=click.Path(path_type=Path))


def remark(text: str) -> None:
    """Say a line on stderr, clear of a running progress line."""
    start = "\r\x1b[K" if sys.stderr.isatty() else ""
    click.echo(start + safe(text), err=True)


def safe(text: str) -> str:
    """Take out of a text what foreign file names could do to a terminal; lines stay lines."""
    return "\n".join(printable(line) for line in text.split("\n"))
