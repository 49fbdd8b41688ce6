"""One worker's share of a split, and the batches it makes of it.  B rows."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from raypipe.data import columns
from raypipe.data.shards import encode_target, features, read_shard, share
from raypipe.data.transforms import FittedTransforms
from raypipe.model.target import to_model
from raypipe.records import DatasetVersion, Shard, Split, TargetTransform
from raypipe.storage import Store
from raypipe.train import windows
from raypipe.train.windows import Part

CHUNK_BYTES = 2**20
"""Features made at a time: what lies between a stored row and the model's is small, and stays in the cache."""

TARGET_BYTES = 8

NO_TRANSFORM = TargetTransform()


@dataclass(frozen=True)
class World:
    """This worker among the others.

    Attributes:
        local_size: workers on this node, which share its memory.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    local_size: int = 1


class Rows(NamedTuple):
    """What the model reads: float32 [B, *shape], and int64 class indices or the transformed target, float32 [B]."""

    features: Tensor
    target: Tensor


class Batch(NamedTuple):
    """One step of one worker, on its device.

    Attributes:
        weight: of the mean loss over its rows, times the world size: DDP averages over workers.
        num_rows: how many of the rows count; 0 where this worker only takes part so that no other waits for it.
    """

    rows: Rows
    weight: float
    num_rows: int


class Share(ABC):
    """This worker's rows of a split, wherever they are.

    Attributes:
        num_rows: of this worker; shares differ by one row at most.
        num_rows_all: of the split.
    """

    def __init__(self, split: Split, world: World, window_rows: int) -> None:
        start, stop = share(split.num_rows, world.rank, world.size)
        self.world = world
        self.num_rows = stop - start
        self.num_rows_all = split.num_rows
        self.groups = windows.cut(split.shards, start, stop, window_rows)

    @property
    def largest(self) -> int:
        """Rows of the largest share."""
        return -(-self.num_rows_all // self.world.size)

    @abstractmethod
    def shuffled(self, batch_rows: int, seed: int, *, skip: int) -> Generator[Rows, None, None]:
        """Every row once from number `skip` on, `batch_rows` at a time, in an order given by the seed."""

    @abstractmethod
    def in_order(self, batch_rows: int) -> Generator[Rows, None, None]:
        """Every row once, `batch_rows` at a time, as they are stored."""

    def first(self, num_rows: int) -> Rows:
        """The first rows as they are stored, at most `num_rows`."""
        with closing(self.in_order(num_rows)) as batches:
            return next(batches)

    def batches(self, worker_batch_size: int, seed: int, *, first_step: int) -> Generator[Batch, None, None]:
        """The batches of an epoch from `first_step` on.

        Where this worker has no row left in the last step, it takes part with a row of weight 0, so that no rank waits
        for another and every row counts exactly once.

        Raises:
            DigestMismatch, ObjectMissing, StoreError: rows are read while training, and could not be.
        """
        skip = min(first_step * worker_batch_size, self.num_rows - 1)  # one row is there, even where none counts
        with closing(self.shuffled(worker_batch_size, seed, skip=skip)) as source:
            rows = None
            for step in range(first_step, -(-self.largest // worker_batch_size)):
                num_rows = _in_step(self.num_rows, step, worker_batch_size)
                if num_rows or rows is None:
                    rows = next(source)
                if not num_rows:
                    rows = Rows(rows.features[-1:], rows.target[-1:])
                alone = self.world.size == 1
                weight = 1.0 if alone else num_rows * self.world.size / self._rows_of_all(step, worker_batch_size)
                yield Batch(rows, weight, num_rows)

    def _rows_of_all(self, step: int, worker_batch_size: int) -> int:
        """Rows that all ranks together take in a step of the epoch."""
        bounds = (share(self.num_rows_all, rank, self.world.size) for rank in range(self.world.size))
        return sum(_in_step(stop - start, step, worker_batch_size) for start, stop in bounds)


def _in_step(num_rows: int, step: int, worker_batch_size: int) -> int:
    """Rows of a share of `num_rows` that are taken in one step."""
    return min(worker_batch_size, max(0, num_rows - step * worker_batch_size))


class Reader:
    """Stored rows -> what the model reads.  Keeps the last shard: the next rows may be of the same."""

    def __init__(
        self,
        store: Store,
        dataset: DatasetVersion,
        fitted: FittedTransforms,
        target_transform: TargetTransform = NO_TRANSFORM,
    ) -> None:
        self._store, self._dataset, self._fitted = store, dataset, fitted
        self._target_transform = target_transform
        self._last: tuple[Shard, pa.Table] | None = None

    def empty(self, num_rows: int, device: torch.device) -> Rows:
        """Room for rows."""
        dtype = torch.float32 if self._dataset.signature.task == "regression" else torch.int64
        features = torch.empty((num_rows, *self._dataset.feature_shape), device=device)
        return Rows(features, torch.empty(num_rows, dtype=dtype, device=device))

    def read(self, parts: Sequence[Part], into: Rows) -> Rows:
        """Parts of shards, one after another, at the beginning of `into`.

        Raises:
            DigestMismatch, ObjectMissing: a shard is not what was written.
            DataError: a value that the transforms, or that of the target, refuse.
        """
        at = 0
        chunk_rows = max(1, CHUNK_BYTES // row_bytes(self._dataset))
        for part in parts:
            table = self._table(part.shard)
            for first in range(part.first, part.last, chunk_rows):
                chunk = table.slice(first, min(chunk_rows, part.last - first))
                for room, values in zip(into, self._transformed(chunk), strict=True):
                    _fill(room[at : at + len(chunk)], values)
                at += len(chunk)
        return Rows(*(room[:at] for room in into))

    def _transformed(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        signature = self._dataset.signature
        target = encode_target(columns.values(table[signature.target]), signature)
        if signature.task == "regression":
            target = to_model(target, self._target_transform, signature.target)
        return self._fitted.apply(features(table, signature), signature.inputs), target

    def _table(self, shard: Shard) -> pa.Table:
        if self._last is None or self._last[0] != shard:
            self._last = None
            self._last = shard, read_shard(self._store, shard)
        return self._last[1]


def _fill(room: Tensor, values: np.ndarray) -> None:
    if room.device.type == "cpu":
        room.numpy()[...] = values  # torch would wake its threads, which the training next to this one needs
    else:
        room.copy_(torch.from_numpy(values))


def row_bytes(dataset: DatasetVersion) -> int:
    """Bytes of one row as the model reads it, target included."""
    return 4 * math.prod(dataset.feature_shape) + TARGET_BYTES


def send(rows: Rows, device: torch.device) -> Rows:
    """The rows on the device; a copy to a GPU goes on while this process does other things."""
    if rows.target.device.type == device.type:
        return rows
    return Rows(*(values.pin_memory().to(device, non_blocking=True) for values in rows))
