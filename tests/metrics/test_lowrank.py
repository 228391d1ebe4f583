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


def changed_gauges(up, down, scale, rng):
    """Write the same update in other factors."""
    order = rng.permutation(len(down))
    turn = np.linalg.qr(rng.normal(size=(len(down), len(down))))[0]
    sizes = 10.0 ** rng.uniform(-6, 6, len(down))
    return {
        "rescaled": (up * 40.0, down / 40.0, scale),
        "rescaled each": (up * sizes, down / sizes[:, None], scale),
        "permuted": (up[:, order], down[order], scale),
        "alpha folded in": (up * scale, down, 1.0),
        "alpha shared out": (up * np.sqrt(scale), down * np.sqrt(scale), 1.0),
        "turned inside": (up @ turn, turn.T @ down, scale),
        "dense": (scale * up @ down, None, 1.0),
    }


@pytest.mark.parametrize("seed", range(3))
def test_every_quantity_is_of_the_update_and_not_of_its_factors(seed):
    rng = np.random.default_rng(seed)
    up, down, scale = rng.normal(size=(40, 6)), rng.normal(size=(6, 30)), 0.25
    other = rng.normal(size=(40, 3)), rng.normal(size=(3, 30)), 2.0
    values = lowrank.singular_values(up, down, scale=scale)
    for one in changed_gauges(up, down, scale, rng).values():
        seen = lowrank.singular_values(*one[:2], scale=one[2])
        for found in (seen, lowrank.spectra([one])[0]):
            np.testing.assert_allclose(found[:6], values, rtol=1e-6)
            np.testing.assert_allclose(found[6:], 0, atol=1e-6 * values[0])
        assert lowrank.norm(*one[:2], scale=one[2]) == pytest.approx(np.linalg.norm(values))
        wanted = lowrank.inner((up, down, scale), other)
        assert lowrank.inner(one, other) == pytest.approx(wanted)
        assert lowrank.inner(other, one) == pytest.approx(wanted)
        np.testing.assert_allclose(lowrank.dense(one), scale * up @ down, atol=1e-9)
        share = lowrank.cosine((up, down, scale), other)
        assert lowrank.cosine(one, other) == pytest.approx(share)


def test_a_kronecker_product_counts_like_the_matrix_that_it_is(factors, rng):
    up, down = factors
    left, other_left = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    whole = np.kron(left, 0.5 * up @ down)
    np.testing.assert_allclose(lowrank.dense((up, down, 0.5), left=left), whole)
    assert lowrank.norm(up, down, scale=0.5, left=left) == pytest.approx(np.linalg.norm(whole))
    values = np.linalg.svd(whole, compute_uv=False)
    for found in (
        lowrank.singular_values(up, down, scale=0.5, left=left),
        lowrank.spectra([(up, down, 0.5)], lefts=[left])[0],
    ):
        np.testing.assert_allclose(found, values[:16])
    other = np.kron(other_left, up @ down)
    for second in (((up, down, 1.0), other_left), ((other, None, 1.0), None)):
        found = lowrank.inner((up, down, 0.5), second[0], left=left, other_left=second[1])
        assert found == pytest.approx((whole * other).sum())


def test_the_strongest_directions_are_counted(rng):
    values = np.array([2.0, 1.0, 1.0])
    assert lowrank.stable_rank(values) == pytest.approx(1.5)
    assert lowrank.top_share(values) == pytest.approx(4 / 6)
    assert lowrank.top_share(values, count=2) == pytest.approx(5 / 6)
    for measure in (lowrank.stable_rank, lowrank.top_share):
        with pytest.raises(WeightError, match="never trained"):
            measure(np.zeros(3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_spectra_agree_with_the_full_svd_where_values_fall_steeply(rng, dtype):
    """Every value above a thousandth of the largest, within 1e-4; widths mixed."""
    factors, wholes = [], []
    for out, inner in ((320, 320), (640, 768), (320, 2880)):
        fall = np.exp(-np.arange(32) / 4.0)  # to 4e-4 of the largest
        up = (np.linalg.qr(rng.normal(size=(out, 32)))[0] * fall).astype(dtype)
        down = (np.linalg.qr(rng.normal(size=(inner, 32)))[0].T * 100.0).astype(dtype)
        factors.append((up, down, 0.5))
        wholes.append(0.5 * up.astype(float) @ down.astype(float))
    for found, whole in zip(lowrank.spectra(factors), wholes, strict=True):
        values = np.linalg.svd(whole, compute_uv=False)[:32]
        large = values > 1e-3 * values[0]
        assert 20 < large.sum() < 32
        np.testing.assert_allclose(found[large], values[large], rtol=1e-6)


def test_directions_that_nothing_uses_are_zero_and_do_no_harm(rng):
    up, down = rng.normal(size=(20, 4)), rng.normal(size=(4, 10))
    dead = up.copy()
    dead[:, 2:] = 0
    twice = np.hstack([up[:, :1]] * 4)
    zero = np.zeros_like(up)
    wide = rng.normal(size=(20, 12)), rng.normal(size=(12, 10))  # rank above the width
    parts = [
        (dead, down, 1.0),
        (twice, down, 1.0),
        (zero, down, 1.0),
        (*wide, 1.0),
        (up, down, 0.0),
    ]
    for found, (one, other, scale) in zip(lowrank.spectra(parts), parts, strict=True):
        values = np.linalg.svd(scale * one @ other, compute_uv=False)
        np.testing.assert_allclose(found, values[: len(found)], atol=1e-7)


def test_a_tall_matrix_is_taken_in_pieces_to_the_same_values(rng):
    up, down = rng.normal(size=(1003, 4)), rng.normal(size=(4, 517))
    full = np.linalg.svd(up @ down, compute_uv=False)[:4]
    np.testing.assert_allclose(lowrank.singular_values(up, down), full, rtol=1e-12)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_spectra_refuse_what_is_no_number(broken):
    good, bad = np.ones((4, 2)), np.full((4, 2), broken)
    for one in ((bad, good.T, 1.0), (good, bad.T, 1.0), (bad, None, 1.0), (good, good.T, broken)):
        with np.errstate(invalid="ignore"), pytest.raises(WeightError, match="NaN"):
            lowrank.spectra([one])
        with pytest.raises(WeightError, match="NaN"):
            lowrank.singular_values(*one[:2], scale=one[2])
    with pytest.raises(WeightError, match="NaN"):
        lowrank.spectra([(good, good.T, 1.0)], lefts=[bad])
    with pytest.raises(ShapeError, match="different size"):
        lowrank.inner((good, None, 1.0), (good, good.T, 1.0))
