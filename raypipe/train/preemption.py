"""A machine that is taken away soon: the training is told, keeps a checkpoint at once, and goes on elsewhere."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from raypipe.errors import PreemptedError
from raypipe.train.rows import World

ASK_S = 1.0
"""Ranks ask each other about so often whether one was told; in between nothing is sent."""

END_S = 150.0
"""How long a worker of Ray Train that has kept its checkpoint waits to be ended; Ray's own limit is 120 s."""


class Preemption:
    """How a worker learns that its machine goes, and what it does once its checkpoint is kept. Of itself: never.

    The loop's workers ask by `Notices`.
    """

    def is_told(self) -> bool:
        """Whether this worker was told; called by all ranks at the same step."""
        return False

    def room(self) -> int:
        """Workers that there is room for now; 0: nobody says. Only rank 0 is asked, at the end of an epoch."""
        return 0

    def leave(self, step: int) -> None:
        """The checkpoint of `step` is kept: end this attempt.

        Raises:
            PreemptedError: always, where no one ends this process.
        """
        raise PreemptedError(f"the machine is taken away; the checkpoint of step {step} is kept")


class TermSignal(Preemption):
    """SIGTERM, which a machine that is shut down sends to all its processes.

    Args:
        is_drained: whether Ray was told that this machine goes.
        room: workers that there is room for.
    """

    def __init__(self, is_drained: Callable[[], bool] = lambda: False, room: Callable[[], int] = lambda: 0) -> None:
        self._is_told = False
        self._is_drained, self._room = is_drained, room

    def is_told(self) -> bool:
        return self._is_told or self._is_drained()

    def room(self) -> int:
        return self._room()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While the block runs a SIGTERM is noted, instead of ending this process; in the main thread alone."""

        def note(number: int, frame: Any) -> None:
            self._is_told = True

        before = signal.signal(signal.SIGTERM, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


class NodeDrained(Preemption):
    """Ray says that a node which hosts one of the workers is drained.

    Ray Train charges no failure for a worker that goes with its node, but does for one that raises: so once the
    checkpoint is kept, a worker waits to be ended.

    Args:
        ask: `ray.train.get_preemption_info`, which meets the other workers.
    """

    def __init__(self, ask: Callable[[], Any], sleep: Callable[[float], None] = time.sleep) -> None:
        self._ask, self._sleep = ask, sleep

    def is_told(self) -> bool:
        return self._ask() is not None

    def leave(self, step: int) -> None:
        self._sleep(END_S)
        super().leave(step)


class Notices:
    """Asks all ranks whether one was told, at steps they agree on: about every ASK_S, whatever a step takes."""

    def __init__(self, preemption: Preemption, world: World, clock: Callable[[], float] = time.monotonic) -> None:
        self._preemption, self._world, self._clock = preemption, world, clock
        self._next_step = 0
        self._asked_at: tuple[int, float] | None = None

    def came(self, step: int) -> bool:
        """Whether a rank was told; after each optimizer step, on every rank."""
        if step < self._next_step:
            return False
        is_told, interval = self._preemption.is_told(), self._interval(step)
        if self._world.size > 1:
            # Rank 0's clock alone decides when all ask again.
            mine = [float(is_told), float(interval if self._world.rank == 0 else 0)]
            values = torch.tensor(mine, dtype=torch.float64, device=self._world.device)
            dist.all_reduce(values)
            is_told, interval = bool(values[0] > 0), int(values[1])
        self._next_step = step + interval
        return is_told

    def _interval(self, step: int) -> int:
        """Steps until they ask again; at most twice as many as lie behind, since the first ones take longer."""
        now, before = self._clock(), self._asked_at
        self._asked_at = (step, now)
        if before is None or step <= before[0]:
            return 1
        done = step - before[0]
        step_s = max((now - before[1]) / done, 1e-6)
        return max(1, min(round(ASK_S / step_s), 2 * done))
