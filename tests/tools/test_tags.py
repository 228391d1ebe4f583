"""The tags tool: captions counted by hand."""

import pytest

from lorascope.errors import BadInputError
from lorascope.io.dataset_file import Dataset, DatasetImage, write_dataset
from lorascope.tools.tags import tags

CAPTIONS = ["fern, red", "fern, red, pot", "pot, fern", "pot"]


def asked(folder, captions=CAPTIONS, *, trigger="fern", repeats=None, held_out=(), **options):
    images = tuple(
        DatasetImage(
            file=f"{i}.png",
            sha256=str(i),
            caption=caption,
            repeats=(repeats or [1] * len(captions))[i],
            split="held-out" if i in held_out else "train",
            width=64,
            height=64,
        )
        for i, caption in enumerate(captions)
    )
    dataset = Dataset(
        root=folder, trigger=trigger, class_word="", resolution=(64, 64), images=images
    )
    write_dataset(folder / "dataset.json", dataset)
    return tags({"dataset": folder / "dataset.json"}, **options)


def number(measured, name):
    return next(m.value for m in measured.numbers if m.name == name)


def test_shares_are_counted(tmp_path):
    found = asked(tmp_path, repeats=[1, 1, 1, 7])
    assert number(found, "trigger_share") == 0.75
    assert number(found, "trigger_first_share") == 0.5
    assert number(found, "trigger_missing") == 1
    assert number(found, "trigger_exposure") == pytest.approx(0.3)
    assert number(found, "shown_per_epoch") == 10
    fern = next(r for r in found.tables["tags"] if r["tag"] == "fern")
    assert (fern["images"], fern["share"], fern["trigger"]) == (3, 0.75, True)
    assert fern["exposure"] == pytest.approx(0.3)
    assert fern["position"] == pytest.approx(4 / 3)


def test_images_say_where_the_trigger_stands(tmp_path):
    rows = asked(tmp_path).tables["images"]
    assert [r["trigger_position"] for r in rows] == [1, 1, 2, None]
    assert [r["has_trigger"] for r in rows] == [True, True, True, False]


def test_pairs_need_two_images(tmp_path):
    rows = asked(tmp_path).tables["pairs"]
    assert {(r["tag"], r["other"]): r["images"] for r in rows} == {
        ("fern", "red"): 2,
        ("fern", "pot"): 2,
    }


def test_held_out_images_are_listed_but_not_counted(tmp_path):
    found = asked(tmp_path, held_out=(3,))
    assert number(found, "trigger_share") == 1
    assert number(found, "held_out_images") == 1
    assert [r["split"] for r in found.tables["images"]] == ["train"] * 3 + ["held-out"]


def test_a_guessed_trigger_is_called_a_guess(tmp_path):
    found = asked(tmp_path, trigger="")
    assert number(found, "trigger_guessed") == 1
    assert any("'fern' is a guess" in c for c in found.caveats)


def test_the_option_wins_over_the_dataset(tmp_path):
    found = asked(tmp_path, trigger="fern", **{})
    other = tags({"dataset": tmp_path / "dataset.json"}, trigger="red")
    assert number(found, "trigger_share") == 0.75
    assert number(other, "trigger_share") == 0.5
    assert number(other, "trigger_guessed") == 0


def test_the_order_of_the_images_does_not_matter(tmp_path):
    one, other = asked(tmp_path), asked(tmp_path, CAPTIONS[::-1])
    assert one.numbers == other.numbers
    assert one.tables["pairs"] == other.tables["pairs"]
    assert sorted(r["tag"] for r in one.tables["tags"]) == sorted(
        r["tag"] for r in other.tables["tags"]
    )


def test_no_captions_at_all_is_an_answer(tmp_path):
    found = asked(tmp_path, ["", ""], trigger="")
    assert number(found, "empty_captions") == 2
    assert "trigger_share" not in {m.name for m in found.numbers}
    assert any("No image has a caption" in c for c in found.caveats)


def test_a_dataset_without_images_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="no image"):
        asked(tmp_path, [])
