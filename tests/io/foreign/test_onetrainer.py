"""OneTrainer's lists of images and prompts: taken from beside its config, never from elsewhere."""

import json
from pathlib import Path

from lorascope.io.foreign.configs import read_settings


def written(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def config(folder: Path, **more: object) -> Path:
    about = {"training_method": "LORA", "workspace_dir": "workspace/moss", **more}
    return written(folder / "config.json", about)


def test_lists_in_the_current_directory_are_never_taken(tmp_path, monkeypatch):
    here = tmp_path / "here"
    written(here / "concepts.json", [{"path": "/unrelated"}])
    written(here / "training_concepts" / "mine.json", [{"path": "/unrelated"}])
    written(here / "samples.json", [{"prompt": "unrelated"}])
    monkeypatch.chdir(here)
    for name in (None, "training_concepts/mine.json"):
        found = read_settings(config(tmp_path / "there", concept_file_name=name))
        assert found.datasets == ()
        assert found.prompts == ()


def test_lists_beside_the_config_count_before_the_named_ones(tmp_path):
    named = written(tmp_path / "far" / "mine.json", [{"path": "/far"}])
    path = config(tmp_path / "there", concept_file_name=str(named))
    assert read_settings(path).datasets == ("/far",)
    written(tmp_path / "there" / "concepts.json", [{"path": "/near"}])
    assert read_settings(path).datasets == ("/near",)


def test_a_relative_name_is_looked_for_where_onetrainer_was_started(tmp_path):
    home = tmp_path / "OneTrainer"
    written(home / "training_concepts" / "mine.json", [{"path": "/moss"}])
    path = config(
        home / "workspace" / "moss" / "config", concept_file_name="training_concepts/mine.json"
    )
    assert read_settings(path).datasets == ("/moss",)
