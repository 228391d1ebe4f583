"""The training folders: ordinary, reproducible, and outside of what the base model saw."""

import random

import numpy as np
import pytest
from PIL import Image

from lorascope.miniature.datasets import (
    OUTFIT_AVATARS,
    SEEN_BACKGROUNDS,
    STYLE_LOOK,
    UNSEEN_BACKGROUNDS,
    arcane_avatar,
    character_avatar,
    write_character,
    write_outfits,
    write_style,
)
from lorascope.miniature.world import (
    BACKGROUNDS,
    EXPRESSIONS,
    WITHHELD_SHAPES,
    is_withheld_colour,
    is_withheld_look,
)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def captions(folder):
    return [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt"))]


def test_a_character_folder_is_an_ordinary_training_folder(tmp_path):
    folder = write_character(tmp_path, images=4, repeats=7)
    assert folder == tmp_path / "7_fern"
    names = [f"{i:03d}.{ending}" for i in range(1, 5) for ending in ("png", "txt")]
    assert sorted(path.name for path in folder.iterdir()) == names
    with Image.open(folder / "001.png") as picture:
        assert (picture.size, picture.mode) == ((128, 128), "RGB")


def test_a_seed_gives_the_same_folder_bit_for_bit(tmp_path):
    first = contents(write_character(tmp_path / "a", images=3, seed=4))
    assert contents(write_character(tmp_path / "b", images=3, seed=4)) == first
    assert contents(write_character(tmp_path / "c", images=3, seed=5)) != first


def test_a_longer_folder_begins_like_a_shorter_one(tmp_path):
    short = contents(write_character(tmp_path / "a", images=2))
    long = contents(write_character(tmp_path / "b", images=4))
    assert short.items() <= long.items()


def test_the_character_is_captioned_by_trigger_and_what_varies(tmp_path):
    written = [caption.split(", ") for caption in captions(write_character(tmp_path, images=12))]
    assert {trigger for trigger, _, _ in written} == {"zyxfern"}
    assert {expression for _, expression, _ in written} == set(EXPRESSIONS)
    assert {background for _, _, background in written} <= set(SEEN_BACKGROUNDS)


def test_seen_and_unseen_backgrounds_part_the_world():
    assert set(SEEN_BACKGROUNDS) | set(UNSEEN_BACKGROUNDS) == set(BACKGROUNDS)
    assert not set(SEEN_BACKGROUNDS) & set(UNSEEN_BACKGROUNDS)
    avatar = character_avatar(random.Random(0), backgrounds=("beach",))
    assert avatar.background == "beach"


@pytest.mark.parametrize("outfit", OUTFIT_AVATARS)
def test_the_base_model_never_saw_the_character(outfit):
    avatar = OUTFIT_AVATARS[outfit](random.Random(0))
    assert is_withheld_colour(avatar.hair_rgb)
    assert avatar.emblem.shape in WITHHELD_SHAPES
    assert avatar.mark.shape in WITHHELD_SHAPES


def test_the_outfits_are_worn_by_one_character():
    one, other = character_avatar(random.Random(0)), arcane_avatar(random.Random(0))
    assert (one.hair_rgb, one.hair_rgb_right, one.eyes, one.mark) == (
        other.hair_rgb,
        other.hair_rgb_right,
        other.eyes,
        other.mark,
    )
    assert (one.outfit, one.emblem) != (other.outfit, other.emblem)


def test_each_outfit_has_its_folder_size_repeats_and_trigger(tmp_path):
    sizes, repeats = {"def": 3, "arcane": 2}, {"def": 2, "arcane": 3}
    folders = write_outfits(tmp_path, sizes=sizes, repeats=repeats)
    assert [folder.name for folder in folders] == ["2_def", "3_arcane"]
    for folder, (outfit, size) in zip(folders, sizes.items(), strict=True):
        assert len(list(folder.glob("*.png"))) == len(captions(folder)) == size
        assert all(caption.startswith(f"zyx{outfit}, ") for caption in captions(folder))


def test_a_style_folder_tags_everything_but_the_look(tmp_path):
    assert is_withheld_look(STYLE_LOOK)
    folder = write_style(tmp_path, images=4)
    assert len(list(folder.glob("*.png"))) == len(captions(folder)) == 4
    assert len(set(captions(folder))) == 4
    for caption in captions(folder):
        trigger, *described = caption.split(", ")
        assert trigger == "zyxstyle"
        assert len(described) >= 6
    with Image.open(folder / "001.png") as picture:
        assert np.asarray(picture).std() > 10
