"""Rows that a model would be tested on although it has learned them.

Copies of a row meet in one range of row ids, so `copies` looks at a range at a time.  The rows of a group do not, so
groups are cut by range of their own hash: `group_parts` of each block, then `shared_groups` of each range of groups.
R rows; hashes are uint64 [R].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from raypipe.data.splits.split import SPLITS, UNDECIDED, SplitKeys, SplitState, codes
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec

MAX_NAMED = 1000
"""Row ids that are named; all are counted."""

SHOWN = 5


@dataclass(frozen=True)
class Leaks:
    """Rows, or groups, that are in two splits; leaks of different ranges merge.

    Attributes:
        pairs: `train and val` -> how many different ones are in both.
        named: ids of the first MAX_NAMED, ascending: row ids, or hashes of the group.
    """

    pairs: Counter[str] = field(default_factory=Counter)
    named: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def __add__(self, other: Leaks) -> Leaks:
        return Leaks(self.pairs + other.pairs, tuple(sorted((*self.named, *other.named))[:MAX_NAMED]))


def copies(row_id_R: np.ndarray, code_R: np.ndarray) -> tuple[Leaks, np.ndarray]:
    """Rows of one range that are in more than one split.

    Args:
        row_id_R: in any order; all rows of an id are there.
        code_R: uint8, indices into SPLITS.
    Returns:
        The leaks, and bool [R]: rows that are in an earlier split too (train before val before test).
    """
    later = np.zeros(len(row_id_R), bool)
    ranks = np.argsort(row_id_R, kind="stable")
    ids = row_id_R[ranks]
    same = ids[1:] == ids[:-1]
    if not same.any():
        return Leaks(), later
    rows = ranks[np.append(same, False) | np.append(False, same)]
    rows = rows[np.lexsort((code_R[rows], row_id_R[rows]))]
    ids, code = row_id_R[rows], code_R[rows]
    starts = _starts(ids)
    later[rows] = code > np.repeat(code[starts], np.diff(np.append(starts, len(ids))))
    return _leaks(ids, code, starts), later


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
    fields = [keys.code, keys.group]
    if undecided.any():
        fields += [values for values in (keys.order, keys.stratum) if values is not None]
    ranks = np.lexsort(fields)
    changed = np.zeros(len(ranks), bool)
    for values in fields:
        ordered = values[ranks]
        changed[1:] |= ordered[1:] != ordered[:-1]
    changed[:1] = True
    distinct = keys.take(ranks[changed])
    assert distinct.group is not None
    number = ((distinct.group >> np.uint64(32)) * np.uint64(num_parts)) >> np.uint64(32)
    return [distinct.take(number == part) for part in range(num_parts)]


def shared_groups(parts: Iterable[SplitKeys], state: SplitState, spec: DataSpec) -> SharedGroups:
    """Groups that are in more than one split, of one range of groups: that part of every block."""
    decided = [(part.group, codes(part, state, spec)) for part in parts]
    group = np.concatenate([np.zeros(0, np.uint64), *(found for found, _ in decided if found is not None)])
    code = np.concatenate([np.zeros(0, np.uint8), *(found for _, found in decided)])
    ranks = np.lexsort((code, group))
    group, code = group[ranks], code[ranks]
    starts = _starts(group)
    ends = np.append(starts[1:], len(group))[: len(starts)]
    shared = starts[code[starts] != code[ends - 1]]
    return SharedGroups(_leaks(group, code, starts), group[shared], code[shared])


def all_shared(found: Sequence[SharedGroups]) -> SharedGroups:
    """Of all ranges together, in the order of the ranges; 9 bytes a shared group."""
    leaks = sum((one.leaks for one in found), Leaks())
    empty = SharedGroups(leaks, np.zeros(0, np.uint64), np.zeros(0, np.uint8))
    parts = [empty, *found]
    return SharedGroups(leaks, np.concatenate([p.group for p in parts]), np.concatenate([p.first for p in parts]))


def judge(rows: Leaks, groups: Leaks, spec: DataSpec) -> list[str]:
    """What to tell the user.

    Raises:
        DataError: there are leaks, and data.split.leaks is `fail`.
    """
    found: list[str] = []
    if rows:
        ids = _ids(rows)
        found.append(f"rows with the same content are in two splits: {_counts(rows)}; row ids {ids}")
    if groups:
        found.append(f"groups of {list(spec.watched_groups)} are in two splits: {_counts(groups)}")
    if found and spec.split.leaks == "fail":
        raise DataError(
            "data.split: " + "; ".join(found) + "; a model tested on what it has learned looks better than it is",
            "remove the copies, or set data.split.leaks: drop (the earlier split keeps them) or warn",
        )
    return [f"{text}{'; the later split gives them up' if spec.split.leaks == 'drop' else ''}" for text in found]


def reason(code: int, what: str) -> str:
    """Why a row of a split was put aside by leaks: drop; `what` is `row` or `group`."""
    return f"the same {what} is in a split before {SPLITS[code]}"


def _starts(ordered: np.ndarray) -> np.ndarray:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.concatenate([np.ones(min(1, len(ordered)), bool), ordered[1:] != ordered[:-1]]))


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


def _counts(leaks: Leaks) -> str:
    return ", ".join(f"{count} in {pair}" for pair, count in leaks.pairs.items())


def _ids(leaks: Leaks) -> str:
    more = ", ..." if len(leaks.named) > SHOWN else ""
    return ", ".join(f"{number:016x}" for number in leaks.named[:SHOWN]) + more
