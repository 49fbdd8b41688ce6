"""A coroutine that begins at once and goes on as soon as what it waits for is there, without a task.

asyncio's tasks keep a list of themselves and end in a turn of the event loop of their own: 15 us a request, of the 200
that a small model's answer takes (measured).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Begun:
    """A coroutine, up to its end. asyncio.current_task() is None in it, so it can use no asyncio.timeout().

    Args:
        coroutine: runs until its first wait before the constructor returns.
        ended: is told when it ends later than that: what it raised, or None. Never called in the constructor.
    Raises:
        BaseException: what it raised before its first wait.
    """

    __slots__ = ("_awaited", "_coroutine", "_ended", "_is_cancelled", "_loop", "is_done")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, None],
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[Begun, BaseException | None], None],
    ) -> None:
        self._coroutine, self._loop, self._ended = coroutine, loop, ended
        self._awaited: asyncio.Future[Any] | None = None
        self._is_cancelled = self.is_done = False
        try:
            self._wait(coroutine.send(None))
        except StopIteration:
            self.is_done = True

    def cancel(self, msg: str | None = None) -> None:
        """Raise CancelledError where it waits, in the event loop's next turn; what is at its end stays so.

        Args:
            msg: as asyncio.Task takes one.
        """
        if self.is_done:
            return
        if self._awaited is None or not self._awaited.cancel(msg):
            self._is_cancelled = True

    def _wait(self, awaited: asyncio.Future[Any] | None) -> None:
        self._awaited = awaited
        if awaited is None:  # a bare yield: it only lets others go first
            self._loop.call_soon(self._go_on)
        else:
            awaited._asyncio_future_blocking = False  # as asyncio tells a future that is awaited
            awaited.add_done_callback(self._go_on)

    def _go_on(self, _: object = None) -> None:
        try:
            if self._is_cancelled:
                self._is_cancelled = False
                awaited = self._coroutine.throw(asyncio.CancelledError())
            else:
                awaited = self._coroutine.send(None)  # the future itself returns its result there, or raises
            self._wait(awaited)
        except StopIteration:
            self._end(None)
        except BaseException as error:
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self.is_done = True
        self._ended(self, error)
