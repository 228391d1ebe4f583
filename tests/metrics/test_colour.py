"""Colour and noise: known pictures, what must not matter, what is refused."""

import numpy as np
import pytest

from lorascope.errors import ShapeError
from lorascope.metrics.colour import (
    clipped_colour_share,
    clipped_share,
    colourfulness,
    noise_sigma,
    saturation,
    saturation_high,
)

MEASURES = (
    colourfulness,
    saturation,
    saturation_high,
    clipped_share,
    clipped_colour_share,
    noise_sigma,
)


def plain(red, green, blue, side=16):
    return np.full((side, side, 3), (red, green, blue), dtype=np.uint8)


def test_grey_has_no_colour():
    assert colourfulness(plain(90, 90, 90)) == 0
    assert saturation(plain(90, 90, 90)) == 0


def test_a_plain_red_is_as_colourful_as_its_mean_opponents_say():
    assert colourfulness(plain(200, 0, 0)) == pytest.approx(0.3 * np.hypot(200, 100))
    assert saturation(plain(200, 0, 0)) == 1


def test_two_colours_are_more_colourful_than_one():
    half = plain(200, 0, 0)
    half[:8] = (0, 0, 200)
    assert colourfulness(half) > colourfulness(plain(200, 0, 0))


def test_a_picture_half_white_is_half_clipped():
    picture = plain(128, 128, 128)
    picture[:8] = 255
    assert clipped_share(picture) == 0.5


def test_one_channel_at_its_end_is_enough_to_be_clipped():
    assert clipped_share(plain(128, 1, 128)) == 1
    assert clipped_share(plain(128, 3, 252)) == 0


def test_the_vivid_part_of_a_picture_is_found_where_it_is_small():
    picture = plain(100, 100, 100, side=20)
    picture[:2] = (200, 0, 0)
    assert saturation_high(picture) == 1
    picture[:] = (100, 100, 100)
    picture[0, 0] = (200, 0, 0)
    assert saturation_high(picture) == 0


def test_white_paper_black_ink_and_a_pink_wall_are_no_clipped_colours():
    assert clipped_colour_share(plain(255, 190, 200)) == 0
    assert clipped_colour_share(plain(255, 255, 250)) == 0
    assert clipped_colour_share(plain(0, 0, 9)) == 0
    assert clipped_colour_share(plain(255, 40, 40)) == 1
    assert clipped_colour_share(plain(200, 40, 40)) == 0


def test_noise_of_a_known_strength_is_found(rng):
    grey = rng.normal(128, 6, (128, 128, 1)).round().clip(0, 255)
    assert noise_sigma(np.repeat(grey, 3, axis=2).astype(np.uint8)) == pytest.approx(6, rel=0.05)


def test_a_ramp_is_no_noise():
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None], 64, axis=0)
    assert noise_sigma(np.repeat(ramp, 3, axis=2)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("measure", MEASURES)
def test_mirroring_changes_nothing(measure, rng):
    picture = rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)
    assert measure(picture[:, ::-1]) == pytest.approx(measure(picture))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("wrong", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3))])
def test_what_is_no_rgb_picture_is_refused(measure, wrong):
    with pytest.raises(ShapeError, match="RGB"):
        measure(wrong)


def test_a_picture_too_small_for_noise_is_refused():
    with pytest.raises(ShapeError, match="too small"):
        noise_sigma(plain(1, 2, 3, side=2))
