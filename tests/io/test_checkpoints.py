import numpy as np
import pytest

from lorascope.errors import MissingInputError
from lorascope.io.checkpoints import list_checkpoints
from lorascope.io.lora_file import LoraModule, write_lora

KEY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


def module() -> LoraModule:
    down, up = np.ones((4, 6), np.float32), np.ones((8, 4), np.float32)
    return LoraModule(KEY, down, up, 2.0)


def test_checkpoints_are_ordered_by_what_their_trainer_wrote(tmp_path):
    for name, epoch, step in [("b", 2, 40), ("a", 10, 200), ("c", 1, 20)]:
        metadata = {"ss_epoch": str(epoch), "ss_steps": str(step)}
        write_lora(tmp_path / f"{name}.safetensors", [module()], metadata)
    found = [(c.path.name, c.epoch, c.step) for c in list_checkpoints(tmp_path)]
    assert found == [
        ("c.safetensors", 1, 20),
        ("b.safetensors", 2, 40),
        ("a.safetensors", 10, 200),
    ]


def test_checkpoints_without_metadata_are_ordered_by_name(tmp_path):
    for name in ("fern", "fern-000010", "fern-000002"):
        write_lora(tmp_path / f"{name}.safetensors", [module()], {})
    (tmp_path / "fern-000004.safetensors").write_bytes(b"torn")
    (tmp_path / ".partial-x.safetensors").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("hello")
    found = [(c.path.name, c.epoch) for c in list_checkpoints(tmp_path)]
    assert found == [
        ("fern-000002.safetensors", 2),
        ("fern-000004.safetensors", 4),
        ("fern-000010.safetensors", 10),
        ("fern.safetensors", 11),
    ]
    assert list_checkpoints(tmp_path / "fern-000002.safetensors")[0].epoch == 2


def test_the_last_state_saved_twice_counts_once(tmp_path):
    metadata = {"ss_epoch": "10", "ss_steps": "200"}
    for name in ("fern", "fern-000010"):
        write_lora(tmp_path / f"{name}.safetensors", [module()], metadata)
    write_lora(tmp_path / "moss.safetensors", [module()], metadata)
    names = [c.path.name for c in list_checkpoints(tmp_path)]
    assert names == ["fern-000010.safetensors", "moss.safetensors"]


def test_an_empty_folder_has_none_and_a_missing_one_is_refused(tmp_path):
    assert list_checkpoints(tmp_path) == []
    with pytest.raises(MissingInputError):
        list_checkpoints(tmp_path / "none")
