"""The Vendi score: known answers, what must not matter, what is refused."""

import numpy as np
import pytest

from lorascope.errors import ShapeError
from lorascope.metrics.spread import spread
from lorascope.metrics.vendi import alike, left_out_interval, vendi


def test_pictures_with_nothing_in_common_count_each_and_the_same_ones_once():
    assert vendi(np.eye(5)) == pytest.approx(5)
    assert vendi(np.ones((5, 5))) == pytest.approx(1)


def test_two_groups_count_as_two_and_a_half_alike_pair_lies_between():
    groups = np.kron(np.eye(2), np.ones((3, 3)))
    assert vendi(groups) == pytest.approx(2)
    half = vendi(np.array([[1.0, 0.5], [0.5, 1.0]]))
    shares = np.array([0.75, 0.25])  # its eigenvalues over 2, by hand
    assert half == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


def test_what_pictures_have_in_common_and_their_order_do_not_matter(rng):
    features = rng.normal(size=(9, 30))
    score = vendi(alike(features, 1.4))
    assert vendi(alike(features + 100, 1.4)) == pytest.approx(score)
    assert vendi(alike(features[rng.permutation(9)], 1.4)) == pytest.approx(score)


def test_a_collapsing_set_falls_to_one(rng):
    features = rng.normal(size=(9, 30))
    usual = spread(features)
    scores = [vendi(alike(features * share, usual)) for share in (2, 1, 0.5, 0.2, 0)]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] == pytest.approx(1)
    assert alike(features, usual)[0, 0] == 1


def test_vendi_refuses_what_is_no_square_and_no_distance(rng):
    with pytest.raises(ShapeError, match="square"):
        vendi(np.ones((2, 3)))
    with pytest.raises(ShapeError, match="usual"):
        alike(rng.normal(size=(3, 4)), 0.0)
    with pytest.raises(ShapeError, match="usual"):
        alike(np.empty((0, 4)), 1.0)


def test_leaving_one_out_gives_the_interval_of_a_mean(rng):
    """For a mean the jackknife is the textbook interval."""
    values = rng.normal(size=12)
    low, high = left_out_interval(lambda kept: float(values[kept].mean()), np.arange(12))
    error = values.std(ddof=1) / np.sqrt(12)
    assert (low + high) / 2 == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(2.201 * error, rel=1e-3)


def test_the_interval_of_a_spread_holds_the_truth_as_often_as_it_says(rng):
    truth = spread(rng.normal(size=(1500, 6)))
    held = 0
    for _ in range(100):
        some = rng.normal(size=(10, 6))
        low, high = left_out_interval(lambda kept, some=some: spread(some[kept]), np.arange(10))
        held += low <= truth <= high
    assert held / 100 > 0.88


def test_pictures_of_one_item_are_left_out_together(rng):
    seen = []
    items = np.array(["a", "a", "b", "c"])
    left_out_interval(lambda kept: seen.append(kept.tolist()) or 1.0, items)
    assert seen[1:] == [
        [False, False, True, True],
        [True, True, False, True],
        [True, True, True, False],
    ]


def test_two_items_or_a_number_that_cannot_be_had_give_no_interval():
    assert left_out_interval(lambda _: 1.0, np.array(["a", "b"])) is None
    assert left_out_interval(lambda _: None, np.arange(5)) is None
