"""Curves over the strength: known curves give known numbers, each with its doubt."""

import numpy as np
import pytest

from lorascope.errors import ShapeError
from lorascope.metrics.strengths import StressCurve, crossing, peak, utility

STRENGTHS = np.array([0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2])


def curve(artefacts, gain=None, *, items=6, spread=0.0):
    """Every item the same curve, but for some spread."""
    shift = spread * np.linspace(-1, 1, items)
    wide = [np.asarray(v, dtype=float)[:, None] + shift for v in (artefacts, gain) if v is not None]
    return StressCurve(
        strengths=STRENGTHS, artefacts=wide[0], gain=wide[1] if gain is not None else None
    )


def test_saturation_lies_between_the_strengths_where_three_is_passed():
    found = curve(2 * STRENGTHS).saturation()
    assert found.value == pytest.approx(1.5)
    assert (found.low, found.high, found.n, found.open) == (1.5, 1.5, 6, False)
    between = curve([0, 0, 0, 1, 2, 6, 7, 8]).saturation()
    assert between.value == pytest.approx(1.0625)


def test_a_curve_that_never_spoils_has_no_saturation():
    assert curve(STRENGTHS).saturation() is None


def test_an_interval_that_runs_off_the_curve_says_so():
    artefacts = np.stack([STRENGTHS * rate for rate in (1.2, 1.2, 1.7, 1.8, 2.0, 2.4)], axis=1)
    found = StressCurve(strengths=STRENGTHS, artefacts=artefacts).saturation()
    assert found.open
    assert found.high == 2.0
    assert found.low < found.value < 2.0


def test_one_odd_item_does_not_spoil_the_rest():
    artefacts = np.stack([STRENGTHS] * 5 + [STRENGTHS * 50], axis=1)
    assert StressCurve(strengths=STRENGTHS, artefacts=artefacts).saturation() is None


def test_half_of_the_gain_at_one_is_found_where_it_is_reached():
    assert curve(0 * STRENGTHS, STRENGTHS).half().value == pytest.approx(0.5)
    assert curve(0 * STRENGTHS, np.minimum(STRENGTHS, 0.25) * 4).half().value < 0.25


def test_where_there_is_no_gain_there_is_no_half_and_no_best():
    assert curve(STRENGTHS, 0.05 * STRENGTHS).half() is None
    found = curve(STRENGTHS)
    assert [f() for f in (found.half, found.slope, found.best, found.lost, found.utilities)] == [
        None
    ] * 5


def test_the_slope_beyond_one_is_that_of_the_gain():
    assert curve(0 * STRENGTHS, 0.7 * STRENGTHS).slope().value == pytest.approx(0.7)
    short = StressCurve(
        strengths=np.array([0, 0.5, 1.0]), artefacts=np.zeros((3, 2)), gain=np.zeros((3, 2))
    )
    assert short.slope() is None


def test_the_best_strength_is_where_gain_is_had_and_nothing_is_spoilt():
    gain = 1 - (STRENGTHS - 1) ** 2
    assert curve(0 * STRENGTHS, gain).best().value == pytest.approx(1, abs=1e-6)
    assert curve(4 * STRENGTHS, gain).best().value < 0.6


def test_what_is_lost_at_one_is_measured_against_the_best():
    assert curve(0 * STRENGTHS, STRENGTHS).lost().value == 0
    hot = curve(4 * STRENGTHS, STRENGTHS)  # at .25 nothing is spoilt yet, at 1 all is
    assert hot.lost().value == pytest.approx(0.25 - (1 - 1.5))
    flat = curve(0 * STRENGTHS, np.minimum(STRENGTHS, 0.5) * 2)
    assert flat.lost().value == 0


def test_a_usual_spread_costs_nothing_and_a_spoilt_picture_costs_all():
    assert utility(np.array([0, 1, 2, 3.0]), np.array([1, 1, 1, 1.0])).tolist() == [1, 1, 0.5, 0]
    assert utility(np.array([0.0]), np.array([7.0])).tolist() == [1]


def test_a_crossing_at_the_first_point_is_the_first_point():
    assert crossing(np.array([0.0, 1.0]), np.array([5.0, 6.0]), 3.0) == 0
    assert crossing(np.array([0.0, 1.0]), np.array([3.0, 3.0]), 3.0) is None


def test_a_peak_lies_between_the_points_and_never_beyond_its_neighbours():
    at = np.array([0.0, 1.0, 2.0, 4.0])
    assert peak(at, -((at - 1.3) ** 2)) == pytest.approx(1.3)
    assert peak(at, np.array([3.0, 2.0, 1.0, 0.0])) == 0
    assert peak(at, np.array([0.0, 1.0, 1.0, 1.0])) <= 2


def test_items_that_differ_widen_the_interval():
    near = curve(2 * STRENGTHS, spread=0.05).saturation()
    far = curve(2 * STRENGTHS, spread=0.8).saturation()
    assert far.high - far.low > near.high - near.low > 0


def test_bounds_hold_the_median():
    found = curve(2 * STRENGTHS, spread=0.5)
    low, high = found.artefact_bounds()
    assert (low <= np.median(found.artefacts, axis=1)).all()
    assert (high >= np.median(found.artefacts, axis=1)).all()


@pytest.mark.parametrize(
    ("strengths", "shape"), [([0.0, 1.0], (3, 2)), ([0.0, 0.0], (2, 2)), ([0.0, 1.0], (2, 0))]
)
def test_what_is_no_curve_is_refused(strengths, shape):
    with pytest.raises(ShapeError):
        StressCurve(strengths=np.array(strengths), artefacts=np.zeros(shape))
