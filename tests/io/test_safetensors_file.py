"""A safetensors file from anywhere: one clear error, or the tensors; never anything else."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from lorascope.errors import BadInputError, LorascopeError
from lorascope.io.lora_file import LoraModule, read_lora, write_lora
from lorascope.io.safetensors_file import read_header

KEY = "lora_unet_mid_block_attentions_0_proj_in"
DOWN = f"{KEY}.lora_down.weight"


def made(path: Path, header: str | bytes | dict, data: bytes = bytes(64)) -> Path:
    """Write a file with any header."""
    if isinstance(header, dict):
        header = json.dumps(header)
    text = header.encode() if isinstance(header, str) else header
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(start: int = 0, end: int = 16, shape: object = (2, 2), dtype: object = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HEADERS = {
    "a huge shape": {"a": entry(shape=[2**40, 2**40])},
    "a product that 64 bits take for nothing": {"a": entry(0, 0, shape=[2**32, 2**32])},
    "a million sides": {"a": entry(shape=[9] * 1_000_000)},
    "a negative side": {"a": entry(shape=[-2, -2])},
    "a fraction": {"a": entry(shape=[2.5, 2])},
    "a side that is true": {"a": entry(0, 4, shape=[True])},
    "a side as text": {"a": entry(shape=["2", 2])},
    "a side of many digits": '{"a":{"dtype":"F32","shape":[1'
    + "0" * 5000
    + '],"data_offsets":[0,4]}}',
    "places out of order": {"a": entry(16, 0)},
    "negative places": {"a": entry(-16, 0)},
    "places out of the file": {"a": entry(0, 2**40, shape=[2**38])},
    "three places": {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 8, 16]}},
    "two over each other": {"a": entry(0, 16), "b": entry(12, 28)},
    "two at one place": {"a": entry(0, 16), "b": entry(0, 16)},
    "a name twice": '{"a":%s,"a":%s}' % ((json.dumps(entry()),) * 2),
    "a part twice": '{"a":{"dtype":"F32","dtype":"F16","shape":[2,2],"data_offsets":[0,16]}}',
    "no shape": {"a": {"dtype": "F32", "data_offsets": [0, 16]}},
    "no object": "[1, 2]",
    "an entry that is text": {"a": "b"},
    "NaN": '{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}',
    "Infinity": '{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,4]}}',
    "deep nesting": "[" * 200_000,
    "deep objects": '{"a":' * 200_000,
    "metadata that is a list": {"__metadata__": ["a"], "a": entry()},
    "half a surrogate pair": {"\ud800": entry()},
    "another encoding": json.dumps({"a": entry()}).encode("utf-16"),
    "bytes that are no text": b'{"\xff\xfe": 1}',
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_header_that_lies_is_refused_with_one_message(tmp_path, what):
    path = made(tmp_path / "a.safetensors", HEADERS[what])
    with pytest.raises(BadInputError, match=r"a\.safetensors is .*\nFix: "):
        read_header(path)


def test_a_claim_of_a_hundred_megabytes_is_not_believed(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes((99_999_999).to_bytes(8, "little") + b"{" + bytes(100))
    tracemalloc.start()
    with pytest.raises(BadInputError, match="cut short"):
        read_header(path)
    path.write_bytes((2**63).to_bytes(8, "little") + b"{" + bytes(100))
    with pytest.raises(BadInputError, match="no safetensors file"):
        read_header(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_metadata_that_is_no_text_becomes_text(tmp_path):
    header = '{"__metadata__":{"a":3,"b":null,"c":{"d":[1]},"e":"\\ud800"}}'
    metadata = read_header(made(tmp_path / "a.safetensors", header)).metadata
    assert metadata == {"a": "3", "b": "None", "c": "{'d': [1]}", "e": "?"}


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    path = made(tmp_path / "a.safetensors", "{}")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(BadInputError, match="cannot be opened: Permission denied"):
        read_header(path)


def test_a_file_cut_while_it_is_read_is_named(tmp_path):
    from lorascope.io.safetensors_file import Reader

    path = made(tmp_path / "a.safetensors", {"a": entry()})
    header = read_header(path)
    path.write_bytes(path.read_bytes()[:-56])
    with Reader(path, header) as reader, pytest.raises(BadInputError, match="cut short"):
        reader.tensor("a")


@pytest.mark.parametrize("seed", range(8))
def test_no_damage_to_a_file_gives_more_than_one_clear_error(tmp_path, seed):
    """Flips, cuts, doublings and noise in header and tensors, from seeds."""
    draw = np.random.default_rng(seed)
    path = tmp_path / "a.safetensors"
    modules = [
        LoraModule(KEY, np.ones((2, 6), np.float32), np.ones((8, 2), np.float32), 1.0),
        LoraModule(f"{KEY}_b", np.ones((2, 3), np.float32), np.ones((4, 2), np.float32), 1.0,
                   kind="LoKr", left=np.ones((2, 2), np.float32)),
        LoraModule(f"{KEY}_c", None, np.ones((4, 2), np.float32), 1.0, kind="full"),
    ]  # fmt: skip
    write_lora(path, modules, {"ss_epoch": "1", "lora_adapter_metadata": '{"unet.r": 4}'})
    sound = path.read_bytes()
    header = 8 + int.from_bytes(sound[:8], "little")
    refused = 0
    for _ in range(250):
        content = bytearray(sound)
        for _ in range(int(draw.integers(1, 6))):
            start = 0 if draw.random() < 0.1 else 8  # the length itself now and then
            place = int(draw.integers(start, header if draw.random() < 0.9 else len(content)))
            how = draw.integers(4)
            if how == 0:
                content[place] = int(draw.integers(256))
            elif how == 1:
                content[place] = int(draw.choice(list(b'0123456789[]{},":-.eE')))
            elif how == 2:
                del content[place : place + int(draw.integers(1, 9))]
            else:
                content[place:place] = content[place : place + int(draw.integers(1, 40))]
            header = min(header, len(content))
        if draw.random() < 0.5:  # let the length fit again, so that the JSON is looked at
            end = bytes(content).rfind(b"}") + 1
            content[:8] = max(end - 8, 0).to_bytes(8, "little")
        path.write_bytes(content)
        try:
            read_lora(path)
        except LorascopeError as error:
            refused += 1
            assert str(path) in str(error)
        header = 8 + int.from_bytes(sound[:8], "little")
    assert refused > 100


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_refused(tmp_path, seed):
    draw = np.random.default_rng(seed)
    for size in (0, 1, 7, 8, 9, 100, 5000):
        path = tmp_path / "a.safetensors"
        noise = draw.bytes(size)
        path.write_bytes(noise)
        with pytest.raises(BadInputError):
            read_lora(path)
        with pytest.raises(BadInputError):
            read_lora(made(path, noise))


def test_zeros_at_the_end_are_no_tensor_and_empty_tensors_do_not_overlap(tmp_path):
    header = {"a": entry(0, 16), "b": entry(0, 0, shape=[0]), "c": entry(16, 16, shape=[0, 3])}
    assert set(read_header(made(tmp_path / "a.safetensors", header)).entries) == {"a", "b", "c"}
