"""Configs as each trainer writes them, in our words."""

import json

import pytest

from lorascope.io.foreign.configs import read_settings
from tests import foreign_folders as foreign


def test_a_config_of_each_trainer_is_read_in_our_words(tmp_path):
    model, work, job, out = (
        make(tmp_path / str(n))
        for n, make in enumerate(
            (foreign.kohya, foreign.onetrainer, foreign.ai_toolkit, foreign.diffusers)
        )
    )
    kohya = read_settings(next(model.glob("*.json")))
    assert (kohya.name, kohya.ours["rank"], kohya.ours["epochs"]) == ("fern", 4, 4)
    assert kohya.others["noise_offset"] == 0.0357
    assert "hf_secret" not in str(kohya)
    one = read_settings(next((work / "config").glob("*.json")))
    assert one.ours["scheduler"] == "constant"
    assert one.datasets[0].endswith("stones")
    assert one.prompts[1].negative == "dog"
    ivy = read_settings(job / "config.yaml")
    assert ivy.ours["unet_lr"] == 1e-4
    assert [p.seed for p in ivy.prompts] == [42, 5]
    assert ivy.prompts[0].prompt == "zyxivy on a wall"
    oak = read_settings(next(out.rglob("hparams.yml")))
    assert oak.ours["rank"] == 4
    assert oak.datasets[0].endswith("oaks")


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", '{"a": 1}', '{"config": {"process": []}}'])
def test_other_json_files_are_no_configs(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    assert read_settings(tmp_path / "a.json") is None


def dataset_config(**more):
    one = {"image_dir": "ferns", "num_repeats": 3, "class_tokens": "zyxfern plant"}
    small = {"resolution": 512, "subsets": [one, {"image_dir": "class", "is_reg": True}]}
    large = {
        "resolution": [768, 768],
        "subsets": [{**one, "num_repeats": 2}, {"image_dir": "moss"}],
    }
    return {"general": {"num_repeats": 4}, "datasets": [small, large], **more}


def test_a_dataset_config_tells_folders_repeats_and_words(tmp_path):
    file = tmp_path / "dataset.json"
    file.write_text(json.dumps(dataset_config()))
    found = read_settings(file)
    told = [(s.folder, s.repeats, s.class_tokens, s.resolution) for s in found.subsets]
    assert told == [("ferns", 5, "zyxfern plant", (512, 512)), ("moss", 4, "", (768, 768))]
    assert found.datasets == ("ferns", "moss")
    assert "resolution" not in found.ours


@pytest.mark.parametrize(
    "datasets",
    [5, [5], [{"subsets": 5}], [{"subsets": [5]}], [{"image_directory": "a"}], {"subsets": []}],
)
def test_what_is_no_list_of_subsets_is_no_dataset_config(tmp_path, datasets):
    file = tmp_path / "dataset.json"
    file.write_text(json.dumps({"datasets": datasets}))
    assert read_settings(file) is None


def test_values_that_make_no_sense_in_a_dataset_config_are_passed_over(tmp_path):
    file = tmp_path / "dataset.json"
    subset = {"image_dir": "ferns", "num_repeats": -1, "class_tokens": 5, "caption_extension": "/x"}
    file.write_text(json.dumps({"datasets": [{"resolution": "big", "subsets": [subset]}]}))
    (one,) = read_settings(file).subsets
    assert (one.repeats, one.resolution, one.caption_ending) == (1, None, "")
