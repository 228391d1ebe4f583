"""Curves: smoothing, dips, envelopes."""

import numpy as np
import pytest

from lorascope.errors import ShapeError
from lorascope.metrics import curves


def test_smoothing_follows_the_formula_and_never_starts_at_zero():
    assert curves.smooth(np.array([4.0, 4.0, 4.0]), weight=0.9) == pytest.approx([4, 4, 4])
    by_hand = [1.0, (0.6 * 0.4 * 1 + 0.4 * 3) / (1 - 0.6**2)]
    assert curves.smooth(np.array([1.0, 3.0]), weight=0.6) == pytest.approx(by_hand)


def test_smoothing_without_weight_changes_nothing():
    values = np.array([1.0, 5.0, 2.0])
    assert curves.smooth(values, weight=0).tolist() == values.tolist()


def test_smoothing_passes_over_what_is_no_number():
    smoothed = curves.smooth(np.array([np.nan, 2.0, np.inf, 2.0]), weight=0.9)
    assert np.isnan(smoothed[0])
    assert smoothed[1:] == pytest.approx([2, 2, 2])


def test_epoch_means_know_their_noise():
    epochs, means, errors, counts = curves.epoch_means(
        np.array([1, 1, 2, 2, 3]), np.array([1.0, 3.0, 5.0, np.nan, np.nan])
    )
    assert epochs.tolist() == [1, 2]
    assert means.tolist() == [2, 5]
    assert counts.tolist() == [2, 1]
    assert errors[0] == pytest.approx(1)  # s.d. sqrt(2) over sqrt(2)
    assert np.isnan(errors[1])


def test_a_parabola_survives_savitzky_golay():
    values = (np.arange(30) - 11.0) ** 2
    assert curves.savitzky_golay(values) == pytest.approx(values)
    assert curves.savitzky_golay(np.array([1.0, 9.0, 2.0])).tolist() == [1, 9, 2]


def test_dips_are_found_with_their_depth():
    places, prominences = curves.dips(np.array([5.0, 1.0, 4.0, 3.0, 6.0]))
    assert places.tolist() == [1, 3]
    assert prominences.tolist() == [4, 1]


def test_the_end_of_a_falling_curve_is_a_dip():
    places, prominences = curves.dips(np.array([4.0, 3.0, 2.0]))
    assert places.tolist() == [2]
    assert prominences.tolist() == [2]


def test_a_rise_at_the_start_makes_the_start_a_dip():
    places, prominences = curves.dips(np.array([2.0, 3.0, 1.0, 5.0]))
    assert places.tolist() == [0, 2]
    assert prominences.tolist() == [1, 2]


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0, 2.0]])
def test_a_flat_or_short_curve_has_no_dips(values):
    places, prominences = curves.dips(np.array(values))
    assert len(places) == len(prominences) == 0


def test_an_offset_moves_no_dip():
    values = np.random.default_rng(0).normal(size=50)
    for one, other in zip(curves.dips(values), curves.dips(values + 3), strict=True):
        assert one == pytest.approx(other)


def test_thinning_keeps_the_spike():
    values = np.zeros(10_000)
    values[1234] = 9.0
    at, mean, low, high = curves.thin(np.arange(10_000), values, points=100)
    assert len(at) == len(mean) == 100
    assert at[-1] == 9_999
    assert high.max() == 9
    assert (low == 0).all()
    assert mean.mean() == pytest.approx(values.mean())


def test_a_short_curve_is_not_thinned():
    at, mean, _, _ = curves.thin(np.array([1, 2]), np.array([3.0, np.nan]))
    assert at.tolist() == [1, 2]
    assert mean[0] == 3
    assert np.isnan(mean[1])


def test_curves_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="weight"):
        curves.smooth(np.zeros(3), weight=1)
    with pytest.raises(ShapeError, match="2 epochs"):
        curves.epoch_means(np.zeros(2), np.zeros(3))
    with pytest.raises(ShapeError, match="2 places"):
        curves.thin(np.zeros(2), np.zeros(3))
