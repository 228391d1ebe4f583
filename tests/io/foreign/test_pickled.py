"""What a pickle holds is told from its names, and nothing in it is run."""

import pickle

import pytest
import torch

from lorascope.io.foreign.pickled import is_pickle, pickled_kind
from lorascope.io.lora_facts import LORA, UNKNOWN
from tests.foreign_folders import Touching

UP = "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (UP, LORA),
        ("model.diffusion_model.input_blocks.0.0.weight", "a base model"),
        ("step", UNKNOWN),
    ],
)
def test_a_pickle_says_what_it_holds(tmp_path, key, kind, zipped):
    path = tmp_path / "a.pt"
    torch.save({key: torch.ones(2, 2)}, path, _use_new_zipfile_serialization=zipped)
    assert is_pickle(path)
    assert pickled_kind(path) == kind


def test_an_adapter_and_a_nested_lora_are_told(tmp_path):
    key = "base_model.model.down_blocks.0.attentions.0.to_k.lora_A.weight"
    torch.save({"state_dict": {key: torch.ones(2)}}, tmp_path / "adapter_model.bin")
    assert pickled_kind(tmp_path / "adapter_model.bin") == LORA


def test_looking_runs_nothing(tmp_path):
    made = tmp_path / "made"
    torch.save({UP: Touching(made)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps({UP: Touching(made)}))
    assert [pickled_kind(tmp_path / f"{name}.pt") for name in "ab"] == [LORA, LORA]
    assert not made.exists()


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04" + bytes(50), b"\x80\x02" * 40])
def test_a_damaged_pickle_is_of_no_known_kind(tmp_path, content):
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    assert pickled_kind(path) == UNKNOWN
    assert pickled_kind(tmp_path / "gone.pt") == UNKNOWN


def test_no_more_of_a_pickle_is_read_than_a_lora_needs(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    torch.save({"x" * 1000: 1, UP: torch.ones(2)}, path)
    assert pickled_kind(path) == LORA
    monkeypatch.setattr("lorascope.io.foreign.pickled.LARGEST", 500)
    assert pickled_kind(path) == UNKNOWN
    monkeypatch.setattr("lorascope.io.foreign.pickled.LARGEST", 5000)
    monkeypatch.setattr("lorascope.io.foreign.pickled.MOST_STEPS", 6)
    assert pickled_kind(path) == UNKNOWN


def test_a_safetensors_file_is_no_pickle(tmp_path):
    assert not is_pickle(tmp_path / "a.safetensors")
