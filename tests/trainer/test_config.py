"""Settings are validated whole, and every problem is listed at once."""

import tomllib
from dataclasses import fields, replace

import pytest

from lorascope.errors import BadInputError, MissingInputError
from trainer.config import (
    OTHER_NAMES,
    TrainConfig,
    as_toml,
    config_from,
    differences,
    read_config,
    write_config,
)

PLAIN = {"base": "miniature", "dataset": "images"}
OTHER = {  # differs from the default in every setting
    "base": "models/some base",
    "dataset": 'a "quoted" folder, grün',
    "name": "fern-2",
    "trigger": "zyxfern",
    "class_word": "plant",
    "epochs": 3,
    "batch_size": 2,
    "repeats": 7,
    "resolution": 768,
    "held_out": 0.0,
    "held_out_tag": "beach",
    "seed": 9,
    "save_every_epochs": 2,
    "rank": 4,
    "alpha": 1.5,
    "network_targets": "attention",
    "unet_lr": 1e-7,
    "text_lr": 5e-5,
    "scheduler": "constant",
    "warmup_steps": 12,
    "weight_decay": 0.0,
    "max_grad_norm": 0.0,
    "min_snr_gamma": 0.0,
    "caption_dropout": 0.1,
    "shuffle_tags": True,
    "keep_tags": 2,
    "clip_skip": 2,
}


def problems(**changed: object) -> list[str]:
    with pytest.raises(BadInputError) as caught:
        config_from(PLAIN | changed)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def test_every_setting_survives_the_way_through_a_file(tmp_path):
    config = config_from(OTHER)
    write_config(tmp_path / "fern.toml", config)
    assert read_config(tmp_path / "fern.toml") == config
    assert set(OTHER) == {one.name for one in fields(TrainConfig)}


def test_unset_settings_stay_unset_and_every_setting_is_explained(tmp_path):
    config = config_from(PLAIN)
    text = as_toml(config)
    assert config_from(tomllib.loads(text)) == config
    assert config.repeats is None
    for one in fields(TrainConfig):
        line = next(
            x for x in text.splitlines() if x.removeprefix("# ").startswith(f"{one.name} =")
        )
        assert line.endswith(f"# {one.metadata['about']}")


def test_every_problem_is_listed_at_once():
    found = problems(epochs=0, rank=-1, scheduler="cosin", unet_lr=float("nan"), alpha=0, typo=1)
    assert [line.split()[0].rstrip(":") for line in found] == [
        "typo",
        "epochs",
        "rank",
        "alpha",
        "unet_lr",
        "scheduler",
    ]
    assert "did you mean cosine?" in found[-1]


def test_missing_settings_are_listed_with_their_meaning():
    with pytest.raises(
        BadInputError, match=r"(?s)base: missing \(the base model.*dataset: missing"
    ):
        config_from({})


@pytest.mark.parametrize(("typed", "meant"), [("epoch", "epochs"), ("triger", "trigger")])
def test_a_mistyped_name_is_recognised(typed, meant):
    assert problems(**{typed: 1}) == [f"{typed}: unknown; did you mean {meant}?"]


@pytest.mark.parametrize(("theirs", "ours"), OTHER_NAMES.items())
def test_other_trainers_names_are_translated_in_the_message(theirs, ours):
    assert problems(**{theirs: 1}) == [f"{theirs}: unknown; it is called {ours} here"]
    assert ours in {one.name for one in fields(TrainConfig)}


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("epochs", 2.0, "a whole number"),
        ("epochs", True, "a whole number"),
        ("epochs", None, "a whole number"),
        ("repeats", "many", "a whole number"),
        ("unet_lr", "1e-4", "a number"),
        ("shuffle_tags", 1, "true or false"),
        ("trigger", 5, "a text"),
    ],
)
def test_a_value_of_another_type_is_refused(name, value, wanted):
    (line,) = problems(**{name: value})
    assert line.startswith(f"{name} = ") and line.endswith(f"must be {wanted}")


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("held_out", 0.6, 0.5),
        ("caption_dropout", 1.1, 1.0),
        ("alpha", 0, 0.1),
        ("batch_size", 0, 1),
        ("clip_skip", 0, 1),
        ("name", "a/b", "a-b"),
        ("name", "../b", ""),
        ("dataset", " ", "x"),
        ("unet_lr", float("inf"), 1),
        ("seed", -1, 0),
    ],
)
def test_a_value_out_of_range_is_refused_and_its_neighbour_is_not(name, bad, good):
    assert len(problems(**{name: bad})) == 1
    assert getattr(config_from(PLAIN | {name: good}), name) == good


def test_training_nothing_is_refused():
    assert "nothing would be trained" in problems(unet_lr=0)[0]
    assert config_from(PLAIN | {"unet_lr": 0, "text_lr": 1e-4}).text_lr == 1e-4


def test_python_callers_get_the_same_checks(tmp_path):
    with pytest.raises(BadInputError, match="epochs"):
        replace(config_from(PLAIN), epochs=-1)
    assert TrainConfig(base="miniature", dataset=tmp_path).dataset == str(tmp_path)


def test_files_that_cannot_be_read_are_named(tmp_path):
    path = tmp_path / "fern.toml"
    with pytest.raises(MissingInputError, match="lorascope new"):
        read_config(path)
    path.write_text("epochs = ")
    with pytest.raises(BadInputError, match=r"fern\.toml cannot be read"):
        read_config(path)
    path.write_text("epochs = 0")
    with pytest.raises(BadInputError, match=r"fern\.toml: .*(?s:.)*epochs = 0: must be at least 1"):
        read_config(path)


def test_differences_name_the_settings_with_both_values():
    one = config_from(PLAIN)
    assert differences(one, replace(one, rank=8, repeats=2)) == [
        "repeats unset, now 2",
        "rank 16, now 8",
    ]
    assert differences(one, one) == []
