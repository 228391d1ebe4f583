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
