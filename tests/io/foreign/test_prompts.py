"""Prompts as each trainer writes them."""

import json

from lorascope.io.foreign.prompts import SamplePrompt, from_line, read_sample_prompts


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
