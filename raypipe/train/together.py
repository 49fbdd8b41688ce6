"""What the workers of a training do together, so that none waits for one that gave up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from raypipe.errors import RaypipeError
from raypipe.train.failures import is_from_peers
from raypipe.train.rows import Batch, Rows, World

T = TypeVar("T")


class PeerRaised(ConnectionError):
    """Another rank raised an error that is none of ours, and tells it; here it only means that this one is gone."""


def agreed(
    action: Callable[[], T],
    world: World,
    *,
    met: RaypipeError | None = None,
    may_meet: Callable[[], bool] = lambda: True,
) -> T:
    """Act on every rank, or fail on every rank: none may wait for one that gave up.

    Args:
        action: waits for no other rank, or fails only where the others do.
        met: what made the ranks meet. Where the others are gone, a rank raises its own failure, or this.
        may_meet: after a failure, whether the others will come here, too. Where not, e.g. as they wait within the
            action, this rank raises it alone, so that who started the ranks ends them.
    Raises:
        RaypipeError: the same on every rank, of the first that raised one.
        PeerRaised: where another rank raised something else, and no rank one of ours; that one raises it as it is.
    """
    outcome: list[T] = []
    failure: Exception | None = None
    try:
        outcome.append(action())
    except Exception as error:
        if world.size == 1 or is_from_peers(error) or not may_meet():
            raise
        failure = error
    failures = [None if failure is None else _told(failure, world)] * world.size
    if world.size > 1:
        try:
            dist.all_gather_object(failures, failures[world.rank])
        except Exception:  # torch's errors of a lost peer have no type of their own
            own = failure or met
            if own is None:
                raise
            raise own from None
    raised = [f for f in failures if f is not None]
    if raised:
        ours = next((f for f in raised if isinstance(f, RaypipeError)), None)
        raise ours or failure or raised[0]
    return outcome[0]


def _told(error: Exception, world: World) -> Exception:
    """What other ranks are told of an error: one that survives pickle."""
    if isinstance(error, RaypipeError):
        return error
    return PeerRaised(f"worker {world.rank} of {world.size} raised {type(error).__name__}: {str(error)[:500]}")


def from_rank_0(action: Callable[[], T], world: World) -> T:
    """What rank 0 finds, on every rank; it must survive pickle. The others do not act.

    Raises:
        RaypipeError: rank 0 raised it; the same on every rank.
        PeerRaised: rank 0 raised something else, which it raises itself.
    """
    if world.size == 1:
        return action()
    answer: list[Any] = [None, None]
    """What was found, and what the others are told of an error."""
    failure: Exception | None = None
    if world.rank == 0:
        try:
            answer[0] = action()
        except Exception as error:
            failure, answer[1] = error, _told(error, world)
    dist.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise failure or answer[1]
    return answer[0]


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
    """The batches of this rank, and why it could not go on until all ranks have stopped.

    Where others wait, a batch that cannot be read, or that the user's network fails on, makes the gradient NaN, which
    all ranks see at the same step; then they ask each other why.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._failure: Exception | None = None
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
        except Exception as error:
            if self._world.size == 1:
                raise
            self.failed(error)
            assert self.spare is not None
            for num_rows_all in rows_left():
                yield Batch(self.spare, math.nan, 0, num_rows_all)

    def failed(self, error: Exception) -> None:
        """This rank could not go on, and takes part until all ranks stop; of several reasons the first counts."""
        self._failure = self._failure or error

    def raise_failure(self) -> None:
        """Raise why this rank could not go on, if it could not."""
        if self._failure is not None:
            raise self._failure
