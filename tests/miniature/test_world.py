"""The drawn world: what may occur in it, and whether the drawings show what the tags say."""

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest

from lorascope.miniature.drawing import draw
from lorascope.miniature.world import (
    BACKGROUNDS,
    BIG_HALF_WIDTH,
    EXPRESSIONS,
    EYE_COLOURS,
    HAIR_COLOURS,
    HAIR_STYLES,
    OUTFIT_COLOURS,
    OUTFITS,
    OUTLINES,
    PALETTES,
    REGIONS,
    SHADINGS,
    WITHHELD_SHAPES,
    Avatar,
    Emblem,
    Look,
    Mark,
    caption,
    is_withheld_colour,
    is_withheld_look,
    sample_avatar,
    tag_regions,
    tags,
    widen,
)

PLAIN = Avatar(
    hair="pink hair",
    hair_style="long hair",
    eyes="blue eyes",
    outfit="hoodie",
    outfit_colour="white",
    expression="smile",
    background="beach",
)
LOOKS = [
    Look(outline=outline, shading=shading, palette=palette)
    for outline, shading, palette in itertools.product(OUTLINES, SHADINGS, PALETTES)
][1:]


def colours(avatar):
    """Every colour that an avatar sets by itself."""
    single = (avatar.hair_rgb, avatar.hair_rgb_right, avatar.outfit_rgb, avatar.ribbon_rgb)
    pairs = (avatar.eyes_rgb or ()) + (avatar.background_rgb or ())
    shapes = [part.colour for part in (avatar.emblem, avatar.mark) if part is not None]
    return [colour for colour in (*single, *pairs, *shapes) if colour is not None]


def longest_side(regions, name):
    rows, columns = np.nonzero(regions == REGIONS[name])
    return max(np.ptp(rows), np.ptp(columns)) + 1


def test_a_known_avatar_has_known_tags():
    avatar = replace(PLAIN, accessories=("glasses",), skin="dark skin")
    expected = "pink hair, long hair, blue eyes, white hoodie, smile, beach, glasses, dark skin"
    assert ", ".join(tags(avatar)) == expected
    assert tag_regions(avatar) == {
        "pink hair": "hair",
        "long hair": "hair",
        "blue eyes": "eyes",
        "white hoodie": "outfit",
        "smile": "mouth",
        "beach": "background",
        "glasses": "glasses",
        "dark skin": "skin",
    }


def test_a_seed_gives_the_same_drawing_bit_for_bit():
    def once():
        rng = random.Random(5)
        return draw(widen(sample_avatar(rng), rng), rng)

    first, second = once(), once()
    assert first.image.shape == (128, 128, 3)
    assert first.image.dtype == first.regions.dtype == np.uint8
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.regions, second.regions)


def test_without_jitter_the_drawing_is_known():
    drawing = draw(PLAIN, random.Random(0), jitter=0)
    assert drawing.regions[2, 2] == REGIONS["background"]
    assert drawing.regions[40, 34] == REGIONS["hair"]
    assert drawing.regions[76, 64] == REGIONS["mouth"]
    assert drawing.regions[59, 53] == drawing.regions[59, 75] == REGIONS["eyes"]
    assert drawing.regions[108, 80] == REGIONS["outfit"]
    assert np.abs(drawing.image[108, 80].astype(int) - 240).max() <= 8  # white
    red, green, blue = drawing.image[64, 80].astype(int)  # the iris is elsewhere: pale skin
    assert red > green > blue


@pytest.mark.parametrize("size", [64, 128, 192])
def test_the_size_is_the_one_asked_for(size):
    drawing = draw(PLAIN, random.Random(0), size=size)
    assert drawing.image.shape == (size, size, 3)
    assert drawing.regions.shape == (size, size)


def test_every_tag_shows_in_its_region():
    rng = random.Random(1)
    for _ in range(60):
        avatar = sample_avatar(rng)
        seen = set(np.unique(draw(avatar, rng).regions))
        assert {REGIONS[region] for region in tag_regions(avatar).values()} <= seen, avatar


def test_what_is_not_worn_is_not_drawn():
    regions = draw(PLAIN, random.Random(2)).regions
    for name in ("hat", "ribbon", "glasses", "mark", "emblem"):
        assert not (regions == REGIONS[name]).any()


@pytest.mark.parametrize(
    ("attribute", "values"),
    [
        ("hair", HAIR_COLOURS),
        ("hair_style", HAIR_STYLES),
        ("eyes", EYE_COLOURS),
        ("outfit", OUTFITS),
        ("outfit_colour", OUTFIT_COLOURS),
        ("expression", EXPRESSIONS),
        ("background", BACKGROUNDS),
    ],
)
def test_every_value_of_an_attribute_looks_different(attribute, values):
    drawn = [
        draw(replace(PLAIN, **{attribute: value}), random.Random(3), jitter=0).image.astype(int)
        for value in values
    ]
    for one, other in itertools.combinations(drawn, 2):
        assert (np.abs(one - other).max(axis=-1) > 24).sum() > 40


def test_hat_and_ribbon_are_never_worn_together():
    rng = random.Random(4)
    worn = [set(sample_avatar(rng).accessories) for _ in range(2000)]
    assert not any({"hat", "ribbon"} <= accessories for accessories in worn)
    assert any("hat" in accessories for accessories in worn)
    assert any("ribbon" in accessories for accessories in worn)


def test_the_ribbon_is_always_on_the_right():
    avatar = replace(PLAIN, accessories=("ribbon",))
    for seed in range(20):
        regions = draw(avatar, random.Random(seed)).regions
        _, ribbon = np.nonzero(regions == REGIONS["ribbon"])
        _, eyes = np.nonzero(regions == REGIONS["eyes"])
        assert ribbon.mean() > eyes.mean() + 8


