"""GIFs along an axis."""

import numpy as np
import pytest
from PIL import Image

from lorascope.errors import BadInputError, ShapeError
from lorascope.viewer import write_gif
from tests.viewer.conftest import picture, save


@pytest.fixture
def frames(tmp_path):
    paths = [tmp_path / f"{epoch}.png" for epoch in range(4)]
    for epoch, path in enumerate(paths):
        save(path, picture(epoch, epoch, 64))
    return paths


LABELS = ["base model", "epoch 1", "epoch 2", "epoch 3"]


def frame(path, number: int) -> np.ndarray:
    with Image.open(path) as opened:
        opened.seek(number)
        return np.asarray(opened.convert("RGB"), dtype=np.float64)


def test_it_holds_every_frame_repeats_and_shows_the_pictures(frames, tmp_path):
    path = write_gif(frames, LABELS, tmp_path / "a.gif", size=64, milliseconds=300)
    with Image.open(path) as opened:
        assert (opened.n_frames, opened.info["loop"], opened.info["duration"]) == (4, 0, 300)
        band = opened.size[1] - 64
        assert opened.size[0] == 64
        assert band > 0
    for epoch in range(4):
        shown = frame(path, epoch)[band:]
        assert np.abs(shown - picture(epoch, epoch, 64)).mean() < 6


def test_pictures_stand_side_by_side_in_a_strip(frames, tmp_path):
    strips = [[one, frames[0]] for one in frames]
    path = write_gif(strips, [""] * 4, tmp_path / "a.gif", size=32)
    with Image.open(path) as opened:
        assert opened.size == (2 * 32 + 4, 32)  # no label, no band
    assert np.abs(frame(path, 3)[:, 36:] - frame(path, 0)[:, 36:]).mean() < 3
    assert np.abs(frame(path, 3)[:, :32] - frame(path, 0)[:, :32]).mean() > 10


def test_labels_differ_from_frame_to_frame(frames, tmp_path):
    path = write_gif([frames[0]] * 2, ["epoch 1", "epoch 2"], tmp_path / "a.gif", size=64)
    assert np.abs(frame(path, 0)[:10] - frame(path, 1)[:10]).max() > 100


def test_a_missing_and_a_damaged_picture_become_grey_ones(frames, tmp_path):
    frames[1].unlink()
    frames[2].write_bytes(b"nothing")
    path = write_gif(frames, LABELS, tmp_path / "a.gif", size=64)
    for number in (1, 2):
        corner = frame(path, number)[-4:, -4:]
        assert np.abs(corner - (236, 238, 241)).max() < 8
    assert np.abs(frame(path, 1) - frame(path, 2)).max() > 100  # the words differ


def test_the_same_pictures_give_the_same_bytes(frames, tmp_path):
    first = write_gif(frames, LABELS, tmp_path / "a.gif").read_bytes()
    assert write_gif(frames, LABELS, tmp_path / "b.gif").read_bytes() == first


def test_a_wide_strip_is_made_narrower(frames, tmp_path):
    path = write_gif([[frames[0]] * 60] * 2, ["a", "b"], tmp_path / "a.gif", size=256)
    with Image.open(path) as opened:
        assert opened.size[0] <= 4096


def test_a_label_of_any_length_stays_inside(frames, tmp_path):
    path = write_gif(frames[:2], ["word " * 200, "\x00\n\u2603"], tmp_path / "a.gif", size=64)
    with Image.open(path) as opened:
        assert opened.size[0] == 64


@pytest.mark.parametrize(
    ("labels", "options", "error", "said"),
    [
        (LABELS[:2], {}, ShapeError, "labels"),
        (LABELS, {"size": 4}, BadInputError, "16 to 4096"),
        (LABELS, {"milliseconds": 5}, BadInputError, "too fast"),
    ],
)
def test_what_cannot_be_animated_is_refused(labels, options, error, said, frames, tmp_path):
    with pytest.raises(error, match=said):
        write_gif(frames, labels, tmp_path / "a.gif", **options)


def test_frames_of_different_length_and_no_frames_are_refused(frames, tmp_path):
    for bad in ([], [[]], [[frames[0]], frames[:2]]):
        with pytest.raises(ShapeError):
            write_gif(bad, [""] * len(bad), tmp_path / "a.gif")


def test_nothing_readable_is_an_error_and_no_file(tmp_path):
    with pytest.raises(BadInputError, match="can be read"):
        write_gif([tmp_path / "no.png"], ["a"], tmp_path / "a.gif")
    assert not (tmp_path / "a.gif").exists()
