"""Adherence: the gain, the scale of a prompt, and when a prompt says nothing."""

import math

import numpy as np
import pytest

from lorascope.errors import ShapeError
from lorascope.metrics.adherence import PromptScale, gain, middles


def test_a_gain_is_the_share_of_the_loss_that_the_text_takes_away():
    empty, told = np.array([[1.0, 2.0, 4.0]]), np.array([[0.5, 2.0, 6.0]])
    np.testing.assert_allclose(gain(empty, told), [[0.5, 0.0, -0.5]])


def test_the_scale_of_the_losses_cancels(rng):
    empty, told = rng.random((2, 5, 8)) + 0.1
    np.testing.assert_allclose(gain(3 * empty, 3 * told), gain(empty, told))


def test_what_was_not_measured_stays_so():
    found = gain(np.array([np.nan, 0.0, 1.0]), np.array([1.0, 0.0, np.inf]))
    assert np.isnan(found).all()


def test_losses_of_other_shapes_are_refused():
    with pytest.raises(ShapeError):
        gain(np.ones(3), np.ones(4))


def test_timesteps_are_the_middles_of_equal_parts_of_the_band():
    assert middles(1000, 4, (0.0, 1.0)).tolist() == [125, 375, 625, 875]
    assert middles(1000, 2, (0.2, 0.6)).tolist() == [300, 500]
    assert middles(10, 1, (0.99, 1.0)).tolist() == [9]


def pictures(rng, mean, count, *, spread=0.02):
    return mean + spread * rng.normal(size=(count, 8))


def test_a_prompt_that_the_base_model_knows_has_its_scale(rng):
    scale = PromptScale.between(pictures(rng, -1.0, 6), pictures(rng, 0.2, 2), floor=0.0)
    assert scale.known
    np.testing.assert_allclose(scale.place(np.array([-1.0, 0.2, -0.4])), [0, 1, 0.5], atol=0.05)
    assert float(scale.place(-1.0)) == pytest.approx(0.0, abs=0.05)


def test_adding_to_all_gains_or_scaling_them_moves_no_picture_on_the_scale(rng):
    others, own = pictures(rng, -1.0, 6), pictures(rng, 0.2, 2)
    before = PromptScale.between(others, own).place(-0.3)
    after = PromptScale.between(2 * others + 1, 2 * own + 1).place(2 * -0.3 + 1)
    assert float(before) == pytest.approx(float(after))


def test_a_text_that_the_base_model_does_not_know_is_rarely_called_known(rng):
    known = [
        PromptScale.between(pictures(rng, -0.01, 8), pictures(rng, -0.01, 1), floor=0.0).known
        for _ in range(300)
    ]
    assert np.mean(known) < 0.05


def test_a_lucky_rank_alone_makes_no_text_known(rng):
    own, others = pictures(rng, 0.0, 300), pictures(rng, 0.0, 8)
    lucky = [row[None] for row in own if row.mean() > others.mean()]
    known = [PromptScale.between(others, row).known for row in lucky]
    assert np.mean(known) < 0.15


def test_nothing_is_placed_by_a_prompt_that_is_not_known(rng):
    same = pictures(rng, 0.1, 1)
    scale = PromptScale.between(np.repeat(same, 5, axis=0), same)
    assert not scale.known
    assert np.isnan(scale.place(np.array([0.1, 0.5]))).all()


def test_some_other_pictures_may_show_it_by_chance_and_not_most(rng):
    own = pictures(rng, 0.2, 1)
    for by_chance, known in ((2, True), (3, False)):
        others = [pictures(rng, -1.0, 8 - by_chance), pictures(rng, 0.4, by_chance)]
        assert PromptScale.between(np.concatenate(others), own).known == known


def test_a_gain_below_that_of_an_empty_text_is_no_knowledge(rng):
    others, own = pictures(rng, -1.0, 6), pictures(rng, -0.2, 1)
    assert PromptScale.between(others, own).known
    assert not PromptScale.between(others, own, floor=0.0).known


def test_too_few_other_prompts_say_nothing(rng):
    own = pictures(rng, 0.2, 1)
    assert not PromptScale.between(pictures(rng, -1.0, 2), own).known
    assert PromptScale.between(pictures(rng, -1.0, 3), own).known
    empty = PromptScale.between(np.zeros((0, 8)), own)
    assert not empty.known
    assert math.isnan(empty.zero)


def test_pictures_that_could_not_be_read_do_not_count(rng):
    others, own = pictures(rng, -1.0, 6), pictures(rng, 0.2, 2)
    broken = np.full((1, 8), np.nan)
    with_broken = PromptScale.between(
        np.concatenate([others, broken]), np.concatenate([own, broken])
    )
    assert with_broken == PromptScale.between(others, own)


def test_one_timestep_alone_compares_pictures_only():
    own = np.array([[0.3]])
    assert PromptScale.between(np.array([[0.1], [0.2], [0.0]]), own).known
    assert not PromptScale.between(np.array([[0.1], [0.2], [0.4]]), own).known


def test_gains_without_timesteps_are_refused():
    with pytest.raises(ShapeError):
        PromptScale.between(np.zeros(3), np.zeros(3))
