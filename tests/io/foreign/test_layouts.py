"""Names as trainers give them."""

from pathlib import Path

import pytest

from lorascope.io.foreign.layouts import named_sample, named_state, printable


@pytest.mark.parametrize(
    ("path", "name", "epoch", "step"),
    [
        ("my-lora-v2-000003", "my-lora-v2", 3, 0),
        ("fern_v1.5-000010", "fern_v1.5", 10, 0),
        ("シダ 1-000002", "シダ 1", 2, 0),
        ("fern-step00000400", "fern", None, 400),
        ("fern-step99999999999", "fern", None, 0),
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


def test_a_foreign_name_can_do_nothing_to_a_terminal():
    assert printable("a\x1b[31m\nb") == "a\\x1b[31m\\nb"
    assert printable("シダ") == "シダ"
