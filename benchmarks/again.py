"""The second time: ``python -m benchmarks.again RUN``.

Has a copy of a run (``lorascope demo`` makes one) draw a grid of some hundred cells with a single
sampling step, and then times the same command again, from its start in the shell to its end: every
picture's checksums are verified, the page is compared with what it would be, nothing is drawn.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from lorascope import storage
from lorascope.run import Run

RESULTS = Path(__file__).parent / "results" / "again.json"
ROUNDS = 5
ASKED = ("--steps", "1", "--seeds", "1-4", "--draw-only", "--json")


def asked(run: Path) -> tuple[float, int]:
    """Give the seconds that the command took, and the distinct cells of its grid."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "lorascope", "grid", str(run), *ASKED],
        check=True,
        capture_output=True,
        text=True,
    )
    seconds = time.monotonic() - began
    numbers = {number["name"]: number["value"] for number in json.loads(done.stdout)["numbers"]}
    return seconds, int(numbers["cells"])


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
def main(run: Path) -> None:
    """Draw once, ask again, and write the table."""
    Run(run)
    with tempfile.TemporaryDirectory() as made:
        copy = Path(made) / "run"
        shutil.copytree(run, copy, ignore=shutil.ignore_patterns("samples", "evidence"))
        first, cells = asked(copy)
        again = [asked(copy)[0] for _ in range(ROUNDS)]
    result = {
        "cells": cells,
        "first_seconds": round(first, 2),
        "again_seconds": round(statistics.median(again), 2),
        "slowest_again_seconds": round(max(again), 2),
    }
    storage.write_text(RESULTS, json.dumps(result, indent=1) + "\n")
    click.echo(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
