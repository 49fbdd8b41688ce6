"""One share of a split, and the batches made of it.  A worker has one, or several (`several_shares`).  B rows."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from raypipe.data.shards import encode_target, features, read_shard, relative_weight, share, stored_target
from raypipe.data.transforms import FittedTransforms
from raypipe.model.target import to_model
from raypipe.model.tasks import task_of
from raypipe.records import DatasetVersion, Shard, TargetTransform
from raypipe.runtime import seeds
from raypipe.storage import Store
from raypipe.train import windows
from raypipe.train.oversampling import Visits
from raypipe.train.windows import Part, Window

CHUNK_BYTES = 2**20
"""Features made at a time: what lies between a stored row and the model's is small, and stays in the cache."""

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
    """What the model reads: float32 [B, *shape], and int64 class indices or the transformed target, float32
    [B] or of several [B, T], or which labels a row has, float32 [B, K]; where texts are written the ids that follow,
    int64 [B, T]."""

    features: Tensor
    target: Tensor
    weight: Tensor | None = None
    """How much each row counts, float32 [B], 1 on average over the split; None: all alike."""

    def each(self, change: Callable[[Tensor], Tensor]) -> Rows:
        """The same change to features, target and weight."""
        return Rows(change(self.features), change(self.target), None if self.weight is None else change(self.weight))


class Batch(NamedTuple):
    """One step of one worker, on its device.

    Attributes:
        weight: of the mean loss over its rows, times the world size: DDP averages over workers.
        num_rows: how many of the rows count; 0 where this worker only takes part so that no other waits for it.
        num_rows_all: rows of the step, of all workers.
    """

    rows: Rows
    weight: float
    num_rows: int
    num_rows_all: int


@dataclass(frozen=True)
class StoredSplit:
    """A split in the store, as a model reads its rows.

    Attributes:
        name: train, val or test.
        target_transform: what is done to a regression target.
    """

    store: Store
    dataset: DatasetVersion
    name: str
    target_transform: TargetTransform = NO_TRANSFORM

    @cached_property
    def fitted(self) -> FittedTransforms:
        """Makes the features; some take a while to be made."""
        return FittedTransforms.from_state(self.dataset.transforms)


