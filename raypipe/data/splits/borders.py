"""Where splits are cut that no row can know alone: by class, by group, by share of the time.

Each block is tallied (how many rows there are of each order), one task merges the tallies of all blocks and cuts.  That
task holds 12 bytes a distinct row, group or time; the kinds that need no borders (hash, column, directories, a time
split with given borders) have empty tallies.  U distinct orders.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.data.splits.split import UNDECIDED, SplitKeys, SplitState
from raypipe.data.table.hashing import Values
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from raypipe.spec.splits import FractionSplit, GroupedSplit, StratifiedSplit, TimeSplit

MAX_STRATA = 10_000
"""Classes a stratified split takes; more are no classes."""

AFTER_ALL = np.uint64(2**64 - 1)


@dataclass(frozen=True)
class Tally:
    """How many undecided rows there are of each order.

    Attributes:
        counts: stratum -> its distinct orders, ascending [U], and the rows of each, whole numbers [U]; there is one
            stratum, 0, where rows are not stratified.
        names: stratum -> its value, as messages show it.
    """

    counts: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)


def tally(keys: SplitKeys, values: Mapping[str, Values], spec: DataSpec) -> Tally:
    """What the rows of one block say about the borders.

    Raises:
        DataError: the column of a stratified split holds no classes.
    """
    undecided = np.flatnonzero(keys.code == UNDECIDED)
    if keys.order is None or not len(undecided):
        return Tally()
    order = keys.order[undecided]
    if keys.stratum is None:
        return Tally({0: _counted(order)})
    by = str(spec.stratify_by)
    strata, first, inverse = np.unique(keys.stratum[undecided], return_index=True, return_inverse=True)
    if len(strata) > MAX_STRATA:
        raise _no_classes(by)
    ends = np.cumsum(np.bincount(inverse, minlength=len(strata)))[:-1]
    parts = np.split(order[np.argsort(inverse, kind="stable")], ends)
    shown = [_shown(values[by][int(row)]) for row in undecided[first]]
    numbers = strata.tolist()
    return Tally(
        {number: _counted(part) for number, part in zip(numbers, parts, strict=True)},
        dict(zip(numbers, shown, strict=True)),
    )


def merge(tallies: Iterable[Tally]) -> Tally:
    """The tally of several blocks; the same for any cut of the rows into blocks."""
    parts: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    names: dict[int, str] = {}
    for one in tallies:
        names.update(one.names)
        for stratum, counted in one.counts.items():
            parts.setdefault(stratum, []).append(counted)
    return Tally({stratum: _summed(parts[stratum]) for stratum in sorted(parts)}, names)


def decide(tallies: Iterable[Tally], spec: DataSpec) -> SplitState:
    """The borders between the splits, over all rows.

    Raises:
        DataError: a class, a group or a time cannot be in the splits that the spec wants.
    """
    split = spec.split
    whole = merge(tallies)
    state: SplitState = {"kind": split.kind}
    if isinstance(split, StratifiedSplit) and whole.counts:
        state["strata"] = _cut_strata(whole, split, str(spec.stratify_by))
    elif isinstance(split, GroupedSplit) and whole.counts:
        state |= _cut_groups(*whole.counts[0], split)
    elif isinstance(split, TimeSplit) and whole.counts:
        state |= _cut_times(*whole.counts[0], split)
    return state


def _cut_strata(whole: Tally, split: StratifiedSplit, by: str) -> dict[str, list[int]]:
    if len(whole.counts) > MAX_STRATA:
        raise _no_classes(by)
    rows = np.array([int(count.sum()) for _, count in whole.counts.values()], np.int64)
    sizes = _sizes(int(rows.sum()), split)
    test = _in_proportion(rows, sizes["test"])
    val = _in_proportion(rows - test, sizes["val"])
    state: dict[str, list[int]] = {}
    for (stratum, (order, count)), num_test, num_val in zip(whole.counts.items(), test, val, strict=True):
        if len(order) < len(split.wanted):
            same = "" if len(order) == count.sum() else f", {len(order)} of them different"
            raise DataError(
                f"data.split: class {whole.names[stratum]} of '{by}' has {int(count.sum())} row(s){same}; to be in "
                f"{', '.join(split.wanted)} it needs {len(split.wanted)} different ones",
                "give more rows of it, leave it out, set data.split.val_frac or test_frac to 0, or use kind: hash",
            )
        state[f"{stratum:016x}"] = _below(order, count, {"test": int(num_test), "val": int(num_val)}, split)
    return state


def _cut_groups(order: np.ndarray, count: np.ndarray, split: GroupedSplit) -> SplitState:
    num_rows, parts = int(count.sum()), split.wanted
    sizes = _sizes(num_rows, split)
    if len(order) < len(parts):
        raise DataError(
            f"data.split: the rows are of {len(order)} group(s) of {split.group}; {', '.join(parts)} need one each",
            "group by columns with more values, or set data.split.val_frac or test_frac to 0",
        )
    small = count <= max(sizes.values()) if len(parts) > 1 else np.ones(len(count), bool)
    if count[small].sum() < sum(sizes.values()) or small.sum() < len(parts) - 1:
        held = ", ".join(f"{name} {size}" for name, size in sizes.items() if size)
        raise DataError(
            f"data.split: a group of {split.group} has {int(count.max())} of {num_rows} rows, and a group is in one "
            f"split; what is left cannot fill the splits as wanted ({held} rows)",
            "set data.split.val_frac or test_frac above the share of the group, group by columns with more values, or "
            "leave the group out",
        )
    if small.all():
        val_below, test_below = _below(order, count, sizes, split)
    else:  # train has the large groups, so val and test may take all the others
        kept, rows = np.append(order[small], AFTER_ALL), np.append(count[small], 1)
        val_below, test_below = _below(kept, rows, sizes, split)
    return {"val_below": val_below, "test_below": test_below, "train": order[~small].tolist()}


def _cut_times(order: np.ndarray, count: np.ndarray, split: TimeSplit) -> SplitState:
    parts = split.wanted
    if len(order) < len(parts):
        raise DataError(
            f"data.split: '{split.column}' has {len(order)} different time(s); {', '.join(parts)} need one each",
            "name the column that holds the time in data.split.column, or use kind: hash",
        )
    sizes = _sizes(int(count.sum()), split)
    sizes["train"] = int(count.sum()) - sum(sizes.values())
    ends = dict(zip(parts[1:], _cut(count, [sizes[name] for name in parts[:-1]]), strict=True))
    return {f"{name}_from": order[ends[name]].item() if name in ends else None for name in ("val", "test")}


def _below(order: np.ndarray, count: np.ndarray, sizes: Mapping[str, int], split: FractionSplit) -> list[int]:
    """[val_below, test_below]: test has the smallest orders, then val, then train."""
    first = [name for name in ("test", "val") if name in split.wanted]
    ends = dict(zip(first, _cut(count, [sizes[name] for name in first]), strict=True))
    test_below = int(order[ends["test"]]) if "test" in ends else 0
    return [int(order[ends["val"]]) if "val" in ends else test_below, test_below]


def _cut(count: np.ndarray, sizes: Sequence[int]) -> list[int]:
    """Cut ascending orders into neighbouring parts with about as many rows as wanted, and at least one order each.

    Args:
        count: rows of each order [U]; U is at least the number of parts.
        sizes: wanted rows of each part but the last, which takes what is left.
    Returns:
        Where each part but the last ends, as positions in [U].
    """
    before = np.concatenate([[0], np.cumsum(count, dtype=np.int64)])
    ends: list[int] = []
    for index, size in enumerate(sizes):
        start = ends[-1] if ends else 0
        wanted = before[start] + size
        end = min(int(np.searchsorted(before, wanted)), len(count))
        if end and wanted - before[end - 1] < before[end] - wanted:
            end -= 1
        ends.append(min(max(end, start + 1), len(count) - len(sizes) + index))
    return ends


def _sizes(num_rows: int, split: FractionSplit) -> dict[str, int]:
    """Rows of val and test, rounded up as scikit-learn does."""
    shares = {"val": split.val_frac, "test": split.test_frac}
    return {name: ceil(Fraction(str(share)) * num_rows) for name, share in shares.items()}


def _in_proportion(rows: np.ndarray, total: int) -> np.ndarray:
    """`total` rows over classes of so many rows: rounded down, then one more for those with the largest remainder."""
    share, left = np.divmod(rows * total, rows.sum())
    share[np.argsort(-left, kind="stable")[: total - int(share.sum())]] += 1
    return share


def _counted(order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distinct, count = np.unique(order, return_counts=True)
    return distinct, count.astype(np.uint32)


def _summed(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    order = np.concatenate([part for part, _ in parts])
    ranks = np.argsort(order, kind="stable")
    order, count = order[ranks], np.concatenate([part for _, part in parts])[ranks]
    starts = np.flatnonzero(np.concatenate([[True], order[1:] != order[:-1]]))
    return order[starts], np.add.reduceat(count.astype(np.int64), starts)


def _no_classes(by: str) -> DataError:
    return DataError(
        f"data.split: '{by}' holds more than {MAX_STRATA} different values, which are no classes",
        "name a column of classes in data.split.by, or use kind: hash",
    )


def _shown(value: Any) -> str:
    text = repr(value.as_py() if isinstance(value, pa.Scalar) else value.tolist())
    return text if len(text) <= 80 else text[:77] + "..."
