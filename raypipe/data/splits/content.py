"""How many different rows there are, and whether rows are equal because there are few ways to differ.

Each block gives the rows with the smallest hashes; those of all blocks are a uniform sample of the different rows, with
the number of copies of each, that no cut into blocks changes.  B rows, s sampled ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe.data.table.row_hash import Values
from raypipe.data.transforms.base import OF_PROSE
from raypipe.spec.data import DataSpec

SAMPLE_ROWS = 1024
"""Different rows of the sample; where there are no more, all are known."""

FEW_ROWS = 100
"""Rows that weigh as much as fewer different ones of equal weight make a division by content lopsided: a split of a
fifth of them is off by a fifth of its size more often than not."""

RICH_VALUES = 16
"""Arrays of as many values, e.g. pictures and sound, do not repeat by chance."""

RICH_TEXT = 40
"""Texts of as many characters do not repeat by chance, unless they are encoded as categories."""

STEP = 100.0
"""Numbers in hundredths, and coarser, repeat by chance; finer ones do not."""

CATEGORICAL = ("one_hot", "ordinal", "hashing", "cross")


@dataclass(frozen=True)
class Content:
    """Which rows there are.

    Attributes:
        row_hash: uint64 [s], the smallest, ascending. copies: int64 [s], rows of each.
        is_rich: bool [s]: the row holds a value that chance does not repeat.
    """

    num_rows: int = 0
    row_hash: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    copies: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    is_rich: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    @property
    def num_different(self) -> int | None:
        """Different rows; None where there are more than the sample holds."""
        return len(self.row_hash) if self.copies.sum() == self.num_rows else None

    @property
    def repeats_by_chance(self) -> bool:
        """Whether rows may be equal because there are few ways to differ; not so with pictures, sound, text and
        numbers of many digits."""
        return 2 * int(self.is_rich.sum()) < len(self.is_rich)

    @property
    def is_few(self) -> bool:
        """Whether so few different rows repeat by chance that a division by content would be lopsided."""
        if self.num_different is None or not self.num_rows or not self.repeats_by_chance:
            return False
        weight = self.copies / self.num_rows
        return 2 * self.num_different <= self.num_rows and 1 / float(weight @ weight) < FEW_ROWS


def content_of(
    values: Mapping[str, Values], features: Sequence[str], row_hash_B: np.ndarray, spec: DataSpec
) -> Content:
    """Of the rows of one block."""
    hashes, first, copies = _smallest(row_hash_B)
    is_rich = np.zeros(len(first), bool)
    encoded = {name for t in spec.transforms if t.kind in CATEGORICAL for name in t.columns}
    prose = {name for t in spec.transforms if t.kind in OF_PROSE for name in t.columns}
    for name in features:
        if name in prose:
            is_rich[:] = True
        elif name not in encoded:
            is_rich |= _is_rich(values[name], first)
    return Content(len(row_hash_B), hashes, copies, is_rich)


def merged(parts: Iterable[Content]) -> Content:
    """Of the rows of all blocks."""
    total = Content()
    for part in parts:
        every = np.concatenate([total.row_hash, part.row_hash])
        hashes, first, place = np.unique(every, return_index=True, return_inverse=True)
        copies = np.zeros(len(hashes), np.int64)
        np.add.at(copies, place, np.concatenate([total.copies, part.copies]))
        is_rich = np.concatenate([total.is_rich, part.is_rich])[first]
        some = slice(0, SAMPLE_ROWS)
        total = Content(total.num_rows + part.num_rows, hashes[some], copies[some], is_rich[some])
    return total


def _smallest(row_hash_B: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The smallest different hashes, a row of each, and how many rows have it."""
    wanted = SAMPLE_ROWS
    rows = np.arange(len(row_hash_B))
    while wanted < len(row_hash_B):
        some = np.flatnonzero(row_hash_B <= np.partition(row_hash_B, wanted - 1)[wanted - 1])
        if len(np.unique(row_hash_B[some])) >= SAMPLE_ROWS:
            rows = some
            break
        wanted *= 8
    hashes, first, copies = np.unique(row_hash_B[rows], return_index=True, return_counts=True)
    return hashes[:SAMPLE_ROWS], rows[first[:SAMPLE_ROWS]], copies[:SAMPLE_ROWS].astype(np.int64)


def _is_rich(values: Values, rows: np.ndarray) -> np.ndarray:
    """Bool [s]: whether chance would hardly repeat the value of a row."""
    if isinstance(values, pa.Array):
        texts = values.take(pa.array(rows)).cast(pa.string())
        lengths = pc.call_function("utf8_length", [texts]).fill_null(0).to_numpy(zero_copy_only=False)
        return lengths >= RICH_TEXT
    some = values[rows]
    if math.prod(some.shape[1:]) >= RICH_VALUES:
        return np.ones(len(some), bool)
    if some.dtype.kind != "f":
        return np.zeros(len(some), bool)
    steps = some.astype(np.float64) * STEP
    near = 1e-6 + 4 * STEP * np.abs(some) * np.finfo(some.dtype).eps
    with np.errstate(invalid="ignore"):
        is_fine = np.abs(steps - np.rint(steps)) > near
    return np.logical_or.reduce(is_fine.reshape(len(is_fine), math.prod(some.shape[1:])), axis=1)
