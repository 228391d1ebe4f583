"""Drift: nothing moves where nothing changes; what moves is told from becoming the subject."""

import numpy as np
import pytest

from lorascope.tools.drift import drift
from lorascope.tools.pictures import described
from tests import picture_grids
from tests.picture_grids import PROMPTS, SIDE, SUBJECT, Colours, spots

ANY = np.array([90.0, 110.0, 60.0])
PLAIN = [prompt for prompt, group in PROMPTS.items() if group in ("class", "unrelated")]


@pytest.fixture(autouse=True)
def colours(monkeypatch):
    """See colours only."""
    monkeypatch.setattr(described, "open_encoder", lambda _name, _base: Colours())


@pytest.fixture
def same(rng):
    """The base model's picture of each prompt and seed, near one colour."""
    return {(prompt, seed): spots(ANY, rng) for prompt in PROMPTS for seed in (1, 2)}


def measured(tmp_path, rng, same, change, rows=("base", "lora", "lora")):
    """Change the base model's pictures row by row."""
    picture_grids.images(tmp_path, rng)
    return drift(picture_grids.grid(tmp_path, rows, lambda row, p, s: change(row, p, same[p, s])))


def blend(picture, share):
    return (picture + share * (SUBJECT - picture)).astype(np.uint8)


def test_where_nothing_changes_nothing_moves(tmp_path, rng, same):
    found = measured(tmp_path, rng, same, lambda _row, _prompt, picture: picture)
    for row in found.tables["epochs"]:
        assert (row["drift"], row["unrelated_drift"], row["change"]) == (0, 0, 0)
        assert row["class_likeness"] == 0
    assert {row["moved"] for row in found.tables["cells"]} == {0}


def test_a_change_with_the_trigger_is_no_drift(tmp_path, rng, same):
    found = measured(
        tmp_path, rng, same, lambda row, p, v: blend(v, 0.8 * row / 2) if "zyx" in p else v
    )
    assert found.tables["epochs"][2]["drift"] == 0
    assert found.tables["cells"][24]["moved"] > 1


def test_the_subject_that_comes_unasked_is_class_likeness(tmp_path, rng, same):
    def change(row, prompt, picture):
        return blend(picture, 0.9 * row / 2) if prompt == "smile" else picture

    rows = measured(tmp_path, rng, same, change).tables["epochs"]
    assert 0 < rows[1]["class_likeness"] < rows[2]["class_likeness"]
    assert rows[2]["class_likeness"] > 0.2  # one of three prompts became the subject
    assert rows[2]["unrelated_drift"] == 0
    assert rows[2]["drift"] > 0.2


def test_a_change_away_from_the_subject_moves_and_is_no_likeness(tmp_path, rng, same):
    away = 2 * ANY - SUBJECT

    def change(row, prompt, picture):
        return (picture + 0.4 * (away - picture)).clip(0, 255).astype(np.uint8) if row else picture

    row = measured(tmp_path, rng, same, change).tables["epochs"][2]
    assert row["drift"] > 0.5
    assert row["class_likeness"] <= 0
    assert row["drift_low"] <= row["drift"] <= row["drift_high"]


def test_moving_as_far_as_another_prompt_is_one(tmp_path, rng, same):
    """Pictures of other prompts in place of one's own are one usual distance away."""
    order = [*PLAIN[1:], PLAIN[0]]

    def change(row, prompt, picture):
        other = order[PLAIN.index(prompt)] if prompt in PLAIN else prompt
        return same[other, 1] if row else picture

    row = measured(tmp_path, rng, same, change).tables["epochs"][1]
    assert row["drift"] == pytest.approx(1, abs=0.3)


def test_change_is_the_mean_absolute_difference_in_pixels(tmp_path, rng, same):
    same = {key: np.clip(value, 0, 200) for key, value in same.items()}
    found = measured(tmp_path, rng, same, lambda row, _prompt, v: (v + 25.5 * row).astype(np.uint8))
    assert found.tables["epochs"][2]["change"] == pytest.approx(0.2, abs=1e-6)


