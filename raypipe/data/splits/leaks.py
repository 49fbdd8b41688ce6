"""Rows that a model would be tested on although it has learned them.

Two rows are the same row when the model sees the same: features and target.  They meet in one range of row hashes, so
`copies` looks at a range at a time.  The rows of a group do not, so groups are cut by range of their own hash:
`group_parts` of each block, then `shared_groups` of each range of groups.
R rows; hashes are uint64 [R].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from raypipe.data.splits.base import SPLITS, TEST, TRAIN, UNDECIDED, VAL, SplitKeys, SplitState
from raypipe.data.splits.split import codes
from raypipe.spec.data import DataSpec

MAX_NAMED = 1000
"""Row ids that are named; all are counted."""

ORDINARY = 0.1
"""Equal rows are ordinary where a larger share of train's rows have equals in train."""


@dataclass(frozen=True)
class Leaks:
    """Rows, or groups, that are in two splits; leaks of different ranges merge.

    Attributes:
        pairs: `train and val` -> how many different ones are in both.
        named: hashes of the first MAX_NAMED, ascending: of rows, or of groups.
    """

    pairs: Counter[str] = field(default_factory=Counter)
    named: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def __add__(self, other: Leaks) -> Leaks:
        return Leaks(self.pairs + other.pairs, tuple(sorted((*self.named, *other.named))[:MAX_NAMED]))


@dataclass(frozen=True)
class Twins:
    """Rows that have equals; those of different ranges add up.

    Attributes:
        leaks: rows that are in several splits.
        num_rows: split -> its rows. num_twins: split -> those of its rows that train holds too (of val and test).
        train_once: rows of train that have no equal in train.
    """

    leaks: Leaks = field(default_factory=Leaks)
    num_rows: Counter[str] = field(default_factory=Counter)
    num_twins: Counter[str] = field(default_factory=Counter)
    train_once: int = 0

    def __add__(self, other: Twins) -> Twins:
        return Twins(
            self.leaks + other.leaks,
            self.num_rows + other.num_rows,
            self.num_twins + other.num_twins,
            self.train_once + other.train_once,
        )

    @property
    def chance(self) -> float:
        """Of a row drawn anew, how likely train holds an equal one: the share of train's rows that have equals there.

        Source: the coverage of a sample, Good 1953.
        """
        return 1 - self.train_once / self.num_rows["train"] if self.num_rows["train"] else 0.0

    @property
    def are_chance(self) -> bool:
        """Whether val and test have about as many rows that train holds too as chance gives, or train's own rows
        repeat often."""
        expected = {name: self.chance * num for name, num in self.num_rows.items()}
        as_many = all(num <= 2 * expected[name] + 3 * expected[name] ** 0.5 for name, num in self.num_twins.items())
        return self.chance > ORDINARY or (self.chance > 0 and as_many)


def copies(row_hash_R: np.ndarray, number_R: np.ndarray, code_R: np.ndarray) -> tuple[Twins, np.ndarray]:
    """Rows of one range that are in more than one split.

    Args:
        row_hash_R: in any order; all rows of a hash are there.
        number_R: tells different rows of one hash apart, see same_rows.
        code_R: uint8, indices into SPLITS.
    Returns:
        The rows that have equals, and bool [R]: rows that are in an earlier split too (train before val before test).
    """
    later = np.zeros(len(row_hash_R), bool)
    num_rows: Counter[str] = +Counter({name: int((code_R == i).sum()) for i, name in enumerate(SPLITS)})
    is_ordered = bool((row_hash_R[1:] >= row_hash_R[:-1]).all())
    ranks = np.arange(len(row_hash_R)) if is_ordered else np.argsort(row_hash_R, kind="stable")
    ordered = row_hash_R[ranks]
    same = ordered[1:] == ordered[:-1]
    tied = ranks[np.append(same, False) | np.append(False, same)] if same.any() else ranks[:0]
    tied = tied[np.lexsort((code_R[tied], number_R[tied], row_hash_R[tied]))]
    hashes, number, code = row_hash_R[tied], number_R[tied], code_R[tied]
    starts = _starts(hashes, number)
    lengths = np.diff(np.append(starts, len(tied)))
    later[tied] = code > np.repeat(code[starts], lengths)
    is_train = code == TRAIN
    in_train = np.repeat(is_train[starts], lengths)
    num_train = np.add.reduceat(is_train, starts, dtype=np.int64) if len(starts) else np.zeros(0, np.int64)
    once = num_rows["train"] - int(is_train.sum()) + int((num_train == 1).sum())
    num_twins = +Counter({SPLITS[i]: int(((code == i) & in_train).sum()) for i in (VAL, TEST)})
    return Twins(_leaks(hashes, code, starts), num_rows, num_twins, once), later


