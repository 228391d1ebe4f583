"""Trends: spikes, rises, plateaus, cuts, knees, schedules."""

import itertools
import math

import numpy as np
import pytest

from lorascope.errors import ShapeError
from lorascope.metrics import trends


def test_a_planted_spike_is_found_whatever_the_unit(rng):
    values = np.exp(-1 - 4 * rng.uniform(size=3000) + rng.normal(0, 0.3, size=3000))
    assert len(trends.spikes(values)[0]) == 0
    values[[5, 1200, 2999]] = 5e4
    values[[7, 8, 9]] = np.nan, np.inf, 0.0
    places, limits = trends.spikes(values)
    assert places.tolist() == [5, 1200, 2999]
    assert (values[places] > limits).all()
    again, scaled = trends.spikes(values * 1e-3)
    assert again.tolist() == [5, 1200, 2999]
    assert scaled == pytest.approx(limits * 1e-3)


def test_a_falling_or_rippling_curve_does_not_spike(rng):
    assert len(trends.spikes(np.geomspace(10, 0.01, 2000))[0]) == 0
    assert len(trends.spikes(1 + 0.01 * rng.normal(size=2000))[0]) == 0
    resting = np.ones(1000)
    resting[500] = 1.2  # nothing else moves, so that any deviation is small beside it
    assert len(trends.spikes(resting)[0]) == 0
    assert len(trends.spikes(np.array([1.0, 1.0, 100.0]))[0]) == 0  # too few to know what is usual


def test_a_rise_is_found_and_noise_is_not(rng):
    at = np.arange(60.0)
    assert trends.rising(at, at / 30 + rng.normal(0, 0.1, size=60)).change == pytest.approx(2, 0.1)
    assert trends.rising(at, -at / 30 + rng.normal(0, 0.1, size=60)) is None
    false = sum(trends.rising(at, rng.normal(size=60)) is not None for _ in range(200))
    assert false <= 4  # 1 % of 200, and luck
    assert trends.rising(at[:5], at[:5]) is None


def test_a_rise_at_the_end_of_a_falling_run_is_found(rng):
    level = np.concatenate([np.linspace(1, 0, 46), np.linspace(0, 0.9, 14)])
    found = trends.rising(np.arange(60.0), level + rng.normal(0, 0.02, size=60))
    assert found.start == 45
    assert found.change == pytest.approx(0.9, abs=0.2)


def test_shifting_the_steps_moves_no_trend(rng):
    at, values = np.arange(30.0), rng.normal(size=30)
    one, other = trends.trend(at, values), trends.trend(at + 1000, values + 5)
    assert (one.slope, one.p, one.change) == pytest.approx((other.slope, other.p, other.change))
    assert trends.trend(at, np.ones(30)).p == 1


def test_a_plateau_begins_where_the_curve_comes_to_rest(rng):
    level = np.concatenate([np.linspace(1, 0, 30), np.zeros(30)])
    found = trends.plateau(np.arange(60.0), level + rng.normal(0, 0.01, size=60))
    assert 24 <= found.start <= 34
    assert trends.plateau(np.arange(60.0), np.linspace(1, 0, 60)) is None


def test_a_plateau_in_noise_cannot_be_told(rng):
    assert trends.plateau(np.arange(60.0), rng.normal(size=60)) is None


def test_the_cuts_are_the_best_of_all_cuts(rng):
    for _ in range(20):
        values = rng.normal(size=9) + np.repeat([0, rng.choice([0, 4]), 1], 3)
        price = 2 * 0.7**2 * np.log(9)

        def total(starts, values=values, price=price):
            pieces = np.split(values, starts)
            squares = sum(((piece - piece.mean()) ** 2).sum() for piece in pieces)
            return squares + price * len(starts)

        every = [
            starts
            for count in range(5)
            for starts in itertools.combinations(range(2, 8), count)
            if all(b - a >= 2 for a, b in itertools.pairwise((0, *starts, 9)))
        ]
        best = min(every, key=total)
        assert trends.segments(values, noise=0.7).tolist() == [0, *best]


def test_a_change_of_level_is_cut_there_whatever_the_unit(rng):
    values = np.repeat([3.0, 1.0, 2.0], 20) + rng.normal(0, 0.1, size=60)
    starts = trends.segments(values).tolist()
    assert {0, 20, 40} <= set(starts)
    assert len(starts) <= 4  # in one noise of five there is a cut too many
    assert trends.segments(1e-4 * values + 7).tolist() == starts
    assert trends.segments(np.ones(30)).tolist() == [0]
    assert trends.segments(np.array([1.0, 2.0])).tolist() == [0]
    assert trends.segments(np.zeros(0)).tolist() == []


def test_the_noise_of_a_cut_counts_both_sides():
    before, after = np.array([0.0, 0.0, 0.0, 0.0]), np.array([1.0, 1.0, 1.0, 1.0])
    score = 1 / (0.5 * np.sqrt(0.5))
    expected = math.erfc(score / math.sqrt(2))
    assert trends.step_noise(before, after, noise=0.5) == pytest.approx(expected)
    assert trends.step_noise(before, after) == 0
    assert trends.step_noise(before, before) == 1


def test_a_knee_is_where_two_lines_meet(rng):
    at = np.arange(100.0) * 7 + 1000
    values = np.minimum(at - 1000, 280) / 280 + rng.normal(0, 0.005, size=100)
    place, before, after, gain = trends.knee(at, values)
    assert abs(place - 40) <= 2
    assert before == pytest.approx(1 / 280, rel=0.05)
    assert after == pytest.approx(0, abs=1e-4)
    assert gain > 0.9
    assert trends.knee(at, 2 * at)[3] == 0


STEPS = np.arange(400)
SHAPES = {
    "constant": np.full(400, 1e-4),
    "linear": np.linspace(1e-4, 0, 400),
    "cosine": 0.5e-4 * (1 + np.cos(np.pi * STEPS / 400)),
    "steps": np.where(STEPS < 150, 1e-4, np.where(STEPS < 300, 5e-5, 1e-5)),
    "other": 1e-4 / np.sqrt(1 + STEPS),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_schedule_is_recognised_also_after_a_warm_up(shape):
    plain = trends.schedule(STEPS, SHAPES[shape])
    assert (plain.shape, plain.warmup, plain.restarts) == (shape, 0, ())
    warm = np.concatenate([np.linspace(1e-6, 1e-4, 50)[:-1], SHAPES[shape]])
    found = trends.schedule(np.arange(len(warm)), warm)
    assert (found.shape, found.warmup) == (shape, 49)
    scaled = trends.schedule(STEPS + 5000, 10 * SHAPES[shape])
    assert scaled == plain


def test_restarts_and_the_final_rate_are_found():
    one = 0.5 * (1 + np.cos(np.pi * np.arange(100) / 100))
    found = trends.schedule(np.arange(300), np.tile(one, 3))
    assert (found.shape, found.restarts) == ("cosine", (100, 200))
    assert found.final == pytest.approx(one[-1])
    assert trends.schedule(STEPS, np.zeros(400)) is None
    assert trends.schedule(STEPS[:3], np.ones(3)) is None


def test_places_and_values_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="2 places"):
        trends.trend(np.zeros(2), np.zeros(3))
    with pytest.raises(ShapeError, match="pieces"):
        trends.segments(np.zeros(9), least=0)
    with pytest.raises(ShapeError, match="five"):
        trends.knee(np.zeros(4), np.zeros(4))
    with pytest.raises(ShapeError, match="2 places"):
        trends.schedule(np.zeros(2), np.zeros(3))
