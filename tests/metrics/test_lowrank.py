"""Low-rank linear algebra: against the full matrix, whatever the gauge."""

import numpy as np
import pytest

from lorascope.errors import ShapeError, WeightError
from lorascope.metrics import lowrank


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def factors(rng):
    return rng.normal(size=(32, 8)), rng.normal(size=(8, 24))


def test_norm_is_that_of_the_full_matrix(factors):
    up, down = factors
    full = np.linalg.norm(0.5 * up @ down)
    assert lowrank.norm(up, down, scale=0.5) == pytest.approx(full, rel=1e-12)


def test_inner_product_is_that_of_the_full_matrices(factors, rng):
    up, down = factors
    other_up, other_down = rng.normal(size=(32, 3)), rng.normal(size=(3, 24))
    full = ((0.5 * up @ down) * (-2 * other_up @ other_down)).sum()
    assert lowrank.inner((up, down, 0.5), (other_up, other_down, -2)) == pytest.approx(full)


def test_singular_values_are_those_of_the_full_matrix(factors):
    up, down = factors
    full = np.linalg.svd(0.25 * up @ down, compute_uv=False)[:8]
    assert lowrank.singular_values(up, down, scale=0.25) == pytest.approx(full)


def test_a_convolution_counts_like_its_flattened_kernel(factors):
    up, down = factors
    conv = up[:, :, None, None], down.reshape(8, 6, 2, 2)
    assert lowrank.norm(*conv) == pytest.approx(lowrank.norm(up, down))
    assert lowrank.effective_rank(*conv) == pytest.approx(lowrank.effective_rank(up, down))


@pytest.mark.parametrize("used", [1, 3, 8])
def test_effective_rank_counts_equal_directions(used, rng):
    up = np.linalg.qr(rng.normal(size=(32, 8)))[0]
    down = np.linalg.qr(rng.normal(size=(24, 8)))[0].T
    down[used:] = 0
    assert lowrank.effective_rank(up, down) == pytest.approx(used)


def test_cosine_is_one_with_itself_and_minus_one_with_its_opposite(factors):
    up, down = factors
    assert lowrank.cosine((up, down, 0.5), (up, down, 3)) == pytest.approx(1)
    assert lowrank.cosine((up, down, 1), (-up, down, 1)) == pytest.approx(-1)


@pytest.mark.parametrize("gauge", [1e-3, 7.0])
def test_moving_size_between_the_factors_changes_nothing(factors, gauge):
    up, down = factors
    moved = up * gauge, down / gauge
    assert lowrank.norm(*moved) == pytest.approx(lowrank.norm(up, down))
    assert lowrank.effective_rank(*moved) == pytest.approx(lowrank.effective_rank(up, down))
    assert lowrank.cosine((up, down, 1), (*moved, 1)) == pytest.approx(1)


def test_half_precision_factors_do_not_overflow():
    up, down = np.full((8, 2), 6e4, np.float16), np.full((2, 8), 6e4, np.float16)
    full = np.linalg.norm(up.astype(float) @ down.astype(float))
    assert lowrank.norm(up, down) == pytest.approx(full)


def test_an_untrained_module_has_no_effective_rank_and_no_direction(factors):
    zero = np.zeros((4, 2)), np.ones((2, 4))
    assert lowrank.norm(*zero) == 0
    with pytest.raises(WeightError, match="never trained"):
        lowrank.effective_rank(*zero)
    with pytest.raises(WeightError, match="zero"):
        lowrank.cosine((*zero, 1), (*zero, 1))


def test_a_module_with_nan_has_no_singular_values():
    with pytest.raises(WeightError, match="NaN"):
        lowrank.singular_values(np.full((4, 2), np.nan), np.ones((2, 4)))


def test_factors_that_do_not_fit_are_refused(factors):
    with pytest.raises(ShapeError, match=r"\(4, 2\)"):
        lowrank.norm(np.zeros((4, 2)), np.ones((3, 4)))
    with pytest.raises(ShapeError, match="different size"):
        lowrank.inner((*factors, 1), (np.zeros((5, 2)), np.ones((2, 24)), 1))
