"""What the workers of a training do together, so that none waits for one that gave up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from raypipe.errors import RaypipeError
from raypipe.train.rows import Batch, Rows, World

T = TypeVar("T")


def agreed(action: Callable[[], T], world: World, *, met: RaypipeError | None = None) -> T:
    """Act on every rank, or fail with the same error on every rank: none may wait for one that gave up.

    Args:
        met: what made the ranks meet. Where the others are gone, a rank raises its own failure, or this.
    """
    outcome: list[T] = []
    failure = None
    try:
        outcome.append(action())
    except RaypipeError as error:
        failure = error
    failures = [failure] * world.size
    if world.size > 1:
        try:
            dist.all_gather_object(failures, failure)
        except Exception:  # torch's errors of a lost peer have no type of their own
            own = failure or met
            if own is None:
                raise
            raise own from None
    first = next((f for f in failures if f is not None), None)
    if first is not None:
        raise first
    return outcome[0]


def from_rank_0(value: T, world: World) -> T:
    """Rank 0's value, on every rank; it must survive pickle."""
    values = [value]
    if world.size > 1:
        dist.broadcast_object_list(values, src=0)
    return values[0]


def gathered(value: T, world: World) -> list[T]:
    """Every rank's value, by rank, on every rank; they must survive pickle."""
    values = [value] * world.size
    if world.size > 1:
        dist.all_gather_object(values, value)
    return values


def summed(values: list[float], world: World) -> list[float]:
    """Each value's sum over the ranks, in float64."""
    totals = torch.tensor(values, dtype=torch.float64, device=world.device)
    if world.size > 1:
        dist.all_reduce(totals)
    return totals.tolist()


class Reading:
    """The batches of this rank, and why it could not read them until all ranks have stopped.

    Where others wait, a batch that cannot be read makes the gradient NaN, which all ranks see at the same step; then
    they ask each other why.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._failure: RaypipeError | None = None
        self.spare: Rows | None = None
        """Some rows that could be read, for steps that only have to take place; set before the first step."""

    @property
    def spare_features(self) -> Tensor | None:
        return None if self.spare is None else self.spare.features

    def batches(self, source: Iterator[Batch], rows_left: Callable[[], list[int]]) -> Iterator[Batch]:
        """The batches of an epoch.

        Args:
            rows_left: rows that all ranks take together in each step that is left of the epoch.
        """
        try:
            yield from source
        except RaypipeError as error:
            if self._world.size == 1:
                raise
            self._failure = error
            assert self.spare is not None
            for num_rows_all in rows_left():
                yield Batch(self.spare, math.nan, 0, num_rows_all)

    def raise_failure(self) -> None:
        """Raise why this rank could not go on, if it could not."""
        if self._failure is not None:
            raise self._failure
