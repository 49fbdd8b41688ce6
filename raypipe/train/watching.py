"""A worker that hangs: found by itself, told with where it stands, and ended, so that the group starts again.

In a hanging group most ranks wait for the one that hangs; every rank that can speak tells its own stack.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from raypipe.runtime.progress import Reporter
from raypipe.train.order import TrainOrder
from raypipe.train.rows import World

HUNG_EXIT_CODE = 70

NUM_FRAMES = 6
"""Innermost calls that are told."""

SILENT_S = 30.0
"""So much later a process ends whose Python does not run at all, since a call in C holds its lock."""

Report = Callable[[dict[str, Any]], None]


class Watch:
    """Ends this process where the loop reports nothing for `hung_after_s`.

    The loop reports every few seconds, or at each step where steps take longer; so `report` is its pulse.

    Args:
        report: where the loop's events go.
        tell: told of the hang: {"event": "hung", "rank", "step", "silent_s", "stack"}.
        end: ends the process.
    """

    def __init__(
        self,
        hung_after_s: float,
        rank: int,
        *,
        report: Report,
        tell: Report,
        end: Callable[[int], Any] = os._exit,
    ) -> None:
        self._hung_after_s, self._rank = hung_after_s, rank
        self._report, self._tell, self._end = report, tell, end
        self._last = time.monotonic()
        self._step = 0
        self._over = threading.Event()

    def report(self, event: dict[str, Any]) -> None:
        """An event of the loop, passed on; one that only says that it is alive ends here."""
        self._last = time.monotonic()
        self._step = int(event.get("step", self._step))
        if event["event"] != "alive":
            self._report(event)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While the block runs, in the thread that shall be watched."""
        self._last = time.monotonic()
        watched = threading.get_ident()
        thread = threading.Thread(target=self._watch, args=(watched,), name="watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
            faulthandler.cancel_dump_traceback_later()

    def _watch(self, watched: int) -> None:
        look_s = min(1.0, self._hung_after_s / 4)
        while not self._over.wait(look_s):
            faulthandler.dump_traceback_later(self._hung_after_s + SILENT_S, exit=True)
            silent_s = time.monotonic() - self._last
            if silent_s >= self._hung_after_s:
                event = {"event": "hung", "rank": self._rank, "step": self._step, "silent_s": round(silent_s, 1)}
                try:
                    self._tell({**event, "stack": stack_of(watched)})
                finally:
                    self._end(HUNG_EXIT_CODE)
                return


@contextmanager
def watching(order: TrainOrder, world: World, channel: str) -> Iterator[Report]:
    """Watch this thread's training while the block runs; yields where its loop reports.

    Rank 0 speaks for all on `channel`, but each rank for itself where it hangs.
    """
    send = partial(Reporter(channel).send, force=True)
    report = send if world.rank == 0 else _silent
    watch = Watch(order.spec.train.hung_after_s, world.rank, report=report, tell=send)
    with watch.watching():
        yield watch.report


def _silent(event: dict[str, Any]) -> None:
    """Rank 0 speaks for all."""


def stack_of(thread: int) -> str:
    """Where a thread of this process stands, innermost call first: `model.py:12 forward < loop.py:80 train_step`."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return "the thread has ended"
    calls = traceback.extract_stack(frame)[-NUM_FRAMES:]
    return " < ".join(f"{os.path.basename(call.filename)}:{call.lineno} {call.name}" for call in reversed(calls))
