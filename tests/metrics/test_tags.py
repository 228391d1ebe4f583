"""Tags: counted by hand."""

import pytest

from lorascope.errors import ShapeError
from lorascope.metrics import tags

CAPTIONS = [["fern", "pot", "pot"], ["fern", "sun"], ["sun", "fern"], ["rock"]]


def test_frequency_counts_images_and_not_spellings():
    assert tags.frequency(CAPTIONS) == {"fern": 3, "sun": 2, "pot": 1, "rock": 1}
    assert next(iter(tags.frequency(CAPTIONS))) == "fern"


def test_exposure_weighs_by_repeats():
    shown = tags.exposure(CAPTIONS, [1, 1, 1, 7])
    assert shown["rock"] == 0.7
    assert shown["fern"] == 0.3


def test_position_one_is_first():
    assert tags.positions(CAPTIONS)["fern"] == pytest.approx(4 / 3)
    assert tags.position(CAPTIONS[2], "Fern") == 2
    assert tags.position(CAPTIONS[3], "fern") is None


def test_a_trigger_is_found_inside_a_tag_but_only_as_a_whole_word():
    assert tags.position(["a photo of fern plant"], "fern") == 1
    assert tags.position(["ferns"], "fern") is None
    assert tags.position(["anything"], "") is None


def test_npmi_is_one_for_inseparable_tags_and_zero_for_independent_ones():
    bound = tags.npmi([["a", "b"], ["b", "a"], ["c"], ["c"]])
    assert bound == {("a", "b"): (2, pytest.approx(1))}
    independent = tags.npmi([["a", "b"], ["a"], ["b"], ["c"]])
    assert independent["a", "b"] == (1, pytest.approx(0))


def test_npmi_of_tags_that_all_images_carry_says_nothing():
    assert tags.npmi([["a", "b"], ["a", "b"]])["a", "b"] == (2, 0)


def test_taking_the_trigger_out_leaves_the_rest():
    assert tags.without(["fern", "pot"], "fern") == ["pot"]
    assert tags.without(["a fern plant", "pot"], "FERN") == ["a plant", "pot"]
    assert tags.without(["blue fern", "pot"], "blue fern") == ["pot"]
    assert tags.without(["pot"], "") == ["pot"]


def test_order_of_the_images_does_not_matter():
    turned = CAPTIONS[::-1]
    assert tags.frequency(turned) == tags.frequency(CAPTIONS)
    assert tags.npmi(turned) == tags.npmi(CAPTIONS)


def test_no_captions_give_no_tags():
    assert tags.frequency([]) == tags.exposure([], []) == tags.npmi([]) == {}


def test_missing_repeats_are_refused():
    with pytest.raises(ShapeError, match="1 repeats for 4"):
        tags.exposure(CAPTIONS, [1])
