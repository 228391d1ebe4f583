"""Buckets: the size an image is trained at."""

import pytest

from lorascope.metrics.buckets import bucket, buckets


@pytest.mark.parametrize("resolution", [512, 768, 1024])
@pytest.mark.parametrize("size", [(512, 512), (640, 480), (300, 1200), (5000, 100)])
def test_a_bucket_is_a_multiple_of_64_and_no_larger_than_the_square(size, resolution):
    width, height = bucket(*size, resolution)
    assert width % 64 == height % 64 == 0
    assert width * height <= resolution**2
    assert 1 / 4 <= width / height <= 4


def test_a_small_base_model_knows_its_square_only():
    assert bucket(640, 480, 128) == (128, 128)


def test_a_square_stays_a_square_and_no_bucket_is_larger():
    assert bucket(700, 700, 512) == (512, 512)
    assert max(w * h for w, h in buckets(512)) == 512 * 512


def test_turning_an_image_turns_its_bucket():
    assert bucket(640, 480, 512) == bucket(480, 640, 512)[::-1]
