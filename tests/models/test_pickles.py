"""Old pickles: their tensors are read, and nothing in them runs."""

import pickle
import zipfile

import numpy as np
import pytest
import torch

from lorascope.errors import BadInputError, MissingInputError
from lorascope.io.lora_file import lora_from_tensors
from lorascope.models.pickles import read_pickled_tensors
from tests.foreign_folders import Touching

KEY = "lora_unet_mid_block_attentions_0_proj_in"


class Dangerous:
    def __reduce__(self):
        return exec, ("raise SystemExit('it ran')",)


@pytest.mark.parametrize("nested", [False, True])
def test_an_old_lora_is_read_from_a_pickle(tmp_path, nested):
    held = {
        f"{KEY}.lora_up.weight": torch.ones(6, 2, dtype=torch.float16),
        f"{KEY}.lora_down.weight": torch.ones(2, 4, dtype=torch.bfloat16),
        f"{KEY}.alpha": torch.tensor(1.0),
    }
    torch.save({"state_dict": held, "step": 3} if nested else held, tmp_path / "a.pt")
    tensors = read_pickled_tensors(tmp_path / "a.pt")
    assert all(values.dtype == np.float32 for values in tensors.values())
    assert lora_from_tensors(tmp_path / "a.pt", tensors, {}).modules[KEY].scale == 0.5


def test_what_is_more_than_tensors_is_refused_and_does_not_run(tmp_path):
    torch.save({"a": Dangerous()}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Dangerous()))
    (tmp_path / "c.pt").write_bytes(b"PK\x03\x04" + bytes(50))
    (tmp_path / "d.pt").write_bytes(b"")
    for name in "abcd":
        with pytest.raises(BadInputError, match="more than tensors"):
            read_pickled_tensors(tmp_path / f"{name}.pt")
    torch.save([torch.ones(2)], tmp_path / "e.pt")
    with pytest.raises(BadInputError, match="no named tensors"):
        read_pickled_tensors(tmp_path / "e.pt")
    with pytest.raises(MissingInputError, match="does not exist"):
        read_pickled_tensors(tmp_path / "f.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_make_a_file_makes_none(tmp_path, zipped):
    made, path = tmp_path / "made", tmp_path / "a.pt"
    torch.save({KEY: Touching(made)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(BadInputError, match="nothing in it was run"):
        read_pickled_tensors(path)
    assert not made.exists()
    torch.load(path, weights_only=False)[KEY].close()  # so it would have, with the plain reader
    assert made.exists()


def test_tensors_that_are_larger_than_their_file_are_refused(tmp_path):
    torch.save({KEY: torch.ones(1).expand(10_000, 10_000)}, tmp_path / "a.pt")
    with pytest.raises(BadInputError, match="more numbers than it has room for"):
        read_pickled_tensors(tmp_path / "a.pt")


def test_a_packed_pickle_is_refused(tmp_path):
    torch.save({KEY: torch.zeros(1000)}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as plain,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(BadInputError, match="is packed"):
        read_pickled_tensors(tmp_path / "b.pt")


@pytest.mark.parametrize("odd", [torch.ones(2, dtype=torch.complex64), torch.eye(2).to_sparse()])
def test_no_tensor_is_dropped_without_a_word(tmp_path, odd):
    torch.save({KEY: odd, "step": 3}, tmp_path / "a.pt")
    with pytest.raises(BadInputError, match=KEY):
        read_pickled_tensors(tmp_path / "a.pt")
