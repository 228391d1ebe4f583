"""Cells become pictures: only what is missing, one set of weights after the other, kept at once.

Several processes may draw into one folder. Each takes cells by locking them, and a lock is gone
with the process that held it, however it ended: so every cell is drawn once, and a killed process
loses no more than what it had in hand.
"""

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self

from filelock import FileLock, Timeout
from PIL import Image

from lorascope import storage
from lorascope.io.images import whole_png_size, write_png
from lorascope.io.lora_file import read_lora
from lorascope.progress import track
from lorascope.tools.drawing.cell_text import chunks_of
from lorascope.tools.drawing.cells import FOLDER, Cell, Weights
from lorascope.tools.drawing.plan import forwards, keep_speed, pixels, tells_speed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from lorascope.models.base import Base
    from lorascope.models.texts import TextCache

OnStep = Callable[[int, int], None]
BATCH = 16
LOCKS = ".locks"  # beside the cells
AT_ONCE = 2  # batches that may wait to be written
BROKEN = "lorascope-broken"  # the text chunk of a picture whose latents are no numbers
LEAST_S, LEAST_STEPS = 1.0, 8  # of drawing that tell how fast it goes: less is mostly beginning
LOOK_AGAIN_S = 0.2  # at cells that another process has in hand


def is_drawn(cell: Cell, samples: Path) -> bool:
    """Tell whether a cell's picture is there, whole, and of the right size."""
    return whole_png_size(cell.path(samples)) == (cell.shot.width, cell.shot.height)


def missing(cells: Sequence[Cell], samples: Path) -> list[Cell]:
    """List the cells whose picture is not there, each once."""
    distinct = {cell.name: cell for cell in cells}
    return [cell for cell in distinct.values() if not is_drawn(cell, samples)]


def broken(cells: Sequence[Cell], samples: Path) -> set[str]:
    """Name the cells that were drawn black because their latents were not finite.

    A LoRA with NaN in it, or an absurd strength, gives such. Only the PNG's text is read.
    """
    return {cell.name for cell in cells if _is_broken(cell.path(samples))}


def draw(
    cells: Sequence[Cell],
    samples: Path,
    *,
    batch: int = BATCH,
    label: str = "grid",
) -> int:
    """Draw the cells that are missing or damaged.

    Parameters
    ----------
    cells : sequence of Cell
    samples : Path
        The run's folder of samples; pictures go to its ``cells``.
    batch : int
        Pictures drawn at once, all by the same weights.
    label : str
        What the progress is called.

    Returns
    -------
    int
        How many pictures this process drew; others may have drawn the rest.

    Raises
    ------
    BadInputError, MissingInputError
        A base model or LoRA cannot be used.
    StorageError
        A picture cannot be written.
    """
    wanted = missing(cells, samples)
    if not wanted:
        return 0
    steps = sum(cell.shot.steps for cell in wanted)
    progress = track(range(steps), label=f"{label}, steps of pictures")
    pace = _Pace(samples)
    drawn = 0
    with _Claims(samples) as claims, _Writer(samples, claims) as writer:
        while wanted:
            for weights, row in _by_weights(wanted).items():
                with _Ready(weights) as ready:
                    for several in _alike(row, batch):
                        mine = claims.take(several)
                        ready.draw(mine, writer, on_step=_told(progress, pace, mine))
                        drawn += len(mine)
            writer.finish()
            wanted = missing(wanted, samples)
            if wanted:  # others have them in hand, or had when they were killed
                time.sleep(LOOK_AGAIN_S)
    next(progress, None)
    pace.keep()
    return drawn


class _Ready:
    """One set of weights, merged into the base model when the first picture is asked of it."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.base: Base | None = None
        self.texts: TextCache | None = None
        self.merging = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.merging.close()

    def draw(self, cells: Sequence[Cell], writer: "_Writer", *, on_step: OnStep) -> None:
        """Draw and decode one batch, and hand it on to be written."""
        from lorascope.models.sampling import draw_shots

        if not cells:
            return
        base = self.base or self._merge()
        shots = [cell.shot for cell in cells]
        for places, latents in draw_shots(
            base, shots, batch=len(shots), texts=self.texts, on_step=on_step
        ):
            writer.put(base, latents, [cells[place] for place in places])

    def _merge(self) -> "Base":
        from lorascope.models.base import prepared, shared_base
        from lorascope.models.lora import merged_all
        from lorascope.models.texts import texts_for

        self.base = prepared(shared_base(self.weights.base), compiled=self.weights.compiled)
        applied = [
            (read_lora(lora.path), lora.strength, lora.text_strength) for lora in self.weights.loras
        ]
        self.merging.enter_context(merged_all(self.base, applied))
        self.texts = texts_for(self.base, applied)
        return self.base


class _Pace:
    """How fast drawing goes, for the plan of the next time."""

    def __init__(self, samples: Path) -> None:
        self.samples, self.base = samples, ""
        self.last, self.spent, self.work, self.steps = 0.0, 0.0, 0.0, 0

    def step(self, cells: Sequence[Cell], share: float) -> None:
        """Count a share of a batch's work; the first one only starts the clock."""
        now = time.monotonic()
        if self.base != cells[0].weights.base:
            self.keep()
            self.base, self.spent, self.work, self.steps = cells[0].weights.base, 0.0, 0.0, 0
        elif tells_speed(cells[0].shot):
            self.work += share * sum(pixels(cell.shot) * forwards(cell.shot) for cell in cells)
            self.spent += now - self.last
            self.steps += 1
        self.last = now

    def keep(self) -> None:
        """Write it down, if it was enough to tell."""
        if self.base and self.steps >= LEAST_STEPS and self.spent >= LEAST_S:
            keep_speed(self.samples, self.base, self.work / self.spent)


