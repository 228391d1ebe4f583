"""Features: looked at once, kept by content, torn files made again."""

import dataclasses

import numpy as np
import pytest

from lorascope.io.dataset_file import read_dataset
from lorascope.tools.pictures import features
from lorascope.tools.pictures.features import features_of, features_of_images, kept_features
from lorascope.tools.pictures.sets import read_pictures
from tests import picture_grids
from tests.picture_grids import PROMPTS, SUBJECT, Colours, spots

ROW = 2 * len(PROMPTS)  # pictures


@pytest.fixture
def grid(tmp_path, rng):
    picture_grids.images(tmp_path, rng)
    inputs = picture_grids.grid(
        tmp_path, ("base", "lora", "lora"), lambda *_: spots(SUBJECT, rng, 60)
    )
    return read_pictures(inputs["pictures"], read_dataset(inputs["dataset"])), inputs["features"]


def test_every_picture_is_a_row_in_the_order_of_the_set(grid):
    pictures, folder = grid
    found = features_of(pictures, Colours(), folder)
    one = Colours().images([pictures.pictures[17].read(pictures.run)])
    assert found.shape == (3 * ROW, 12)
    assert found.dtype == np.float32
    assert np.array_equal(found[17], one[0])


def test_nothing_is_looked_at_twice_and_what_is_read_again_is_the_same(grid):
    pictures, folder = grid
    first, second = Colours(), Colours()
    found = features_of(pictures, first, folder)
    assert np.array_equal(features_of(pictures, second, folder), found)
    assert (first.shown, second.shown) == (3 * ROW, 0)


def test_a_redrawn_epoch_costs_its_own_row_only(grid, rng):
    pictures, folder = grid
    features_of(pictures, Colours(), folder)
    redrawn = []
    for picture in pictures.pictures:
        if picture.row == 2:
            file = picture.file.replace("cells/", "cells/again-")
            (pictures.run / picture.file).rename(pictures.run / file)
            picture = dataclasses.replace(picture, file=file)
        redrawn.append(picture)
    encoder = Colours()
    features_of(dataclasses.replace(pictures, pictures=tuple(redrawn)), encoder, folder)
    assert encoder.shown == ROW


def test_a_picture_that_is_in_the_set_twice_is_looked_at_once(grid):
    pictures, folder = grid
    same = [dataclasses.replace(p, file=pictures.pictures[0].file) for p in pictures.pictures]
    encoder = Colours()
    found = features_of(dataclasses.replace(pictures, pictures=tuple(same)), encoder, folder)
    assert encoder.shown == 1
    assert (found == found[0]).all()


def test_another_encoder_has_a_place_of_its_own(grid):
    pictures, folder = grid

    class Other(Colours):
        name = "colours: other / names?"

    features_of(pictures, Colours(), folder)
    encoder = Other()
    features_of(pictures, encoder, folder)
    assert encoder.shown == 3 * ROW
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("keep", [0, 10, 0.5])
def test_a_torn_file_is_made_again(grid, keep):
    pictures, folder = grid
    found = features_of(pictures, Colours(), folder)
    file = max(folder.glob("*/*.npz"), key=lambda f: f.stat().st_size)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * keep) if keep < 1 else keep])
    encoder = Colours()
    assert np.array_equal(features_of(pictures, encoder, folder), found)
    assert 0 < encoder.shown <= features.IN_A_FILE


def test_flipped_bytes_are_never_believed(grid):
    pictures, folder = grid
    found = features_of(pictures, Colours(), folder)
    for file in folder.glob("*/*.npz"):
        content = bytearray(file.read_bytes())
        middle = content.index(b"features.npy") + 400
        content[middle] ^= 0xFF
        file.write_bytes(content)
    assert np.array_equal(features_of(pictures, Colours(), folder), found)


def test_a_picture_that_cannot_be_read_is_not_a_number_and_is_asked_for_again(grid):
    pictures, folder = grid
    broken, gone = pictures.pictures[3], pictures.pictures[4]
    whole = (pictures.run / broken.file).read_bytes()
    (pictures.run / broken.file).write_bytes(whole[:40])
    (pictures.run / gone.file).unlink()
    found = features_of(pictures, Colours(), folder)
    assert np.flatnonzero(np.isnan(found).any(axis=1)).tolist() == [3, 4]
    (pictures.run / broken.file).write_bytes(whole)
    assert np.isfinite(features_of(pictures, Colours(), folder)[3]).all()


def test_samples_of_another_trainer_are_known_by_their_bytes(grid):
    pictures, folder = grid
    theirs = dataclasses.replace(pictures, by_trainer=True)
    features_of(theirs, Colours(), folder)
    copied = pictures.pictures[0]
    (pictures.run / pictures.pictures[5].file).write_bytes(
        (pictures.run / copied.file).read_bytes()
    )
    (pictures.run / pictures.pictures[6].file).unlink()
    encoder = Colours()
    found = features_of(theirs, encoder, folder)
    assert encoder.shown == 0
    assert np.array_equal(found[5], found[0])
    assert np.isnan(found[6]).all()


def test_where_nothing_can_be_read_there_are_no_features(tmp_path):
    def read(_place):
        raise features.MissingInputError("gone")

    assert kept_features(["a", "b"], read, Colours(), tmp_path).shape == (2, 0)


def test_images_of_the_dataset_are_cut_to_the_size_of_the_pictures(tmp_path, rng):
    dataset = picture_grids.images(tmp_path, rng)
    shapes = []

    class Watching(Colours):
        def images(self, pictures):
            shapes.extend(picture.shape for picture in pictures)
            return super().images(pictures)

    folder = tmp_path / "features"
    features_of_images(dataset, dataset.train, (24, 32), Watching(), folder)
    assert set(shapes) == {(32, 24, 3)}
    again = Watching()
    features_of_images(dataset, dataset.train, (32, 32), again, folder)
    assert again.shown == len(dataset.train)


def test_only_features_with_files_of_their_own_add_to_the_question(tmp_path):
    assert features.encoder_digest({"features": "base"}) == {}
    assert features.encoder_digest({"features": "latents"}) == {}
    file = tmp_path / "net.pt"
    file.write_bytes(b"one")
    first = features.encoder_digest({"features": f"sscd:{file}"})
    file.write_bytes(b"other")
    assert features.encoder_digest({"features": f"sscd:{file}"}) != first
