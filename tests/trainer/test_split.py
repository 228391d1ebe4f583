"""Which images are held out: by content alone, once, and compositions whole."""

import pytest

from lorascope.errors import BadInputError
from lorascope.io.dataset_file import DatasetImage
from trainer.split import compositions, split


def images(count: int, *, first: int = 0, caption: str = "fern, smile") -> list[DatasetImage]:
    return [
        DatasetImage(
            file=f"{n}.png",
            sha256=f"{n:064x}",
            caption=caption,
            repeats=1,
            split="train",
            width=64,
            height=64,
        )
        for n in range(first, first + count)
    ]


MANY = images(40)


def held(sides: dict[str, str], side: str = "held-out") -> set[str]:
    return {h for h, found in sides.items() if found == side}


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [
        (40, 0.2, 8),
        (12, 0.1, 4),
        (11, 0.1, 2),
        (10, 0.2, 2),
        (6, 0.05, 2),
        (6, 0, 0),
        (5, 0.2, 1),
        (2, 0.2, 0),
        (1, 0.5, 0),
    ],
)
def test_so_many_images_are_held_out(count, share, expected):
    assert len(held(split(MANY[:count], share, 0))) == expected


def test_the_split_depends_on_content_and_seed_alone():
    sides = split(MANY, 0.2, 0)
    assert split(MANY[::-1], 0.2, 0) == sides
    assert held(split(MANY, 0.2, 1)) != held(sides)


def test_exact_duplicates_fall_on_one_side_and_count_once():
    assert split(MANY + MANY[:20], 0.2, 0) == split(MANY, 0.2, 0)


def test_decisions_that_stand_are_kept_when_images_are_added():
    before = split(MANY[:10], 0.2, 0)
    after = split(MANY, 0.2, 0, known=before)
    assert {h: after[h] for h in before} == before
    assert len(held(after)) == 8


def test_a_composition_is_kept_out_whole_and_the_share_is_of_the_rest():
    at_night = images(6, first=100, caption="fern, night")
    sides = split(MANY + at_night, 0.2, 0, composition="night")
    assert held(sides, "composition") == {i.sha256 for i in at_night}
    assert held(sides) == held(split(MANY, 0.2, 0))


def test_a_tag_that_every_image_has_leaves_nothing_to_train_on():
    with pytest.raises(BadInputError, match="nothing would be left"):
        split(MANY, 0.2, 0, composition="smile")


def test_backgrounds_and_outfits_of_a_few_images_are_offered():
    dataset = [
        *images(20, caption="fern, smile, white background"),
        *images(3, first=20, caption="fern, frown, beach"),
        *images(2, first=23, caption="fern, red dress, beach"),
        *images(1, first=25, caption="fern, armor"),
    ]
    assert compositions(dataset, "fern") == [("red dress", 2), ("beach", 5)]
    assert compositions(dataset, "beach") == [("red dress", 2)]
