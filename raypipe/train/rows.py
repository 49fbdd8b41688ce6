"""One worker's share of a split, and the batches it makes of it.  B rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from raypipe.data.shards import encode_target, load_rows, share
from raypipe.data.transforms import FittedTransforms
from raypipe.errors import DataError
from raypipe.records import DatasetVersion
from raypipe.storage import Store


@dataclass(frozen=True)
class World:
    """This worker among the others."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True)
class Share:
    """This worker's rows of a split, on its device.

    Attributes:
        features: float32 [B, *shape].
        target: int64 or float32 [B].
        num_rows_all: rows of the split.
    """

    features: Tensor
    target: Tensor
    num_rows_all: int
    world: World

    @property
    def largest(self) -> int:
        """Rows of the largest share; shares differ by one row at most."""
        return -(-self.num_rows_all // self.world.size)

    def batches(self, worker_batch_size: int, seed: int, *, first_step: int) -> Iterator[tuple[Tensor, float, int]]:
        """The batches of an epoch from `first_step` on, in an order given by the seed.

        Where this worker has no row left in the last step, it takes part with a row of weight 0, so that no rank waits
        for another and every row counts exactly once.

        Yields:
            indices into the share; the weight of their mean loss, times the world size; how many rows count.
        """
        order = torch.randperm(len(self.target), generator=torch.Generator().manual_seed(seed)).to(self.world.device)
        for step in range(first_step, -(-self.largest // worker_batch_size)):
            rows = order[step * worker_batch_size : (step + 1) * worker_batch_size]
            alone = self.world.size == 1
            weight = 1.0 if alone else len(rows) * self.world.size / self._rows_of_all(step, worker_batch_size)
            yield (rows if len(rows) else order[:1]), weight, len(rows)

    def _rows_of_all(self, step: int, worker_batch_size: int) -> int:
        """Rows that all ranks together take in a step of the epoch."""
        bounds = (share(self.num_rows_all, rank, self.world.size) for rank in range(self.world.size))
        return sum(min(worker_batch_size, max(0, stop - start - step * worker_batch_size)) for start, stop in bounds)


def load_share(store: Store, dataset: DatasetVersion, split: str, world: World) -> Share:
    """This worker's rows, transformed.

    Raises:
        DigestMismatch, ObjectMissing: a shard is not what was written.
        DataError: there are fewer training rows than workers, or a value that the transforms refuse.
    """
    num_rows = dataset.splits[split].num_rows
    if split == "train" and num_rows < world.size:
        raise DataError(
            f"{world.size} workers cannot share {num_rows} training rows; each needs at least one",
            "lower train.num_workers",
        )
    start, stop = share(num_rows, world.rank, world.size)
    rows = load_rows(store, dataset, split, start=start, stop=stop)
    features = FittedTransforms.from_state(dataset.transforms).apply(rows.columns, dataset.signature.inputs)
    target = encode_target(rows.target, dataset.signature)
    return Share(
        torch.from_numpy(features).to(world.device), torch.from_numpy(target).to(world.device), num_rows, world
    )
