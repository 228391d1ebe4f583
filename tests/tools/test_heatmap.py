"""The heatmap: the LoRA's maps beside the base model's, and what is said of them."""

import hashlib

import numpy as np
import pytest

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.dataset_file import Dataset, DatasetImage, write_dataset
from lorascope.io.images import read_image
from lorascope.io.lora_file import write_lora
from lorascope.models import base as base_module
from lorascope.run import Run
from lorascope.tools import HEATMAP
from lorascope.tools.heatmap import diverging, heatmap, map_facts, overlay_sheet, viridis
from tests import pipelines

LAYERS = [
    f"lora_unet_{place}_attentions_0_transformer_blocks_0_attn2_to_k"
    for place in ("down_blocks_0", "up_blocks_1")
]
QUICK = {"steps": 2, "sampler": "ddim"}
CAPTION = "sks, red hat, castle"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return pipelines.base_of(pipelines.sd1(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def inputs(tmp_path, tiny, monkeypatch):
    """Two epochs: the first changes nothing, the second much."""
    monkeypatch.setattr(base_module, "load_base", lambda _name: tiny)
    monkeypatch.setattr(base_module, "base_digest", lambda _name: "0" * 64)
    for epoch, size in ((1, 0), (2, 8)):
        modules = pipelines.random_modules(tiny, LAYERS, alpha=2.0)
        for module in modules:
            module.up[:] *= size
        file = tmp_path / "lora" / f"fern-{epoch:06}.safetensors"
        write_lora(file, modules, {"ss_epoch": str(epoch)}, dtype="F32")
    write_captions(tmp_path, {"train": "sks, dog", "held-out": CAPTION})
    return {
        "lora": tmp_path / "lora",
        "dataset": tmp_path / "train" / "dataset.json",
        "base": tmp_path / "model",
        "samples": tmp_path / "samples",
    }


def write_captions(folder, captions, trigger="sks"):
    images = tuple(
        DatasetImage(
            file=f"{split}.png",
            sha256=hashlib.sha256(split.encode()).hexdigest(),
            caption=caption,
            repeats=1,
            split=split,
            width=64,
            height=64,
        )
        for split, caption in captions.items()
    )
    dataset = Dataset(
        root=folder, trigger=trigger, class_word="", resolution=(64, 64), images=images
    )
    write_dataset(folder / "train" / "dataset.json", dataset)


def pictures(found, inputs):
    rows = {row["which"]: row["file"] for row in found.tables["pictures"]}
    return {which: read_image(inputs["samples"].parent / file) for which, file in rows.items()}


def test_a_lora_that_is_zero_gives_the_base_models_maps_and_picture(inputs):
    found = heatmap(inputs, epoch=1, **QUICK)
    base, lora = found.arrays["maps"]
    assert (base == lora).all()
    assert all(row["change"] == pytest.approx(0) for row in found.tables["tags"])
    assert all(row["base"] == row["lora"] for row in found.tables["overlap"])
    drawn = pictures(found, inputs)
    assert (drawn["base"] == drawn["lora"]).all()


def test_a_lora_of_the_keys_moves_the_maps(inputs):
    found = heatmap(inputs, **QUICK)
    assert {row["epoch"] for row in found.tables["tags"]} == {2}
    assert max(row["change"] for row in found.tables["tags"]) > 0.001
    assert (pictures(found, inputs)["base"] != pictures(found, inputs)["lora"]).any()


def test_strength_zero_takes_the_lora_out(inputs):
    base, lora = heatmap(inputs, strength=0.0, **QUICK).arrays["maps"]
    assert (base == lora).all()


def test_there_is_a_map_and_a_row_for_every_tag_of_the_held_out_caption(inputs):
    found = heatmap(inputs, **QUICK)
    maps = found.arrays["maps"]
    assert maps.shape == (2, 3, 8, 8)
    assert maps.dtype == np.float32
    assert 0 <= maps.min() <= maps.max() <= 1
    assert [row["tag"] for row in found.tables["tags"]] == ["sks", "red hat", "castle"]
    assert [row["pieces"] for row in found.tables["tags"]] == [1, 2, 1]
    assert len(found.tables["overlap"]) == 6


def test_attention_is_a_share_that_does_not_grow_with_the_steps(inputs):
    few = heatmap(inputs, steps=2, sampler="ddim").arrays["maps"]
    many = heatmap(inputs, steps=6, sampler="ddim").arrays["maps"]
    assert many.mean() == pytest.approx(few.mean(), rel=0.3)


def test_only_the_tags_asked_for_are_mapped_and_they_are_the_same_maps(inputs):
    every = heatmap(inputs, **QUICK).arrays["maps"]
    one = heatmap(inputs, tags="castle", **QUICK)
    assert one.arrays["maps"] == pytest.approx(every[:, 2:])
    assert one.tables["overlap"] == []
    assert {m.name for m in one.numbers} == {"tags", "change"}


def test_pictures_and_their_sheet_are_kept_and_do_not_overwrite_another_questions(inputs):
    first = heatmap(inputs, **QUICK)
    heatmap(inputs, seed=2, **QUICK)
    drawn = pictures(first, inputs)
    assert set(drawn) == {"base", "lora", "sheet"}
    assert drawn["base"].shape == (64, 64, 3)
    assert len(list((inputs["samples"] / "heatmap").iterdir())) == 6


def test_a_prompt_of_ones_own_is_drawn(inputs):
    found = heatmap(inputs, prompt="a dog with a hat", tags="dog,hat", **QUICK)
    assert [row["tag"] for row in found.tables["tags"]] == ["dog", "hat"]


@pytest.mark.parametrize(
    ("captions", "prompt"),
    [
        ({"train": "sks, dog", "held-out": ""}, ["sks", "dog"]),
        ({"train": "", "held-out": ""}, ["sks"]),
    ],
)
def test_without_a_held_out_caption_the_next_best_is_drawn(inputs, captions, prompt):
    write_captions(inputs["samples"].parent, captions)
    assert [r["tag"] for r in heatmap(inputs, **QUICK).tables["tags"]] == prompt


def test_evidence_of_a_heatmap_is_read_back_as_it_was_written(inputs, tmp_path):
    run = Run.create(tmp_path / "run", base="miniature", base_digest="0" * 64)
    inputs["lora"].rename(run.place("lora"))
    write_captions(run.path, {"held-out": CAPTION})
    measured, stored = (run.measure(HEATMAP, **QUICK) for _ in range(2))
    assert (stored.measured.arrays["maps"] == measured.measured.arrays["maps"]).all()
    assert stored.table("tags") == list(measured.table("tags"))
    assert (run.path / stored.table("pictures")[0]["file"]).is_file()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"epoch": 7}, r"epoch 7.\nFix: one of 1, 2"),
        ({"tags": "cat"}, "Not in the prompt .*: cat"),
        ({"tags": "ed"}, "None of ed"),
        ({"prompt": ",,"}, "any tag"),
        ({"sampler": "magic"}, "magic"),
    ],
)
def test_what_cannot_be_mapped_is_said_in_few_words(inputs, wrong, said):
    with pytest.raises(BadInputError, match=said):
        heatmap(inputs, **QUICK | wrong)


