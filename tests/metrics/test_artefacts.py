"""Texture and artefacts: known pictures, what must not matter, what is refused."""

import numpy as np
import pytest

from lorascope.errors import ShapeError
from lorascope.metrics.artefacts import (
    MEASURES,
    Measure,
    Usual,
    artefact_z,
    joint_z,
    measured,
    z_scores,
)
from lorascope.metrics.texture import (
    blockiness,
    contrast_kurtosis,
    edge_strength,
    high_frequency_share,
    local_contrast,
    quiet_contrast,
)

TEXTURES = (
    high_frequency_share,
    blockiness,
    contrast_kurtosis,
    edge_strength,
    local_contrast,
    quiet_contrast,
)
ONE = {"level": Measure(of=lambda p: float(p.mean()), unit="grey levels", least=2.0)}


def grey(values):
    return np.repeat(np.asarray(values).round().clip(0, 255)[:, :, None], 3, axis=2).astype(
        np.uint8
    )


def wave(cycles, side=64):
    """A wave across the picture, so many cycles a pixel."""
    return grey(np.tile(128 + 100 * np.sin(2 * np.pi * cycles * np.arange(side)), (side, 1)))


def noise(rng, spread=20.0, side=64):
    return grey(rng.normal(128, spread, (side, side)))


@pytest.mark.parametrize("measure", TEXTURES)
def test_a_plain_picture_has_no_texture(measure):
    assert measure(grey(np.full((32, 32), 90))) == pytest.approx(0, abs=1e-9)


def test_a_wave_is_high_or_not_by_its_frequency():
    assert high_frequency_share(wave(0.25)) < 0.01
    assert high_frequency_share(wave(0.45)) > 0.95


def test_white_noise_has_the_share_of_the_frequencies_beyond_the_circle(rng):
    assert high_frequency_share(noise(rng, side=256)) == pytest.approx(
        1 - np.pi * 0.35**2, abs=0.02
    )


def test_a_chessboard_of_single_pixels_is_all_high_frequency():
    board = grey(np.indices((32, 32)).sum(axis=0) % 2 * 200)
    assert high_frequency_share(board) == pytest.approx(1, abs=0.01)


def test_opposite_borders_make_no_edge():
    ramp = grey(np.tile(np.linspace(0, 255, 64), (64, 1)))
    assert high_frequency_share(ramp) < 0.01


def test_steps_on_the_grid_are_blocks_and_steps_beside_it_are_not():
    steps = np.kron(np.arange(64).reshape(8, 8) % 2, np.ones((8, 8))) * 40
    assert blockiness(grey(steps)) == pytest.approx(20, abs=1e-6)  # across columns alone
    assert blockiness(grey(np.roll(steps, 3, axis=1))) < 0


def test_jpeg_at_a_low_quality_shows_its_blocks(rng):
    import io

    from PIL import Image

    smooth = grey(np.add.outer(np.arange(64.0), np.arange(64.0)) + rng.normal(0, 6, (64, 64)))
    packed = io.BytesIO()
    Image.fromarray(smooth).save(packed, "JPEG", quality=5)
    assert blockiness(np.asarray(Image.open(packed))) > blockiness(smooth) + 1


def test_noise_lies_everywhere_and_an_edge_in_one_place(rng):
    assert contrast_kurtosis(noise(rng, side=256)) == pytest.approx(np.log2(3), abs=0.05)
    half = np.zeros((64, 64))
    half[:, 32:] = 200
    assert contrast_kurtosis(grey(half)) > 4


def test_a_ramp_is_as_steep_as_it_rises():
    assert edge_strength(grey(np.tile(3.0 * np.arange(32), (32, 1)))) == pytest.approx(3)


def test_contrast_of_noise_is_its_spread(rng):
    found = noise(rng, spread=10, side=256)
    assert local_contrast(found) == pytest.approx(10, rel=0.03)
    assert quiet_contrast(found) == pytest.approx(10, rel=0.1)


def test_a_smooth_quarter_keeps_a_picture_quiet_and_blotches_do_not(rng):
    picture = noise(rng, spread=30)
    picture[:40] = 200
    assert quiet_contrast(picture) == 0
    assert local_contrast(picture) > 5
    blotched = picture.copy()
    blotched[:40] = noise(rng, spread=8)[:40]
    assert quiet_contrast(blotched) > 5


@pytest.mark.parametrize("measure", TEXTURES)
def test_turning_a_picture_changes_nothing(measure, rng):
    picture = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert measure(np.rot90(picture)) == pytest.approx(measure(picture))


@pytest.mark.parametrize("measure", [high_frequency_share, contrast_kurtosis])
def test_more_contrast_of_the_same_kind_changes_no_share(measure):
    pattern = np.random.default_rng(0).integers(-50, 51, (32, 32))
    few, many = grey(128 + pattern), grey(128 + 2 * pattern)
    assert measure(many) == pytest.approx(measure(few), rel=1e-6)


@pytest.mark.parametrize("measure", TEXTURES)
@pytest.mark.parametrize("wrong", [np.zeros((32, 32), np.uint8), np.zeros((32, 32, 3))])
def test_what_is_no_rgb_picture_is_refused(measure, wrong):
    with pytest.raises(ShapeError, match="RGB"):
        measure(wrong)


@pytest.mark.parametrize("measure", TEXTURES)
def test_a_picture_too_small_is_refused(measure):
    with pytest.raises(ShapeError, match="too small"):
        measure(np.zeros((6, 32, 3), np.uint8))


