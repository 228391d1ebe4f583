"""Prompts as each trainer writes them."""

import json

from lorascope.io.foreign.prompts import SamplePrompt, from_line, read_sample_prompts


def test_a_prompt_line_carries_its_options():
    line = "zyxfern, blue -- eyed --n bad --w 512 --h 768 --d 7 --l 7.5 --s 20"
    told = SamplePrompt(
        prompt="zyxfern, blue -- eyed",
        negative="bad",
        seed=7,
        width=512,
        height=768,
        steps=20,
        guidance=7.5,
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


def test_flags_may_be_capitals_and_a_number_that_is_none_is_passed_over():
    told = SamplePrompt(prompt="fern", width=512, steps=None, guidance=None)
    assert from_line("fern --W 512 --s many --l nan") == told


def test_steps_guidance_and_what_is_switched_off_are_read_from_rows(tmp_path):
    rows = [
        {"prompt": "fern", "sample_steps": 20, "scale": 7.5},
        {"prompt": "moss", "diffusion_steps": 30, "cfg_scale": 4, "enabled": False},
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    fern, moss = read_sample_prompts(tmp_path / "a.json")
    assert (fern.steps, fern.guidance, fern.enabled) == (20, 7.5, True)
    assert (moss.steps, moss.guidance, moss.enabled) == (30, 4.0, False)