def test_what_is_withheld_never_occurs_unasked():
    rng = random.Random(6)
    wide = []
    for _ in range(2000):
        avatar = sample_avatar(rng)
        assert not colours(avatar)
        assert avatar.look == Look()
        wide.append(widen(avatar, rng))
    assert not any(is_withheld_colour(colour) for avatar in wide for colour in colours(avatar))
    assert not any(is_withheld_look(avatar.look) for avatar in wide)
    shapes = {part.shape for avatar in wide for part in (avatar.emblem, avatar.mark) if part}
    assert not shapes & set(WITHHELD_SHAPES)
    tables = (*HAIR_COLOURS.values(), *EYE_COLOURS.values(), *OUTFIT_COLOURS.values())
    assert not any(is_withheld_colour(colour) for colour in tables)


def test_the_wider_world_mixes_as_intended():
    rng = random.Random(7)
    wide = [widen(sample_avatar(rng), rng) for _ in range(2000)]
    emblems = [avatar.emblem for avatar in wide if avatar.emblem]
    marks = [avatar.mark for avatar in wide if avatar.mark]
    big = [emblem for emblem in emblems if emblem.size >= BIG_HALF_WIDTH[0]]
    assert np.mean([avatar.look != Look() for avatar in wide]) == pytest.approx(0.45, abs=0.04)
    assert len(big) / len(emblems) == pytest.approx(0.65, abs=0.05)
    assert np.mean([mark.place == "hair" for mark in marks]) == pytest.approx(0.6, abs=0.05)
    assert {mark.side for mark in marks if mark.place == "hair"} == {"left", "right"}
    assert {mark.side for mark in marks if mark.place == "forehead"} == {"middle"}


def test_what_is_withheld_occurs_when_asked():
    rng = random.Random(8)
    held = [widen(sample_avatar(rng), rng, withheld=True) for _ in range(300)]
    assert all(is_withheld_colour(avatar.hair_rgb) for avatar in held)
    assert {avatar.emblem.shape for avatar in held} == set(WITHHELD_SHAPES)
    assert {avatar.mark.shape for avatar in held} == set(WITHHELD_SHAPES)
    assert {avatar.mark.place for avatar in held} == {"hair"}
    assert all(avatar.look == Look() or is_withheld_look(avatar.look) for avatar in held)
    assert any(is_withheld_look(avatar.look) for avatar in held)


def test_a_withheld_emblem_spans_three_latent_cells():
    rng = random.Random(9)
    for _ in range(80):
        avatar = widen(sample_avatar(rng), rng, withheld=True)
        assert longest_side(draw(avatar, rng).regions, "emblem") >= 24, avatar


def test_a_hair_mark_spans_three_latent_cells_on_its_own_side():
    rng = random.Random(10)
    for side, sign in (("left", -1), ("right", 1)):
        mark = Mark(shape="ring", colour=(9, 9, 9), side=side, place="hair", size=13.5)
        for _ in range(10):
            regions = draw(replace(PLAIN, mark=mark), rng).regions
            _, eyes = np.nonzero(regions == REGIONS["eyes"])
            _, columns = np.nonzero(regions == REGIONS["mark"])
            assert sign * (columns.mean() - eyes.mean()) > 16
            assert longest_side(regions, "mark") >= 24


def test_a_hat_covers_the_hair_mark_and_the_mark_covers_the_hair():
    mark = Mark(shape="circle", colour=(9, 9, 9), side="left", place="hair", size=14)
    bare, marked, hatted = (
        draw(avatar, random.Random(0), jitter=0).regions
        for avatar in (
            PLAIN,
            replace(PLAIN, mark=mark),
            replace(PLAIN, mark=mark, accessories=("hat",)),
        )
    )
    covered = marked == REGIONS["mark"]
    assert (bare[covered] == REGIONS["hair"]).mean() > 0.25
    assert (hatted[covered] == REGIONS["hat"]).mean() > 0.15
    assert set(np.unique(hatted[covered])) == {REGIONS["hat"], REGIONS["mark"]}


@pytest.mark.parametrize(
    "look", LOOKS, ids=lambda look: "-".join((look.outline, look.shading, look.palette))
)
def test_a_look_changes_the_image_but_not_the_regions(look):
    emblem = Emblem(shape="star", colour=(200, 40, 40), size=14)
    avatar = replace(PLAIN, emblem=emblem, accessories=("ribbon",))
    usual = draw(avatar, random.Random(11))
    other = draw(replace(avatar, look=look), random.Random(11))
    assert np.array_equal(usual.regions, other.regions)
    assert np.abs(usual.image.astype(int) - other.image).mean() > 1


def test_a_caption_without_gaps_holds_every_tag():
    avatar = replace(PLAIN, accessories=("glasses",))
    written = caption(avatar, random.Random(0), drop=0, empty=0)
    assert sorted(written.split(", ")) == sorted(tags(avatar))


def test_captions_drop_tags_at_the_rate_asked_for():
    rng = random.Random(12)
    written = [caption(PLAIN, rng, drop=0.1, empty=0.2) for _ in range(2000)]
    kept = [len(text.split(", ")) for text in written if text]
    assert np.mean([not text for text in written]) == pytest.approx(0.2, abs=0.03)
    assert np.mean(kept) / len(tags(PLAIN)) == pytest.approx(0.9, abs=0.02)
    assert caption(PLAIN, rng, empty=1) == ""
