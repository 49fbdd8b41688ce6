"""A stable hash of each row's values: rows that may be the same meet by it.

64 bits are not identity: of 10^9 different rows two agree by chance once in 37 times.  Who calls two rows copies
compares them (same_rows.py), or their hashes in a second LANE.

Nothing here may change a result: data sets prepared years apart must agree.  tests/unit/data/test_row_hash.py holds
golden values.  Two columns that hold equal values give equal hashes whatever their types: 1, 1.0 and a uint8 1 agree.
B rows; hashes are uint64 [B].
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from raypipe.data.table.columns import by_name

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_MISSING = np.uint64(0x6D697373696E6721)
_FRACTION = np.uint64(0x6672616374696F6E)

CHUNK_ROWS = 16384
"""Rows hashed at a time: the handful of arrays this takes stay in the processor's cache."""

EXACT = 2**53
"""Whole numbers from here on are not all told apart as float64."""

SECOND_LANE = b"check"
"""Hashes in this lane are independent of those in the first: rows that agree in both agree in 128 bits."""

Values = np.ndarray | pa.Array
"""Numbers or booleans [B, *shape] as numpy, or text [B] as Arrow, plain or dictionary-encoded; hashes also take whole
numbers [B] as Arrow, which may have gaps (`with_whole_numbers`)."""

Hashes = Callable[[slice], np.ndarray]
"""The hash of each value of some rows of a column."""


def row_hash(columns: Mapping[str, Values], lane: bytes = b"") -> np.ndarray:
    """A stable hash of each row's values.

    Args:
        columns: name -> values of all rows; the order of the columns does not matter.
    Returns:
        uint64 [B]; equal rows have equal hashes, different rows differ but for chance (64 bits).
    """
    readers = [_hashes(values, seed(name, lane), lane) for name, values in columns.items()]
    num_rows = len(next(iter(columns.values())))
    hashes = np.zeros(num_rows, np.uint64)
    for start in range(0, num_rows, CHUNK_ROWS):
        rows = slice(start, min(start + CHUNK_ROWS, num_rows))
        total = hashes[rows]
        for read in readers:
            total += read(rows)  # wraps around; addition does not depend on the order of columns
        _mixed(total)
    return hashes


def with_whole_numbers(values: Mapping[str, Values], block: pa.Table, names: Iterable[str]) -> dict[str, Values]:
    """The values as they are hashed and compared: whole numbers that float64 rounds, as Arrow has them.

    Args:
        names: columns that hold whole numbers in every block, or none at all.
    """
    kept = dict(values)
    arrays = by_name(block)
    for name in names:
        held = kept.get(name)
        if not isinstance(held, np.ndarray) or held.dtype.kind != "f" or name not in arrays:
            continue
        column = arrays[name]
        if not pa.types.is_integer(column.type) or column.type.bit_width < 64:
            continue
        low, high = pc.min_max(column).as_py().values()
        if low is not None and (low < -EXACT or high > EXACT):
            kept[name] = column.combine_chunks()
    return kept


def mix(bits: np.ndarray) -> np.ndarray:
    """The splitmix64 finalizer (Steele, Lea and Flood 2014) of each value."""
    return _mixed(bits.copy())


def seed(text: str, lane: bytes = b"") -> np.uint64:
    """64 bits that stand for a text."""
    return np.uint64(int.from_bytes(_digest(text.encode(), lane), "little"))


def _digest(data: bytes | memoryview, lane: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8, person=lane).digest()


def _mixed(bits: np.ndarray) -> np.ndarray:
    bits += _GOLDEN
    bits ^= bits >> np.uint64(30)
    bits *= _FIRST
    bits ^= bits >> np.uint64(27)
    bits *= _SECOND
    bits ^= bits >> np.uint64(31)
    return bits


def _hashes(values: Values, salt: np.uint64, lane: bytes) -> Hashes:
    if not isinstance(values, np.ndarray):
        if pa.types.is_integer(values.type):
            return _gapped_hashes(values, salt)
        return _text_hashes(values, salt, lane)
    if values.ndim == 1:
        return lambda rows: _salted(_number_bits(values[rows]), salt)
    return lambda rows: _salted(_tensor_bits(values[rows], lane), salt)