def test_a_row_without_the_trigger_counts_whole(tmp_path, rng, same):
    rows = ("base", "lora", "trigger-off")
    found = measured(tmp_path, rng, same, lambda r, _p, v: blend(v, 0.5 * (r == 2)), rows)
    off = found.tables["epochs"][2]
    assert (off["kind"], off["counted"], off["unrelated"]) == ("trigger-off", 12, 4)
    assert off["class_likeness"] > 0.2


def test_without_the_base_model_nothing_is_measured_and_it_is_said(tmp_path, rng, same):
    found = measured(tmp_path, rng, same, lambda _r, _p, v: v, ("lora", "lora"))
    assert {row["drift"] for row in found.tables["epochs"]} == {None}
    assert {row["change"] for row in found.tables["epochs"]} == {None}
    assert any("no picture by the base model" in caveat for caveat in found.caveats)


def test_another_size_and_a_torn_file_are_left_out(tmp_path, rng, same):
    picture_grids.images(tmp_path, rng)
    inputs = picture_grids.grid(
        tmp_path, ("base", "lora"), lambda row, p, s: blend(same[p, s], 0.5 * row)
    )
    cells = tmp_path / "run" / "samples" / "cells"
    picture_grids.write_png(cells / "01-11.png", np.zeros((2 * SIDE, 2 * SIDE, 3), np.uint8))
    (cells / "01-10.png").write_bytes(b"torn")
    found = drift(inputs).tables
    assert found["cells"][23]["change"] is None
    assert found["cells"][23]["moved"] > 0
    assert found["cells"][22]["moved"] is None
    assert found["epochs"][1]["counted"] == 5


def test_it_can_be_measured_where_no_image_of_the_dataset_is_left(tmp_path, rng, same):
    picture_grids.images(tmp_path, rng)
    inputs = picture_grids.grid(
        tmp_path, ("base", "lora"), lambda row, p, s: blend(same[p, s], 0.5 * row)
    )
    for file in (tmp_path / "images").iterdir():
        file.unlink()
    found = drift(inputs)
    assert found.tables["epochs"][1]["drift"] > 0
    assert found.tables["epochs"][1]["class_likeness"] is None
    assert any("class likeness was not measured" in caveat for caveat in found.caveats)


def test_samples_of_another_trainer_are_measured_beside_its_first(tmp_path, rng):
    picture_grids.images(tmp_path, rng)
    inputs = picture_grids.of_trainer(tmp_path, rng, epochs=(0, 1, 2))
    found = drift(inputs).tables["epochs"]
    assert [row["counted"] for row in found] == [3, 3, 3]
    assert found[0]["drift"] == 0
    assert found[1]["drift"] > 0
    alone = drift(inputs | {"pictures": _without_first(inputs["pictures"])})
    assert {row["drift"] for row in alone.tables["epochs"]} == {None}


def _without_first(folder):
    for file in folder.glob("00-*.png"):
        file.unlink()
    return folder


def test_a_row_of_another_base_model_changes_no_other_number(tmp_path, rng):
    """--bases and --loras add rows of kind base: the scale stays that of the first."""
    drawn = {
        (row, prompt, seed): spots(ANY + 0.5 * row * (SUBJECT - ANY) * ("zyx" in prompt), rng)
        for row in range(2)
        for prompt in picture_grids.PROMPTS
        for seed in (1, 2)
    }
    other = {(2, *key[1:]): spots(255 - ANY, rng, 60.0) for key in drawn if key[0] == 0}
    picture_grids.images(tmp_path, rng)
    found = [
        drift(picture_grids.grid(tmp_path, rows, lambda *key: (drawn | other)[key]))
        for rows in (("base", "lora"), ("base", "lora", "base"))
    ]
    few, many = found
    assert few.numbers == many.numbers
    for name in ("cells", "epochs"):
        assert list(few.tables[name]) == list(many.tables[name])[: len(few.tables[name])]
