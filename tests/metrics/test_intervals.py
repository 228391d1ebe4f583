"""Intervals: what a bootstrap over images says."""

import numpy as np
import pytest

from lorascope.errors import ShapeError
from lorascope.metrics import intervals


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_images_that_agree_leave_no_doubt():
    values = np.tile([0.0, -2.0, -1.0], (5, 1))
    assert intervals.best_shares(values).tolist() == [0, 1, 0]
    assert intervals.confidence_set(values).tolist() == [False, True, False]
    assert intervals.interval(values[:, 1]) == (-2, -2)


def test_images_that_contradict_each_other_share_the_probability():
    values = np.array([[-1.0, 0.0], [0.0, -1.0]] * 10)
    assert intervals.best_shares(values) == pytest.approx([0.5, 0.5], abs=0.1)
    assert intervals.confidence_set(values).all()


def test_interval_covers_as_often_as_it_says(rng):
    covered = [
        low <= 0 <= high
        for low, high in (
            intervals.interval(rng.normal(size=30), draws=300, seed=i) for i in range(200)
        )
    ]
    assert 0.88 <= np.mean(covered) <= 0.99


def test_an_offset_of_an_image_does_not_matter_between_epochs(rng):
    values = rng.normal(size=(6, 4))
    shifted = values + rng.normal(size=(6, 1)) * 0 + 5.0
    assert (intervals.best_shares(values) == intervals.best_shares(shifted)).all()


def test_the_same_seed_gives_the_same_numbers(rng):
    values = rng.normal(size=(6, 4))
    one, other = intervals.resampled_means(values), intervals.resampled_means(values)
    assert (one == other).all()
    assert (one != intervals.resampled_means(values, seed=1)).any()


def test_a_falling_and_a_rising_end_are_told_apart():
    falling = np.tile([3.0, 2.0, 1.0, 0.0], (4, 1))
    at = np.arange(4)
    assert intervals.falling_share(falling, at) == 1
    assert intervals.falling_share(falling[:, ::-1], at) == 0
    assert intervals.falling_share(falling[:, :2], at[:2]) == 1


def test_choosing_on_one_half_takes_the_winners_luck_away(rng):
    noise = rng.normal(size=(8, 30))  # no epoch is better than another
    lucky, honest = noise.mean(axis=0).min(), intervals.split_best(noise)
    assert lucky < honest < 0.3


def test_share_above_zero_knows_certain_cases():
    assert intervals.above_share(np.ones(4)) == 1
    assert intervals.above_share(-np.ones(4)) == 0


def test_no_images_and_single_images_are_refused():
    with pytest.raises(ShapeError, match="no items"):
        intervals.interval(np.zeros(0))
    with pytest.raises(ShapeError, match="halved"):
        intervals.split_best(np.zeros((1, 3)))
    with pytest.raises(ShapeError, match="need two"):
        intervals.falling_share(np.zeros((3, 1)), np.zeros(1))


def test_the_earliest_epoch_within_one_error_is_taken():
    apart = np.array([[0.5, 0.02, 0.0, 0.3], [0.4, -0.01, 0.0, 0.2], [0.6, 0.0, 0.0, 0.4]])
    shared = np.array([[5.0], [-3.0], [1.0]])  # what an image has in common says nothing
    assert intervals.earliest_within(apart + shared) == 1
    assert intervals.earliest_within(apart[:, [0, 3, 2, 1]] + shared) == 2
    with pytest.raises(ShapeError, match="no standard error"):
        intervals.earliest_within(apart[:1])


def test_a_u_is_two_lines_and_a_fall_alone_is_not():
    at = np.arange(12.0)
    found = intervals.two_lines(np.abs(at - 5.2), at)
    assert found is not None
    assert (found.place, found.turned()) == (5, True)
    assert (found.falls, found.rises) == (pytest.approx(-1, abs=0.2), pytest.approx(1))
    for short in (-at, at, np.abs(at - 9.5), np.abs(at - 1.2)):
        assert intervals.two_lines(short, at) is None
    with pytest.raises(ShapeError, match="values at"):
        intervals.two_lines(at, at[1:])


def test_the_turn_does_not_depend_on_level_unit_or_place_of_the_curve(rng):
    at = np.arange(10.0)
    curve = np.abs(at - 4) + rng.normal(size=10) * 0.1
    one, other = intervals.two_lines(curve, at), intervals.two_lines(3 * curve - 7, 20 * at + 100)
    assert one is not None and other is not None
    assert (one.p_falls, one.p_rises) == pytest.approx((other.p_falls, other.p_rises))
    assert other.rises == pytest.approx(one.rises * 3 / 20)


@pytest.mark.parametrize("epochs", [8, 10, 14, 20])
@pytest.mark.parametrize("half_life", [1.0, 3.0])
def test_level_curves_are_seldom_called_turned_and_planted_turns_often(epochs, half_life):
    rng = np.random.default_rng(epochs)
    at = np.arange(epochs, dtype=float)

    def called(curve):
        found = intervals.two_lines(curve + rng.normal(size=epochs) * 0.02, at)
        return found is not None and found.turned()

    fallen = np.exp(-at / half_life)
    assert np.mean([called(fallen) for _ in range(400)]) < 0.05
    if epochs >= 14:
        risen = fallen + 0.05 * np.maximum(at - epochs / 2, 0)
        assert np.mean([called(risen) for _ in range(50)]) > 0.9


def test_one_lucky_epoch_does_not_move_the_turn(rng):
    at = np.arange(12.0)
    curve = 0.02 * (at - 7) ** 2
    curve[4] -= 0.2  # the lowest of all, by the luck of one checkpoint
    values = curve + rng.normal(size=(6, 1)) + rng.normal(size=(6, 12)) * 0.005
    place, (low, high) = intervals.turning_place(values)
    assert values.mean(axis=0).argmin() == 4
    assert (place, low <= place <= high) == (7, True)


def test_the_turn_of_a_falling_curve_is_its_end():
    assert intervals.turning_place(np.tile(-np.arange(8.0), (4, 1))) == (7, (7, 7))
