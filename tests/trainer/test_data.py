"""The split goes by content, the batches by size, and nothing held out is ever trained on."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from lorascope.errors import BadInputError
from lorascope.io.dataset_file import Dataset, DatasetImage
from lorascope.io.images import read_image, write_png
from lorascope.metrics.buckets import bucket, buckets
from trainer.config import TrainConfig
from trainer.data import (
    Prepared,
    captions,
    collect,
    epoch_batches,
    prepare,
)


class MeanColour:
    """A base model whose latent is the mean colour of 8 x 8 px."""

    def encode_images(self, images: np.ndarray) -> torch.Tensor:
        n, height, width, _ = images.shape
        cells = images.reshape(n, height // 8, 8, width // 8, 8, 3).mean(axis=(2, 4))
        return torch.from_numpy(cells).permute(0, 3, 1, 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for n in range(10):
        image = tmp_path / "data" / "3_fern" / f"{n}.png"
        write_png(image, draw.integers(0, 256, (40, 48, 3), dtype=np.uint8))
        image.with_suffix(".txt").write_text(f"fern, leaf {n}, pot")
    return tmp_path / "data"


def config(folder: Path, **changed: object) -> TrainConfig:
    return TrainConfig(base="x", dataset=folder, **changed)


def test_renaming_files_does_not_change_the_split(folder):
    before = {i.sha256: i.split for i in collect(config(folder), (64, 64)).images}
    for place, image in enumerate(sorted((folder / "3_fern").glob("*.png"))):
        image.rename(image.with_name(f"renamed {9 - place}.png"))
    assert {i.sha256: i.split for i in collect(config(folder), (64, 64)).images} == before


def test_a_folder_becomes_a_dataset(folder):
    found = collect(config(folder, trigger="fern", class_word="plant"), (64, 64))
    assert (len(found.train), len(found.held_out)) == (8, 2)
    first = found.images[0]
    assert (first.file, first.repeats, first.caption) == ("3_fern/0.png", 3, "fern, leaf 0, pot")
    assert (first.width, first.height) == (48, 40)
    assert (found.trigger, found.class_word, found.resolution) == ("fern", "plant", (64, 64))


def test_repeats_of_the_configuration_overrule_the_folder(folder):
    assert {i.repeats for i in collect(config(folder, repeats=9), (64, 64)).images} == {9}


def test_a_bad_image_is_named_and_the_others_are_used(folder):
    torn = folder / "3_fern" / "4.png"
    torn.write_bytes(torn.read_bytes()[:200])
    (folder / "3_fern" / "5.png").write_bytes(b"")
    said: list[str] = []
    found = collect(config(folder), (64, 64), say=said.append)
    assert len(found.images) == 8
    assert len(said) == 2
    assert "skipped" in said[0] and "4.png is damaged" in said[0]
    assert "5.png is empty" in said[1]


def test_no_usable_image_at_all_is_an_error(folder):
    for image in (folder / "3_fern").glob("*.png"):
        image.write_bytes(b"nothing")
    with pytest.raises(BadInputError, match="None of the 10 images"):
        collect(config(folder), (64, 64), say=lambda _: None)


def test_missing_captions_are_reported_and_nothing_is_invented(folder):
    (folder / "3_fern" / "2.txt").unlink()
    (folder / "3_fern" / "7.txt").write_text("  \n")
    said: list[str] = []
    found = collect(config(folder, trigger="fern"), (64, 64), say=said.append)
    assert [i.file for i in found.images if not i.caption] == ["3_fern/2.png", "3_fern/7.png"]
    assert len(said) == 1
    assert "2 of 10 images have no caption" in said[0] and "3_fern/2.png" in said[0]


def test_a_composition_is_kept_out_by_its_tag_and_offered_where_none_is_named(folder):
    for n in (1, 2):
        (folder / "3_fern" / f"{n}.txt").write_text("fern, night sky")
    said: list[str] = []
    offered = collect(config(folder, trigger="fern"), (64, 64), say=said.append)
    assert offered.of("composition") == ()
    assert said == [
        "note: a background or outfit can be kept out whole with held_out_tag, such as "
        "night sky (2 images)"
    ]
    said.clear()
    found = collect(config(folder, held_out_tag="night sky"), (64, 64), say=said.append)
    assert [i.file for i in found.of("composition")] == ["3_fern/1.png", "3_fern/2.png"]
    assert said == []
    collect(config(folder, held_out_tag="moon"), (64, 64), say=said.append)
    assert "no caption has the tag 'moon'" in said[0]


def test_images_beside_numbered_folders_are_reported(folder):
    shutil.copy(folder / "3_fern" / "0.png", folder / "cover.png")
    said: list[str] = []
    collect(config(folder), (64, 64), say=said.append)
    assert "1 image outside" in said[0] and "cover.png" in said[0]


@pytest.mark.parametrize("resolution", [256, 512, 768, 1024])
def test_buckets_keep_to_the_step_and_the_area(resolution):
    assert (resolution, resolution) in buckets(resolution)
    for width, height in buckets(resolution):
        assert width % 64 == height % 64 == 0
        assert width * height <= resolution**2
        assert (height, width) in buckets(resolution)


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        (3000, 3000, (512, 512)),
        (100, 100, (512, 512)),
        (1600, 1200, (576, 448)),
        (1200, 1600, (448, 576)),
        (9000, 100, (1024, 256)),
    ],
)
def test_an_image_goes_where_its_shape_fits_best(width, height, size):
    assert bucket(width, height, 512) == size


def test_a_small_base_model_is_trained_at_its_own_square():
    assert bucket(300, 100, 128) == (128, 128)


def ready(*sizes: tuple[int, int], repeats: int = 3) -> list[Prepared]:
    return [
        Prepared(
            image=DatasetImage(
                file=f"{n}.png",
                sha256=f"{n:064x}",
                caption=f"fern, {n}, a, b, c, d",
                repeats=repeats,
                split="train",
                width=size[0],
                height=size[1],
            ),
            size=size,
            latent=torch.zeros(4, 8, 8),
        )
        for n, size in enumerate(sizes)
    ]


def test_an_epoch_shows_every_image_as_often_as_it_repeats():
    images = ready(*[(64, 64)] * 5, *[(128, 64)] * 3)
    batches = epoch_batches(images, 4, 0, 1)
    shown = Counter(member for batch in batches for member in batch.members)
    assert shown == dict.fromkeys(range(8), 3)
    assert len(batches) == 4 + 3  # 15 and 9 images, rounded up per bucket
    assert all(images[m].size == batch.size for batch in batches for m in batch.members)


def test_every_epoch_has_its_own_order_and_keeps_it():
    images = ready(*[(64, 64)] * 8)
    assert epoch_batches(images, 4, 0, 1) == epoch_batches(images, 4, 0, 1)
    assert epoch_batches(images, 4, 0, 1) != epoch_batches(images, 4, 0, 2)
    assert epoch_batches(images, 4, 0, 1) != epoch_batches(images, 4, 1, 1)


def test_captions_are_left_as_they_are_unless_asked_for():
    images = [one.image for one in ready((64, 64), (64, 64))]
    assert captions(config(Path()), images, 1) == [one.caption for one in images]


def test_shuffling_keeps_the_first_tags_and_loses_none():
    image = ready((64, 64))[0].image
    shuffled = config(Path(), shuffle_tags=True, keep_tags=2)
    seen = {captions(shuffled, [image], step)[0] for step in range(30)}
    assert len(seen) > 10
    for caption in seen:
        tags = caption.split(", ")
        assert tags[:2] == ["fern", "0"]
        assert sorted(tags[2:]) == ["a", "b", "c", "d"]


def test_dropout_empties_the_share_of_captions_it_says():
    image = ready((64, 64))[0].image
    for share, expected in ((0.0, 0), (1.0, 400), (0.25, 100)):
        dropped = config(Path(), caption_dropout=share)
        empty = sum(captions(dropped, [image], step) == [""] for step in range(400))
        assert abs(empty - expected) < 30


def test_the_draws_of_a_step_do_not_depend_on_what_came_before():
    images = [one.image for one in ready(*[(64, 64)] * 3)]
    drawn = config(Path(), shuffle_tags=True, caption_dropout=0.3)
    in_order = [captions(drawn, images, step) for step in range(9)]
    assert captions(drawn, images, 8) == in_order[8]
    assert captions(drawn, images[:1], 8) == in_order[8][:1]


def test_latents_are_of_the_training_images_in_order_and_of_no_other(folder):
    found = collect(config(folder), (40, 40))
    prepared = prepare(MeanColour(), found)
    assert [one.image for one in prepared] == list(found.train)
    for one in prepared:
        middle = read_image(found.path(one.image))[:, 4:44]
        expected = MeanColour().encode_images(middle[None])[0].float()
        assert torch.equal(one.latent, expected)


def test_latents_of_different_shapes_stay_with_their_images(tmp_path):
    images = [one.image for one in ready((512, 256), (256, 512), (400, 200))]
    for n, image in enumerate(images):
        grey = np.full((image.height, image.width, 3), 40 * n, np.uint8)
        write_png(tmp_path / image.file, grey)
    dataset = Dataset(
        root=tmp_path, trigger="", class_word="", resolution=(256, 256), images=tuple(images)
    )
    prepared = prepare(MeanColour(), dataset)
    assert [one.size for one in prepared] == [(320, 192), (192, 320), (320, 192)]
    assert [one.latent.shape for one in prepared] == [(3, 24, 40), (3, 40, 24), (3, 24, 40)]
    assert [float(one.latent.mean()) for one in prepared] == [0, 40, 80]