def test_a_tag_that_the_prompt_spells_otherwise_is_left_out_and_named(inputs):
    found = heatmap(inputs, tags="castle,ed", **QUICK)
    assert [row["tag"] for row in found.tables["tags"]] == ["castle"]
    assert any("ed" in caveat and "Not in the prompt" in caveat for caveat in found.caveats)


def test_a_run_without_checkpoints_or_words_is_told_so(inputs):
    write_captions(inputs["samples"].parent, {"train": ""}, trigger="")
    with pytest.raises(BadInputError, match="--prompt"):
        heatmap(inputs, **QUICK)
    for file in inputs["lora"].iterdir():
        file.unlink()
    with pytest.raises(MissingInputError, match="no checkpoint"):
        heatmap(inputs, **QUICK)


def test_facts_of_a_map_with_one_peak():
    found = np.zeros((4, 8), np.float32)
    found[0, 7] = 0.5
    assert map_facts(found) == {
        "mean": 0.5 / 32,
        "peak": 0.5,
        "centre_x": 7.5 / 8,
        "centre_y": 0.5 / 4,
        "area": 1 / 32,
    }


def test_facts_of_an_empty_map_are_finite():
    assert map_facts(np.zeros((4, 4), np.float32)) == {
        "mean": 0,
        "peak": 0,
        "centre_x": 0.5,
        "centre_y": 0.5,
        "area": 0,
    }


def test_colours_run_from_dark_blue_to_yellow_and_from_blue_over_white_to_red():
    assert viridis(np.array([[0.0, 1.0]])).tolist() == [[[68, 1, 84], [253, 231, 37]]]
    less, none, more = diverging(np.array([[-1.0, 0.0, 1.0]]))[0]
    assert less[2] > less[0]
    assert (none == 247).all()
    assert more[0] > more[2]
    assert (viridis(np.array([[-5.0, 9.0]])) == viridis(np.array([[0.0, 1.0]]))).all()


def test_the_sheet_has_three_rows_and_a_column_for_each_tag():
    drawn = [np.zeros((64, 64, 3), np.uint8)] * 2
    one = overlay_sheet(drawn, np.zeros((2, 6, 8, 8), np.float32), ["a"] * 6)
    more = overlay_sheet(drawn, np.zeros((2, 8, 8, 8), np.float32), ["a"] * 8)
    assert one.shape[0] > 3 * 112
    assert more.shape[1] - one.shape[1] == 2 * (112 + 4)
