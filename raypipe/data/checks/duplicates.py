"""Which rows agree in some columns, over all blocks, with bounded memory.

Each block gives one array a part of the hash range (`key_parts`); the arrays of all blocks for one part meet in one
task (`find_duplicates`).  Columns agree where their 64-bit hashes do: of 100 million different rows one pair is taken
for equal with probability 0.0003.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from raypipe.data.checks.rule import NUM_FIRST
from raypipe.data.table.columns import EXACT
from raypipe.data.table.hashing import Values, row_ids
from raypipe.errors import DataError

ROW_BYTES = 24
"""Of a row in the arrays of `key_parts`."""


class Repeat(NamedTuple):
    """A row that agrees with the one that is kept."""

    block: int
    position: int
    kept_block: int
    kept_position: int


@dataclass(frozen=True)
class Duplicates:
    """What one part of the hash range holds; small. `first`: the first NUM_FIRST repeats in the order of the rows."""

    num_checked: int
    num_broken: int
    first: tuple[Repeat, ...]


def key_parts(
    values: Mapping[str, Values], columns: Sequence[str], row_id: np.ndarray, position: np.ndarray, num_parts: int
) -> list[np.ndarray]:
    """The keys of a block's rows, cut by range of their hash; rows that miss a value are left out.

    Args:
        values: of the good rows (n).
        row_id: uint64 [n]. position: int64 [n], of each row in its block.
        num_parts: about the rows of all blocks * ROW_BYTES / the memory one task may use.
    Returns:
        num_parts arrays uint64 [m, 3]: hash, row id, position.
    Raises:
        DataError: whole numbers that float64 does not tell apart.
    """
    there = np.ones(len(row_id), bool)
    for name in columns:
        there &= _present(values[name], name)
    key = row_ids({name: values[name] for name in columns})
    rows = np.stack([key, row_id, position.astype(np.uint64)], axis=1)[there]
    part = ((key[there] >> np.uint64(32)) * np.uint64(num_parts)) >> np.uint64(32)
    order = np.argsort(part, kind="stable")
    ends = np.searchsorted(part[order], np.arange(1, num_parts, dtype=np.uint64))
    return np.split(rows[order], ends)


def find_duplicates(parts: Sequence[np.ndarray]) -> tuple[Duplicates, np.ndarray]:
    """Rows of one part of the hash range that agree with another one.

    Args:
        parts: one array of `key_parts` a block, in the order of the blocks.
    Returns:
        The summary, and all repeats as uint64 [r, 3]: block, position, row id. Of the rows that agree the one with the
        smallest row id is none of them; of equal rows, the first.
    """
    rows = np.concatenate([np.empty((0, 3), np.uint64), *parts])
    block = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    key, row_id, position = rows.T
    order = np.lexsort((position, block, row_id, key))
    key, row_id, position, block = key[order], row_id[order], position[order], block[order]
    is_first = np.ones(len(key), bool)
    is_first[1:] = key[1:] != key[:-1]
    kept = np.maximum.accumulate(np.where(is_first, np.arange(len(key)), 0))
    repeats = np.flatnonzero(~is_first)
    earliest = repeats[np.lexsort((position[repeats], block[repeats]))][:NUM_FIRST]
    first = tuple(
        Repeat(int(block[i]), int(position[i]), int(block[kept[i]]), int(position[kept[i]])) for i in earliest
    )
    found = np.stack([block[repeats].astype(np.uint64), position[repeats], row_id[repeats]], axis=1)
    return Duplicates(len(key), len(repeats), first), found


def all_repeats(found: Sequence[np.ndarray]) -> np.ndarray:
    """Rows that agree with another one in any of several ways.

    Args:
        found: what `find_duplicates` gave for each part and each way.
    Returns:
        uint64 [n], their row ids, sorted; a row id n times stands for n equal rows.
    """
    rows = np.concatenate([np.empty((0, 3), np.uint64), *found])
    block, position, row_id = rows.T
    # A row may repeat others in several ways and is still one row.
    _, once = np.unique((block << np.uint64(32)) | position, return_index=True)
    return np.sort(row_id[once])


def _present(values: Values, name: str) -> np.ndarray:
    if not isinstance(values, np.ndarray):
        return np.asarray(values.is_valid())
    if values.dtype.kind != "f" or values.ndim > 1:
        return np.ones(len(values), bool)
    if (np.isfinite(values) & (np.abs(values) >= EXACT)).any():
        raise DataError(
            f"data.expectations: unique on '{name}', which holds gaps or is no feature, and numbers of more than 53 "
            "bits, which cannot be told apart then",
            f"store '{name}' as text",
        )
    return ~np.isnan(values)
