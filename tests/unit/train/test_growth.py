"""When a training with an elastic number of workers goes on with more."""

from __future__ import annotations

from typing import Any

import pytest

from raypipe.errors import MoreWorkersError
from raypipe.spec.train import TrainSpec
from raypipe.spec.workers import ElasticWorkers
from raypipe.testing.fakes import FakeClock
from raypipe.train.failures import is_preempted, lasting
from raypipe.train.growth import Growth
from raypipe.train.preemption import Preemption
from raypipe.train.rows import World


class Room(Preemption):
    """There is room for so many workers."""

    def __init__(self, room: int) -> None:
        self._room = room

    def room(self) -> int:
        return self._room


@pytest.mark.parametrize(
    ("num_workers", "room", "seconds", "is_due"),
    [
        (8, 9, 99, False),
        ({"min": 1, "max": 8}, 8, 99, True),
        ({"min": 1, "max": 8}, 8, 59, False),
        ({"min": 1, "max": 8, "grow_after_s": 0}, 8, 0, True),
        ({"min": 1, "max": 8}, 0, 99, False),
        ({"min": 1, "max": 8}, 1, 99, False),
        ({"min": 1, "max": 1}, 8, 99, False),
    ],
)
def test_growth_is_due_where_more_workers_would_take_less_time_a_step(
    num_workers: Any, room: int, seconds: float, is_due: bool
) -> None:
    clock = FakeClock()
    growth = Growth(TrainSpec(num_workers=num_workers), World(), Room(room), clock)
    clock.advance(seconds)
    assert growth.is_due() is is_due


def test_growth_ends_the_attempt_without_a_failure_that_is_charged() -> None:
    growth = Growth(TrainSpec(), World(), Preemption())
    with pytest.raises(MoreWorkersError, match="the checkpoint of step 16") as caught:
        growth.leave(16)
    assert is_preempted({0: caught.value}) and lasting({0: caught.value}) is None


@pytest.mark.parametrize(
    ("fewest", "most", "useful"),
    [(1, 8, [1, 2, 3, 4, 4, 4, 4, 8, 8]), (3, 8, [3, 3, 3, 4, 4, 4, 4, 8, 8]), (1, 3, [1, 2, 3, 3])],
)
def test_num_useful_is_the_fewest_workers_of_whom_none_holds_more_shares(
    fewest: int, most: int, useful: list[int]
) -> None:
    elastic = ElasticWorkers(min=fewest, max=most)
    assert [elastic.num_useful(max(room, fewest)) for room in range(1, len(useful) + 1)] == useful
