"""A share whose rows stay in memory as contiguous tensors, on the GPU or on the host."""

from __future__ import annotations

from collections.abc import Generator

import torch

from raypipe.data.transforms import FittedTransforms
from raypipe.records import DatasetVersion, TargetTransform
from raypipe.storage import Store
from raypipe.train import windows
from raypipe.train.rows import NO_TRANSFORM, Reader, Rows, Share, World, send
from raypipe.train.windows import Window


class Resident(Share):
    """All rows in memory, read and transformed once.

    Args:
        home: where the tensors are; batches go from there to the worker's device.
        target_transform: what is done to a regression target.
    Raises:
        DigestMismatch, ObjectMissing: a shard is not what was written.
        DataError: a value that the transforms refuse.
    """

    def __init__(
        self,
        store: Store,
        dataset: DatasetVersion,
        split: str,
        world: World,
        *,
        window_rows: int,
        home: torch.device,
        target_transform: TargetTransform = NO_TRANSFORM,
    ) -> None:
        super().__init__(dataset.splits[split], world, window_rows)
        parts = [part for group in self.groups for window in group for part in window.parts]
        reader = Reader(store, dataset, FittedTransforms.from_state(dataset.transforms), target_transform)
        self.rows = reader.read(parts, reader.empty(self.num_rows, home))

    def shuffled(self, batch_rows: int, seed: int, *, skip: int) -> Generator[Rows, None, None]:
        home = self.rows.target.device

        def order(window: Window) -> torch.Tensor:
            return (window.start + windows.shuffled_rows(window, seed)).to(home)

        for pick in windows.picks(windows.shuffled(self.groups, seed), order, batch_rows, skip=skip):
            rows = pick[0][1] if len(pick) == 1 else torch.cat([rows for _, rows in pick])
            # index_select takes half the time of features[rows]
            yield send(Rows(*(values.index_select(0, rows) for values in self.rows)), self.world.device)

    def in_order(self, batch_rows: int) -> Generator[Rows, None, None]:
        for start in range(0, self.num_rows, batch_rows):
            batch = Rows(*(values[start : start + batch_rows].clone() for values in self.rows))  # it may be written to
            yield send(batch, self.world.device)
