"""Copies in a set of pictures: what is named, what counts for an epoch, what is left out."""

import dataclasses
import functools
import random

import numpy as np
import pytest

from lorascope import tables
from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.dataset_file import Dataset, DatasetImage, read_dataset, write_dataset
from lorascope.io.images import write_png
from lorascope.miniature.drawing import draw
from lorascope.miniature.world import sample_avatar
from lorascope.run import Run
from lorascope.tools import copies as tool
from lorascope.tools.copies import COPIES, copies

PROMPTS = {"zyx": "trigger", "zyx, smile": "caption", "a house": "unrelated"}


@functools.cache
def drawing(seed):
    rng = random.Random(seed)
    return draw(sample_avatar(rng), rng).image


def images(root, *, train=6, held_out=4):
    found = []
    for number in range(train + held_out):
        file = root / "images" / f"{number:02}.png"
        write_png(file, drawing(number))
        found.append(
            DatasetImage(
                file=file.name,
                sha256=f"{number:064}",
                caption="zyx, smile",
                repeats=1,
                split="train" if number < train else "held-out",
                width=128,
                height=128,
            )
        )
    dataset = Dataset(
        root=root / "images",
        trigger="zyx",
        class_word="",
        resolution=(128, 128),
        images=tuple(found),
    )
    write_dataset(root / "run" / "train" / "dataset.json", dataset)
    return dataset


def grid(root, rows):
    """Write a grid of three prompts; a row is a kind and its three pictures."""
    run, listed = root / "run", []
    for number, (kind, pictures) in enumerate(rows):
        for column, (prompt, picture) in enumerate(zip(PROMPTS, pictures, strict=True)):
            name = f"samples/cells/{number:02}-{column:02}.png"
            write_png(run / name, picture)
            listed.append(
                {
                    **{"cell": number * 3 + column, "row": number, "column": column},
                    **{"kind": kind, "epoch": number, "step": number * 10},
                    **{"strength": float(number > 0), "text_strength": float(number > 0)},
                    **{"prompt": prompt, "group": PROMPTS[prompt], "seed": 1},
                    **{"width": 128, "height": 128, "base": "tiny", "baseline": column},
                    "file": name,
                }
            )
    path = run / "evidence" / "grid" / "abc.cells.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tables.as_csv(listed))
    return {
        "pictures": path,
        "dataset": run / "train" / "dataset.json",
        "features": run / "features",
    }


def others(first):
    return [drawing(seed) for seed in range(first, first + 3)]


@pytest.fixture
def inputs(tmp_path):
    """A base row, an epoch with its own drawings, and one that has copied."""
    images(tmp_path)
    copied = [drawing(2), drawing(4)[:, ::-1], drawing(1)]
    return grid(tmp_path, [("base", others(100)), ("lora", others(200)), ("lora", copied)])


def number(measured, name):
    return next((m for m in measured.numbers if m.name == name), None)


def test_a_copy_names_the_training_image_that_it_is_of(inputs):
    cells = copies(inputs).tables["cells"]
    assert [row["cell"] for row in cells] == list(range(9))
    plain, turned = cells[6], cells[7]
    assert plain["nearest_train"] == plain["source"] == "02.png"
    assert plain["copy_ratio"] < 0.05
    assert (plain["source_share"], plain["sources"], plain["mirrored"]) == (1.0, 1, False)
    assert turned["nearest_train"] == turned["source"] == "04.png"
    assert turned["mirrored"]
    assert all(row["source_share"] < 0.4 for row in cells[:6])


def test_an_epoch_is_summed_up_over_the_pictures_with_the_trigger(inputs):
    found = copies(inputs)
    rows = found.tables["epochs"]
    assert [row["counted"] for row in rows] == [2, 2, 2]
    assert rows[2]["copy_ratio"] < 0.05 < rows[1]["copy_ratio"]
    assert rows[2]["copy_ratio_lowest"] <= rows[2]["copy_ratio"]
    assert rows[2]["source_share"] == rows[2]["source_share_highest"] == 1.0
    assert rows[2]["beyond_held_out"] == 1.0
    assert (rows[2]["kind"], rows[2]["epoch"], rows[2]["pictures"]) == ("lora", 2, 3)


