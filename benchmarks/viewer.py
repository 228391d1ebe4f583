"""How fast the viewer opens and scrolls: ``python -m benchmarks.viewer`` (needs Chromium).

Grids of 600 and 5,000 cells are drawn from noise and discs, written as one HTML file, opened in a
headless Chromium without a graphics card, and scrolled down and up by 60 px a frame. Opened means:
every picture on the first screen is decoded, counted from the start of the navigation.
"""

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from lorascope import storage
from lorascope.io.images import write_png
from lorascope.progress import track
from lorascope.records import Row
from lorascope.run import Run
from lorascope.viewer.page import page_of

RESULTS = Path(__file__).parent / "results" / "viewer.json"
CELLS = (600, 5000)
ROUNDS = 3
DIFFERENT = 120  # pictures that are really drawn; the others are links to them
SIDE = 256  # px
STRENGTHS = (0.4, 0.7, 1.0, 1.3)
SEEDS = 2
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--enable-precise-memory-info"
).split()
SCREEN = {"width": 1400, "height": 900}
OPENED = """(() => {
  const seen = (image) => {
    const box = image.getBoundingClientRect();
    return box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
  };
  const look = () => {
    const images = [...document.querySelectorAll(".cell img")].filter(seen);
    if (images.length && images.every((image) => image.complete && image.naturalWidth))
      window.openedAfter = performance.now();
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})()"""
SCROLL = """async ([pixels, frames]) => {
  const scroller = document.querySelector(".scroller");
  const frame = () => new Promise(requestAnimationFrame);
  const times = [];
  let most = 0;
  let way = pixels;
  for (let i = 0; i <= frames; i++) {
    times.push(await frame());
    const before = scroller.scrollTop;
    scroller.scrollTop += way;
    if (scroller.scrollTop === before) way = -way;
    most = Math.max(most, document.querySelectorAll(".cell").length);
  }
  return { times, most };
}"""


def write_synthetic(folder: Path, cells: int, *, side: int = SIDE) -> tuple[Run, list[Row]]:
    """Make a run with a grid of so many cells: epochs and strengths down, prompts and seeds across.

    Parameters
    ----------
    folder : Path
        Where the run goes; it must not be there yet.
    cells : int
    side : int
        Of each picture, in px.

    Returns
    -------
    (Run, list of Row)
        The rows of a grid's table ``cells``, with likeness as a measured column.
    """
    run = Run.create(folder, base="miniature", base_digest="0" * 64)
    pictures = run.place("samples") / "cells"
    rng = np.random.default_rng(0)
    drawn = []
    for number in range(min(cells, DIFFERENT)):
        drawn.append(pictures / f"{number:016x}.png")
        write_png(drawn[-1], _drawing(side, rng))
    across = 40 if cells > 1000 else 20
    rows: list[Row] = []
    for cell in range(cells):
        path = pictures / f"{cell:016x}.png"
        if not path.exists():
            path.hardlink_to(drawn[cell % len(drawn)])
        rows.append(_row(cell, across, side) | {"likeness": round(float(rng.random()), 4)})
    return run, rows


