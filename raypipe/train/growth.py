"""Whether a training with an elastic number of workers ends an attempt, to go on with more of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from raypipe.errors import MoreWorkersError
from raypipe.spec.train import TrainSpec
from raypipe.spec.workers import ElasticWorkers
from raypipe.train.preemption import Preemption
from raypipe.train.rows import World
from raypipe.train.together import from_rank_0


class Growth:
    """Asked at the end of each epoch, on every rank at the same time; where the number is fixed it never grows.

    Args:
        preemption: knows how many workers there is room for.
        clock: seconds.
    """

    def __init__(
        self, spec: TrainSpec, world: World, preemption: Preemption, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._elastic, self._world, self._preemption, self._clock = spec.elastic, world, preemption, clock
        self._began = clock()

    def is_due(self) -> bool:
        """Whether steps would take less time with as many workers as there is room for now."""
        if self._elastic is None or self._world.size >= self._elastic.max:
            return False
        return from_rank_0(partial(self._pays, self._elastic), self._world)

    def leave(self, step: int) -> None:
        """The checkpoint of `step` is kept. Raises MoreWorkersError."""
        raise MoreWorkersError(f"there is room for more workers; they go on from the checkpoint of step {step}")

    def _pays(self, elastic: ElasticWorkers) -> bool:
        if self._clock() - self._began < elastic.grow_after_s:
            return False
        room = self._preemption.room()
        return room > self._world.size and elastic.num_useful(room) > self._world.size
