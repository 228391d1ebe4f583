"""Configs as each trainer writes them, in our words."""

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
