"""What the train split's regression target holds: the figures a training scales it by.

The rows of a shard depend on the data alone, and what shards hold adds up to the same bits in any order, so that no
machine and no number of workers changes what is trained.  B rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from raypipe.data.shards import read_shard
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


def statistics(store: Store, dataset: DatasetVersion) -> TargetStatistics:
    """Of a regression's train rows, at least one; read from the shards where the record was written without them.

    Raises:
        DigestMismatch, ObjectMissing: a shard is not what was written.
    """
    if dataset.target_statistics is not None:
        return dataset.target_statistics
    name = dataset.signature.target
    shards = dataset.splits["train"].shards
    return finish(part(np.asarray(columns.values(read_shard(store, s)[name]), np.float64)) for s in shards)
