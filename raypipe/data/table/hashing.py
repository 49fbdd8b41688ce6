"""A stable hash of each row's values.

Nothing here may change a result: data sets prepared years apart must agree.  tests/unit/data/test_hashing.py holds
golden values.  Two columns that hold equal values give equal hashes whatever their types: 1, 1.0 and a uint8 1 agree.
B rows; hashes are uint64 [B].
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_MISSING = np.uint64(0x6D697373696E6721)
_FRACTION = np.uint64(0x6672616374696F6E)

CHUNK_ROWS = 16384
"""Rows hashed at a time: the handful of arrays this takes stay in the processor's cache."""

Values = np.ndarray | pa.Array
"""Numbers or booleans [B, *shape] as numpy, or text [B] as Arrow, plain or dictionary-encoded."""

Hashes = Callable[[slice], np.ndarray]
"""The hash of each value of some rows of a column."""


def row_ids(columns: Mapping[str, Values]) -> np.ndarray:
    """A stable hash of each row's values.

    Args:
        columns: name -> values of all rows; the order of the columns does not matter.
    Returns:
        uint64 [B]; equal rows have equal ids, different rows differ (64 bits).
    """
    readers = [_hashes(values, seed(name)) for name, values in columns.items()]
    num_rows = len(next(iter(columns.values())))
    ids = np.zeros(num_rows, np.uint64)
    for start in range(0, num_rows, CHUNK_ROWS):
        rows = slice(start, min(start + CHUNK_ROWS, num_rows))
        total = ids[rows]
        for read in readers:
            total += read(rows)  # wraps around; addition does not depend on the order of columns
        _mixed(total)
    return ids


def mix(bits: np.ndarray) -> np.ndarray:
    """The splitmix64 finalizer (Steele, Lea and Flood 2014) of each value."""
    return _mixed(bits.copy())


def seed(text: str) -> np.uint64:
    """64 bits that stand for a text."""
    return np.uint64(int.from_bytes(_digest(text.encode()), "little"))


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=8).digest()


def _mixed(bits: np.ndarray) -> np.ndarray:
    bits += _GOLDEN
    bits ^= bits >> np.uint64(30)
    bits *= _FIRST
    bits ^= bits >> np.uint64(27)
    bits *= _SECOND
    bits ^= bits >> np.uint64(31)
    return bits


def _hashes(values: Values, salt: np.uint64) -> Hashes:
    if isinstance(values, pa.Array):
        return _text_hashes(values, salt)
    bits = _number_bits if values.ndim == 1 else _tensor_bits
    return lambda rows: _salted(bits(values[rows]), salt)


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
        if large.any():
            bits[large] = _number_bits(values[large].astype(np.float64))
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


def _text_hashes(values: pa.Array, salt: np.uint64) -> Hashes:
    encoded = values if isinstance(values, pa.DictionaryArray) else values.dictionary_encode()
    texts = encoded.dictionary
    distinct = [_digest(str(text).encode()) for text in texts.to_pylist()]
    table = _salted(np.concatenate([np.frombuffer(b"".join(distinct), "<u8").astype(np.uint64), [_MISSING]]), salt)
    index = encoded.indices
    if index.null_count:
        index = index.fill_null(len(distinct))
    index_B = index.to_numpy(zero_copy_only=False)
    return lambda rows: table.take(index_B[rows])


def _tensor_bits(values: np.ndarray) -> np.ndarray:
    """Bytes of each row: of uint8 as they are, of all other numbers as little-endian float64."""
    if values.dtype != np.uint8:
        values = values.astype("<f8") + 0.0
        values[np.isnan(values)] = np.nan
    rows = memoryview(values.tobytes())
    size = values[0].nbytes if len(values) else 0
    digests = b"".join(_digest(rows[i * size : (i + 1) * size]) for i in range(len(values)))
    return np.frombuffer(digests, "<u8").astype(np.uint64)
