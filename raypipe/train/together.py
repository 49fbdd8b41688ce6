"""What the workers of a training do together, so that none waits for one that gave up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

from raypipe.errors import RaypipeError
from raypipe.train.rows import World

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