def test_held_out_images_and_the_base_model_say_what_is_usual(inputs):
    found = copies(inputs)
    held_out = found.tables["held_out"]
    assert [row["image"] for row in held_out] == ["06.png", "07.png", "08.png", "09.png"]
    for name in ("copy_ratio", "source_share", "patch_share"):
        usual = number(found, f"{name}_held_out")
        assert usual.n == 4
        assert usual.value == pytest.approx(np.mean([row[name] for row in held_out]))
        assert usual.interval[0] <= usual.value <= usual.interval[1]
        assert number(found, f"{name}_base").n == 2
    assert number(found, "training_images").value == 6


def test_a_collage_names_both_of_its_sources(tmp_path):
    images(tmp_path)
    halves = np.hstack([drawing(0)[:, :64], drawing(5)[:, 64:]])
    inputs = grid(tmp_path, [("lora", [halves, *others(100)[:2]])])
    row = copies(inputs).tables["cells"][0]
    assert row["sources"] == 2
    assert set(row["source_names"].split(" | ")) == {"00.png", "05.png"}
    assert row["patch_share"] > 0.7 > row["source_share"] > row["second_share"] > 0.2


def test_what_is_mirrored_lies_where_it_lies_in_the_picture(tmp_path):
    """One half plain, the other mirrored: each patch has one source."""
    images(tmp_path)
    halves = np.hstack([drawing(0)[:, :64], drawing(5)[:, ::-1][:, 64:]])
    inputs = grid(tmp_path, [("lora", [halves, *others(100)[:2]])])
    row = copies(inputs).tables["cells"][0]
    assert set(row["source_names"].split(" | ")) == {"00.png", "05.png"}
    assert row["patch_share"] > 0.7


def test_pictures_of_other_sizes_are_compared_as_training_cuts_them(tmp_path):
    images(tmp_path)
    tall = drawing(3)[:, 16:112]
    inputs = grid(tmp_path, [("lora", [tall, drawing(3).repeat(4, 0).repeat(4, 1), drawing(99)])])
    cells = copies(inputs).tables["cells"]
    assert [row["source"] for row in cells[:2]] == ["03.png", "03.png"]
    assert all(row["source_share"] > 0.8 for row in cells[:2])


def test_training_images_that_are_alike_count_once(tmp_path):
    dataset = images(tmp_path)
    write_png(dataset.root / "05.png", np.ascontiguousarray(drawing(2)[:, ::-1]))
    inputs = grid(tmp_path, [("lora", [drawing(2), *others(100)[:2]])])
    found = copies(inputs)
    assert number(found, "training_images").value == 5
    assert found.tables["cells"][0]["copy_ratio"] < 0.05


def test_what_cannot_be_read_is_left_out_and_named(inputs):
    run = inputs["pictures"].parents[2]
    (run / "samples/cells/02-00.png").write_bytes(b"no picture")
    (inputs["dataset"].parents[2] / "images/00.png").unlink()
    found = copies(inputs)
    assert found.tables["cells"][6]["copy_ratio"] is None
    assert found.tables["epochs"][2]["counted"] == 1
    assert number(found, "training_images").value == 5
    said = " ".join(found.caveats)
    assert "02-00.png" in said
    assert "00.png does not exist" in said


def test_without_held_out_images_nothing_is_said_to_be_usual(tmp_path):
    images(tmp_path, held_out=0)
    found = copies(grid(tmp_path, [("lora", [drawing(1), *others(100)[:2]])]))
    assert found.tables["epochs"][0]["beyond_held_out"] is None
    assert number(found, "copy_ratio_held_out") is None
    assert any("No image is held out" in caveat for caveat in found.caveats)


