"""Rows of rare classes visited several times an epoch, until each class is visited equally often (train.balance).

How often a row is visited follows from its class and its place among the rows of that class, in stored order: so all
ranks agree without asking each other, shares differ by one visit at most, and who goes on in the middle of an epoch
visits the rows that are left.  Shape letters: R rows of a worker, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypipe.data.shards import encode_target, read_shard, share, stored_target
from raypipe.data.shuffle.target import class_counts
from raypipe.records import DatasetVersion
from raypipe.runtime import seeds
from raypipe.storage import Store
from raypipe.train.windows import Window

FIRST, LAST = -2, -1
"""Stand for the classes of a worker's first and last row: what is left of their visits is theirs alone."""


@dataclass(frozen=True)
class Visits:
    """How often an epoch visits the rows of one worker.

    Attributes:
        first_row: of the split, the first that this worker visits; its rows are those from there on.
        class_R: of each row, int32; FIRST and LAST at the borders.
        times_R: int32, at least 1; of the first and the last row another worker may visit the rest.
        num_all: visits of all workers.
    """

    first_row: int
    class_R: NDArray[np.int32]
    times_R: NDArray[np.int32]
    num_all: int

    @property
    def num_rows(self) -> int:
        """Rows of this worker."""
        return len(self.times_R)

    def of(self, window: Window) -> int:
        """Visits of the rows of a window in an epoch."""
        return int(self.times_R[window.start : window.start + window.num_rows].sum())

    def shuffled(self, window: Window, seed: int) -> Tensor:
        """The rows of a window in the order of one epoch, int64 [visits]. Which rows of a class are visited once more
        than others changes from epoch to epoch."""
        generator = torch.Generator().manual_seed(seeds.derive(seed, window.start))
        some = slice(window.start, window.start + window.num_rows)
        class_R, times_R = self.class_R[some], self.times_R[some]
        mixed_R = torch.randperm(len(class_R), generator=generator).numpy()
        rows_R = mixed_R[np.argsort(class_R[mixed_R], kind="stable")]
        visited = np.repeat(rows_R, times_R[np.argsort(class_R, kind="stable")])
        return torch.from_numpy(visited)[torch.randperm(len(visited), generator=generator)]


def visits_of(store: Store, dataset: DatasetVersion, shares: Sequence[int], num_shares: int) -> list[Visits]:
    """What an epoch visits of train, of each share; reads each shard up to the last of their rows once.

    Args:
        shares: numbers of some of `num_shares` shares, rising.
    Raises:
        DigestMismatch, ObjectMissing: a shard is not what was written.
    """
    counts_K = np.array(class_counts(store, dataset), np.int64)
    num_all = int(counts_K.max()) * len(counts_K)
    parts = [_SharePart(*share(num_all, number, num_shares)) for number in shares]
    seen_K = np.zeros_like(counts_K)
    at = row = 0
    for shard in dataset.splits["train"].shards:
        if at >= parts[-1].stop:
            break
        class_B = encode_target(stored_target(read_shard(store, shard), dataset.signature), dataset.signature)
        times_B = _times(class_B, seen_K, counts_K)
        before_B = at + np.cumsum(times_B) - times_B
        for part in parts:
            part.take(row, class_B, times_B, before_B)
        at += int(times_B.sum())
        row += len(class_B)
        seen_K += np.bincount(class_B, minlength=len(counts_K))
    return [part.visits(num_all) for part in parts]


class _SharePart:
    """What was found so far of one share: visits [start, stop) of all."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self._first_row = 0
        self._classes: list[NDArray[np.int32]] = []
        self._times: list[NDArray[np.int32]] = []

    def take(
        self, row: int, class_B: NDArray[np.int64], times_B: NDArray[np.int64], before_B: NDArray[np.int64]
    ) -> None:
        """Of the rows of a shard those that this share visits.

        Args:
            row: of the split, the first of the shard.
            before_B: visits of all rows before each.
        """
        mine_B = np.minimum(before_B + times_B, self.stop) - np.maximum(before_B, self.start)
        is_mine_B = mine_B > 0
        if is_mine_B.any():
            self._first_row = self._first_row if self._classes else row + int(np.argmax(is_mine_B))
            self._classes.append(class_B[is_mine_B].astype(np.int32))
            self._times.append(mine_B[is_mine_B].astype(np.int32))

    def visits(self, num_all: int) -> Visits:
        class_R = np.concatenate(self._classes)
        class_R[[0, -1]] = FIRST, LAST
        return Visits(self._first_row, class_R, np.concatenate(self._times), num_all)


def _times(class_B: NDArray[np.int64], seen_K: NDArray[np.int64], counts_K: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of rows behind `seen_K` others of each class, so that all rows of a class together are visited as often as those
    of the largest class."""
    order = np.argsort(class_B, kind="stable")
    starts_K = np.cumsum(np.bincount(class_B, minlength=len(counts_K))) - np.bincount(class_B, minlength=len(counts_K))
    number_B = np.empty(len(class_B), np.int64)
    number_B[order] = np.arange(len(class_B)) - starts_K[class_B[order]]
    number_B += seen_K[class_B]
    most, count_B = counts_K.max(), counts_K[class_B]
    return (number_B + 1) * most // count_B - number_B * most // count_B