def test_every_measure_is_taken_in_its_order(rng):
    picture = rng.integers(0, 256, (24, 16, 3), dtype=np.uint8)
    values = measured(picture)
    assert values.shape == (len(MEASURES),)
    assert values[list(MEASURES).index("edge_strength")] == edge_strength(picture)


def test_what_is_usual_is_the_middle_and_a_spread_that_one_outlier_does_not_move():
    usual = Usual.among(np.array([[10.0], [12.0], [14.0], [16.0], [900.0]]), ONE)
    assert usual.middle[0] == 14
    assert usual.spread[0] == pytest.approx(1.4826 * 2)
    assert usual.n == 5


def test_pictures_that_are_all_alike_do_not_make_a_difference_endless():
    usual = Usual.among(np.full((5, 1), 10.0), ONE)
    assert z_scores(np.array([[14.0]]), None, usual, ONE)[0, 0] == 2  # of `least`


def test_a_z_counts_from_the_own_picture_where_there_is_one():
    usual = Usual.among(np.array([[10.0], [20.0], [30.0]]), ONE)
    own = np.array([[28.0]])
    assert z_scores(np.array([[28.0]]), own, usual, ONE)[0, 0] == 0
    assert z_scores(np.array([[28.0]]), None, usual, ONE)[0, 0] > 0


def test_only_what_stands_out_from_both_counts():
    base = np.array([5.0, 5.0, -5.0, -2.0, 0.0])
    training = np.array([2.0, -1.0, 9.0, -4.0, 8.0])
    assert joint_z(base, training).tolist() == [2.0, 0.0, 0.0, -2.0, 0.0]


def test_one_kind_of_artefact_is_enough_and_its_absence_is_none():
    assert artefact_z(np.array([[0.5, 4.0, -3.0], [-1.0, -2.0, -8.0]])).tolist() == [4.0, 0.0]


def test_a_measure_that_falls_with_artefacts_counts_downwards():
    falling = {"level": Measure(of=lambda p: 0.0, unit="1", least=1.0, towards=-1)}
    usual = Usual.among(np.array([[5.0], [5.0]]), falling)
    assert z_scores(np.array([[2.0]]), None, usual, falling)[0, 0] == 3


def test_a_ratio_is_judged_in_octaves():
    ratio = {"level": Measure(of=lambda p: 0.0, unit="1", least=0.5, ratio=True)}
    usual = Usual.among(np.array([[1.0], [1.0]]), ratio)
    assert z_scores(np.array([[3.0], [7.0]]), None, usual, ratio)[:, 0].tolist() == [2.0, 4.0]


@pytest.mark.parametrize("wrong", [np.empty((0, 1)), np.zeros((3, 2)), np.zeros(3)])
def test_nothing_is_usual_among_nothing(wrong):
    with pytest.raises(ShapeError):
        Usual.among(wrong, ONE)


def test_burnt_noisy_and_blotchy_versions_of_a_picture_are_told_from_the_picture(rng):
    drawings = [drawing(np.random.default_rng(seed)) for seed in range(8)]
    values = np.stack([measured(picture) for picture in drawings])
    usual = Usual.among(values)
    for spoil in (burn, grain, blotch):
        spoilt = np.stack([measured(spoil(picture, rng)) for picture in drawings])
        joint = joint_z(z_scores(spoilt, values, usual), z_scores(spoilt, None, usual))
        assert np.median(artefact_z(joint)) > 3, spoil.__name__
    own = joint_z(z_scores(values, values, usual), z_scores(values, None, usual))
    assert artefact_z(own).max() == 0


def test_soft_blotches_on_quiet_ground_are_told_by_that_ground(rng):
    drawings = [drawing(np.random.default_rng(seed)) for seed in range(8)]
    values = np.stack([measured(picture) for picture in drawings])
    soft = np.stack([measured(blotch(picture, rng, spread=5)) for picture in drawings])
    joint = joint_z(
        z_scores(soft, values, Usual.among(values)), z_scores(soft, None, Usual.among(values))
    )
    assert np.median(artefact_z(joint)) > 3
    worst = [list(MEASURES)[place] for place in joint.argmax(axis=1)]
    assert set(worst) == {"quiet_contrast"}


def drawing(rng, side=64):
    """A disc and a box of muted colours on a plain ground."""
    picture = np.empty((side, side, 3))
    picture[:] = rng.uniform(120, 200, 3)
    rows, columns = np.indices((side, side))
    centre = rng.uniform(20, 44, 2)
    picture[np.hypot(rows - centre[0], columns - centre[1]) < 14] = rng.uniform(60, 180, 3)
    picture[40:56, 8:24] = rng.uniform(60, 180, 3)
    return picture.round().astype(np.uint8)


def burn(picture, _rng):
    values = picture.astype(float)
    grey_of = values.mean(axis=2, keepdims=True)
    return (128 + 3 * (grey_of + 4 * (values - grey_of) - 128)).clip(0, 255).astype(np.uint8)


def grain(picture, rng):
    return (picture + rng.normal(0, 25, picture.shape)).clip(0, 255).astype(np.uint8)


def blotch(picture, rng, spread=30):
    side = picture.shape[0] // 4
    coarse = np.kron(rng.normal(0, spread, (side, side, 3)), np.ones((4, 4, 1)))
    return (picture + coarse).clip(0, 255).astype(np.uint8)
