"""Rules on copies: a planted fault is named, a healthy run is not, and chance is no fault."""

import pytest

from lorascope.records import Confidence, Evidence, Measured, Severity
from lorascope.rules.copying import COLLAGE, COPIED, COPY, is_collage, is_copy, usual_share

USUAL = {"nearest_distance": 0.15, "patch_share": 0.3, "source_share": 0.2, "second_share": 0.05}
OF_COPY = {"nearest_distance": 0.03, "patch_share": 0.8, "source_share": 0.78, "second_share": 0.0}
OF_COLLAGE = {
    "nearest_distance": 0.09,
    "patch_share": 0.8,
    "source_share": 0.44,
    "second_share": 0.36,
}
EACH = pytest.mark.parametrize(
    ("rule", "fault"), [(COPY, OF_COPY), (COLLAGE, OF_COLLAGE)], ids=["copy", "collage"]
)


def evidence(
    faults, fault=OF_COPY, *, pictures=12, held_out=6, asks=True, usual=None, strengths=(1.0,)
):
    """Give the cells of a run; ``faults`` are how many pictures of each epoch are spoilt."""
    cells = []
    for epoch, count in enumerate([0, *faults]):
        for strength in strengths if epoch else (0.0,):
            for place in range(pictures):
                spoilt = epoch and place < count
                cells.append(
                    {
                        **{"cell": len(cells), "row": epoch, "epoch": epoch},
                        **{"kind": "lora" if epoch else "base", "strength": strength},
                        **{"asks": asks, "file": f"samples/{epoch}-{place}.png"},
                        **{"source": "03.png", "source_names": "03.png | 05.png"},
                        **(fault if spoilt else USUAL),
                    }
                )
    controls = [{"image": f"{i}.png", **(usual or USUAL)} for i in range(held_out)]
    measured = Measured(numbers=(), tables={"cells": cells, "held_out": controls})
    return {"copies": Evidence(tool="copies", version=1, params={}, inputs={}, measured=measured)}


@EACH
def test_a_planted_fault_is_named_with_the_epoch_the_picture_and_the_training_image(rule, fault):
    (finding,) = rule.judge(evidence([0, 0, 2, 8], fault))
    assert finding.code == rule.code
    assert finding.subject["epoch"] == 3
    assert finding.subject["image"] == "03.png"
    assert finding.subject["picture"] in {"samples/3-0.png", "samples/4-0.png"}
    assert "From epoch 3 on" in finding.text
    assert "8 of 12" in finding.text
    assert (finding.n, finding.confidence) == (12, Confidence.HIGH)
    assert finding.because
    assert "before 3" in finding.fix


@EACH
def test_one_fault_is_not_taken_for_the_other(rule, fault):
    other = OF_COLLAGE if fault is OF_COPY else OF_COPY
    assert not rule.judge(evidence([0, 0, 6, 8], other))


@EACH
def test_a_healthy_run_has_no_finding(rule, fault):
    assert fault
    assert not rule.judge(evidence([0, 0, 0, 0]))


@EACH
@pytest.mark.parametrize("faults", [[0, 1, 1, 0], [1, 1, 1, 1]])
@pytest.mark.parametrize("pictures", [4, 12])
def test_one_picture_an_epoch_is_chance(rule, fault, faults, pictures):
    assert not rule.judge(evidence(faults, fault, pictures=pictures))


def test_some_among_many_pictures_are_chance_too():
    assert not COPY.judge(evidence([2], pictures=40))


def test_many_copies_are_an_error_and_some_a_warning():
    assert COPY.judge(evidence([0, 8]))[0].severity == Severity.ERROR
    assert COPY.judge(evidence([0, 2]))[0].severity == Severity.WARNING
    assert COLLAGE.judge(evidence([0, 8], OF_COLLAGE))[0].severity == Severity.WARNING


def test_epochs_that_copy_now_and_then_are_listed():
    (finding,) = COPY.judge(evidence([0, 4, 0, 6]))
    assert "At epoch 2, 4" in finding.text


@pytest.mark.parametrize(
    ("pictures", "held_out", "confidence"),
    [
        (12, 4, Confidence.HIGH),
        (12, 3, Confidence.MEDIUM),
        (6, 6, Confidence.MEDIUM),
        (4, 6, Confidence.LOW),
    ],
)
def test_it_is_as_sure_as_there_are_pictures_and_held_out_images(pictures, held_out, confidence):
    (finding,) = COPY.judge(evidence([4], pictures=pictures, held_out=held_out))
    assert finding.confidence == confidence


def test_pictures_without_the_trigger_do_not_count():
    assert not COPY.judge(evidence([8], asks=False))


def test_where_held_out_images_are_as_near_nothing_is_a_copy():
    """Product photographs before one wall: what was never trained on matches as much."""
    assert not COPY.judge(evidence([8], usual=OF_COPY))


def test_a_held_out_image_that_is_a_training_image_does_not_hide_copies():
    seen = evidence([8])
    held_out = seen["copies"].measured.tables["held_out"]
    held_out[0] |= {"source_share": 1.0}
    assert COPY.judge(seen)
    assert usual_share(seen["copies"]) == USUAL["source_share"]


def test_strength_one_speaks_for_an_epoch_where_it_was_drawn():
    (finding,) = COPY.judge(evidence([8], strengths=(1.0, 1.5)))
    assert finding.n == 12
    (finding,) = COPY.judge(evidence([8], strengths=(0.8, 1.5)))
    assert finding.n == 24


def test_pictures_that_could_not_be_measured_do_not_count():
    seen = evidence([8], pictures=9)
    for row in seen["copies"].measured.tables["cells"]:
        if row["source_share"] == USUAL["source_share"]:
            row |= dict.fromkeys(USUAL)
    (finding,) = COPY.judge(seen)
    assert finding.n == 8


def test_no_pictures_are_no_finding():
    assert not COPY.judge(evidence([]))
    assert not COLLAGE.judge(evidence([], held_out=0))


@pytest.mark.parametrize(
    ("row", "copy", "collage"),
    [
        (OF_COPY, True, False),
        (OF_COLLAGE, False, True),
        (USUAL, False, False),
        (OF_COLLAGE | {"source_share": COPIED + 0.1}, False, True),
        (OF_COPY | {"source_share": COPIED + 0.1}, True, False),
        (OF_COPY | {"source_share": COPIED - 0.1}, False, False),
        (OF_COPY | {"source_share": COPIED + 0.1, "nearest_distance": 0.2}, False, False),
        (OF_COPY | {"nearest_distance": 0.2}, True, False),
    ],
)
def test_a_picture_is_one_or_the_other(row, copy, collage):
    assert (is_copy(row), is_collage(row)) == (copy, collage)
