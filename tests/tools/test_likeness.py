"""Likeness: a scale with known ends, what counts, and what is said where it cannot be laid."""

import dataclasses

import numpy as np
import pytest

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.dataset_file import read_dataset, write_dataset
from lorascope.tools.likeness import LIKENESS, likeness
from lorascope.tools.pictures import described
from tests import picture_grids
from tests.picture_grids import PROMPTS, SIDE, SUBJECT, Colours, spots

ANY = np.array([90.0, 110.0, 60.0])


@pytest.fixture(autouse=True)
def colours(monkeypatch):
    """See colours only."""
    monkeypatch.setattr(described, "open_encoder", lambda _name, _base: Colours())


def learning(rng, *, reached=(0.0, 0.5, 1.0)):
    """Draw rows that go from any colour to that of the subject, where it is asked for."""

    def draw(row, prompt, _seed):
        share = reached[row] if prompt.startswith("zyx") else 0.0
        return spots(ANY + share * (SUBJECT - ANY), rng)

    return draw


def grid(tmp_path, rng, rows=("base", "lora", "lora"), *, seeds=(1, 2), draw=None, **sides):
    picture_grids.images(tmp_path, rng, **sides)
    return picture_grids.grid(tmp_path, rows, draw or learning(rng), seeds=seeds)


def number(measured, name):
    return next(m for m in measured.numbers if m.name == name)


def test_it_goes_from_the_base_model_to_the_training_images(tmp_path, rng):
    found = likeness(grid(tmp_path, rng))
    rows = [row["likeness"] for row in found.tables["epochs"]]
    assert rows[0] == pytest.approx(0, abs=1e-6)
    assert 0.2 < rows[1] < rows[2]
    assert rows[2] == pytest.approx(1, abs=0.15)
    last = found.tables["epochs"][2]
    assert last["likeness_low"] < last["likeness"] < last["likeness_high"]
    assert (last["kind"], last["epoch"], last["pictures"]) == ("lora", 2, 12)


def test_only_pictures_that_ask_for_the_subject_count_for_a_row(tmp_path, rng):
    found = likeness(grid(tmp_path, rng))
    asking = [group not in ("class", "unrelated") for group in PROMPTS.values() for _ in range(2)]
    cells = [row["likeness"] for row in found.tables["cells"][24:36]]
    assert all(value is not None for value in cells)
    mean = np.mean([value for value, asks in zip(cells, asking, strict=True) if asks])
    assert found.tables["epochs"][2]["likeness"] == pytest.approx(mean)
    assert found.tables["epochs"][2]["counted"] == sum(asking)


def test_both_ends_are_said_with_their_numbers(tmp_path, rng):
    found = likeness(grid(tmp_path, rng))
    assert number(found, "anchor_base").n == 6
    assert number(found, "anchor_training").n == 6
    assert number(found, "anchor_base").value < number(found, "anchor_training").value
    assert number(found, "references").value == 5
    assert any("5 held-out images" in caveat for caveat in found.caveats)


@pytest.mark.parametrize("held_out", [0, 3])
def test_with_too_few_held_out_images_the_training_images_are_the_reference(
    tmp_path, rng, held_out
):
    found = likeness(grid(tmp_path, rng, held_out=held_out))
    assert number(found, "references").value == 6
    assert any("one left out each time" in caveat for caveat in found.caveats)
    assert found.tables["epochs"][2]["likeness"] == pytest.approx(1, abs=0.2)


def test_copies_of_training_images_are_no_nearer_to_held_out_ones(tmp_path, rng):
    """A memorised image looks like likeness only where nothing is held out."""
    copies = [spots(SUBJECT, rng) for _ in range(6)]
    inputs = grid(
        tmp_path, rng, draw=lambda row, p, s: copies[s] if row else learning(rng)(row, p, s)
    )
    dataset = read_dataset(inputs["dataset"])
    for image, picture in zip(dataset.train, copies, strict=True):
        picture_grids.write_png(dataset.path(image), picture)
    against_held_out = likeness(inputs).tables["epochs"][1]["likeness"]
    everything = tuple(dataclasses.replace(i, split="train") for i in dataset.train)
    write_dataset(inputs["dataset"], dataclasses.replace(dataset, images=everything))
    against_training = likeness(inputs).tables["epochs"][1]["likeness"]
    assert against_training > against_held_out + 0.01


def test_the_nearest_reference_is_named(tmp_path, rng):
    inputs = grid(tmp_path, rng)
    dataset = read_dataset(inputs["dataset"])
    wanted = dataset.held_out[3]
    copied = tmp_path / "run" / "samples" / "cells" / "02-00.png"
    copied.write_bytes(dataset.path(wanted).read_bytes())
    assert likeness(inputs).tables["cells"][24]["nearest_reference"] == wanted.file


def test_a_row_without_the_trigger_has_no_likeness(tmp_path, rng):
    found = likeness(grid(tmp_path, rng, ("base", "lora", "trigger-off")))
    off = found.tables["epochs"][2]
    assert (off["kind"], off["likeness"], off["likeness_low"], off["counted"]) == (
        "trigger-off",
        None,
        None,
        0,
    )
    assert all(row["likeness"] is not None for row in found.tables["cells"])


