"""Similarity: known answers, what must not matter, what is refused, copies that are found."""

import numpy as np
import pytest

from lorascope.errors import ShapeError
from lorascope.metrics import similarity


def test_layout_of_a_plain_map_is_its_value_and_no_deviation():
    found = similarity.layout(np.full((2, 3, 8, 8), 0.5))
    assert found.shape == (2, 2 * 3 * 21)
    assert sorted(set(found.ravel())) == [0.0, 0.5]


def test_layout_tells_left_from_right_but_not_where_in_a_cell():
    left, right, moved = np.zeros((3, 1, 1, 8, 8))
    left[0, 0, 0, 0], right[0, 0, 0, 7], moved[0, 0, 1, 1] = 1, 1, 1
    assert not np.allclose(similarity.layout(left), similarity.layout(right))
    assert np.allclose(similarity.layout(left), similarity.layout(moved))


def test_layout_takes_maps_that_do_not_divide_evenly():
    assert np.isfinite(similarity.layout(np.ones((1, 2, 7, 5)))).all()


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 3, 3, 8)])
def test_layout_refuses_what_it_cannot_cut(shape):
    with pytest.raises(ShapeError, match="Layout"):
        similarity.layout(np.zeros(shape))


def test_gist_averages_fields_of_any_picture():
    picture = np.zeros((33, 50, 3), np.uint8)
    picture[:, 25:] = 255
    found = similarity.gist(picture, side=2).reshape(2, 2, 3)
    assert found[:, 0].max() == 0
    assert found[:, 1].min() == 1


def test_gist_refuses_a_picture_with_fewer_pixels_than_fields():
    with pytest.raises(ShapeError, match="fields"):
        similarity.gist(np.zeros((8, 20, 3), np.uint8))


def test_the_nearest_references_count_and_the_others_do_not():
    references = np.array([[1.0, 0], [1, 0], [0, 1], [-1, 0]])
    sample = np.array([[1.0, 0.0]])
    assert similarity.nearest_cosine(sample, references, neighbours=2) == pytest.approx([1])
    assert similarity.nearest_cosine(sample, references, neighbours=9) == pytest.approx([0.25])


def test_leaving_one_out_never_compares_a_picture_with_itself():
    assert similarity.leave_one_out(np.eye(3)) == pytest.approx([0, 0, 0])


def test_cosines_refuse_other_features_and_no_reference():
    with pytest.raises(ShapeError, match="compared"):
        similarity.cosines(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ShapeError, match="reference"):
        similarity.nearest_cosine(np.ones((2, 3)), np.ones((0, 3)))
    with pytest.raises(ShapeError, match="two"):
        similarity.leave_one_out(np.ones((1, 3)))


def test_distances_are_root_mean_squares():
    found = similarity.distances(np.array([[0.0, 0.0]]), np.array([[3.0, 3.0], [0.0, 2.0]]))
    assert found == pytest.approx(np.array([[3, 2**0.5]]))


def test_pixel_change_goes_from_the_same_to_black_against_white():
    black = np.zeros((4, 4, 3), np.uint8)
    assert similarity.pixel_change(black, black) == 0
    assert similarity.pixel_change(black, black + 255) == 1
    with pytest.raises(ShapeError, match="compared"):
        similarity.pixel_change(black, black[:2])


def test_maps_of_one_shape_are_alike_and_maps_apart_are_not():
    one, other = np.zeros((2, 4, 4))
    one[0], other[3] = 1, 1
    assert similarity.map_cosine(one, 3 * one) == pytest.approx(1)
    assert similarity.map_cosine(one, other) == 0
    assert similarity.map_cosine(one, 0 * one) == 0


def test_overlap_asks_how_much_of_the_first_map_the_second_covers():
    small, large = np.zeros((2, 4, 4))
    small[0], large[:2] = 1, 5
    assert similarity.overlap(small, large) == pytest.approx(1)
    assert similarity.overlap(large, small) == pytest.approx(0.5)
    assert similarity.overlap(small, 0 * large) == 0


@pytest.mark.parametrize("compare", [similarity.map_cosine, similarity.overlap])
def test_maps_of_two_sizes_are_refused(compare):
    with pytest.raises(ShapeError, match="Maps"):
        compare(np.ones((2, 2)), np.ones((2, 3)))


def test_a_mirrored_gist_is_the_gist_of_the_mirrored_picture(rng):
    picture = rng.integers(0, 256, (64, 48, 3), dtype=np.uint8)
    assert similarity.mirrored(similarity.gist(picture)) == pytest.approx(
        similarity.gist(picture[:, ::-1])
    )
