"""The body of a request: refused unread where it says it is too large, else as soon as it is, or takes too long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from starlette.requests import ClientDisconnect

from raypipe.errors import RequestError
from raypipe.serve.room import Stay
from raypipe.spec.serve import ServeSpec

Receive = Callable[[], Awaitable[Any]]
"""The next message of a request, as ASGI has it."""

BYTES_A_SECOND = 16 * 2**10
"""A body that goes on coming at least as fast is waited for beyond `body_timeout_s`, as long as a request may take."""

LOOK_EVERY_S = 2.0
"""How often that is looked at."""


SMALL_BYTES = 64 * 2**10

DRAIN_S = 2.0
"""Longest a client may go on sending what nobody reads any more. Cut at once, it would not read its answer either."""


class Arriving:
    """A body that still comes.

    Attributes:
        receive: its next part.
        is_read: whether all of it has been read.
    """

    __slots__ = ("is_read", "receive")

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self.is_read = False

    def may_be_unread(self, headers: dict[bytes, bytes]) -> bool:
        """Whether the client may still send when its request is answered. The connection must end with that, or HAProxy
        takes what comes for as long as it comes. It keeps a small body until it is whole."""
        declared = headers.get(b"content-length", b"0")
        is_large = b"transfer-encoding" in headers or not declared.isdigit() or int(declared) > SMALL_BYTES
        return is_large and not self.is_read


async def drained(receive: Receive) -> None:
    """Take what the client still sends, and forget it: until its end, or for as long as it may last."""

    async def take() -> None:
        while (message := await receive())["type"] == "http.request" and message.get("more_body"):
            pass

    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(take(), DRAIN_S)


async def whole_body(headers: dict[bytes, bytes], arriving: Arriving, spec: ServeSpec, stay: Stay) -> bytes | bytearray:
    """Read all of it.

    Args:
        stay: told of each byte that is held.
    Raises:
        RequestError: 413 over `max_body_bytes`, 408 not in time, 503 the replica holds too much already.
        ClientDisconnect: the client went.
    """
    limit = spec.max_body_bytes
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > limit:
        raise too_large(f"{declared[:20].decode()} bytes", limit)
    clock = _Deadline(spec)
    try:
        return await _all_parts(arriving, limit, stay, clock)
    except asyncio.CancelledError:
        if clock.is_over:
            raise clock.refusal() from None
        raise
    finally:
        clock.stop()


async def _all_parts(arriving: Arriving, limit: int, stay: Stay, clock: _Deadline) -> bytes | bytearray:
    body = bytearray()
    while not arriving.is_read:
        message = await arriving.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        stay.hold(len(part))
        body += part
        clock.received = len(body)
        arriving.is_read = not message.get("more_body", False)
        if len(body) > limit:
            raise too_large(f"{len(body)} bytes" if arriving.is_read else f"more than {limit} bytes", limit)
    # a large one is not copied: that takes a millisecond for some MiB, and the event loop is for everybody
    return bytes(body) if len(body) <= SMALL_BYTES else body


class _Deadline:
    """Ends the wait of the task that made it. A bare timer: asyncio.wait_for makes a task of each request.

    Attributes:
        received: bytes that came so far; they buy time.
        is_over: whether it has ended the wait.
    """

    def __init__(self, spec: ServeSpec) -> None:
        self.received = 0
        self.is_over = False
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._start = self._loop.time()
        self._least_s = min(spec.limits.body_timeout_s, spec.request_timeout_s)
        self._most_s = spec.request_timeout_s
        self._looked_at, self._seen = self._start, 0
        self._timer = self._loop.call_at(self._start + self._least_s, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        is_fast = self.received - self._seen >= BYTES_A_SECOND * (now - self._looked_at)
        until = min(self._start + self._most_s, now + LOOK_EVERY_S)
        if is_fast and until > now:
            self._looked_at, self._seen = now, self.received
            self._timer = self._loop.call_at(until, self._look)
            return
        self.is_over = True
        if self._task is not None:
            self._task.cancel()

    def stop(self) -> None:
        """The body is here, or nobody waits any more."""
        self._timer.cancel()

    def refusal(self) -> RequestError:
        """What the client is told; the task goes on with it."""
        if self._task is not None and hasattr(self._task, "uncancel"):  # from Python 3.11 on
            self._task.uncancel()  # pyright: ignore[reportAttributeAccessIssue]
        waited_s = self._loop.time() - self._start
        return RequestError(
            f"the request body did not arrive in {waited_s:.1f} s: {self.received} bytes came",
            "send it faster, or raise serve.limits.body_timeout_s",
            status=408,
        )


def too_large(found: str, limit: int) -> RequestError:
    """Why a body is refused."""
    return RequestError(
        f"the request body has {found}; at most {limit} are read",
        "send fewer rows per request, or raise serve.max_body_bytes",
        status=413,
    )