def _salted(bits: np.ndarray, salt: np.uint64) -> np.ndarray:
    """Hashes of values from their 64 bits, in their place."""
    bits ^= salt
    return _mixed(bits)


def _number_bits(values: np.ndarray) -> np.ndarray:
    """Whole numbers by their int64 value, others by the bits of their float64 value."""
    if values.dtype.kind in "bi":
        return values.astype(np.int64).view(np.uint64)
    if values.dtype.kind == "u":
        bits = values.astype(np.uint64)
        large = bits >> np.uint64(63) != 0
        if large.any():  # as the float64 they are near to, and by how much they are not
            numbers = bits[large]
            bits[large] = _number_bits(numbers.astype(np.float64)) ^ _rounded_off(numbers)
        return bits
    numbers = values.astype(np.float64, copy=False)
    whole = np.floor(numbers) == numbers  # NaN is not
    if not whole.any():
        bits = mix(numbers.view(np.uint64) ^ _FRACTION)
    else:
        whole &= (numbers >= -(2.0**63)) & (numbers < 2.0**63)
        bits = np.where(whole, numbers, 0.0).astype(np.int64).view(np.uint64)
        others = ~whole
        bits[others] = mix(numbers[others].view(np.uint64) ^ _FRACTION)
    bits[np.isnan(numbers)] = _MISSING
    return bits


def _rounded_off(numbers: np.ndarray) -> np.ndarray:
    """Bits for what float64 rounds off whole numbers, uint64; 0 where it rounds nothing."""
    high, low = (numbers >> numbers.dtype.type(32)), (numbers & numbers.dtype.type(2**32 - 1))
    nearest = high.astype(np.float64) * 2.0**32 + low.astype(np.float64)
    nearest_low = np.fmod(nearest, 2.0**32)  # exact; the difference below is small, so that modulo 2**64 tells it
    nearest_high = (nearest - nearest_low) / 2.0**32
    off = (high.astype(np.int64) - nearest_high.astype(np.int64)) * 2**32
    off += low.astype(np.int64) - nearest_low.astype(np.int64)
    return np.where(off == 0, np.uint64(0), mix(off.view(np.uint64)))


def _gapped_hashes(values: pa.Array, salt: np.uint64) -> Hashes:
    numbers = values.fill_null(0).to_numpy(zero_copy_only=False)
    missing = values.is_null().to_numpy(zero_copy_only=False)

    def read(rows: slice) -> np.ndarray:
        bits = _number_bits(numbers[rows])
        return _salted(np.where(missing[rows], _MISSING, bits), salt)

    return read


def _text_hashes(values: pa.Array, salt: np.uint64, lane: bytes) -> Hashes:
    encoded = values if isinstance(values, pa.DictionaryArray) else values.dictionary_encode()
    texts = encoded.dictionary
    distinct = [_digest(str(text).encode(), lane) for text in texts.to_pylist()]
    table = _salted(np.concatenate([np.frombuffer(b"".join(distinct), "<u8").astype(np.uint64), [_MISSING]]), salt)
    index = encoded.indices
    if index.null_count:
        index = index.fill_null(len(distinct))
    index_B = index.to_numpy(zero_copy_only=False)
    return lambda rows: table.take(index_B[rows])


def _tensor_bits(values: np.ndarray, lane: bytes) -> np.ndarray:
    """Bytes of each row: of uint8 as they are, of all other numbers as little-endian float64 and what that rounds."""
    rounded = np.zeros((0, 1), np.uint64)
    if values.dtype != np.uint8:
        if values.dtype.kind in "iu" and values.dtype.itemsize == 8:
            rounded = _rounded_off(values)
        values = values.astype("<f8") + 0.0
        values[np.isnan(values)] = np.nan
    rows = memoryview(values.tobytes())
    size = values[0].nbytes if len(values) else 0
    digests = b"".join(_digest(rows[i * size : (i + 1) * size], lane) for i in range(len(values)))
    bits = np.frombuffer(digests, "<u8").astype(np.uint64)
    for i in np.flatnonzero(rounded.any(axis=tuple(range(1, rounded.ndim)))):
        bits[i] ^= np.uint64(int.from_bytes(_digest(rounded[i].tobytes(), lane), "little"))
    return bits