class _Claims:
    """The cells that this process has in hand."""

    def __init__(self, samples: Path) -> None:
        self.samples = samples
        self.folder = storage.make_folder(samples / FOLDER / LOCKS)
        storage.sweep(samples / FOLDER)
        self.locks: dict[str, FileLock] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.locks):
            self.release(name)
        with contextlib.suppress(OSError):  # others still draw
            self.folder.rmdir()

    def take(self, cells: Sequence[Cell]) -> list[Cell]:
        """Lock those cells that no other process has in hand or has drawn since."""
        mine = []
        for cell in cells:
            lock = FileLock(self.folder / cell.name)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            self.locks[cell.name] = lock
            if is_drawn(cell, self.samples):
                self.release(cell.name)
            else:
                mine.append(cell)
        return mine

    def release(self, name: str) -> None:
        """Unlock a cell that is drawn or given up."""
        lock = self.locks.pop(name)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


class _Writer:
    """Packs and writes one batch while the next is drawn.

    Decoding stays with the thread that draws: two at once would fight for the same cores.
    """

    def __init__(self, samples: Path, claims: _Claims) -> None:
        self.samples, self.claims = samples, claims
        self.thread = ThreadPoolExecutor(max_workers=1)
        self.waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        self.thread.shutdown()

    def put(self, base: "Base", latents: "Tensor", cells: Sequence[Cell]) -> None:
        """Take a batch over; waits where too many are waiting already, so that memory is flat."""
        while len(self.waiting) >= AT_ONCE:
            self.waiting.popleft().result()
        spacing = str(base.noise.config.timestep_spacing)
        finite = _finite(latents)
        pictures = base.decode(latents)
        self.waiting.append(self.thread.submit(self._write, cells, pictures, finite, spacing))

    def finish(self) -> None:
        """Wait until everything is written, and raise what went wrong with it."""
        while self.waiting:
            self.waiting.popleft().result()

    def _write(
        self,
        cells: Sequence[Cell],
        pictures: "NDArray[np.uint8]",
        finite: Sequence[bool],
        spacing: str,
    ) -> None:
        for cell, picture, whole in zip(cells, pictures, finite, strict=True):
            text = dict(chunks_of(cell, spacing=spacing))
            if not whole:
                text[BROKEN] = "not finite"
            write_png(cell.path(self.samples), picture, text=text)
            self.claims.release(cell.name)


def _finite(latents: "Tensor") -> list[bool]:
    """Tell of each picture whether its latents are numbers."""
    import torch

    return [bool(one) for one in torch.as_tensor(latents).isfinite().flatten(1).all(dim=1)]


def _is_broken(path: Path) -> bool:
    try:
        with Image.open(path) as picture:  # stops where the pixels begin
            return BROKEN in picture.info
    except OSError:
        return False


def _told(progress: Iterator[int], pace: _Pace, cells: Sequence[Cell]) -> OnStep:
    """Tell the progress and the pace of every sampling step of a batch.

    The batch may go through the UNet in parts: what is done is told as a share.
    """
    said = 0

    def step(done: int, total: int) -> None:
        nonlocal said
        now = len(cells) * cells[0].shot.steps * done // total
        for _ in range(now - said):
            next(progress, None)
        said = now
        pace.step(cells, 1 / total)

    return step


def _by_weights(cells: Sequence[Cell]) -> dict[Weights, list[Cell]]:
    """Put cells of the same weights together; each of several processes begins elsewhere."""
    found: dict[Weights, list[Cell]] = {}
    for cell in sorted(cells, key=lambda cell: cell.weights.base):
        found.setdefault(cell.weights, []).append(cell)
    rows = list(found.items())
    start = len(rows) * int(os.environ.get("RANK", "0")) // int(os.environ.get("WORLD_SIZE", "1"))
    return dict(rows[start:] + rows[:start])


def _alike(cells: Sequence[Cell], batch: int) -> Iterator[Sequence[Cell]]:
    """Cut a row into batches whose pictures can go through the UNet together."""
    groups: dict[tuple[object, ...], list[Cell]] = {}
    for cell in cells:
        s = cell.shot
        kind = (s.steps, s.sampler, s.width, s.height, s.clip_skip, s.guidance == 1)
        groups.setdefault(kind, []).append(cell)
    for several in groups.values():
        for start in range(0, len(several), batch):
            yield several[start : start + batch]
