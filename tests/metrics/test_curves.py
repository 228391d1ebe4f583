"""Curves: smoothing, epoch means, envelopes, dips and how much of them is noise."""

import math
import time

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


def slow_smooth(values: np.ndarray, weight: float) -> list[float]:
    """Do the same step by step."""
    past, seen, out = 0.0, 0, []
    for value in values:
        if np.isfinite(value):
            past, seen = weight * past + (1 - weight) * value, seen + 1
        out.append(past / (1 - weight**seen) if seen else np.nan)
    return out


@pytest.mark.parametrize("weight", [0.0, 0.6, 0.99, 0.999])
def test_smoothing_gives_what_going_step_by_step_gives(weight, rng):
    values = rng.exponential(size=3000)
    values[[0, 1, 77, 78, 2000]] = np.nan, np.inf, np.nan, -np.inf, np.nan
    expected = slow_smooth(values, weight)
    assert curves.smooth(values, weight=weight) == pytest.approx(expected, rel=1e-9, nan_ok=True)
    assert np.isnan(curves.smooth(np.array([np.nan, np.inf]))).all()


def test_smoothing_a_long_log_takes_no_time(rng):
    values = rng.exponential(size=200_000)
    spent = []
    for _ in range(3):
        started = time.process_time()
        curves.smooth(values)
        spent.append(time.process_time() - started)
    assert min(spent) < 0.2


def test_lowess_follows_its_definition(rng):
    at = np.sort(rng.integers(0, 60, size=40)).astype(float)  # with equal places among them
    values = rng.normal(size=40)
    smoothed = curves.lowess(at, values, share=0.3)
    for i in range(40):
        reach = np.sort(np.abs(at - at[i]))[11]
        near = np.argsort(np.abs(at - at[i]), kind="stable")[:12]
        if (np.abs(at - at[i]) == reach).sum() > 1:
            continue  # which of two equally far ones counts is not defined; its weight is 0 anyway
        weight = (1 - (np.abs(at[near] - at[i]) / reach) ** 3) ** 3
        line = np.polyfit(at[near] - at[i], values[near], 1, w=np.sqrt(weight))
        assert smoothed[i] == pytest.approx(line[1], abs=1e-9)


def test_lowess_keeps_a_straight_line_and_does_not_mind_units(rng):
    at = np.cumsum(rng.uniform(0.1, 3, size=200))
    assert curves.lowess(at, 3 - 2 * at) == pytest.approx(3 - 2 * at)
    values = rng.normal(size=200)
    moved = curves.lowess(1e6 + 10 * at, 5 * values)
    assert moved == pytest.approx(5 * curves.lowess(at, values), abs=1e-6)
    assert curves.lowess(np.zeros(9), np.full(9, 4.0)) == pytest.approx(np.full(9, 4.0))
    assert curves.lowess(np.array([1, 2]), np.array([5.0, 1.0])).tolist() == [5, 1]


def test_lowess_in_blocks_gives_the_same(monkeypatch, rng):
    at, values = np.arange(500.0), rng.normal(size=500)
    whole = curves.lowess(at, values)
    monkeypatch.setattr(curves, "CELLS", 700)
    assert curves.lowess(at, values) == pytest.approx(whole)


def noisy_epochs(rng, levels, steps):
    values = rng.exponential(size=(len(levels), steps)) * np.asarray(levels)[:, None]
    epochs = np.repeat(np.arange(len(levels)), steps)
    _, means, errors, _ = curves.epoch_means(epochs, values.ravel())
    places, _ = curves.dips(curves.savitzky_golay(means))
    return places, curves.dip_noise(means, errors, places)


def test_dips_of_pure_noise_are_called_noise(rng):
    called = total = 0
    for _ in range(150):
        places, p = noisy_epochs(rng, np.ones(20), 100)
        called, total = called + int((p < 0.05).sum()), total + len(places)
    assert total > 300
    assert called / total < 0.02


def test_a_deep_dip_is_no_noise(rng):
    for _ in range(20):
        places, p = noisy_epochs(rng, [1.0] * 8 + [0.5] * 3 + [1.0] * 9, 200)
        found = dict(zip(places.tolist(), p.tolist(), strict=True))
        assert min(found.get(i, 1.0) for i in (8, 9, 10)) < 0.05


def test_the_noise_of_a_dip_hangs_on_its_depth_in_errors_alone():
    means, errors = np.array([3.0, 3.0, 1.0, 3.0, 3.0]), np.full(5, 0.4)
    (p,) = curves.dip_noise(means, errors, np.array([2]))
    score = 2 / np.hypot(0.4, 0.4)
    assert p == pytest.approx(math.erfc(score / math.sqrt(2)) / 2)  # 3 epochs have no room here
    assert curves.dip_noise(10 * means + 7, 10 * errors, np.array([2]))[0] == pytest.approx(p)
    two = curves.dip_noise(means, errors, np.array([2, 2]))
    assert two == pytest.approx(1 - (1 - p) ** 2)
    assert np.isnan(curves.dip_noise(means, np.full(5, np.nan), np.array([2]))).all()
    assert len(curves.dip_noise(means, errors, np.zeros(0, dtype=int))) == 0


def test_a_step_down_is_no_dip():
    means, errors = np.array([9.0, 9.0, 1.0, 1.0, 1.0]), np.full(5, 0.4)
    assert curves.dip_noise(means, errors, np.array([2]))[0] >= 0.5
    flat = curves.dip_noise(np.ones(5), np.zeros(5), np.array([2]))
    assert flat[0] == 0.5
    assert curves.dip_noise(means[[0, 2, 0]], np.zeros(3), np.array([1]))[0] == 0


def test_a_dip_at_an_end_has_one_side():
    means, errors = np.array([1.0, 3.0, 3.0]), np.full(3, 0.4)
    (p,) = curves.dip_noise(means, errors, np.array([0]))
    assert p == pytest.approx(math.erfc(2 / np.hypot(0.4, 0.4) / math.sqrt(2)))


def test_curves_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="weight"):
        curves.smooth(np.zeros(3), weight=1)
    with pytest.raises(ShapeError, match="2 epochs"):
        curves.epoch_means(np.zeros(2), np.zeros(3))
    with pytest.raises(ShapeError, match="2 places"):
        curves.thin(np.zeros(2), np.zeros(3))
    with pytest.raises(ShapeError, match="ascending"):
        curves.lowess(np.array([2.0, 1.0]), np.zeros(2))
    with pytest.raises(ShapeError, match="share"):
        curves.lowess(np.arange(3.0), np.zeros(3), share=0)
    with pytest.raises(ShapeError, match="2 means"):
        curves.dip_noise(np.zeros(2), np.zeros(3), np.array([0]))