class Share(ABC):
    """This worker's rows of a split, wherever they are.

    Args:
        visits: how often an epoch visits each row; None: once.
    Attributes:
        num_rows: of this worker in an epoch; shares differ by one row at most. A row that is visited twice is two.
        num_rows_all: the same of all workers.
        num_stored: different rows of this worker.
    """

    def __init__(self, stored: StoredSplit, world: World, window_rows: int, visits: Visits | None = None) -> None:
        split = stored.dataset.splits[stored.name]
        self.world, self._stored, self._visits = world, stored, visits
        self.num_rows_all = split.num_rows if visits is None else visits.num_all
        start, stop = share(self.num_rows_all, world.rank, world.size)
        self.num_rows = stop - start
        if visits is not None:
            start, stop = visits.first_row, visits.first_row + visits.num_rows
        self.num_stored = stop - start
        self.groups = windows.cut(split.shards, start, stop, window_rows)
        if visits is not None:
            self.groups = [[replace(each, visits=visits.of(each)) for each in group] for group in self.groups]

    def shuffled_rows(self, window: Window, seed: int) -> Tensor:
        """The rows of a window in the order of one epoch, int64 [num_visits]."""
        return windows.shuffled_rows(window, seed) if self._visits is None else self._visits.shuffled(window, seed)

    def num_steps(self, share_batch_size: int) -> int:
        """Steps of an epoch, the same on every rank.

        All steps but the last are full on every rank. A rank that would have a single row in the last one, of which a
        normalization over rows makes nothing, or none, takes what is left with the step before, and so do all.
        """
        smallest, largest = self.num_rows_all // self.world.size, -(-self.num_rows_all // self.world.size)
        steps = -(-largest // share_batch_size)
        left = smallest - (steps - 1) * share_batch_size
        return steps - 1 if steps > 1 and left < min(2, share_batch_size) else steps

    def rows_of_step(self, step: int, share_batch_size: int) -> int:
        """Rows that all ranks take together in a step of an epoch, from 0."""
        full = share_batch_size * self.world.size
        last = self.num_steps(share_batch_size) - 1
        return full if step < last else self.num_rows_all - last * full

    def rows_left(self, first_step: int, share_batch_size: int) -> list[int]:
        """`rows_of_step` of each step of an epoch from `first_step` on."""
        steps = range(first_step, self.num_steps(share_batch_size))
        return [self.rows_of_step(step, share_batch_size) for step in steps]

    def epoch(self, share_batch_size: int, seed: int, epoch: int, *, first_step: int) -> Generator[Batch, None, None]:
        """The batches of an epoch, from 1, as `batches` has them.

        Args:
            seed: the run's.
        """
        return self.batches(
            share_batch_size, seeds.derive(seed, "shuffle", epoch, self.world.rank), first_step=first_step
        )

    @abstractmethod
    def shuffled(self, batch_rows: int, seed: int, *, skip: int) -> Generator[Rows, None, None]:
        """Every row as often as an epoch visits it, from visit `skip` on, `batch_rows` at a time, in an order given by
        the seed."""

    @abstractmethod
    def in_order(self, batch_rows: int) -> Generator[Rows, None, None]:
        """Every row once, `batch_rows` at a time, as they are stored."""

    def first(self, num_rows: int) -> Rows:
        """As many rows as an epoch visits, at most `num_rows`: the first as they are stored, and again from the first
        on where fewer are stored."""
        wanted = min(num_rows, self.num_rows)
        with closing(self.in_order(wanted)) as batches:
            rows = next(batches)
        num_stored = len(rows.target)
        if num_stored == wanted:
            return rows
        return rows.each(lambda values: values[torch.arange(wanted, device=values.device) % num_stored])

    def batches(self, share_batch_size: int, seed: int, *, first_step: int) -> Generator[Batch, None, None]:
        """The batches of an epoch from `first_step` on: at least one row in each, every row in exactly one.

        Raises:
            DigestMismatch, ObjectMissing, StoreError: rows are read while training, and could not be.
        """
        last = self.num_steps(share_batch_size) - 1
        full, rest = (self.rows_of_step(step, share_batch_size) for step in (-1, last))
        with closing(self.shuffled(share_batch_size, seed, skip=first_step * share_batch_size)) as source:
            for step in range(first_step, last + 1):
                rows = next(source) if step < last else joined(list(source))
                num_rows = rows.target.shape[0]
                num_rows_all = full if step < last else rest
                yield Batch(rows, num_rows * self.world.size / num_rows_all, num_rows, num_rows_all)


def joined(parts: Sequence[Rows]) -> Rows:
    """Their rows, one part after another."""
    if len(parts) == 1:
        return parts[0]
    weights = [part.weight for part in parts if part.weight is not None]
    features, target = torch.cat([part.features for part in parts]), torch.cat([part.target for part in parts])
    return Rows(features, target, torch.cat(weights) if weights else None)


class Reader:
    """Stored rows -> what the model reads.  Keeps the last shard: the next rows may be of the same."""

    def __init__(self, stored: StoredSplit) -> None:
        self._store, self._dataset, self._split = stored.store, stored.dataset, stored.name
        self._target_transform, self._fitted = stored.target_transform, stored.fitted
        self._task = task_of(stored.dataset.signature)
        self._last: tuple[Shard, pa.Table] | None = None

    def empty(self, num_rows: int, device: torch.device) -> Rows:
        """Room for rows."""
        task = self._task
        features = torch.empty((num_rows, *self._dataset.feature_shape), device=device)
        target = torch.empty((num_rows, *task.target_shape), dtype=getattr(torch, task.target_dtype), device=device)
        is_weighted = self._dataset.weights is not None
        return Rows(features, target, torch.empty(num_rows, device=device) if is_weighted else None)

    def read(self, parts: Sequence[Part], into: Rows, alive: Callable[[], None] = lambda: None) -> Rows:
        """Parts of shards, one after another, at the beginning of `into`.

        Args:
            alive: called as reading goes on: transforms of many rows may take longer than anything else of a training.
        Raises:
            DigestMismatch, ObjectMissing: a shard is not what was written.
            DataError: a value that the transforms, or that of the target, refuse.
        """
        at = 0
        chunk_rows = max(1, CHUNK_BYTES // row_bytes(self._dataset))
        for part in parts:
            table = self._table(part.shard)
            for first in range(part.first, part.last, chunk_rows):
                alive()
                chunk = table.slice(first, min(chunk_rows, part.last - first))
                weight = relative_weight(chunk, self._dataset, self._split)
                for room, values in zip(into, (*self._transformed(chunk), weight), strict=True):
                    if room is not None and values is not None:
                        _fill(room[at : at + len(chunk)], values)
                at += len(chunk)
        return into.each(lambda room: room[:at])

    def _transformed(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        signature = self._dataset.signature
        target = encode_target(stored_target(table, signature), signature)
        if signature.task == "regression":
            target = to_model(target, self._target_transform, signature.target_text)
        return self._task.read_and_compared(self._fitted.apply(features(table, signature), signature.inputs), target)

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
    task, num_weights = task_of(dataset.signature), int(dataset.weights is not None)
    target_bytes = np.dtype(task.target_dtype).itemsize * math.prod(task.target_shape)
    return 4 * (math.prod(dataset.feature_shape) + num_weights) + target_bytes


def send(rows: Rows, device: torch.device) -> Rows:
    """The rows on the device; a copy to a GPU goes on while this process does other things."""
    if rows.target.device.type == device.type:
        return rows
    return rows.each(lambda values: values.pin_memory().to(device, non_blocking=True))
