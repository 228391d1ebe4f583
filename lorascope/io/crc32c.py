"""CRC32C, the checksum of TensorBoard's record files, over many records at once."""

import functools

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]
Checksums = NDArray[np.uint32]

POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed: RFC 3720, appendix B.4
ALL_ONES = 0xFFFFFFFF
BATCH = 8192  # records advanced together: what they touch stays in the processor's cache
BLOCK = 1024  # bytes; a longer record is cut into blocks, and these are advanced side by side


def _table() -> Checksums:
    register: Checksums = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        register = (register >> np.uint32(1)) ^ (register & np.uint32(1)) * np.uint32(POLYNOMIAL)
    return register


TABLE = _table()


def crc32c(data: Bytes, starts: Places, lengths: Places) -> Checksums:
    """Sum many records of one buffer, in one numpy step for each place inside a block.

    Parameters
    ----------
    data : (bytes,) array
    starts, lengths : (n,) arrays
        Where each record begins and how long it is, in bytes, all inside ``data``.

    Returns
    -------
    (n,) array of uint32
        In the order of ``starts``.

    Notes
    -----
    The checksum is linear: that of two pieces is the first one's, moved on over as many zeros as
    the second has bytes, added without carry to the second's. So the blocks of a long record are
    summed apart and then joined.
    """
    heads = lengths % BLOCK
    registers = _advanced(data, starts, heads, first=ALL_ONES)
    long = np.flatnonzero(lengths >= BLOCK)
    if long.size:
        counts = lengths[long] // BLOCK
        ends = np.cumsum(counts)
        within = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
        places = np.repeat(starts[long] + heads[long], counts) + within * BLOCK
        blocks = _advanced(data, places, np.full(places.size, BLOCK), first=0)
        for row, end, count in zip(long.tolist(), ends.tolist(), counts.tolist(), strict=True):
            registers[row] = _joined(int(registers[row]), blocks[end - count : end].tolist())
    return registers ^ np.uint32(ALL_ONES)


def masked(checksums: Checksums) -> Checksums:
    """Give checksums as record files store them: turned by 15 bits, and a constant added.

    A checksum over bytes that themselves hold checksums would else be a weak one.
    """
    turned = (checksums >> np.uint32(15)) | (checksums << np.uint32(17))
    return turned + np.uint32(0xA282EAD8)


def _advanced(data: Bytes, starts: Places, lengths: Places, *, first: int) -> Checksums:
    """Give the bare registers: begun at ``first``, moved on over each record."""
    found = np.full(starts.size, first, dtype=np.uint32)
    order = np.argsort(-lengths, kind="stable")
    for begin in range(0, order.size, BATCH):
        rows = order[begin : begin + BATCH]
        places, register = starts[rows], found[rows]
        # Longest first: the records that still have a byte at a step are the first ones.
        steps = np.arange(lengths[rows[0]])
        running = np.searchsorted(-lengths[rows], -steps, side="left")
        for step, count in enumerate(running.tolist()):
            now = register[:count]
            byte = data[places[:count] + step]
            register[:count] = TABLE[(now ^ byte) & 255] ^ (now >> 8)
        found[rows] = register
    return found


def _joined(register: int, blocks: list[int]) -> int:
    """Move a register on over blocks whose own registers, begun at 0, are known."""
    first, second, third, fourth = _over_a_block()
    for block in blocks:
        register = (
            first[register & 255]
            ^ second[register >> 8 & 255]
            ^ third[register >> 16 & 255]
            ^ fourth[register >> 24]
            ^ block
        )
    return register


@functools.cache
def _over_a_block() -> list[list[int]]:
    """Tabulate what one block of zeros makes of each byte of a register."""
    register = np.arange(256, dtype=np.uint32) << np.array([[0], [8], [16], [24]], dtype=np.uint32)
    for _ in range(BLOCK):
        register = TABLE[register & 255] ^ (register >> 8)
    tables: list[list[int]] = register.tolist()
    return tables
