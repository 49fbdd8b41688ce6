"""An event loop with a clock of its own: it jumps to the next timer where nothing else is left to do.

So what is told of seconds takes none, and comes out alike on a machine that has no time.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_in_own_time(story: Coroutine[Any, Any, T]) -> T:
    """asyncio.run() in such a loop. For stories without threads and processes: these do not know its time."""
    loop = _Loop(_Selector())
    try:
        return loop.run_until_complete(story)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


class _Selector(selectors.DefaultSelector):
    """Never waits for a timer.

    Attributes:
        skipped_s: that it should have waited, altogether.
    """

    skipped_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(None if timeout is None else 0)
        if not found and timeout:
            self.skipped_s += timeout
        return found


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, selector: _Selector) -> None:
        super().__init__(selector)
        self._jumping = selector

    def time(self) -> float:
        return self._jumping.skipped_s
