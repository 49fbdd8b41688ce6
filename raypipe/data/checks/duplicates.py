"""Which rows agree in some columns, over all blocks, with bounded memory.

Each block gives one array a part of the hash range (`key_parts`); the arrays of all blocks for one part meet in one
task (`find_duplicates`).  Columns agree where two independent hashes do, 128 bits together: of 10^10 different rows one
pair is taken for equal with probability 10^-19.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from raypipe.data.checks.rule import NUM_FIRST
from raypipe.data.table.row_hash import EXACT, SECOND_LANE, Values, row_hash
from raypipe.errors import DataError

NUM_FIELDS = 5
"""Of a row in the arrays of `key_parts`, 8 bytes each: hash, its second lane, row id, seen id, position."""

ROW_BYTES = 8 * NUM_FIELDS


class Keys(NamedTuple):
    """Of n rows: two hashes of some columns, uint64 [n], and bool [n]: whether the row has a value in all of them."""

    key: np.ndarray
    check: np.ndarray
    is_there: np.ndarray


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


def keys_of(values: Mapping[str, Values], columns: Sequence[str], good: np.ndarray) -> Keys:
    """The keys of the good rows of a block.

    Args:
        values: of all rows, see row_hash.with_whole_numbers.
        good: bool [B].
    Raises:
        DataError: whole numbers that float64 does not tell apart.
    """
    there = good.copy()
    for name in columns:
        there &= _present(values[name], name)
    held = {name: values[name] for name in columns}
    return Keys(row_hash(held)[good], row_hash(held, SECOND_LANE)[good], there[good])


def key_parts(
    keys: Keys, row_id: np.ndarray, seen_id: np.ndarray, position: np.ndarray, num_parts: int
) -> list[np.ndarray]:
    """The keys of a block's good rows (n), cut by range of their hash; rows that miss a value are left out.

    Args:
        row_id: uint64 [n], hash of features and target. seen_id: uint64 [n], of all columns that are read.
        position: int64 [n], of each row in its block.
        num_parts: about the rows of all blocks * ROW_BYTES / the memory one task may use.
    Returns:
        num_parts arrays uint64 [m, NUM_FIELDS].
    """
    rows = np.stack([keys.key, keys.check, row_id, seen_id, position.astype(np.uint64)], axis=1)[keys.is_there]
    part = ((rows[:, 0] >> np.uint64(32)) * np.uint64(num_parts)) >> np.uint64(32)
    order = np.argsort(part, kind="stable")
    ends = np.searchsorted(part[order], np.arange(1, num_parts, dtype=np.uint64))
    return np.split(rows[order], ends)


def find_duplicates(parts: Sequence[np.ndarray]) -> tuple[Duplicates, np.ndarray]:
    """Rows of one part of the hash range that agree with another one.

    Args:
        parts: one array of `key_parts` a block, in the order of the blocks.
    Returns:
        The summary, and all repeats as uint64 [r, 4]: block, position, row id, seen id. Of the rows that agree the one
        with the smallest seen id is none of them; of equal rows, the first.
    """
    rows = np.concatenate([np.empty((0, NUM_FIELDS), np.uint64), *parts])
    block = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    key, check, row_id, seen_id, position = rows.T
    order = np.lexsort((position, block, seen_id, check, key))
    key, check, position, block = key[order], check[order], position[order], block[order]
    is_first = np.ones(len(key), bool)
    is_first[1:] = (key[1:] != key[:-1]) | (check[1:] != check[:-1])
    kept = np.maximum.accumulate(np.where(is_first, np.arange(len(key)), 0))
    repeats = np.flatnonzero(~is_first)
    earliest = repeats[np.lexsort((position[repeats], block[repeats]))][:NUM_FIRST]
    first = tuple(
        Repeat(int(block[i]), int(position[i]), int(block[kept[i]]), int(position[kept[i]])) for i in earliest
    )
    ids = row_id[order][repeats], seen_id[order][repeats]
    return Duplicates(len(key), len(repeats), first), np.stack(
        [block[repeats].astype(np.uint64), position[repeats], *ids], axis=1
    )


def all_repeats(found: Sequence[np.ndarray]) -> np.ndarray:
    """Rows that agree with another one in any of several ways.

    Args:
        found: what `find_duplicates` gave for each part and each way.
    Returns:
        uint64 [n, 2], their row ids and seen ids, sorted; a pair n times stands for n equal rows.
    """
    rows = np.concatenate([np.empty((0, 4), np.uint64), *found])
    block, position, row_id, seen_id = rows.T
    # A row may repeat others in several ways and is still one row.
    _, once = np.unique((block << np.uint64(32)) | position, return_index=True)
    once = once[np.lexsort((seen_id[once], row_id[once]))]
    return np.stack([row_id[once], seen_id[once]], axis=1)


def is_repeat(repeats: np.ndarray, row_id: np.ndarray, seen_id: np.ndarray) -> np.ndarray:
    """Bool [R]: the rows that `repeats` (all_repeats) stands for; of equal rows, the first ones.

    Args:
        row_id, seen_id: uint64 [R], all rows of those row ids.
    """
    near = repeats[np.isin(repeats[:, 0], row_id)]
    rows = np.flatnonzero(np.isin(row_id, near[:, 0]))
    every = np.concatenate([near, np.stack([row_id[rows], seen_id[rows]], axis=1)])
    order = np.lexsort((every[:, 1], every[:, 0]))  # stable: repeats before the rows they stand for
    every = every[order]
    is_first = np.ones(len(every), bool)
    is_first[1:] = (every[1:] != every[:-1]).any(axis=1)
    starts = np.flatnonzero(is_first)
    lengths = np.diff(np.append(starts, len(every)))
    wanted = np.add.reduceat(order < len(near), starts, dtype=np.int64) if len(starts) else np.zeros(0, np.int64)
    place = np.arange(len(every)) - np.repeat(starts + wanted, lengths)
    is_wrong = (place >= 0) & (place < np.repeat(wanted, lengths))
    wrong = np.zeros(len(row_id), bool)
    wrong[rows[order[is_wrong] - len(near)]] = True
    return wrong


def _present(values: Values, name: str) -> np.ndarray:
    if not isinstance(values, np.ndarray):
        return np.asarray(values.is_valid())
    if values.dtype.kind != "f" or values.ndim > 1:
        return np.ones(len(values), bool)
    if (np.isfinite(values) & (np.abs(values) >= EXACT)).any():
        raise DataError(
            f"data.expectations: unique on '{name}', which holds whole numbers of more than 53 bits read as fractions, "
            "which cannot be told apart",
            f"say what it is in data.source.dtypes, e.g. {name}: uint64, or store it as text",
        )
    return ~np.isnan(values)
