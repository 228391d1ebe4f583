"""Drawing: only what is missing, each picture once, and nothing lost when it is stopped."""

import os
import threading

import numpy as np
import pytest
import torch
from filelock import FileLock

from lorascope.io.images import read_image, whole_png_size
from lorascope.models.shots import Shot
from lorascope.tools.drawing import draw as drawing
from lorascope.tools.drawing.cells import Weights, make_cell
from lorascope.tools.drawing.draw import broken, draw, missing
from tests.painting import replace_engine


@pytest.fixture
def painter(monkeypatch):
    return replace_engine(monkeypatch)


@pytest.fixture
def cells(painter):
    shots = [
        Shot(prompt=prompt, seed=seed, width=64, height=64)
        for prompt in ("cat", "dog", "hen")
        for seed in (1, 2)
    ]
    return [make_cell(Weights(base="a"), shot) for shot in shots]


def test_every_cell_becomes_a_picture_of_its_size(cells, painter, tmp_path):
    assert draw(cells, tmp_path, batch=4) == 6
    assert all(whole_png_size(cell.path(tmp_path)) == (64, 64) for cell in cells)
    assert (read_image(cells[0].path(tmp_path)) == painter.paint(cells[0])).all()
    assert not (tmp_path / "cells" / drawing.LOCKS).exists()


def test_nothing_is_drawn_twice(cells, painter, tmp_path):
    draw([*cells, *cells], tmp_path)
    assert len(painter.painted) == 6
    assert draw(cells, tmp_path) == 0
    assert len(painter.painted) == 6


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "gone", "size", "text"])
def test_a_damaged_picture_is_drawn_again_and_no_other(cells, painter, tmp_path, harm):
    draw(cells, tmp_path)
    path = cells[2].path(tmp_path)
    whole = path.read_bytes()
    half = len(whole) // 2
    harmed = {
        "cut": whole[:-1],
        "flip": whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :],
        "empty": b"",
        "text": b"not a picture",
    }
    if harm == "gone":
        path.unlink()
    elif harm == "size":
        small = make_cell(Weights(base="a"), Shot(prompt="x", seed=1, width=32, height=32))
        draw([small], tmp_path)
        path.write_bytes(small.path(tmp_path).read_bytes())
    else:
        path.write_bytes(harmed[harm])
    painter.painted.clear()
    assert [cell.name for cell in missing(cells, tmp_path)] == [cells[2].name]
    assert draw(cells, tmp_path) == 1
    assert painter.painted == ["dog"]
    assert path.read_bytes() == whole


def test_stopping_loses_the_batch_in_hand_and_no_more(cells, painter, tmp_path):
    painter.fail_at = 4
    with pytest.raises(KeyboardInterrupt):
        draw(cells, tmp_path, batch=2)
    assert len(list((tmp_path / "cells").glob("*.png"))) == 4
    painter.fail_at = None
    assert draw(cells, tmp_path, batch=2) == 2


def test_a_picture_that_cannot_be_written_says_so(cells, painter, tmp_path, monkeypatch):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(drawing, "write_png", full)
    with pytest.raises(OSError, match="No space"):
        draw(cells, tmp_path)


def test_cells_that_another_process_has_in_hand_are_left_to_it(cells, painter, tmp_path):
    """The other one draws its cell in the end; nobody draws it twice."""
    folder = tmp_path / "cells" / drawing.LOCKS
    folder.mkdir(parents=True)
    lock = FileLock(folder / cells[0].name)
    lock.acquire()
    other = painter.paint(cells[0])

    def finish():
        drawing.write_png(cells[0].path(tmp_path), other)
        lock.release()

    timer = threading.Timer(0.6, finish)
    timer.start()
    assert draw(cells, tmp_path) == 5
    timer.join()
    assert len(painter.painted) == 5
    assert missing(cells, tmp_path) == []


def test_cells_of_a_process_that_died_are_drawn(cells, painter, tmp_path):
    folder = tmp_path / "cells" / drawing.LOCKS
    folder.mkdir(parents=True)
    child = os.fork()
    if not child:
        FileLock(folder / cells[0].name).acquire()
        os._exit(9)  # as SIGKILL: nothing is cleaned up
    os.waitpid(child, 0)
    assert (folder / cells[0].name).exists()
    assert draw(cells, tmp_path) == 6


def test_pictures_of_one_batch_can_go_through_the_unet_together(painter):
    kinds = [{}, {"steps": 5}, {"guidance": 1}, {"guidance": 7}, {"width": 32}, {"sampler": "ddim"}]
    several = [
        make_cell(
            Weights(base="a"), Shot(**{"prompt": "x", "seed": 1, "width": 64, "height": 64} | k)
        )
        for k in kinds
    ]
    batches = list(drawing._alike(several, 16))
    assert sorted(map(len, batches)) == [1, 1, 1, 1, 2]  # two scales of guidance fit together


def test_processes_that_share_a_grid_begin_at_different_rows(cells, painter, monkeypatch):
    rows = [make_cell(Weights(base=name), cells[0].shot) for name in "abcd"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    begun = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        begun.append(next(iter(drawing._by_weights(rows))).base)
    assert begun == ["a", "c"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.0])
def test_a_picture_of_broken_latents_says_so_in_its_text(cells, painter, tmp_path, value):
    class Base(type(painter)):
        def decode(self, latents):
            return np.zeros((len(latents), 64, 64, 3), np.uint8)

    latents = torch.zeros(2, 4, 8, 8)
    latents[1, 2, 3, 4] = value
    with drawing._Claims(tmp_path) as claims, drawing._Writer(tmp_path, claims) as writer:
        writer.put(Base(), latents, claims.take(cells[:2]))
    assert missing(cells[:2], tmp_path) == []
    assert broken(cells, tmp_path) == (set() if value == 1.0 else {cells[1].name})


@pytest.mark.parametrize(
    ("side", "steps", "step_s", "kept"),
    [(64, 20, 0.5, True), (8, 20, 0.5, False), (64, 7, 0.5, False), (64, 20, 0.01, False)],
)
def test_only_a_job_large_enough_tells_how_fast_drawing_goes(
    painter, tmp_path, monkeypatch, side, steps, step_s, kept
):
    told, clock = [], iter(range(1000))
    monkeypatch.setattr(drawing, "keep_speed", lambda _samples, _base, rate: told.append(rate))
    monkeypatch.setattr(drawing.time, "monotonic", lambda: next(clock) * step_s)
    shot = Shot(prompt="x", seed=1, width=side, height=side, steps=20, guidance=1)
    pace = drawing._Pace(tmp_path)
    for _ in range(1 + steps):
        pace.step([make_cell(Weights(base="a"), shot)], 1 / 20)
    pace.keep()
    assert told == ([pytest.approx(64 * 64 / 0.5)] if kept else [])
