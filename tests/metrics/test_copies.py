"""Copies: what is found whole, mirrored and in parts; what must not matter; what is refused."""

import functools
import random
import time

import numpy as np
import pytest
from PIL import Image

from lorascope.errors import ShapeError
from lorascope.io.images import resize_crop
from lorascope.metrics import copies
from lorascope.metrics.copies import SIDE, Prepared, nearest, patch_matches
from lorascope.metrics.similarity import gist
from lorascope.miniature.drawing import draw
from lorascope.miniature.world import sample_avatar

COUNT = 5


@functools.cache
def drawing(seed):
    rng = random.Random(seed)
    return resize_crop(draw(sample_avatar(rng), rng).image, SIDE, SIDE)


def training():
    return [drawing(seed) for seed in range(COUNT)]


def prepared():
    return [Prepared(one) for one in training()]


def gists():
    return np.stack([gist(one) for one in training()])


def jpeg_like(picture):
    """Blur a little, as an autoencoder does."""
    small = Image.fromarray(picture).resize((SIDE * 2 // 3,) * 2, Image.Resampling.LANCZOS)
    return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    ("size", "compared"),
    [((128, 128), (96, 96)), ((512, 768), (64, 96)), ((1000, 10), (96, 16)), ((64, 40), (96, 64))],
)
def test_pictures_of_any_size_are_compared_at_one_that_can_be_cut(size, compared):
    assert copies.compared_size(*size) == compared


def test_a_training_image_is_its_own_nearest_and_all_of_it_is_found():
    near = nearest(gist(training()[2]), gists())
    assert (near.place, near.ratio, near.mirrored) == (2, 0.0, False)
    found = patch_matches(training()[2], prepared())
    assert (found.share, found.largest, found.sources) == (1.0, 1.0, (2,))


def test_a_mirrored_copy_is_a_copy():
    turned = training()[3][:, ::-1]
    near = nearest(gist(turned), gists())
    assert (near.place, near.mirrored) == (3, True)
    assert near.ratio < 0.05
    found = patch_matches(turned, prepared())
    assert found.largest == 1.0
    assert found.sources == (3,)


def test_another_drawing_is_no_copy():
    found = [patch_matches(drawing(seed), prepared()).largest for seed in range(100, 130)]
    assert max(found) < 0.4
    assert np.median(found) < 0.1


@pytest.mark.parametrize(
    "change",
    [
        lambda p: (p * 0.7 + 40).astype(np.uint8),
        lambda p: (p * 0.9).astype(np.uint8),
        lambda p: np.roll(p, (1, -1), axis=(0, 1)),
        jpeg_like,
    ],
    ids=["contrast", "brightness", "shift", "blur"],
)
def test_a_copy_stays_one(change):
    for place, one in enumerate(training()):
        found = patch_matches(change(one), prepared())
        assert found.largest > 0.7
        assert found.sources == (place,)


def test_only_a_picture_as_a_whole_may_have_moved():
    """Half of a training image, a little aside: other drawings have as much."""
    moved = np.roll(training()[0], (1, -1), axis=(0, 1))
    half = np.hstack([moved[:, : SIDE // 2], drawing(60)[:, SIDE // 2 :]])
    assert patch_matches(half, prepared()).largest < 0.2


def test_a_plain_background_that_is_taken_over_does_not_count():
    """Two figures before the same sky: only what shows something is compared."""
    sky = np.linspace(200, 240, SIDE)[:, None, None] * np.ones((1, SIDE, 3))
    first, second = sky.astype(np.uint8), sky.astype(np.uint8)
    rng = np.random.default_rng(0)
    first[32:64, 16:48] = rng.integers(0, 255, (32, 32, 3))
    second[32:64, 48:80] = rng.integers(0, 255, (32, 32, 3))
    found = patch_matches(first, [Prepared(second)])
    assert found.share == 0.0
    assert found.patches < 40


def test_a_picture_that_shows_nothing_is_not_measured():
    assert patch_matches(np.full((SIDE, SIDE, 3), 9, np.uint8), prepared()) is None


def test_two_halves_are_two_sources_the_larger_first():
    cut = SIDE * 5 // 8
    collage = np.hstack([training()[0][:, :cut], training()[4][:, cut:]])
    found = patch_matches(collage, prepared())
    assert found.sources == (0, 4)
    assert found.shares[0] > found.shares[1] > 0.2
    assert found.share > 0.8
    assert found.largest == found.shares[0] < 0.7


def test_what_two_training_images_share_is_given_to_one():
    found = patch_matches(training()[0], [Prepared(training()[0]), Prepared(training()[0])])
    assert found.sources == (0,)


def test_near_duplicates_and_mirror_images_count_once():
    several = [*gists(), gist(training()[1]), gist(training()[2][:, ::-1])]
    assert copies.distinct_places(np.stack(several)) == [0, 1, 2, 3, 4]
    assert copies.distinct_places(gists()[:1]) == [0]


def test_without_collapsing_a_duplicate_hides_a_copy_from_the_ratio():
    doubled = np.stack([*gists(), gist(jpeg_like(training()[1]))])
    sample = gist((training()[1] * 0.98).astype(np.uint8))
    assert nearest(sample, doubled).ratio > 0.2
    assert nearest(sample, doubled[copies.distinct_places(doubled)]).ratio < 0.2


def test_one_training_image_has_no_ratio():
    near = nearest(gist(drawing(50)), gists()[:1])
    assert (near.place, near.ratio) == (0, None)
    assert near.distance > 0


def test_a_match_among_many_training_images_is_not_lost():
    many = [Prepared(drawing(seed)) for seed in range(40)]
    assert patch_matches(drawing(33), many).sources == (33,)


def test_twenty_training_images_take_less_time_than_anyone_notices():
    many = [Prepared(drawing(seed)) for seed in range(20)]
    picture = drawing(70)
    spent = []
    for _ in range(5):
        started = time.process_time()
        patch_matches(picture, many)
        spent.append(time.process_time() - started)
    assert min(spent) < 0.2


@pytest.mark.parametrize(
    ("picture", "references", "said"),
    [
        (drawing(0), [], "no training image"),
        (drawing(0)[:50], [drawing(0)], "multiples of 8"),
        (drawing(0)[:64], [drawing(0)], "another size"),
        (drawing(0)[:8], [drawing(0)], "16 px or more"),
    ],
)
def test_what_cannot_be_compared_is_refused(picture, references, said):
    with pytest.raises(ShapeError, match=said):
        patch_matches(picture, [Prepared(one) for one in references])


def test_a_reference_that_cannot_be_cut_is_refused():
    with pytest.raises(ShapeError, match="cannot be cut"):
        Prepared(drawing(0)[:, :60])


def test_nothing_to_be_near_to_is_refused():
    with pytest.raises(ShapeError, match="no training image"):
        nearest(gist(drawing(0)), gists()[:0])
