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

from raypipe.data.shards import encode_target, features, read_shard, share
from raypipe.data.table import columns
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

    def num_steps(self, worker_batch_size: int) -> int:
        """Steps of an epoch, the same on every rank.

        All steps but the last are full on every rank. A rank that would have a single row in the last one, of which a
        normalization over rows makes nothing, or none, takes what is left with the step before, and so do all.
        """
        smallest, largest = self.num_rows_all // self.world.size, -(-self.num_rows_all // self.world.size)
        steps = -(-largest // worker_batch_size)
        left = smallest - (steps - 1) * worker_batch_size
        return steps - 1 if steps > 1 and left < min(2, worker_batch_size) else steps

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
        """The batches of an epoch from `first_step` on: at least one row in each, every row in exactly one.

        Raises:
            DigestMismatch, ObjectMissing, StoreError: rows are read while training, and could not be.
        """
        last = self.num_steps(worker_batch_size) - 1
        full = worker_batch_size * self.world.size
        with closing(self.shuffled(worker_batch_size, seed, skip=first_step * worker_batch_size)) as source:
            for step in range(first_step, last + 1):
                rows = next(source) if step < last else _joined(list(source))
                num_rows = len(rows.target)
                num_rows_all = full if step < last else self.num_rows_all - last * full
                yield Batch(rows, num_rows * self.world.size / num_rows_all, num_rows)


def _joined(parts: Sequence[Rows]) -> Rows:
    return parts[0] if len(parts) == 1 else Rows(*map(torch.cat, zip(*parts, strict=True)))


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
