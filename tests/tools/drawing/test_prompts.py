"""Prompts that suit a dataset, those that are asked for, and what each asks of the LoRA."""

import json
import time
from pathlib import Path

import pytest

from lorascope.errors import BadInputError
from lorascope.io.captions import split_tags
from lorascope.io.dataset_file import Dataset, DatasetImage
from lorascope.metrics import tags as tagging
from lorascope.miniature import world
from lorascope.tools.drawing.prompts import (
    WITH_TRIGGER,
    WITHOUT_TRIGGER,
    Prompt,
    activation_tags,
    as_lines,
    choose_prompts,
    group_of,
    prompts_text,
    trigger_off,
    without_trigger,
)

WORDS_OF_WORLD = {
    *world.EXPRESSIONS,
    *world.BACKGROUNDS,
    *world.ACCESSORIES,
    *world.EYE_COLOURS,
    *world.HAIR_COLOURS,
    *world.HAIR_STYLES,
    *world.SKINS,
    *(f"{colour} {outfit}" for outfit in world.OUTFITS for colour in world.OUTFIT_COLOURS),
}


def dataset_of(captions, *, trigger="sks", held_out=(), class_word="", folders=None):
    """Make a dataset of captions; in one folder, or in folders by name."""
    placed = [("", text) for text in captions]
    placed += [(folder, text) for folder, texts in (folders or {}).items() for text in texts]
    rows = [(*row, "train") for row in placed] + [("", text, "held-out") for text in held_out]
    images = tuple(
        DatasetImage(
            file=f"{folder}/{i}.png" if folder else f"{i}.png",
            sha256=f"{i:03}",
            caption=text,
            repeats=1,
            split=split,
            width=64,
            height=64,
        )
        for i, (folder, text, split) in enumerate(rows)
    )
    return Dataset(
        root=Path("pictures"),
        trigger=trigger,
        class_word=class_word,
        resolution=(64, 64),
        images=images,
    )


WORLD = dataset_of(
    ["zyx, smile, forest", "zyx, frown, night", "zyx, smile, sky"],
    trigger="zyx",
    held_out=["zyx, open mouth, room"],
)
BOORU = dataset_of(
    [
        "ana, 1girl, red_shirt, smile, outdoors",
        "ana, 1girl, blue_shirt, sitting, indoors",
        "ana, 1girl, red_shirt, standing, indoors",
    ],
    trigger="ana",
    held_out=["ana, 1girl, running, outdoors"],
    class_word="woman",
)
SENTENCES = dataset_of(
    [
        "a photo of sks dog with a red collar lying on grass",
        "sks dog running in a park",
        "a close photo of sks dog, looking up",
    ],
    class_word="dog",
)
SEVERAL = dataset_of(
    [],
    trigger="zyxdef",
    folders={
        "4_def": ["zyxdef, smile, sky", "zyxdef, frown, room"],
        "2_arcane": ["zyxarcane, smile, sky", "zyxarcane, frown, sky"],
        "1_night": ["zyxnight, smile, sky", "zyxnight, smile, room"],
    },
)
NOTHING = dataset_of(["smile, forest", "smile, sky"], trigger="")
SETS = {
    "world": WORLD,
    "booru": BOORU,
    "sentences": SENTENCES,
    "several": SEVERAL,
    "nothing": NOTHING,
    "uncaptioned": dataset_of(["", ""]),
}


def texts(prompts, group):
    return [prompt.text for prompt in prompts if prompt.group == group]


def made(dataset, *, in_world=False):
    return choose_prompts("", dataset, in_world=in_world)


def test_prompts_for_the_miniature_stay_in_its_world_and_ask_for_what_was_never_shown():
    found = made(WORLD, in_world=True)
    assert texts(found, "trigger") == ["zyx"]
    assert texts(found, "caption") == [
        "zyx, smile, forest",
        "zyx, frown, night",
        "zyx, open mouth, room",
    ]
    assert texts(found, "edit") == ["zyx, open mouth, forest"]
    assert texts(found, "class") == ["smile, forest"]
    unseen = [text.removeprefix("zyx, ") for text in texts(found, "unseen")]
    assert len(unseen) == 2
    assert set(unseen) <= set(world.BACKGROUNDS) - {"forest", "night", "sky"}
    assert [p.split for p in found if p.group == "caption"] == ["train", "train", "held-out"]
    words = {word for prompt in found for word in split_tags(prompt.text)} - {"zyx"}
    assert words <= WORDS_OF_WORLD


