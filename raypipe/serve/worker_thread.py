"""A thread beside the event loop, for what would hold it up.

While it works, Python's threads take turns more often than they do by themselves, so that the event loop waits a moment
at most. While none works they do not: Ray's main thread wakes some hundred times a second, and each turn it is given in
the middle of a request costs two switches of threads (a tenth of a busy replica's time, measured).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, ParamSpec, TypeVar

SWITCH_S = 0.001
"""Longest that a thread at work keeps the others waiting between two steps of Python; Python's own 5 ms are all that a
request may wait for."""

P = ParamSpec("P")
T = TypeVar("T")


class WorkerThread:
    """Does one thing at a time, in the order in which it was asked."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, name)
        self._asked: set[Future[Any]] = set()

    @property
    def is_busy(self) -> bool:
        """Whether something is left to do, even if nobody waits for it."""
        return bool(self._asked)

    async def run(self, function: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """What the function returns or raises. Once it has begun it goes on to its end, even if nobody waits for it."""
        return await self._begun(function, args, named)

    def _begun(
        self, function: Callable[..., T], args: tuple[object, ...], named: dict[str, object]
    ) -> asyncio.Future[T]:
        # Apart from `run`: what is raised knows the frames it went through, and must not find itself there.
        asked: Future[T] = self._pool.submit(_in_short_turns, function, args, named)
        self._asked.add(asked)
        asked.add_done_callback(self._asked.discard)  # before who waits hears of it
        return asyncio.wrap_future(asked)


_lock = Lock()
_num_working = 0
_usual_s = sys.getswitchinterval()


def _in_short_turns(function: Callable[..., T], args: tuple[object, ...], named: dict[str, object]) -> T:
    global _num_working, _usual_s
    with _lock:
        if not _num_working:
            _usual_s = sys.getswitchinterval()
            sys.setswitchinterval(min(SWITCH_S, _usual_s))
        _num_working += 1
    try:
        return function(*args, **named)
    finally:
        with _lock:
            _num_working -= 1
            if not _num_working:
                sys.setswitchinterval(_usual_s)
