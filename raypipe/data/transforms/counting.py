"""How often tokens or words occur in the rows of train: counted by shard, put together without growing without end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raypipe.data.transforms.base import Values, pc, some

MAX_ROWS = 1_000_000
"""Train rows that a vocabulary is fitted on: those with the smallest row ids stand for all."""

MAX_COUNTED = 2**18
"""Different tokens that a shard reports: its most frequent. Of all shards together, MERGED times as many are kept."""

MERGED = 4


@dataclass(frozen=True)
class Counts:
    """How often tokens occur in some rows.

    Attributes:
        tokens: code points of characters, or words; the most frequent first, of equally frequent ones the smaller.
        counts: int64, one a token.
        num_rows: that were counted.
        max_missed: how often a token that is left out occurs at most; 0 where none is.
    """

    tokens: pa.Array
    counts: pa.Array
    num_rows: int
    max_missed: int


def counted(tokens: Values, max_chars: int) -> tuple[pa.Array, pa.Array]:
    """Each token once, and how often it occurs; longer words are left out."""
    if isinstance(tokens, pa.Array):
        tokens = some(tokens, np.asarray(pc.less_equal(pc.utf8_length(tokens), max_chars)))
    return pc.value_counts(pa.array(tokens)).flatten()


def counts_of(parts: Sequence[tuple[pa.Array, pa.Array]], num_rows: int) -> Counts:
    """Of one shard.

    Args:
        parts: as `counted` gives them.
    """
    return _most_frequent(parts, num_rows, 0, MAX_COUNTED)


def both(first: Counts, second: Counts) -> Counts:
    """Of the rows of two."""
    parts = [(first.tokens, first.counts), (second.tokens, second.counts)]
    num_rows, max_missed = first.num_rows + second.num_rows, first.max_missed + second.max_missed
    return _most_frequent(parts, num_rows, max_missed, MERGED * MAX_COUNTED)


def count_at(counts: pa.Array, place: int) -> int:
    """The count at a place; 0 behind the last."""
    return counts[place].as_py() if place < len(counts) else 0


def _most_frequent(parts: Sequence[tuple[pa.Array, pa.Array]], num_rows: int, max_missed: int, limit: int) -> Counts:
    """All parts together, the most frequent `limit` of them."""
    tables = [pa.table({"token": tokens, "count": counts}) for tokens, counts in parts if len(tokens)]
    if not tables:
        return Counts(pa.array([], pa.string()), pa.array([], pa.int64()), num_rows, max_missed)
    table = pa.concat_tables(tables).group_by("token").aggregate([("count", "sum")])
    table = table.sort_by([("count_sum", "descending"), ("token", "ascending")])
    tokens, counts = table["token"].combine_chunks(), table["count_sum"].combine_chunks()
    return Counts(tokens[:limit], counts[:limit], num_rows, max_missed + count_at(counts, limit))