def test_a_hard_composition_holds_three_things_that_no_caption_has():
    for dataset, in_world in ((WORLD, True), (BOORU, False)):
        (hard,) = texts(made(dataset, in_world=in_world), "hard")
        shown = {tag for image in dataset.train for tag in split_tags(image.caption)}
        trigger, *others = split_tags(hard)
        assert trigger == dataset.trigger
        assert len(others) == 3
        assert not shown.intersection(others)
        assert group_of(hard, dataset) == "hard"


def test_a_context_that_was_kept_out_whole_is_asked_for_first():
    kept = DatasetImage(
        file="k.png",
        sha256="k",
        caption="zyx, smile, room",
        repeats=1,
        split="composition",
        width=64,
        height=64,
    )
    dataset = Dataset(
        root=WORLD.root,
        trigger="zyx",
        class_word="",
        resolution=(64, 64),
        images=(*WORLD.images, kept),
    )
    assert texts(made(dataset, in_world=True), "unseen")[0] == "zyx, room"


def test_where_every_value_was_shown_an_edit_adds_something():
    captions = [f"zyx, {face}, forest" for face in world.EXPRESSIONS]
    captions += [f"zyx, smile, {place}" for place in world.BACKGROUNDS]
    found = made(dataset_of(captions, trigger="zyx"), in_world=True)
    assert texts(found, "edit") == ["zyx, glasses"]
    assert texts(found, "unseen") == []


def test_prompts_for_a_real_model_recolour_what_was_shown_and_go_where_it_never_was():
    captions = ["ana woman, red shirt, on a beach", "ana woman, blue shirt, indoors"]
    dataset = dataset_of(captions, trigger="ana", class_word="woman")
    found = made(dataset)
    assert texts(found, "edit") == ["ana woman, green shirt, on a beach"]
    assert texts(found, "unseen") == ["ana, in the snow", "ana, in a forest"]
    assert texts(found, "class") == ["woman, red shirt, on a beach"]
    assert not any(tag in p.text for p in found for tag in world.ACCESSORIES)


def test_booru_tags_are_edited_as_they_are_written():
    found = made(BOORU)
    assert texts(found, "edit") == ["ana, 1girl, green_shirt, smile, outdoors"]
    assert texts(found, "class") == ["woman, 1girl, red_shirt, smile, outdoors"]


def test_where_captions_are_sentences_prompts_are_sentences():
    found = made(SENTENCES)
    assert texts(found, "edit") == ["a photo of sks dog with a blue collar lying on grass"]
    assert texts(found, "unseen") == [
        "a photo of sks dog on a beach",
        "a photo of sks dog in the snow",
    ]
    assert texts(found, "class") == ["a photo of dog with a red collar lying on grass"]


def test_a_subject_without_colours_is_edited_as_suits_it():
    person = dataset_of(["ana woman, smiling"], trigger="ana", class_word="woman")
    thing = dataset_of(["sks vase, on a table"], class_word="vase")
    assert texts(made(person), "edit") == ["ana, wearing sunglasses"]
    assert texts(made(thing), "edit") == ["sks, painted purple"]


@pytest.mark.parametrize("dataset", SETS.values(), ids=SETS)
@pytest.mark.parametrize("in_world", [True, False])
def test_about_ten_prompts_suit_any_dataset_and_none_is_asked_twice(dataset, in_world):
    found = made(dataset, in_world=in_world)
    assert len({p.text for p in found}) == len(found)
    assert 3 <= len(found) <= 13
    assert {p.group for p in found} <= {*WITH_TRIGGER, *WITHOUT_TRIGGER}
    assert len(texts(found, "unrelated")) == 2
    triggers = activation_tags(dataset)
    for prompt in found:
        called = any(tagging.position(split_tags(prompt.text), t) for t in triggers)
        assert not (called and prompt.group in WITHOUT_TRIGGER)
        assert called or prompt.group in ("class", "unrelated") or not triggers
        assert prompt.text.strip(", ") == prompt.text != ""


