"""Rows that have to meet although their row ids differ: those of one group, and those of one key.

Their hashes travel alone, 16 to 40 bytes a row and key: cut by range where one task should not hold them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import ray

from raypipe.data.checks.duplicates import ROW_BYTES, Duplicates, all_repeats, find_duplicates
from raypipe.data.checks.expectations import keys_of
from raypipe.data.shuffle import row_ranges
from raypipe.data.shuffle.gather import ToSetAside
from raypipe.data.shuffle.row_ranges import num_parts, range_numbers
from raypipe.data.shuffle.scatter import BlockKeys
from raypipe.data.shuffle.scatter_all import Scattered
from raypipe.data.splits import leaks
from raypipe.data.splits.base import SplitState
from raypipe.data.splits.content import Content
from raypipe.data.splits.leaks import Leaks, SharedGroups
from raypipe.data.splits.ranks import Tally
from raypipe.data.splits.split import decide as decide_splits
from raypipe.data.tasks import collect
from raypipe.spec.data import DataSpec

GROUP_BYTES = 33
"""Of a row whose group is watched, at most: group, its second hash, order and stratum, and the split."""

MAX_RANGES = 256
"""Ranges of group and key hashes: those of 10**9 rows take about 96 MiB each."""


@dataclass(frozen=True)
class Meeting:
    """What was found where rows with one group or one key meet.

    Attributes:
        state: where the borders between the splits are.
        aside: a reference to gather.ToSetAside.
        groups: groups in several splits.
        duplicates: position of each `unique` expectation -> what each range holds.
    """

    state: SplitState
    aside: ray.ObjectRef
    groups: Leaks
    duplicates: dict[int, list[Duplicates]]


def meet_by_key(scattered: Scattered, spec: DataSpec) -> Meeting:
    """Divide rows into splits, and find groups in several of them and repeated keys.

    Args:
        scattered: without its tallies and hashes afterwards.
    Raises:
        DataError: a class, a group or a time cannot be in the splits that the spec wants.
    """
    deciding = _decide_task.remote(spec, scattered.different, list(scattered.tallies))
    (state,) = collect([deciding], "dividing rows into splits")
    scattered.tallies.clear()
    unique = keys_of(spec.expectations)
    row_bytes = len(unique) * ROW_BYTES + (GROUP_BYTES if spec.watched_groups else 0)
    ranges = _by_range(scattered.keys, row_bytes * scattered.num_good)
    scattered.keys.clear()
    made = [_meet_task.remote(state, spec, *pieces) for pieces in ranges]
    ranges.clear()
    summaries = collect([summary for summary, _, _ in made], "looking for repeated keys and groups")
    quarantined = [i for i in unique if spec.expectations[i].on_fail == "quarantine"]
    keys = " or the same ".join(str(list(unique[i])) for i in quarantined)
    reason = f"another row has the same {keys} (unique)"
    per_range = chain.from_iterable((groups, repeats) for _, groups, repeats in made)
    aside = _set_aside_task.remote(quarantined, reason, *per_range)
    return Meeting(
        state,
        aside,
        sum((shared for shared, _ in summaries), Leaks()),
        {i: [duplicates[i] for _, duplicates in summaries] for i in unique},
    )


def _by_range(watched: Sequence[ray.ObjectRef], num_bytes: int) -> list[list[ray.ObjectRef]]:
    """References to the hashes of all blocks in each range, in the order of the blocks."""
    if not watched:
        return []
    num_ranges = min(MAX_RANGES, num_parts(num_bytes, row_ranges.RANGE_BYTES))
    if num_ranges == 1:
        return [list(watched)]
    # Neighbours together, so that no piece is small enough for the driver's memory.
    num_tasks = max(1, num_bytes // max(row_ranges.RANGE_BYTES, num_ranges * row_ranges.PIECE_BYTES))
    groups = [chosen.tolist() for chosen in np.array_split(np.arange(len(watched)), num_tasks) if len(chosen)]
    cut = [_cut_task.options(num_returns=num_ranges).remote(num_ranges, *(watched[i] for i in some)) for some in groups]
    return [list(of_range) for of_range in zip(*cut, strict=True)]


def cut_keys(num_ranges: int, *tasks: Sequence[BlockKeys]) -> list[list[BlockKeys]]:
    """The hashes of some blocks in each of `num_ranges` ranges.

    Args:
        tasks: of each task of scatter.py, the BlockKeys of its blocks.
    """
    cut = [_cut(block, num_ranges) for blocks in tasks for block in blocks]
    return [list(of_range) for of_range in zip(*cut, strict=True)]


def _cut(block: BlockKeys, num_ranges: int) -> list[BlockKeys]:
    groups = leaks.group_parts(block.groups, num_ranges) if block.groups is not None else [None] * num_ranges
    keys = {i: _cut_rows(rows, num_ranges) for i, rows in block.keys.items()}
    return [BlockKeys(groups[n], {i: parts[n] for i, parts in keys.items()}) for n in range(num_ranges)]


def _cut_rows(rows: np.ndarray, num_ranges: int) -> list[np.ndarray]:
    """The rows [m, NUM_FIELDS] of duplicates.key_parts by range of their first column, the hash."""
    number = range_numbers(rows[:, 0], num_ranges)
    order = np.argsort(number, kind="stable")
    return np.split(rows[order], np.searchsorted(number[order], np.arange(1, num_ranges, dtype=np.uint64)))


def meet(state: SplitState, spec: DataSpec, *tasks: Sequence[BlockKeys]) -> list[Any]:
    """What all blocks have in one range of group and key hashes.

    Args:
        tasks: BlockKeys of every block, in order.
    Returns:
        What the driver learns, Leaks and position of a `unique` expectation -> Duplicates; then what does grow with
        the rows, SharedGroups and position -> repeats (see find_duplicates).
    """
    blocks = [block for some in tasks for block in some]
    groups = leaks.shared_groups([b.groups for b in blocks if b.groups is not None], state, spec)
    found = {i: find_duplicates([b.keys[i] for b in blocks]) for i in blocks[0].keys}
    summary = groups.leaks, {i: duplicates for i, (duplicates, _) in found.items()}
    return [summary, groups, {i: repeats for i, (_, repeats) in found.items()}]


def to_set_aside(quarantined: Sequence[int], reason: str, *per_range: Any) -> ToSetAside:
    """Of all ranges together.

    Args:
        quarantined: positions of the expectations whose repeats are set aside.
        per_range: SharedGroups and repeats of each range, in turn.
    """
    groups: Sequence[SharedGroups] = per_range[0::2]
    repeats: Sequence[dict[int, np.ndarray]] = per_range[1::2]
    return ToSetAside(leaks.all_shared(groups), all_repeats([one[i] for one in repeats for i in quarantined]), reason)


def decide(spec: DataSpec, content: Content, tallies: Sequence[ray.ObjectRef]) -> SplitState:
    """See split.decide; one tally is fetched at a time.

    Args:
        tallies: references to the Tally of every task of scatter.py.
    """

    def fetched() -> Iterator[Tally]:
        for tally in tallies:
            yield ray.get(tally)

    return decide_splits(fetched, content, spec)


# No CPU: what it waits for may have been lost with a node, and has to be made again on the last CPU there is.
_decide_task: Any = ray.remote(num_cpus=0)(decide)
_cut_task: Any = ray.remote(cut_keys)
_meet_task: Any = ray.remote(num_returns=3)(meet)
_set_aside_task: Any = ray.remote(to_set_aside)
