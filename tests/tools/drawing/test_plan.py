"""The plan: what drawing will cost, said before it begins."""

import numpy as np
import pytest

from lorascope.io.images import write_png
from lorascope.models.shots import Shot
from lorascope.tools.drawing import plan as planning
from lorascope.tools.drawing.cells import Cell, Weights
from lorascope.tools.drawing.plan import Plan, forwards, keep_speed, learn_speed, plan_of


def cell(name, **more):
    shot = Shot(**{"prompt": "cat", "seed": 1, "width": 64, "height": 64} | more)
    return Cell(name=name, weights=Weights(base="miniature"), shot=shot)


@pytest.fixture(autouse=True)
def any_base(monkeypatch):
    monkeypatch.setattr(planning, "base_digest", lambda name: name * 16)


def test_guidance_costs_every_step_twice():
    assert forwards(cell("a", steps=20, guidance=5.0).shot) == 40
    assert forwards(cell("a", steps=20, guidance=1).shot) == 20


def test_a_cell_that_stands_at_two_places_is_counted_once(tmp_path):
    cells = [cell("a"), cell("b"), cell("a")]
    found = plan_of(cells, [cells[0], cells[1]], tmp_path)
    assert (found.cells, found.there, found.forwards) == (2, 0, 80)


def test_nobody_knows_the_time_before_something_was_drawn(tmp_path):
    cells = [cell("a")]
    assert plan_of(cells, cells, tmp_path).seconds is None
    keep_speed(tmp_path, "miniature", 40 * 64 * 64 / 2.0)
    assert plan_of(cells, cells, tmp_path).seconds == pytest.approx(2.0)
    other = [Cell(name="c", weights=Weights(base="sdxl"), shot=cells[0].shot)]
    assert plan_of(other, other, tmp_path).seconds is None


@pytest.mark.parametrize("torn", [b"", b"{", b"[1]", b'{"a": "b"}', b"\xff"])
def test_a_torn_record_of_speed_is_no_record(tmp_path, torn):
    (tmp_path / planning.RECORD).write_bytes(torn)
    assert plan_of([cell("a")], [cell("a")], tmp_path).seconds is None


def test_disk_space_is_that_of_pictures_like_those_that_are_there(tmp_path):
    there, lacking = cell("a"), cell("b")
    assert plan_of([lacking], [lacking], tmp_path).mebibytes == pytest.approx(64 * 64 * 3 / 2**20)
    write_png(there.path(tmp_path), np.zeros((64, 64, 3), np.uint8))
    packed = there.path(tmp_path).stat().st_size
    found = plan_of([there, lacking], [lacking], tmp_path)
    assert found.mebibytes == pytest.approx(packed / 2**20)


def test_a_plan_says_what_is_left_in_one_line():
    said = str(Plan(cells=150, there=12, forwards=5520, seconds=70.0, mebibytes=2.5))
    assert said == (
        "138 pictures to draw (12 of 150 are drawn already): 5,520 forwards of the UNet, "
        "about 1 min 10 s, at most 2.5 MiB"
    )
    assert "all drawn already" in str(
        Plan(cells=3, there=3, forwards=0, seconds=None, mebibytes=0.0)
    )


def test_the_speed_is_tried_once_where_it_is_not_known(tmp_path, monkeypatch):
    tried = []

    def try_it(name, shots, batch):
        tried.append((name, len(shots), {shot.steps for shot in shots}))
        return 1e6

    monkeypatch.setattr(planning, "_tried", try_it)
    cells = [cell(f"{n}", steps=20) for n in range(5)] + [cell("wide", width=128)]
    learn_speed(cells, tmp_path, batch=3)
    learn_speed(cells, tmp_path, batch=3)
    assert tried == [("miniature", 3, {planning.TRIED})]
    assert plan_of(cells, cells, tmp_path).seconds > 0


def test_pictures_too_small_to_tell_are_not_tried(tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(planning, "_tried", lambda _name, shots, _batch: tried.append(shots) or 1e6)
    small = [cell("a", width=8, height=8)]
    learn_speed(small, tmp_path, batch=16)
    assert plan_of(small, small, tmp_path).seconds is None
    learn_speed([*small, cell("b")], tmp_path, batch=16)
    assert [[shot.width for shot in shots] for shots in tried] == [[64]]
