"""Speed of reading what training left behind: ``python -m benchmarks.reading``.

Each section times our reading and the usual program's in turn, several times over, in one process.
The ratio is the figure; seconds are of the machine that ran it.
"""

import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from lorascope import storage
from lorascope.io.event_file import read_events

RESULTS = Path(__file__).parent / "results" / "reading.json"
TAGS, STEPS = 10, 20_000  # 200,000 scalars: some 20 trainings' worth

Row = dict[str, str | int | float]


def write_log(folder: Path) -> Path:
    """Write the scalars as a trainer does; give the event file."""
    with SummaryWriter(str(folder), max_queue=10_000) as writer:
        for step in range(STEPS):
            for tag in range(TAGS):
                writer.add_scalar(f"loss/tag_{tag}", 1 / (1 + step + tag), step)
    (file,) = folder.iterdir()
    return file


def ours(file: Path) -> int:
    """Count the scalars that our reader finds."""
    return sum(len(series.steps) for series in read_events(file).series.values())


def theirs(file: Path) -> int:
    """Count the scalars that TensorBoard finds when it is told to keep all."""
    events = EventAccumulator(str(file), size_guidance={"scalars": 0})
    events.Reload()
    return sum(len(events.Scalars(tag)) for tag in events.Tags()["scalars"])


def flip_a_byte(file: Path) -> None:
    """Damage a file in its middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def event_rows(rounds: int) -> list[Row]:
    """Read a sound event file, then one with a flipped byte in its middle."""
    with tempfile.TemporaryDirectory() as folder:
        file = write_log(Path(folder))
        readers = (lambda: ours(file), lambda: theirs(file))
        sound = compared("event file, sound", *readers, rounds)
        flip_a_byte(file)
        return [sound, compared("event file, a byte flipped", *readers, rounds)]


def compared(what: str, ours: Callable[[], int], theirs: Callable[[], int], rounds: int) -> Row:
    """Time two calls in turn; give the medians, the median ratio, and what each call found."""
    ours()  # what is imported late is not timed
    pairs = [(timed(ours), timed(theirs)) for _ in range(rounds)]
    return {
        "what": what,
        "seconds": round(statistics.median(mine[0] for mine, _ in pairs), 3),
        "usual": round(statistics.median(usual[0] for _, usual in pairs), 3),
        "times_faster": round(statistics.median(usual[0] / mine[0] for mine, usual in pairs), 1),
        "found": pairs[0][0][1],
        "usual_found": pairs[0][1][1],
    }


def timed(call: Callable[[], int]) -> tuple[float, int]:
    """Time one call, in seconds, and give what it found."""
    started = time.perf_counter()
    found = call()
    return time.perf_counter() - started, found


SECTIONS: dict[str, Callable[[int], list[Row]]] = {"events": event_rows}


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--section", "chosen", type=click.Choice(list(SECTIONS)), multiple=True)
def main(rounds: int, chosen: tuple[str, ...]) -> None:
    """Time each section, print its table and write it; other sections stay as they are."""
    logging.disable()  # TensorBoard reports the damaged file to the screen
    stored = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for name in chosen or SECTIONS:
        stored[name] = SECTIONS[name](rounds)
        for row in stored[name]:
            click.echo(
                f"{row['what']:<32}{row['seconds']:>8} s  usual {row['usual']:>8} s  "
                f"x {row['times_faster']:<6} found {row['found']} and {row['usual_found']}"
            )
    storage.write_text(RESULTS, json.dumps(stored, indent=2) + "\n")


if __name__ == "__main__":
    main()
