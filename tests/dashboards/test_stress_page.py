"""The page of the stress test: what its curves come to, in words and in lines."""

from pathlib import Path

import numpy as np
import pytest

from dashboards.strengths import marked, sentences
from lorascope.io.images import write_png
from lorascope.records import Measured, Measurement
from lorascope.tools.stress import STRESS
from tests.conftest import store
from tests.dashboards.test_pages import drawn_well, page, texts

STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0)


def derived(epoch, form="sampled", **odd):
    numbers = {"saturation": 1.6, "headroom": 0.6, "half": 0.4, "slope": 0.1, "best": 0.95}
    numbers = numbers | {"break_even": None} | odd
    ends = {f"{k}_low": None if v is None else v - 0.1 for k, v in numbers.items()}
    ends |= {f"{k}_high": None if v is None else v + 0.1 for k, v in numbers.items()}
    about = {"epoch": epoch, "step": 1, "form": form, "items": 6, "highest": 2.0}
    return about | {"saturation_open": False} | numbers | ends


def points(epoch, form, gain):
    return [
        {
            "epoch": epoch,
            "form": form,
            "strength": s,
            "items": 6,
            "artefact_z": 2 * s,
            "artefact_z_low": s,
            "artefact_z_high": 3 * s,
            "utility": s,
            gain: s / 2,
            f"{gain}_low": s / 3,
            f"{gain}_high": s,
            "quiet_contrast": 1 + s,
            "quiet_contrast_low": 1.0,
            "quiet_contrast_high": 2 + s,
        }
        for s in STRENGTHS
    ]


@pytest.fixture
def stressed(tiny_run) -> Path:
    """A run in which two epochs were tested in both forms."""
    forms = (("sampled", "gain"), ("x0", "removed"))
    curve = [row for e in (4, 6) for f, gain in forms for row in points(e, f, gain)]
    rows = [derived(e, f) for e in (4, 6) for f, _ in forms]
    n = (Measurement(name="saturation", value=1.6, unit="1", n=6),)
    store(tiny_run, STRESS, Measured(numbers=n, tables={"curve": curve, "strengths": rows}))
    samples = tiny_run.place("samples")
    for name in ("stress.png", "stress-x0.png"):
        write_png(samples / name, np.full((64, 64, 3), 200, np.uint8))
    return tiny_run.path


def test_the_page_says_what_the_curve_comes_to(stressed):
    drawn = drawn_well(page("stress", stressed).run())
    said = texts(drawn).replace("\\", "")
    assert "spoilt from strength 1.60 on" in said
    assert "works best at 0.95" in said
    assert "Drawn pictures, epoch 6" in said
    assert "Epoch by epoch" in said


def test_another_epoch_can_be_chosen(stressed):
    drawn = drawn_well(page("stress", stressed).run())
    drawn_well(drawn.selectbox[0].set_value(4).run())
    assert "Drawn pictures, epoch 4" in texts(drawn)


def test_a_lost_sheet_is_said(stressed):
    (stressed / "samples" / "stress.png").unlink()
    drawn = drawn_well(page("stress", stressed).run())
    assert "missing or damaged" in texts(drawn).replace("\\", "")


def test_an_epoch_that_spoils_at_once_has_no_room():
    said = " ".join(sentences(derived(6, saturation=0.4, headroom=-0.6)))
    assert "0.60 below strength 1" in said


def test_what_was_not_reached_is_no_number():
    row = derived(6, saturation=None, headroom=None, best=None, half=None)
    assert sentences(row) == ["Up to strength 2.00 its usual picture is not spoilt."]
    assert marked(row, "best", "saturation") == []
    assert [m["name"] for m in marked(derived(6), "best", "break_even")] == ["best"]


def test_an_interval_that_runs_off_the_curve_has_no_upper_end():
    said = " ".join(sentences(derived(6) | {"saturation_open": True}))
    assert "its end was not reached" in said
