"""Spread: known answers, what must not matter, what is refused."""

import numpy as np
import pytest

from lorascope.errors import ShapeError
from lorascope.metrics.spread import relative_spread, spread


def test_two_pictures_are_as_far_apart_as_their_difference():
    assert spread(np.array([[0.0, 0.0], [3.0, 3.0]])) == pytest.approx(3)


def test_the_same_picture_over_and_over_has_no_spread():
    assert spread(np.ones((4, 5))) == 0


def test_the_order_of_the_pictures_does_not_matter(rng):
    features = rng.normal(size=(7, 9))
    shuffled = features[rng.permutation(7)]
    assert spread(shuffled) == pytest.approx(spread(features))


def test_relative_spread_is_one_beside_itself_and_half_when_halved(rng):
    features = rng.normal(size=(5, 8))
    assert relative_spread(features, features) == pytest.approx(1)
    assert relative_spread(features / 2, features) == pytest.approx(0.5)


def test_relative_spread_says_nothing_beside_pictures_that_are_all_the_same(rng):
    assert relative_spread(rng.normal(size=(3, 4)), np.ones((3, 4))) is None
    assert relative_spread(np.ones((1, 4)), rng.normal(size=(3, 4))) is None


def test_one_picture_has_no_spread_to_measure():
    with pytest.raises(ShapeError, match="two pictures"):
        spread(np.ones((1, 4)))
