"""Previews: a map that is linear is found, whatever the number of channels."""

import numpy as np
import pytest

from lorascope.errors import ShapeError
from lorascope.models.previews import Preview


@pytest.mark.parametrize("channels", [4, 8, 16])
def test_a_linear_code_is_given_back(channels, rng):
    weights = rng.normal(size=(3, channels)) * 10
    latents = [rng.normal(size=(channels, 8, 6)) for _ in range(3)]
    colours = [np.moveaxis(np.tensordot(weights, z, axes=1) + 128, 0, 2) for z in latents]
    pictures = [
        np.kron(c.clip(0, 255).round(), np.ones((8, 8, 1))).astype(np.uint8) for c in colours
    ]
    preview = Preview.fitted(latents, pictures)
    assert preview.explained > 0.98
    shown = preview.picture(latents[0]).astype(float)
    assert np.abs(shown - colours[0].clip(0, 255)).mean() < 4


def test_pictures_of_several_sizes_fit_together(rng):
    latents = [rng.normal(size=(4, 8, 6)), rng.normal(size=(4, 6, 8))]
    pictures = [np.zeros((64, 48, 3), np.uint8), np.zeros((48, 64, 3), np.uint8)]
    assert Preview.fitted(latents, pictures).explained == 1


def test_what_breaks_is_black_and_not_a_crash(rng):
    preview = Preview.fitted([rng.normal(size=(4, 4, 4))], [np.full((32, 32, 3), 90, np.uint8)])
    assert (preview.picture(np.full((4, 4, 4), np.nan)) == 0).all()


def test_channels_that_say_the_same_are_no_trouble(rng):
    one = rng.normal(size=(1, 8, 8))
    picture = np.kron(np.moveaxis(np.repeat(one, 3, axis=0) * 20 + 128, 0, 2), np.ones((8, 8, 1)))
    found = Preview.fitted([np.repeat(one, 4, axis=0)], [picture.clip(0, 255).astype(np.uint8)])
    assert found.explained > 0.98


@pytest.mark.parametrize(
    ("latents", "pictures"),
    [
        ([], []),
        ([np.zeros((4, 8, 8))], []),
        ([np.zeros((4, 8, 8))], [np.zeros((60, 64, 3), np.uint8)]),
    ],
)
def test_what_does_not_fit_is_refused(latents, pictures):
    with pytest.raises(ShapeError):
        Preview.fitted(latents, pictures)
