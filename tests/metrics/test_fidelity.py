"""Fidelity: known pictures, known losses."""

import numpy as np
import pytest

from lorascope.errors import ShapeError
from lorascope.metrics import fidelity


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(20, 200, (48, 64, 3)).astype(np.uint8)


def test_a_picture_is_equal_to_itself(picture):
    assert fidelity.psnr(picture, picture) == fidelity.CEILING
    assert fidelity.ssim(picture, picture) == pytest.approx(1)
    assert fidelity.edge_retention(picture, picture) == pytest.approx(1)
    assert not fidelity.error_map(picture, picture).any()


def test_a_constant_error_has_the_psnr_of_the_formula(picture):
    assert fidelity.psnr(picture, picture + 10) == pytest.approx(20 * np.log10(25.5))


def test_half_the_contrast_is_half_the_edges(picture):
    even = picture // 2 * 2
    assert fidelity.edge_retention(even, even // 2) == pytest.approx(0.5)


def test_brightness_costs_no_edges(picture):
    assert fidelity.edge_retention(picture, picture + 20) == pytest.approx(1)


def test_a_flat_picture_has_no_edge_to_lose():
    flat = np.full((16, 16, 3), 9, np.uint8)
    assert fidelity.edge_retention(flat, flat) == 1


def test_the_worst_tile_is_found_where_it_was_spoilt(picture):
    spoilt = picture.copy()
    spoilt[16:40, 30:54] += 40
    assert fidelity.worst_tile(picture, spoilt) == (30, 16, pytest.approx(20 * np.log10(255 / 40)))


def test_a_picture_smaller_than_the_tile_is_one_tile(picture):
    small = picture[:10, :10]
    assert fidelity.worst_tile(small, small) == (0, 0, fidelity.CEILING)


@pytest.mark.parametrize("cells", [1, 8, 32, 100])
def test_the_error_map_keeps_a_constant_error(picture, cells):
    small = fidelity.error_map(picture, picture + 7, cells=cells)
    assert small.shape == (cells, cells)
    assert small == pytest.approx(np.full((cells, cells), 7.0), abs=1e-4)


def test_the_error_map_shows_where(picture):
    spoilt = picture.copy()
    spoilt[:24] += 8
    small = fidelity.error_map(picture, spoilt, cells=4)
    assert (small[:2] == 8).all()
    assert (small[2:] == 0).all()


def test_which_picture_is_the_original_does_not_matter_for_psnr_and_ssim(picture):
    other = picture[::-1].copy()
    assert fidelity.psnr(picture, other) == pytest.approx(fidelity.psnr(other, picture))
    assert fidelity.ssim(picture, other) == pytest.approx(fidelity.ssim(other, picture))


def test_pictures_that_do_not_fit_are_refused(picture):
    for measure in (fidelity.psnr, fidelity.ssim, fidelity.edge_retention, fidelity.worst_tile):
        with pytest.raises(ShapeError, match="different size"):
            measure(picture, picture[:-1])
    with pytest.raises(ShapeError, match="11 px"):
        fidelity.ssim(picture[:5], picture[:5])