@pytest.mark.parametrize("dataset", SETS.values(), ids=SETS)
@pytest.mark.parametrize("in_world", [True, False])
def test_the_made_prompts_are_written_for_editing_and_read_back(dataset, in_world):
    found = made(dataset, in_world=in_world)
    assert choose_prompts(as_lines(found), dataset, in_world=in_world) == found
    assert choose_prompts("@auto", dataset, in_world=in_world) == found


def test_without_a_trigger_nothing_is_left_out_of_it():
    found = made(dataset_of(["smile, forest"], trigger=""), in_world=True)
    assert {p.group for p in found} == {"caption", "edit", "unseen", "hard", "unrelated"}


@pytest.mark.parametrize(
    ("prompt", "group"),
    [
        ("zyx", "trigger"),
        ("zyx <lora:fern:0.5>", "trigger"),
        ("zyx, forest, smile", "caption"),
        ("zyx, open mouth, room", "caption"),
        ("zyx, night, smile", "edit"),
        ("zyx, smile, beach", "unseen"),
        ("zyx, hat, beach", "unseen"),
        ("zyx, open mouth, beach, hat", "hard"),
        ("smile, beach", "class"),
        ("a fish", "unrelated"),
        ("", "unrelated"),
    ],
)
def test_a_prompt_is_known_by_what_it_asks(prompt, group):
    assert group_of(prompt, WORLD) == group


def test_the_class_word_alone_asks_for_the_class():
    assert group_of("a photo of a dog", SENTENCES) == "class"
    assert group_of("a photo of a cat", SENTENCES) == "unrelated"


@pytest.mark.parametrize(
    ("dataset", "tags"),
    [
        (WORLD, ("zyx",)),
        (BOORU, ("ana",)),
        (SENTENCES, ("sks",)),
        (SEVERAL, ("zyxdef", "zyxarcane", "zyxnight")),
        (NOTHING, ()),
        (dataset_of(["ana woman, a", "ana woman, b"], trigger="ana"), ("ana",)),
        (dataset_of([], trigger="", folders={"10_sks dog": ["a sks dog", "sks dog, b"]}), ("sks",)),
        (dataset_of([], trigger="", folders={"1_x": ["1girl, a", "1girl, b"]}), ()),
        (dataset_of([], trigger="jinx, arcane"), ("jinx", "arcane")),
        (
            dataset_of([], trigger="", folders={"1_x": ["1girl, a"] * 2, "1_y": ["1boy, b"] * 2}),
            (),
        ),
        (
            dataset_of([], trigger="", folders={"9_jinx": ["1girl, jinx, a", "1girl, jinx, b"]}),
            ("jinx",),
        ),
        (
            dataset_of([], trigger="zyx", folders={"9_e": ["zyx, smile, a", "zyx, smile, b"]}),
            ("zyx",),
        ),
        (
            dataset_of([], trigger="zyx", folders={"14_beach": ["zyx, smile, beach"] * 3}),
            ("zyx",),
        ),
        (
            dataset_of(
                [],
                trigger="jinx",
                folders={
                    "3_jinxdef": ["jinx, jinxdef, a", "jinx, jinxdef, b"],
                    "3_jinxold": ["jinx, jinxold, a", "jinx, jinxold, a"],
                },
            ),
            ("jinx", "jinxdef", "jinxold"),
        ),
        (
            dataset_of(
                ["zyxa, smile", "zyxa, sky", "zyxb, sky", "zyxb, a", "zyxc"], trigger="zyxa"
            ),
            ("zyxa", "zyxb"),
        ),
        (dataset_of(["smile, a", "smile, b"], trigger="zyx"), ("zyx",)),
        (dataset_of(["zyx, smile", "smile, a", "smile, b"], trigger="zyx"), ("zyx",)),
        (
            dataset_of(
                [],
                trigger="ana",
                folders={"2_one": ["ana woman, a"] * 2, "2_two": ["bob, a"] * 2},
            ),
            ("ana", "bob"),
        ),
    ],
)
def test_every_activation_tag_is_found_and_no_other(dataset, tags):
    assert activation_tags(dataset) == tags


