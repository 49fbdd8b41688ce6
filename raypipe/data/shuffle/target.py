"""What the train split's target holds: the figures a training scales numbers by, and how often each class is there.

The rows of a shard depend on the data alone, and what shards hold adds up to the same bits in any order, so that no
machine and no number of workers changes what is trained.  B rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from raypipe.data.shards import encode_target, read_shard, stored_target
from raypipe.data.table import columns
from raypipe.data.table.sums import Sums, sums
from raypipe.records import DatasetVersion, TargetStatistics
from raypipe.storage import Store


@dataclass(frozen=True)
class TargetPart:
    """What some rows hold; parts add up in any order.

    Attributes:
        min, max: of all values.
        logs: of the natural logarithms of the values above 0.
    """

    min: float = float("inf")
    max: float = float("-inf")
    values: Sums = field(default_factory=Sums)
    logs: Sums = field(default_factory=Sums)

    def __add__(self, other: TargetPart) -> TargetPart:
        return TargetPart(
            min(self.min, other.min), max(self.max, other.max), self.values + other.values, self.logs + other.logs
        )


def part(target: np.ndarray) -> TargetPart:
    """Of finite values, float64 [B], at least one."""
    logs = np.log(target[target > 0])
    return TargetPart(float(target.min()), float(target.max()), sums(target), sums(logs))


def finish(parts: Iterable[TargetPart]) -> TargetStatistics:
    """The figures of all rows together, at least one."""
    whole = reduce(TargetPart.__add__, parts)
    mean, std = whole.values.mean, whole.values.std
    assert mean is not None and std is not None, "a train split has rows"
    num_not_positive = whole.values.count - whole.logs.count
    return TargetStatistics(
        num_rows=whole.values.count,
        min=whole.min,
        max=whole.max,
        mean=mean,
        std=std,
        num_not_positive=num_not_positive,
        log_mean=None if num_not_positive else whole.logs.mean,
        log_std=None if num_not_positive else whole.logs.std,
    )


def statistics(store: Store, dataset: DatasetVersion) -> tuple[TargetStatistics, ...]:
    """Of each target of a regression's train rows, at least one; read from the shards where the record was written
    without them.

    Raises:
        DigestMismatch, ObjectMissing: a shard is not what was written.
    """
    known = dataset.target_statistics
    if known is not None:
        return known if isinstance(known, tuple) else (known,)
    (name,) = dataset.signature.targets  # several came after these were kept
    shards = dataset.splits["train"].shards
    return (finish(part(np.asarray(columns.values(read_shard(store, s)[name]), np.float64)) for s in shards),)


def _in_each_class(target: np.ndarray, num_classes: int) -> np.ndarray:
    return target.sum(axis=0) if target.ndim > 1 else np.bincount(target, minlength=num_classes)


def class_counts(store: Store, dataset: DatasetVersion) -> tuple[int, ...]:
    """Of train rows of a classification, or with labels: how many are in each class, in the order of the signature;
    read from the shards where the record was written without.

    Raises:
        DigestMismatch, ObjectMissing: a shard is not what was written.
    """
    if dataset.class_counts is not None:
        return dataset.class_counts
    signature = dataset.signature
    counts = np.zeros(len(signature.classes or ()), np.int64)
    for shard in dataset.splits["train"].shards:
        counts += _in_each_class(
            encode_target(stored_target(read_shard(store, shard), signature), signature), len(counts)
        )
    return tuple(counts.tolist())
