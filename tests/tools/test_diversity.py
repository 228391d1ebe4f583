"""Diversity: a collapsing series is ordered, what the base model draws is 1, doubts are said."""

import numpy as np
import pytest

from lorascope import tables
from lorascope.errors import BadInputError
from lorascope.tools.diversity import diversity
from lorascope.tools.pictures import described
from lorascope.tools.pictures.sets import TYPES
from tests import picture_grids
from tests.picture_grids import SUBJECT, Colours, spots

ANY = np.array([90.0, 110.0, 60.0])
WIDTHS = (40.0, 40.0, 24.0, 12.0, 3.0)


@pytest.fixture(autouse=True)
def colours(monkeypatch):
    """See colours only."""
    monkeypatch.setattr(described, "open_encoder", lambda _name, _base: Colours())


def collapsing(rng, widths=WIDTHS):
    """Draw rows whose pictures come nearer to each other; another colour than the base's."""
    return lambda row, _prompt, _seed: spots(SUBJECT if row else ANY, rng, widths[row])


def measured(tmp_path, rng, rows=("base", "lora", "lora", "lora", "lora"), *, seeds=(1, 2, 3, 4)):
    picture_grids.images(tmp_path, rng)
    return diversity(picture_grids.grid(tmp_path, rows, collapsing(rng), seeds=seeds))


@pytest.mark.parametrize("name", ["diversity", "seed_diversity", "vendi", "vendi_ratio"])
def test_a_collapsing_series_is_ordered(tmp_path, rng, name):
    rows = measured(tmp_path, rng).tables["epochs"]
    values = [row[name] for row in rows]
    assert values[1:] == sorted(values[1:], reverse=True)
    assert values[4] < 0.5 * values[1]
    if name != "vendi":
        assert values[0] == pytest.approx(1)


def test_what_all_pictures_have_in_common_does_not_count(tmp_path, rng):
    """A LoRA that draws its subject everywhere is as diverse as the pictures are."""
    row = measured(tmp_path, rng).tables["epochs"][1]
    assert row["diversity"] == pytest.approx(1, abs=0.25)
    assert row["vendi_ratio"] == pytest.approx(1, abs=0.15)


def test_pictures_that_are_all_the_same_count_as_one(tmp_path, rng):
    picture_grids.images(tmp_path, rng)
    one = spots(SUBJECT, rng)
    inputs = picture_grids.grid(
        tmp_path, ("base", "lora"), lambda row, *_: one if row else spots(ANY, rng, 40)
    )
    row = diversity(inputs).tables["epochs"][1]
    assert row["vendi"] == pytest.approx(1)
    assert (row["diversity"], row["seed_diversity"]) == (0, 0)


def test_intervals_hold_the_value_and_narrow_with_what_is_alike(tmp_path, rng):
    rows = measured(tmp_path, rng).tables["epochs"]
    for name in ("diversity", "seed_diversity", "vendi", "vendi_ratio"):
        for row in rows[1:]:
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
        assert rows[1][f"{name}_low"] > rows[4][f"{name}_high"]


def test_only_pictures_with_the_trigger_count(tmp_path, rng):
    found = measured(tmp_path, rng, ("base", "lora", "trigger-off"), seeds=(1, 2))
    assert [row["counted"] for row in found.tables["epochs"]] == [6, 6, 0]
    assert found.tables["epochs"][2]["diversity"] is None
    assert found.tables["cells"][12]["apart"] is not None
    assert found.tables["cells"][23]["apart"] is None  # it has no trigger


def test_one_seed_and_few_pictures_are_said(tmp_path, rng):
    found = measured(tmp_path, rng, seeds=(7,))
    assert any("One seed" in caveat for caveat in found.caveats)
    assert any("3 pictures says little" in caveat for caveat in found.caveats)
    assert found.tables["epochs"][1]["seed_diversity"] is None


def test_without_the_base_model_only_the_vendi_score_is_there(tmp_path, rng):
    found = measured(tmp_path, rng, ("lora", "lora", "lora", "lora", "lora"))
    rows = found.tables["epochs"]
    assert {row["diversity"] for row in rows} == {row["vendi_ratio"] for row in rows} == {None}
    assert rows[1]["vendi"] > rows[4]["vendi"] > 1
    assert any("no picture by the base model" in caveat for caveat in found.caveats)


def test_pictures_that_cannot_be_read_are_left_out_on_both_sides(tmp_path, rng):
    picture_grids.images(tmp_path, rng)
    inputs = picture_grids.grid(tmp_path, ("base", "lora"), collapsing(rng), seeds=(1, 2))
    (tmp_path / "run" / "samples" / "cells" / "00-00.png").write_bytes(b"torn")
    rows = diversity(inputs).tables["epochs"]
    assert [row["counted"] for row in rows] == [5, 5]


def test_samples_of_another_trainer_may_lack_seeds(tmp_path, rng):
    picture_grids.images(tmp_path, rng)
    found = diversity(picture_grids.of_trainer(tmp_path, rng, epochs=(0, 1, 2)))
    assert found.tables["epochs"][0]["diversity"] == pytest.approx(1)
    assert found.tables["epochs"][2]["vendi"] > 1
    assert any("one picture a prompt" in caveat for caveat in found.caveats)


def test_with_neither_base_model_nor_dataset_it_says_so(tmp_path, rng):
    picture_grids.images(tmp_path, rng)
    inputs = picture_grids.grid(tmp_path, ("lora", "lora"), collapsing(rng))
    for file in (tmp_path / "images").iterdir():
        file.unlink()
    with pytest.raises(BadInputError, match="nothing to be measured by"):
        diversity(inputs)


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
        diversity(picture_grids.grid(tmp_path, rows, lambda *key: (drawn | other)[key]))
        for rows in (("base", "lora"), ("base", "lora", "base"))
    ]
    few, many = found
    assert few.numbers == many.numbers
    for name in ("cells", "epochs"):
        assert list(few.tables[name]) == list(many.tables[name])[: len(few.tables[name])]


def test_how_pictures_are_compared_is_said_by_likeness_alone(tmp_path, rng):
    found = measured(tmp_path, rng)
    assert not any("compared by" in caveat for caveat in found.caveats)


def test_one_picture_is_one_picture(tmp_path, rng):
    picture_grids.images(tmp_path, rng)
    inputs = picture_grids.grid(tmp_path, ("base", "lora"), collapsing(rng), seeds=(1,))
    prompts = [row["prompt"] for row in tables.from_csv(inputs["pictures"].read_text(), TYPES)]
    lines = inputs["pictures"].read_text().splitlines()
    asking = lines[1].split(",")
    assert prompts[0] == "zyx"
    inputs["pictures"].write_text("\n".join([lines[0], ",".join(asking)]) + "\n")
    assert any("of 1 picture says" in caveat for caveat in diversity(inputs).caveats)
