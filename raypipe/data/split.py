"""Train, val or test by a hash of the row: the same row lands in the same split, forever.

Nothing here may change a result: data sets prepared years apart must agree.  tests/unit/data/test_split.py holds
golden values.  Two columns that hold equal values give equal hashes whatever their types: 1, 1.0 and a uint8 1 agree.
B rows; hashes are uint64 [B].
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from raypipe.spec.data import SplitSpec

SPLITS = ("train", "val", "test")
"""Index in this tuple is a row's split code."""

TRAIN, VAL, TEST = 0, 1, 2

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MISSING = np.uint64(0x6D697373696E6721)
_FRACTION = np.uint64(0x6672616374696F6E)

Values = np.ndarray | pa.Array
"""Numbers or booleans [B, *shape] as numpy, or text [B] as Arrow."""


def row_ids(columns: Mapping[str, Values]) -> np.ndarray:
    """A stable hash of each row's values.

    Args:
        columns: name -> values of all rows; the order of the columns does not matter.
    Returns:
        uint64 [B]; equal rows have equal ids, different rows differ (64 bits).
    """
    hashed = [_mix(_bits(values) ^ _seed(name)) for name, values in sorted(columns.items())]
    total = np.zeros(len(hashed[0]), np.uint64)
    for column_hash in hashed:
        total = total + column_hash  # wraps around; addition does not depend on the order of columns
    return _mix(total)


def split_codes(key_B: np.ndarray, spec: SplitSpec) -> np.ndarray:
    """The split of each row.

    Args:
        key_B: `row_ids` of the split key columns, or of the whole row.
    Returns:
        uint8 [B], indices into SPLITS.
    """
    share_B = (_mix(key_B ^ _seed(spec.salt)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    codes = np.full(len(key_B), TRAIN, np.uint8)
    codes[share_B < spec.test_frac + spec.val_frac] = VAL
    codes[share_B < spec.test_frac] = TEST
    return codes


def _seed(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(_digest(text.encode()), "little"))


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=8).digest()


def _mix(bits: np.ndarray) -> np.ndarray:
    """The splitmix64 finalizer (Steele, Lea and Flood 2014)."""
    bits = bits + _GOLDEN
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _bits(values: Values) -> np.ndarray:
    if isinstance(values, pa.Array):
        return _text_bits(values)
    return _tensor_bits(values) if values.ndim > 1 else _number_bits(values)


def _number_bits(values: np.ndarray) -> np.ndarray:
    """Whole numbers by their int64 value, others by the bits of their float64 value."""
    if values.dtype.kind in "bi":
        return values.astype(np.int64).view(np.uint64)
    if values.dtype.kind == "u" and (values.dtype.itemsize < 8 or not (values >> np.uint64(63)).any()):
        return values.astype(np.int64).view(np.uint64)
    numbers = values.astype(np.float64)
    whole = (numbers == np.floor(numbers)) & (numbers >= -(2.0**63)) & (numbers < 2.0**63)
    as_int = np.where(whole, numbers, 0.0).astype(np.int64).view(np.uint64)
    bits = np.where(whole, as_int, _mix(numbers.view(np.uint64) ^ _FRACTION))
    return np.where(np.isnan(numbers), _MISSING, bits)


def _text_bits(values: pa.Array) -> np.ndarray:
    encoded = values.dictionary_encode()
    distinct = [_digest(str(text).encode()) for text in encoded.dictionary.to_pylist()]
    table = np.concatenate([np.frombuffer(b"".join(distinct), "<u8").astype(np.uint64), [_MISSING]])
    return table[encoded.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False)]


def _tensor_bits(values: np.ndarray) -> np.ndarray:
    """Bytes of each row: of uint8 as they are, of all other numbers as little-endian float64."""
    if values.dtype != np.uint8:
        values = values.astype("<f8") + 0.0
        values[np.isnan(values)] = np.nan
    rows = memoryview(values.tobytes())
    size = values[0].nbytes if len(values) else 0
    digests = b"".join(_digest(rows[i * size : (i + 1) * size]) for i in range(len(values)))
    return np.frombuffer(digests, "<u8").astype(np.uint64)
