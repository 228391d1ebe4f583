"""Names as trainers give them, the folder as they leave it, prompts and configs as they write."""

import json
from pathlib import Path

import pytest

from lorascope.io.foreign_configs import as_toml, from_metadata, merged, read_settings
from lorascope.io.foreign_folder import survey
from lorascope.io.layouts import named_sample, named_state, printable
from lorascope.io.prompt_files import SamplePrompt, from_line, read_sample_prompts
from tests import foreign_folders as foreign
from trainer.config import read_config


@pytest.mark.parametrize(
    ("path", "name", "epoch", "step"),
    [
        ("my-lora-v2-000003", "my-lora-v2", 3, 0),
        ("fern_v1.5-000010", "fern_v1.5", 10, 0),
        ("シダ 1-000002", "シダ 1", 2, 0),
        ("fern-step00000400", "fern", None, 400),
        ("fern", "fern", None, 0),
        ("fern-2024", "fern-2024", None, 0),
        ("fern-20240501", "fern-20240501", None, 0),
        ("2024-05-01_12-00-00-save-400-4-0", "", 4, 400),
        ("moss2024-05-01_12-00-00-save-450-4-50", "moss", 5, 450),
        ("ivy_v1_000000500", "ivy_v1", None, 500),
        ("oak/checkpoint-500/pytorch_lora_weights", "oak", None, 500),
        ("oak/pytorch_lora_weights", "oak", None, 0),
        ("oak/checkpoint-20/adapter_model", "oak", None, 20),
    ],
)
def test_a_checkpoints_name_says_training_epoch_and_step(path, name, epoch, step):
    named = named_state(Path(f"{path}.safetensors"))
    assert (named.name, named.epoch, named.step) == (name, epoch, step)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("fern_e000003_01_20240501120000_7.png", ("fern", 3, None, 1, 7)),
        ("fern_v1.5_000400_00_20240501120000.png", ("fern_v1.5", None, 400, 0, None)),
        ("fern_20230501120000_e000003_01_7.png", ("fern", 3, None, 1, 7)),
        ("1 - a cat/2024-05-01_12-00-00-training-sample-400-4-0.png", ("", 4, 400, 1, None)),
        ("1 - a cat/2024-05-01_12-00-00-training-sample-450-4-50.png", ("", None, 450, 1, None)),
        ("1714560000123__000000500_2.jpg", ("", None, 500, 2, None)),
    ],
)
def test_a_samples_name_says_what_it_shows(path, expected):
    named = named_sample(Path(path))
    assert (named.name, named.epoch, named.step, named.index, named.seed) == expected
    assert named.taken.startswith(("2024-05-01T", "2023-05-01T"))


@pytest.mark.parametrize("name", ["holiday.png", "fern-000003.png", "image_0.png", "e3_01.png"])
def test_other_pictures_are_no_samples(name):
    assert named_sample(Path(name)) is None


def test_a_prompt_line_carries_its_options():
    line = "zyxfern, blue -- eyed --n bad --w 512 --h 768 --d 7 --l 7.5 --s 20"
    told = SamplePrompt(
        prompt="zyxfern, blue -- eyed", negative="bad", seed=7, width=512, height=768
    )
    assert from_line(line) == told


def test_prompts_are_read_from_text_toml_and_json(tmp_path):
    (tmp_path / "a.txt").write_text("# no\nfern --d 3\n\nmoss\n")
    (tmp_path / "a.toml").write_text(
        '[prompt]\nseed = 3\n[[prompt.subset]]\nprompt = "fern"\n[[prompt.subset]]\n'
        'prompt = "moss"\nseed = 4\n'
    )
    (tmp_path / "a.json").write_text(json.dumps([{"prompt": "fern", "seed": 3}, "moss --d 4"]))
    for name in ("a.txt", "a.toml", "a.json"):
        found = read_sample_prompts(tmp_path / name)
        assert [one.prompt for one in found] == ["fern", "moss"], name
        assert found[0].seed == 3


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


def test_recovered_settings_are_a_config_that_our_trainer_reads(tmp_path):
    told = from_metadata({**foreign.kohya_metadata(4), "ss_training_comment": "a\nb\x1b[31m"})
    file = tmp_path / "config.toml"
    file.write_text(as_toml(merged([told]), missing={"base": "?", "dataset": "unknown"}))
    config = read_config(file)
    assert (config.rank, config.alpha, config.seed, config.clip_skip) == (4, 2.0, 42, 2)
    assert (config.base, config.held_out) == ("anylora.safetensors", 0.0)
    assert config.scheduler == "cosine"  # ours; theirs is in a remark
    assert 'ss_lr_scheduler = "cosine_with_restarts"' in file.read_text()


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", '{"a": 1}', '{"config": {"process": []}}'])
def test_other_json_files_are_no_configs(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    assert read_settings(tmp_path / "a.json") is None


def test_a_look_through_a_folder_leaves_out_states_links_and_hidden_files(tmp_path):
    model = foreign.kohya(tmp_path)
    (model / ".hidden.safetensors").touch()
    (model / "loop").symlink_to(model, target_is_directory=True)
    (model / "dead.safetensors").symlink_to(tmp_path / "nowhere")
    found = survey(model)
    names = [p.name for p in found.weights]
    assert "model.safetensors" not in names
    assert ".hidden.safetensors" not in names
    assert len(names) == 5
    assert len(found.pictures) == 8


def test_a_foreign_name_can_do_nothing_to_a_terminal():
    assert printable("a\x1b[31m\nb") == "a\\x1b[31m\\nb"
    assert printable("シダ") == "シダ"
