"""Texts that a model writes for clients: step by step, so that all who wait get their share of the model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator

from raypipe.errors import RequestError
from raypipe.serve.batching import INLINE_MAX_S
from raypipe.serve.call_cost import CallCost
from raypipe.serve.room import RETRY_AFTER_S
from raypipe.serve.worker_thread import WorkerThread

MAX_AT_ONCE = 32
"""Texts that one replica writes at a time: each keeps what its network has read."""


class Writing:
    """The texts of one replica. One step of one text runs at a time, in turns: in the event loop where it is expected
    to be short, else in a thread.

    Args:
        timeout_s: longest time from a request's arrival to the end of its text.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._thread = WorkerThread("raypipe-write")
        self._cost = CallCost()
        self.num_texts = 0

    async def tokens(
        self, begin: Callable[[], Iterator[str]], since: float, num_read: int = 1
    ) -> AsyncGenerator[str, None]:
        """The tokens of a text; the next one is computed when it is asked for, and none after the generator is closed.

        Args:
            since: when the request arrived, by the event loop's clock.
            num_read: tokens that are read before the first is written.
        Raises:
            RequestError: 503, as many texts as may be are being written; 504, the text was not finished in time.
        """
        if self.num_texts >= MAX_AT_ONCE:
            raise RequestError(
                f"{self.num_texts} texts are being written already",
                "ask again after the seconds that Retry-After says, or raise serve.max_replicas",
                status=503,
                headers={"retry-after": RETRY_AFTER_S},
            )
        loop = asyncio.get_running_loop()
        self.num_texts += 1
        written = 0
        try:
            text = begin()
            while True:
                if loop.time() > since + self._timeout_s:
                    raise RequestError(
                        f"the text was not finished within {self._timeout_s:g} s; {written} tokens were written",
                        "ask for fewer max_new_tokens, or raise serve.request_timeout_s",
                        status=504,
                    )
                token = await self._step(text, 1 if written else num_read)
                if token is None:
                    return
                written += 1
                yield token
        finally:
            self.num_texts -= 1

    async def _step(self, text: Iterator[str], num_read: int) -> str | None:
        """The next token.

        Args:
            num_read: tokens that the network reads for it.
        """
        if num_read == 1:
            await asyncio.sleep(0)  # the turn of whoever else waits; a text that begins has waited for its own
        if not self._thread.is_busy and self._cost.of(num_read) <= INLINE_MAX_S:
            return self._timed(text, num_read)
        return await self._thread.run(self._timed, text, num_read)

    def _timed(self, text: Iterator[str], num_read: int) -> str | None:
        start = time.perf_counter()
        token = next(text, None)
        self._cost.note(num_read, time.perf_counter() - start)
        return token
