"""The values of foreign settings: exact, or left out; secrets are never kept."""

import pytest

from lorascope.io.foreign.values import remarks, seed_of, translated, whole


@pytest.mark.parametrize("value", [2**53 + 1, str(2**53 + 1), f" {2**63 - 1} "])
def test_a_large_seed_is_kept_to_the_last_digit(value):
    assert seed_of(value) == int(value)


@pytest.mark.parametrize("value", ["4", 4, 4.0, "4.0", "4e0", " 4 "])
def test_a_whole_number_is_read_in_every_spelling(value):
    assert whole(1, 10)(value) == 4


@pytest.mark.parametrize(
    "value", [4.7, "4.7", "", None, True, "nan", "1e999", "9" * 5000, [], 0, 11, "4 5"]
)
def test_what_is_no_whole_number_of_the_range_is_left_out(value):
    assert whole(1, 10)(value) is None


def test_a_part_of_an_epoch_is_kept_as_it_was_written():
    names = {"epoch": "epochs"}
    assert translated({"epoch": 4.7}, names) == {}
    assert remarks({"epoch": 4.7}, names) == {"epoch": 4.7}


@pytest.mark.parametrize(
    "key",
    ["max_token_length", "keep_tokens_separator", "keep_tokens", "class_tokens", "instance_token",
     "placeholder_token", "tokenizer_name", "num_new_tokens", "token_warmup_step"],
)  # fmt: skip
def test_settings_about_tokens_are_kept(key):
    assert remarks({key: "225"}, {}) == {key: "225"}


@pytest.mark.parametrize(
    "key",
    ["huggingface_token", "hub_token", "hf_token", "wandb_api_key", "api_key", "token",
     "WANDB-API-KEY", "cloud.secret", "secrets.huggingface_token", "password", "use_auth_token",
     "huggingfaceToken", "aws_secret_access_key", "comet_apikey"],
)  # fmt: skip
def test_secrets_are_dropped(key):
    assert remarks({key: "s3cr3t"}, {}) == {}


@pytest.mark.parametrize(
    "value",
    ["--huggingface_token hf_x --lowram", "--wandb_api_key=abc", [{"hub_token": "abc"}],
     "hf_" + "aB3" * 11],
)  # fmt: skip
def test_a_secret_within_a_value_is_dropped_with_it(value):
    assert remarks({"additional_parameters": value}, {}) == {}
    kept = {"additional_parameters": "--max_token_length=150 --keep_tokens 2"}
    assert remarks(kept, {}) == kept
