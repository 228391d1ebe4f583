"""Class capture: said from the first epoch on that shows it, and never of a calm run."""

import pytest

from lorascope.records import Confidence, Evidence, Measured
from lorascope.rules.capture import CAPTURED, CLASS_CAPTURE


def evidence(values, *, kind="lora", counted=8, low=None):
    rows = [
        {
            "row": epoch,
            "kind": kind,
            "epoch": epoch,
            "class_likeness": value,
            "class_likeness_low": value - 0.05 if low is None and value is not None else low,
            "counted": counted,
        }
        for epoch, value in enumerate(values, 1)
    ]
    measured = Measured(numbers=(), tables={"epochs": rows})
    return {"drift": Evidence(tool="drift", version=1, params={}, inputs={}, measured=measured)}


def test_the_first_epoch_that_shows_the_subject_unasked_is_named():
    (finding,) = CLASS_CAPTURE.judge(evidence([0.0, 0.1, 0.5, 0.8]))
    assert finding.subject == {"epoch": 3}
    assert finding.text.startswith("From epoch 3 on")
    assert (finding.n, finding.confidence) == (8, Confidence.MEDIUM)
    assert "50%" in finding.text


@pytest.mark.parametrize("values", [[0.0, 0.1, CAPTURED], [None, None], [], [-0.4]])
def test_a_calm_run_has_no_finding(values):
    assert not CLASS_CAPTURE.judge(evidence(values))


def test_rows_without_the_lora_or_of_one_picture_say_nothing():
    assert not CLASS_CAPTURE.judge(evidence([0.9], kind="base"))
    assert not CLASS_CAPTURE.judge(evidence([0.9], kind="trigger-off"))
    assert not CLASS_CAPTURE.judge(evidence([0.9], counted=1))


def test_few_pictures_or_a_wide_interval_are_said_with_low_confidence():
    assert CLASS_CAPTURE.judge(evidence([0.9], counted=3))[0].confidence is Confidence.LOW
    assert CLASS_CAPTURE.judge(evidence([0.9], low=0.1))[0].confidence is Confidence.LOW