def test_without_a_row_of_the_base_model_the_plain_cosine_is_what_there_is(tmp_path, rng):
    found = likeness(grid(tmp_path, rng, ("lora", "lora", "lora")))
    rows = found.tables["epochs"]
    assert [row["likeness"] for row in rows] == [None] * 3
    assert rows[0]["cosine"] < rows[2]["cosine"] <= 1
    assert any("not measured" in caveat for caveat in found.caveats)


def test_where_the_base_model_draws_the_subject_already_no_scale_is_laid(tmp_path, rng):
    inputs = grid(tmp_path, rng)
    held_out = read_dataset(inputs["dataset"]).held_out
    for column in range(6):
        shown = (tmp_path / "images" / held_out[column % 5].file).read_bytes()
        (tmp_path / "run" / "samples" / "cells" / f"00-{column:02}.png").write_bytes(shown)
    found = likeness(inputs)
    assert found.tables["epochs"][2]["likeness"] is None
    assert any("as near already" in caveat for caveat in found.caveats)


def test_what_cannot_be_read_is_left_out_and_named(tmp_path, rng):
    inputs = grid(tmp_path, rng)
    (tmp_path / "run" / "samples" / "cells" / "02-01.png").write_bytes(b"torn")
    (tmp_path / "images" / "02.png").unlink()
    found = likeness(inputs)
    assert found.tables["cells"][25]["likeness"] is None
    assert found.tables["epochs"][2]["counted"] == 5
    assert any("02-01.png" in caveat for caveat in found.caveats)
    assert any("02.png" in caveat and "dataset" in caveat for caveat in found.caveats)


def test_sizes_may_differ(tmp_path, rng):
    inputs = grid(tmp_path, rng)
    wide = np.repeat(np.repeat(spots(SUBJECT, rng), 3, axis=0), 4, axis=1)
    picture_grids.write_png(tmp_path / "run" / "samples" / "cells" / "02-00.png", wide)
    assert wide.shape == (3 * SIDE, 4 * SIDE, 3)
    assert likeness(inputs).tables["cells"][24]["likeness"] is not None


def test_where_nothing_can_be_read_it_says_so(tmp_path, rng):
    inputs = grid(tmp_path, rng)
    for file in (tmp_path / "images").iterdir():
        file.unlink()
    with pytest.raises(BadInputError, match="nothing to compare"):
        likeness(inputs)
    for file in (tmp_path / "run" / "samples" / "cells").iterdir():
        file.unlink()
    for file in (tmp_path / "run" / "features").rglob("*.npz"):
        file.unlink()
    with pytest.raises(BadInputError, match="Not one picture"):
        likeness(inputs)


def test_it_needs_pictures_that_are_given(tiny_run):
    with pytest.raises(MissingInputError, match="lorascope grid"):
        tiny_run.measure(LIKENESS)


def test_samples_of_another_trainer_that_drew_the_base_model_too_have_a_scale(tmp_path, rng):
    picture_grids.images(tmp_path, rng)
    found = likeness(picture_grids.of_trainer(tmp_path, rng, epochs=(0, 1, 2)))
    values = [row["likeness"] for row in found.tables["epochs"]]
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert 0.1 < values[1] < values[2]
    assert [row["counted"] for row in found.tables["epochs"]] == [3, 3, 3]


def test_samples_of_another_trainer_without_it_have_the_plain_cosine(tmp_path, rng):
    picture_grids.images(tmp_path, rng)
    found = likeness(picture_grids.of_trainer(tmp_path, rng, epochs=(1, 2, 4)))
    rows = found.tables["epochs"]
    assert {row["likeness"] for row in rows} == {None}
    assert rows[0]["cosine"] < rows[2]["cosine"]


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
        likeness(picture_grids.grid(tmp_path, rows, lambda *key: (drawn | other)[key]))
        for rows in (("base", "lora"), ("base", "lora", "base"))
    ]
    few, many = found
    assert few.numbers == many.numbers
    for name in ("cells", "epochs"):
        assert list(few.tables[name]) == list(many.tables[name])[: len(few.tables[name])]


def test_what_the_base_model_drew_is_zero_and_not_nearly(tmp_path, rng):
    found = likeness(grid(tmp_path, rng))
    assert str(found.tables["epochs"][0]["likeness"]) == "0.0"


def test_an_empty_list_of_a_trainer_says_what_to_add(tmp_path, rng):
    picture_grids.images(tmp_path, rng)
    inputs = picture_grids.of_trainer(tmp_path, rng, epochs=(1,))
    (inputs["pictures"] / "images.csv").unlink()
    with pytest.raises(MissingInputError, match="Fix: lorascope add samples RUN PATH"):
        likeness(inputs)


def test_pictures_of_unknown_size_and_training_need_no_size(tmp_path, rng):
    dataset = picture_grids.images(tmp_path, rng)
    inputs = picture_grids.of_trainer(tmp_path, rng, epochs=(0, 1, 2))
    write_dataset(inputs["dataset"], dataclasses.replace(dataset, resolution=(0, 0)))
    assert likeness(inputs).tables["epochs"][2]["likeness"] is not None
