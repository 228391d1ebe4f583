"""Buckets: the size an image is trained at."""

import pytest

from lorascope.metrics.buckets import bucket, buckets
from trainer import data


@pytest.mark.parametrize("resolution", [128, 512, 768, 1024])
@pytest.mark.parametrize("size", [(512, 512), (640, 480), (300, 1200), (5000, 100)])
def test_tools_and_trainer_agree_on_the_size(size, resolution):
    assert bucket(*size, resolution) == data.bucket(*size, resolution)


def test_a_square_stays_a_square_and_no_bucket_is_larger():
    assert bucket(700, 700, 512) == (512, 512)
    assert max(w * h for w, h in buckets(512)) == 512 * 512


def test_turning_an_image_turns_its_bucket():
    assert bucket(640, 480, 512) == bucket(480, 640, 512)[::-1]