def test_one_training_image_has_patches_but_no_ratio(tmp_path):
    images(tmp_path, train=1)
    found = copies(grid(tmp_path, [("lora", [drawing(0), *others(100)[:2]])]))
    assert found.tables["cells"][0]["copy_ratio"] is None
    assert found.tables["cells"][0]["source_share"] == 1.0
    assert found.tables["epochs"][0]["copy_ratio"] is None
    assert any("One distinct training image" in caveat for caveat in found.caveats)


def test_a_plain_picture_has_no_patches_to_look_for(tmp_path):
    images(tmp_path)
    plain = np.full((128, 128, 3), 200, np.uint8)
    found = copies(grid(tmp_path, [("lora", [plain, *others(100)[:2]])]))
    assert found.tables["cells"][0]["source_share"] is None
    assert found.tables["cells"][0]["nearest_train"]
    assert any("too plain" in caveat for caveat in found.caveats)


def test_without_the_trigger_in_any_prompt_no_row_counts(tmp_path):
    dataset = images(tmp_path)
    inputs = grid(tmp_path, [("lora", others(100))])
    listed = inputs["pictures"].read_text()
    inputs["pictures"].write_text(listed.replace("trigger", "class").replace("caption", "class"))
    found = copies(inputs)
    assert dataset.trigger
    assert found.tables["epochs"][0]["copy_ratio"] is None
    assert found.tables["epochs"][0]["counted"] == 0
    assert any("No prompt has the trigger" in caveat for caveat in found.caveats)


@pytest.mark.parametrize(("folder", "said"), [("images", "training"), ("run/samples", "Not one")])
def test_nothing_to_compare_is_refused(inputs, folder, said):
    for file in (inputs["dataset"].parents[2] / folder).rglob("*.png"):
        file.write_bytes(b"no picture")
    with pytest.raises(BadInputError, match=said) as refused:
        copies(inputs)
    assert "Fix:" in str(refused.value)


class Colours:
    """Sees mean colours."""

    name = "colours"

    def images(self, pictures):
        return np.array([p.mean(axis=(0, 1)) for p in pictures], dtype=np.float32)


def test_a_network_can_be_asked_as_well(inputs, monkeypatch):
    monkeypatch.setattr(tool, "open_encoder", lambda _name, _base: Colours())
    plain = copies(inputs)
    cells = copies(inputs, features="sscd:weights.pt").tables["cells"]
    assert cells[6]["feature_similarity"] == pytest.approx(1)
    assert cells[6]["feature_nearest"] == "02.png"
    assert "feature_similarity" not in plain.tables["cells"][6]
    shared = [{k: v for k, v in row.items() if not k.startswith("feature_")} for row in cells]
    assert shared == list(plain.tables["cells"])


def test_the_base_models_own_features_need_a_base_model(inputs):
    with pytest.raises(MissingInputError, match="not known") as refused:
        copies(inputs, features="base")
    assert "Fix:" in str(refused.value)


def test_the_same_question_is_answered_from_disk(inputs, monkeypatch):
    path = inputs["pictures"].parents[2]
    Run.create(path.parent / "other", base="", base_digest="")
    (path / "run.json").write_text((path.parent / "other" / "run.json").read_text())
    given = {"pictures": inputs["pictures"]}
    first = Run(path).measure(COPIES, given=given)
    monkeypatch.setattr(tool, "_Sought", None)
    second = Run(path).measure(COPIES, given=given)
    assert second.id == first.id
    assert second.table("cells")[6]["source"] == "02.png"


def test_training_images_that_changed_are_asked_anew(inputs):
    before = copies(inputs).tables["cells"][6]["nearest_train"]
    dataset = read_dataset(inputs["dataset"])
    kept = tuple(image for image in dataset.images if image.file != before)
    write_dataset(inputs["dataset"], dataclasses.replace(dataset, images=kept))
    assert copies(inputs).tables["cells"][6]["nearest_train"] != before


def test_a_dataset_of_unknown_size_is_compared_at_that_of_the_pictures(inputs):
    known = copies(inputs)
    dataset = read_dataset(inputs["dataset"])
    write_dataset(inputs["dataset"], dataclasses.replace(dataset, resolution=(0, 0)))
    assert copies(inputs).tables == known.tables