def test_any_activation_tag_calls_its_concept():
    assert group_of("zyxarcane, smile, sky", SEVERAL) == "caption"
    assert group_of("zyxarcane", SEVERAL) == "trigger"
    assert group_of("zyxarcane, smile, beach", SEVERAL) == "unseen"
    assert group_of("zyxarcane, zyxdef", SEVERAL) == "edit"
    assert group_of("smile, sky", SEVERAL) == "class"
    bare = without_trigger(SEVERAL, 50, in_world=True)
    assert not any(tag in prompt for prompt in bare for tag in activation_tags(SEVERAL))


def test_words_stand_for_the_prompts_of_the_dataset():
    def read(text):
        return choose_prompts(text, WORLD, in_world=True)

    train = ["zyx, smile, forest", "zyx, frown, night", "zyx, smile, sky"]
    assert [(p.text, p.split) for p in read("@train")] == [(text, "train") for text in train]
    assert [(p.text, p.split) for p in read("@held-out")] == [("zyx, open mouth, room", "held-out")]
    assert read("@tags") == (Prompt("zyx", "trigger"),)
    tags = choose_prompts("@tags", SEVERAL, in_world=True)
    assert [p.text for p in tags] == ["zyxdef", "zyxarcane", "zyxnight"]
    assert [p.text for p in read("@tags|@train\na fish|zyx")] == ["zyx", *train, "a fish"]
    assert {(p.steps, p.width) for p in read("@train --s 4 --w 64")} == {(4, 64)}
    assert read("@empty") == (Prompt("", "unrelated"),)


@pytest.mark.parametrize(
    ("text", "named"),
    [("@held-out", "has none"), ("@tags", "has none"), ("@trian", r"@train .*\n(.*\n)*Fix: one")],
)
def test_a_word_that_stands_for_nothing_is_refused(text, named):
    with pytest.raises(BadInputError, match=named):
        choose_prompts(text, NOTHING, in_world=True)


def test_prompts_are_separated_by_bars_or_by_lines():
    found = choose_prompts("# mine\nzyx, beach\n\n  zyx  \nzyx\n", WORLD, in_world=True)
    assert [p.text for p in found] == ["zyx, beach", "zyx"]
    assert [p.group for p in found] == ["unseen", "trigger"]
    assert choose_prompts("zyx, beach|zyx", WORLD, in_world=True) == found


def test_options_belong_to_one_prompt_and_make_it_another():
    (plain, wide, low) = choose_prompts(
        "zyx|zyx --w 96 --h 64 --n bad --d 0 --s 3 --l 1|zyx --l 2|zyx", WORLD, in_world=True
    )
    assert plain == Prompt("zyx", "trigger")
    assert wide == Prompt(
        "zyx", "trigger", negative="bad", seed=0, width=96, height=64, steps=3, guidance=1.0
    )
    assert low == Prompt("zyx", "trigger", guidance=2.0)
    assert choose_prompts(as_lines([plain, wide, low]), WORLD, in_world=True) == (plain, wide, low)


def test_a_remark_says_what_a_prompt_is_for_where_its_text_leaves_a_choice():
    def group(text):
        (prompt,) = choose_prompts(text, WORLD, in_world=True)
        return prompt.group

    assert group("# edit\nzyx, open mouth, forest") == "edit"
    assert group("zyx, open mouth, forest") == "unseen"
    assert group("# unrelated\nsmile, beach") == "unrelated"
    assert group("# class\nzyx, beach") == "unseen"
    assert group("# trigger\nzyx, beach") == "unseen"
    assert group("# hard\nzyx, smile, sky") == "caption"
    assert group("# my own\nzyx, beach") == "unseen"


def test_signs_with_a_meaning_can_be_part_of_a_prompt():
    asked = tuple(Prompt(text, "unrelated") for text in ("@train", "# 1", "a|b", "a --w 5", "a\nb"))
    written = as_lines(asked)
    assert choose_prompts(written, WORLD, in_world=True) == asked


def test_one_line_is_a_prompt_and_never_opened_as_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("zyx").write_text("beach")
    assert [p.text for p in choose_prompts("zyx", WORLD, in_world=True)] == ["zyx"]
    assert len(choose_prompts("a sign|notes.txt", WORLD, in_world=True)) == 2


