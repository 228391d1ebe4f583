"""Many records are summed at once, each as if it were alone."""

import numpy as np
import pytest
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow

from lorascope.io.crc32c import BLOCK, crc32c, masked


def summed(content: bytes) -> int:
    data = np.frombuffer(content, dtype=np.uint8)
    return int(crc32c(data, np.array([0]), np.array([data.size]))[0])


@pytest.mark.parametrize(
    ("content", "known"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_the_known_answers_of_rfc_3720(content, known):
    assert summed(content) == known


def test_records_of_all_lengths_in_any_order_are_summed_as_tensorboard_sums_them(rng):
    data = rng.integers(0, 256, 9000, dtype=np.uint8)
    lengths = np.array([0, 1, 33, 34, BLOCK - 1, BLOCK, BLOCK + 1, 5000, 2 * BLOCK, 8, 33, 9000])
    starts = np.array([int(rng.integers(0, data.size - n + 1)) for n in lengths])
    order = rng.permutation(len(lengths))
    found = masked(crc32c(data, starts[order], lengths[order]))
    for row, sum_found in zip(order, found, strict=True):
        content = data[starts[row] : starts[row] + lengths[row]].tobytes()
        assert sum_found == pywrap_tensorflow.masked_crc32c(content), lengths[row]


def test_more_records_than_are_advanced_together_are_all_summed(rng):
    data = rng.integers(0, 256, 20_040, dtype=np.uint8)
    starts = np.arange(20_000)
    lengths = rng.integers(0, 40, starts.size)
    found = crc32c(data, starts, lengths)
    for row in [*range(0, 20_000, 997), 19_999]:
        content = data[row : row + lengths[row]].tobytes()
        assert found[row] == pywrap_tensorflow.crc32c(content)


@pytest.mark.parametrize("length", [8, 3 * BLOCK + 5])
def test_one_flipped_bit_anywhere_changes_the_sum(rng, length):
    content = rng.bytes(length)
    for place in range(0, length, 97):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        assert summed(bytes(flipped)) != summed(content)


def test_no_records_have_no_sums():
    nothing = np.zeros(0, dtype=np.int64)
    assert crc32c(np.zeros(5, dtype=np.uint8), nothing, nothing).size == 0