def _row(cell: int, across: int, side: int) -> dict[str, str | int | float | bool | None]:
    row, column = divmod(cell, across)
    epoch, place = divmod(max(0, row - 1), len(STRENGTHS))
    strength = STRENGTHS[place] if row else 0.0
    prompt = f"zyxfern, prompt {column // SEEDS}, in a garden with flowers, a long description"
    return {
        "cell": cell,
        "row": row,
        "column": column,
        "kind": "lora" if row else "base",
        "epoch": epoch + 1 if row else 0,
        "step": 28 * (epoch + 1) if row else 0,
        "strength": strength,
        "text_strength": strength,
        "prompt": prompt,
        "group": ("trigger", "caption", "edit", "unseen")[column // SEEDS % 4],
        "seed": 1 + column % SEEDS,
        "width": side,
        "height": side,
        "base": "miniature",
        "baseline": column,
        "file": f"samples/cells/{cell:016x}.png",
    }


def _drawing(side: int, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Draw discs on a slope with some grain: about as hard to pack as a sample."""
    y, x = np.mgrid[0:side, 0:side] / side
    picture = 255 * (rng.random(3) * x[..., None] + rng.random(3) * (1 - y[..., None])) / 2 + 60
    for _ in range(7):
        disc = np.hypot(x - rng.random(), y - rng.random()) < 0.05 + 0.2 * rng.random()
        picture[disc] = 255 * rng.random(3)
    return (picture + rng.normal(size=picture.shape) * 6).clip(0, 255).astype(np.uint8)


def measure(page: Path, browser: Any, *, pixels: int = 60, frames: int = 300) -> dict[str, float]:
    """Open a page and scroll it.

    Parameters
    ----------
    page : Path
    browser : playwright Browser
    pixels : int
        Scrolled in each frame.
    frames : int

    Returns
    -------
    dict
        opened_ms; fps_median over single frames, fps_worst over any half second; heap_before and
        heap_after scrolling in MiB, after collecting garbage; nodes likewise; cells_most that had
        elements at once.
    """
    context = browser.new_context(viewport=SCREEN)
    tab = context.new_page()
    tab.add_init_script(OPENED)
    tab.goto(page.as_uri())
    for _ in range(600):  # the page forbids what `wait_for_function` would do
        if tab.evaluate("window.openedAfter"):
            break
        tab.wait_for_timeout(100)
    devtools = context.new_cdp_session(tab)
    tab.evaluate(SCROLL, [pixels, 30])  # what is made only once is made now
    before = _memory(devtools)
    scrolled = tab.evaluate(SCROLL, [pixels, frames])
    after = _memory(devtools)
    opened = float(tab.evaluate("window.openedAfter"))
    context.close()
    median, worst = _frame_rates(np.array(scrolled["times"]))
    return {
        "opened_ms": round(opened),
        "fps_median": round(median, 1),
        "fps_worst": round(worst, 1),
        "heap_before": round(before[0], 2),
        "heap_after": round(after[0], 2),
        "nodes_before": before[1],
        "nodes_after": after[1],
        "cells_most": scrolled["most"],
    }


def _memory(devtools: Any) -> tuple[float, int]:
    """Give the JavaScript heap in MiB and the number of nodes, without garbage."""
    devtools.send("HeapProfiler.collectGarbage")
    heap = devtools.send("Runtime.getHeapUsage")["usedSize"] / 2**20
    return heap, devtools.send("Memory.getDOMCounters")["nodes"]


def _frame_rates(times: np.ndarray[Any, Any]) -> tuple[float, float]:
    half = 500.0  # ms
    rates = []
    for start in times[times <= times[-1] - half]:
        inside = times[(times > start) & (times <= start + half)]
        rates.append(len(inside) / half * 1000)
    return 1000 / float(np.median(np.diff(times))), min(rates, default=0.0)


def grids() -> Iterator[tuple[int, dict[str, float]]]:
    """Measure each size of grid."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for cells in CELLS:
            run, rows = write_synthetic(Path(folder) / f"grid{cells}", cells)
            page = run.place("samples") / "grid.html"
            seconds = []
            for _ in range(2):
                began = time.perf_counter()
                page_of(rows, page, run=run)
                seconds.append(time.perf_counter() - began)
            found = [measure(page, browser) for _ in track(range(ROUNDS), label="Chromium")]
            middle = {key: statistics.median(one[key] for one in found) for key in found[0]}
            yield (
                cells,
                {
                    "file_mib": round(page.stat().st_size / 2**20, 2),
                    "write_first_s": round(seconds[0], 2),
                    "write_again_s": round(seconds[1], 2),
                    **middle,
                },
            )
        browser.close()


@click.command()
def main() -> None:
    """Measure and write the table."""
    found = dict(grids())
    click.echo(json.dumps(found, indent=1))
    storage.write_text(RESULTS, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