@dataclass(frozen=True)
class SharedGroups:
    """Groups that are in more than one split.

    Attributes:
        group: uint64, ascending.
        first: uint8, the earliest split of each.
    """

    leaks: Leaks
    group: np.ndarray
    first: np.ndarray

    def later(self, keys: SplitKeys, code_R: np.ndarray) -> np.ndarray:
        """Rows, bool [R], of a shared group that are not in the earliest of its splits."""
        if keys.group is None or not len(self.group):
            return np.zeros(len(code_R), bool)
        place = np.minimum(np.searchsorted(self.group, keys.group), len(self.group) - 1)
        return (self.group[place] == keys.group) & (code_R > self.first[place])


def group_parts(keys: SplitKeys, num_parts: int) -> list[SplitKeys]:
    """What `shared_groups` needs of one block, a part a range of groups; rows that say the same are there once.

    Returns:
        `num_parts` parts; none where no groups are watched.
    """
    if keys.group is None:
        return []
    undecided = keys.code == UNDECIDED
    fields = [keys.code, keys.group_check, keys.group]
    if undecided.any():
        fields += [keys.order, keys.stratum]
    there = [values for values in fields if values is not None]
    ranks = np.lexsort(there)
    changed = np.zeros(len(ranks), bool)
    for values in there:
        ordered = values[ranks]
        changed[1:] |= ordered[1:] != ordered[:-1]
    changed[:1] = True
    distinct = keys.take(ranks[changed])
    assert distinct.group is not None
    number = ((distinct.group >> np.uint64(32)) * np.uint64(num_parts)) >> np.uint64(32)
    return [distinct.take(number == part) for part in range(num_parts)]


def shared_groups(parts: Iterable[SplitKeys], state: SplitState, spec: DataSpec) -> SharedGroups:
    """Groups that are in more than one split, of one range of groups: that part of every block."""
    there = [part for part in parts if part.group is not None]
    # What splits with watched groups cut rows by is not their hash, so that no hash is needed here.
    found = [codes(part, np.zeros(len(part.code), np.uint64), state, spec) for part in there]
    none = np.zeros(0, np.uint64)
    group = np.concatenate([none, *(part.group for part in there if part.group is not None)])
    check = np.concatenate([none, *(part.group_check for part in there if part.group_check is not None)])
    code = np.concatenate([np.zeros(0, np.uint8), *found])
    ranks = np.lexsort((code, check, group))
    group, check, code = group[ranks], check[ranks], code[ranks]
    starts = _starts(group, check)
    ends = np.append(starts[1:], len(group))[: len(starts)]
    shared = starts[code[starts] != code[ends - 1]]
    return SharedGroups(_leaks(group, code, starts), group[shared], code[shared])


def all_shared(found: Sequence[SharedGroups]) -> SharedGroups:
    """Of all ranges together, in the order of the ranges; 9 bytes a shared group."""
    leaks = sum((one.leaks for one in found), Leaks())
    empty = SharedGroups(leaks, np.zeros(0, np.uint64), np.zeros(0, np.uint8))
    parts = [empty, *found]
    return SharedGroups(leaks, np.concatenate([p.group for p in parts]), np.concatenate([p.first for p in parts]))


def reason(code: int, what: str) -> str:
    """Why a row of a split was put aside by leaks: drop; `what` is `row` or `group`."""
    return f"the same {what} is in a split before {SPLITS[code]}"


def _starts(*fields: np.ndarray) -> np.ndarray:
    """Where each run of rows begins that are equal in all fields, of rows in order."""
    is_first = np.ones(len(fields[0]), bool)
    is_first[1:] = False
    for values in fields:
        is_first[1:] |= values[1:] != values[:-1]
    return np.flatnonzero(is_first)


def _leaks(ids: np.ndarray, code: np.ndarray, starts: np.ndarray) -> Leaks:
    """Of ids in order, each id's codes in order."""
    if not len(ids):
        return Leaks()
    present = np.bitwise_or.reduceat(np.uint8(1) << code, starts)
    pairs: Counter[str] = Counter()
    for a, b in ((0, 1), (0, 2), (1, 2)):
        both = np.uint8(1 << a | 1 << b)
        num = int(((present & both) == both).sum())
        if num:
            pairs[f"{SPLITS[a]} and {SPLITS[b]}"] = num
    several = ids[starts[(present & (present - np.uint8(1))) != 0]]
    return Leaks(pairs, tuple(several[:MAX_NAMED].tolist()))