@pytest.mark.parametrize(
    "text", ["# nothing\n", "|", "no/such/file.txt", " FILE.TXT ", "p.toml", "p.json"]
)
def test_text_that_holds_no_prompt_is_refused(text):
    with pytest.raises(BadInputError, match="Fix: --prompts FILE"):
        choose_prompts(text, WORLD, in_world=True)


def test_files_of_other_trainers_become_lines(tmp_path):
    (tmp_path / "a.toml").write_text(
        '[prompt]\nwidth = 64\nsample_steps = 4\n[[prompt.subset]]\nprompt = "zyx | #1 --w 5"\n'
        '[[prompt.subset]]\nprompt = "@moss"\nscale = 7.5\nnegative_prompt = "bad"\nseed = 3\n'
    )
    rows = [
        {"prompt": "zyx\nsmile", "seed": 3, "random_seed": False, "cfg_scale": 7, "height": 64},
        {"prompt": "", "seed": -1, "width": 0},
        {"prompt": "moss", "enabled": False},
        "zyx, sky --d 4",
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows))

    def read(name):
        return choose_prompts(prompts_text(tmp_path / name), WORLD, in_world=True)

    first, second = read("a.toml")
    assert (first.text, first.width, first.steps) == ("zyx | #1 --w 5", 64, 4)
    assert (second.text, second.guidance, second.negative, second.seed) == ("@moss", 7.5, "bad", 3)
    lines, empty, sky = read("a.json")
    assert (lines.text, lines.seed, lines.guidance, lines.height) == ("zyx\nsmile", 3, 7.0, 64)
    assert empty == Prompt("", "unrelated")
    assert (sky.text, sky.seed) == ("zyx, sky", 4)


def test_a_text_file_is_given_as_it_stands(tmp_path):
    (tmp_path / "a.txt").write_text("# edit\nzyx, sky --n bad\n", encoding="utf-8-sig")
    assert prompts_text(tmp_path / "a.txt") == "# edit\nzyx, sky --n bad\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", None),
        ("a.txt", b" \n"),
        ("a.txt", b"\xff\xfe\x00"),
        ("a.toml", b"x = 1"),
        ("a.toml", b"["),
        ("a.json", b'{"a": 1}'),
        ("a.json", b"[]"),
        ("a.json", b'[{"prompt": "a", "enabled": false}]'),
    ],
)
def test_a_file_without_prompts_is_refused(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInputError, match=rf"{name}(.|\n)*Fix: --prompts FILE"):
        prompts_text(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "without", "group"),
    [
        ("zyx", "", "unrelated"),
        ("zyx, smile, beach", "smile, beach", "class"),
        ("zyx, beach", "beach", "unrelated"),
        ("zyx, smile <lora:a:0.5>", "smile <lora:a:0.5>", "class"),
        ("a photo of ZYX on a beach", "a photo of on a beach", "unrelated"),
    ],
)
def test_trigger_off_is_the_same_prompt_without_the_trigger(text, without, group):
    prompt = Prompt(text, "edit", "train", negative="bad", seed=3, width=64)
    off = trigger_off(prompt, WORLD)
    assert off == Prompt(without, group, negative="bad", seed=3, width=64)
    assert trigger_off(off, WORLD) == off


def test_trigger_off_of_the_trigger_alone_is_the_class_word():
    assert trigger_off(Prompt("sks", "trigger"), SENTENCES) == Prompt("dog", "class")
    off = trigger_off(Prompt("zyxarcane, zyxdef, sky", "edit"), SEVERAL)
    assert off == Prompt("sky", "class")


def test_a_caption_of_an_image_without_the_trigger_is_no_caption_with_the_trigger_off():
    dataset = dataset_of(["zyx, smile", "smile"], trigger="zyx")
    assert trigger_off(Prompt("zyx, smile", "caption", "train"), dataset).group == "class"


def test_thousands_of_captions_are_prompts_within_a_second():
    dataset = dataset_of([f"zyx, tag{i}, tag{i % 7}" for i in range(2000)], trigger="zyx")
    begun = time.monotonic()
    assert len(choose_prompts("@train", dataset, in_world=False)) == 2000
    assert time.monotonic() - begun < 10  # s; a search through all captions for each takes minutes
