"""Where a training's time goes: each second of a worker in one part, carried over restarts by its checkpoints.

What is done after a checkpoint and lost with the workers is in no checkpoint: so it is counted once, as lost, by the
attempt that goes on from there. Without torch, as the driver corrects what workers cannot know.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, TypeVar, get_args

from raypipe.records import Goodput

T = TypeVar("T")

Part = Literal["steps", "starting", "rows", "validation", "checkpoints", "failures", "packaging"]
PARTS: tuple[Part, ...] = get_args(Part)


class Stopwatch:
    """Runs from the moment the workers were asked for, and always counts for one part: first for `starting`.

    Args:
        asked_at: when the workers were asked for, by this command: Unix time, s.
        clock: seconds within this process.
        now: Unix time, s, which other processes know too.
    """

    def __init__(
        self,
        asked_at: float,
        *,
        clock: Callable[[], float] = time.perf_counter,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._asked_at, self._clock, self._now = asked_at, clock, now
        self._spent_s: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._part: Part = "starting"
        self._since = clock()
        self._spent_s["starting"] = max(0.0, now() - asked_at)

    def turn_to(self, part: Part) -> None:
        """From now on count for another part; twice a step, so it must cost next to nothing."""
        now = self._clock()
        self._spent_s[self._part] += now - self._since
        self._part, self._since = part, now

    @contextmanager
    def during(self, part: Part) -> Iterator[None]:
        """Count for another part while the block runs."""
        before = self._part
        self.turn_to(part)
        try:
            yield
        finally:
            self.turn_to(before)

    def between_steps(self, batches: Iterator[T]) -> Iterator[T]:
        """The batches as they are: to wait for one counts for `rows`, what is done with it for `steps`."""
        while True:
            self.turn_to("rows")
            batch = next(batches, None)
            self.turn_to("steps")
            if batch is None:
                return
            yield batch

    # ---- over restarts

    def so_far(self) -> tuple[dict[str, float], float]:
        """For a checkpoint: seconds in each part, and until when (Unix time, s)."""
        self.turn_to(self._part)
        return dict(self._spent_s), self._now()

    def resume(self, spent_s: Mapping[str, float], until: float) -> None:
        """Go on from what a checkpoint says; empty where there was none.

        A checkpoint of this command was written by workers that were lost since, and all time after it with them. What
        an earlier command lost after its last checkpoint, and the time until this one began, nobody knows.
        """
        if not spent_s:
            return
        self._part = "failures" if until >= self._asked_at else "starting"
        self._spent_s = {part: spent_s.get(part, 0.0) for part in PARTS}
        self._spent_s[self._part] += max(0.0, self._now() - max(until, self._asked_at))
        self._since = self._clock()

    def goodput(self, mfu: float | None = None) -> Goodput:
        """What has come of the time until now."""
        spent_s, _ = self.so_far()
        seconds = {f"{part}_s": round(spent_s[part], 6) for part in PARTS}
        whole_s = sum(spent_s.values())
        return Goodput(share=round(spent_s["steps"] / whole_s, 6) if whole_s else 0.0, mfu=mfu, **seconds)


def with_restarts(goodput: Goodput, starting_s: float) -> Goodput:
    """The goodput of a training whose workers were lost, where a later attempt may have found no checkpoint: it took
    all time before it for its start.

    Args:
        starting_s: what starting had taken when the first attempt was ready.
    """
    lost_s = max(0.0, goodput.starting_s - starting_s)
    return goodput.model_copy(
        update={"starting_s": goodput.starting_s - lost_s, "failures_s": goodput.failures_s + lost_s}
    )
