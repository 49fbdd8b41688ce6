"""One connection of a client: a request that is here whole is answered at once; any other takes uvicorn's way.

data -> HTTP parser -> Call -> Application.answer -> Reply -> one write

Most requests arrive in one piece and are small. For them a task, a scope and messages, which ASGI asks for, take longer
than the parser and the checks together (measured: 45 of 220 us). Everything else is left to uvicorn: bodies that come
in parts, clients that wait to be told to send, HTTP/1.0, requests behind one that is not answered yet.
"""

from __future__ import annotations

import asyncio
import http
import logging
import os
import time
from contextlib import suppress
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from raypipe.serve import polling
from raypipe.serve.eager import Begun
from raypipe.serve.polling import Polling
from raypipe.serve.protocols import Call, Reply

ALONE_BELOW = 1.25
"""Requests a turn of the event loop, lately; with fewer, the next one is not waited for."""

RECENT = 0.2
"""Weight of a turn among the turns before."""

COPIED_BYTES = 64 * 2**10
"""Up to as many, an answer is put together with its header and leaves in one packet; to copy more takes longer."""

READ_BYTES = 256 * 2**10
"""Read at once from a connection that is looked at; as many as asyncio reads."""

STATUS_LINE = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n" for each in http.HTTPStatus}

logger = logging.getLogger("ray.serve")


class Application(Protocol):
    """What a connection asks: ASGI for what comes in parts, and `answer` for what is here whole."""

    company: Company
    polling: Polling

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def takes(self, path: str) -> bool:
        """Whether `answer` may be asked for this path."""
        ...

    async def answer(self, call: Call, *, alone: bool) -> Reply:
        """Answer one request.

        Args:
            call: its path as the client sent it, prefix included.
            alone: whether no other request is likely to share its model call.
        """
        ...


class Company:
    """How many requests arrive in one turn of the event loop: those of one turn can share a model call."""

    def __init__(self) -> None:
        self._here = 0
        self._lately = 1.0

    def arrives(self, loop: asyncio.AbstractEventLoop) -> bool:
        """One more has come.

        Returns:
            Whether it is likely to stay alone in this turn.
        """
        if not self._here:
            loop.call_soon(self._end_turn)
        self._here += 1
        return self._here == 1 and self._lately < ALONE_BELOW

    def _end_turn(self) -> None:
        self._lately += RECENT * (self._here - self._lately)
        self._here = 0


class Exchange:
    """A request that was here whole, until its answer is written; to uvicorn it is the connection's current one."""

    __slots__ = ("begun", "disconnected", "keep_alive", "message_event", "response_complete")

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        self.message_event = NOBODY_WAITS
        self.begun: Begun | None = None


class _NobodyWaits:
    """For uvicorn, which tells whoever waits for a body that the connection is gone."""

    def set(self) -> None:
        """Nothing more of the body comes: all of it is here."""


NOBODY_WAITS = _NobodyWaits()


NO_FD = -1


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP, with a short way for requests that are here whole. `config.app` is an Application."""

    app: Any
    cycle: Any
    parser: Any

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._parts: list[bytes] | None = None
        """Of the body of a request that may yet turn out to be here whole; None: there is none."""
        self._exchange: Exchange | None = None
        self._quiet_since = self.loop.time()
        self._fd = NO_FD
        self._answered_at: float | None = None
        """By time.perf_counter(), until more comes; None where that tells nothing of the client."""
        self._hurries = False
        """The client lately asked again at once."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._close_when_quiet(self.timeout_keep_alive)
        found = transport.get_extra_info("socket")
        if found is not None:
            self._fd = found.fileno()
            self.app.polling.add(self._fd, self)

    def data_received(self, data: bytes) -> None:
        if self._answered_at is not None:
            self._hurries = time.perf_counter() - self._answered_at < polling.POLL_S
            self._answered_at = None
        super().data_received(data)
        if self._parts is not None:
            self._by_uvicorn()

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._quiet_since = self.loop.time()

    def on_headers_complete(self) -> None:
        busy = self.cycle is not None and not self.cycle.response_complete
        url, parser = self.url, self.parser
        is_plain = url[:1] == b"/" and url.isascii() and b"%" not in url and b"#" not in url
        is_usual = is_plain and parser.get_http_version() == "1.1" and not parser.should_upgrade()
        if busy or not is_usual or self.expect_100_continue or self.flow.write_paused:
            self._all_by_uvicorn()
        else:
            self._parts = []

    def on_body(self, body: bytes) -> None:
        if self._parts is None:
            super().on_body(body)
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._parts is None:
            super().on_message_complete()
            return
        path, _, query = self.url.partition(b"?")
        path = path.decode("ascii")
        if not self.app.takes(path):
            self._by_uvicorn()
            super().on_message_complete()
            return
        parts, self._parts = self._parts, None
        method = self.parser.get_method().decode("ascii")
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        call = Call(method, path, dict(self.headers), body, query)
        self.cycle = self._exchange = exchange = Exchange(keep_alive=self.parser.should_keep_alive())
        alone = self.app.company.arrives(self.loop) and not self.tasks
        try:
            begun = Begun(self._answer(call, exchange, alone=alone), self.loop, self._ended)
        except Exception as error:  # raised into the parser it would be the client's fault
            self._fail(exchange, error)
            return
        if not begun.is_done:
            exchange.begun = begun
            self.tasks.add(begun)  # pyright: ignore[reportArgumentType]  # counted, and cancelled when a server must end

    async def _answer(self, call: Call, exchange: Exchange, *, alone: bool) -> None:
        reply = await self.app.answer(call, alone=alone)
        if exchange.disconnected:
            return
        head = _head(reply, keep_alive=exchange.keep_alive)
        body = b"" if call.method == "HEAD" else reply.body
        if len(body) <= COPIED_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)
        exchange.response_complete = True
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()
        if alone and exchange.keep_alive and self._fd != NO_FD:
            self._answered_at = time.perf_counter()
            if self._hurries:
                self.loop.call_soon(self._look)

    def _look(self) -> None:
        """Look for this client's next request, until anybody's comes."""
        if self.transport.is_closing() or self._answered_at is None:
            return
        found = self.app.polling.first(self._answered_at + polling.POLL_S)
        if found is None:
            self._hurries = False
        elif found is self:
            with suppress(OSError):  # the event loop reads, and is told, the same
                if data := os.read(self._fd, READ_BYTES):
                    self.data_received(data)

    def _ended(self, begun: Begun, error: BaseException | None) -> None:
        self.tasks.discard(begun)  # pyright: ignore[reportArgumentType]
        exchange = self._exchange
        if error is None or isinstance(error, asyncio.CancelledError):
            return
        if exchange is not None and exchange.begun is begun:
            self._fail(exchange, error)

    def _fail(self, exchange: Exchange, error: BaseException) -> None:
        """The application answers whatever happens; where it did not, the client must not wait."""
        logger.error("a request had no answer", exc_info=error)
        exchange.response_complete = True
        self.transport.close()

    def _all_by_uvicorn(self) -> None:
        url, headers, waits = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, waits
        self.headers.extend(headers)
        super().on_headers_complete()

    def _by_uvicorn(self) -> None:
        """Hand over a request whose header, and part of whose body, is here."""
        parts, self._parts = self._parts or [], None
        self._all_by_uvicorn()
        for part in parts:
            super().on_body(part)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._fd != NO_FD:
            self.app.polling.remove(self._fd, self)
        super()._unset_keepalive_if_required()
        self._parts = None
        if self._exchange is not None:  # another request may wait behind it, which is then the current one
            self._exchange.disconnected = True
            if self._exchange.begun is not None:
                self._exchange.begun.cancel()  # nobody waits for it any more

    # ---- one timer a connection, not two calls of it a request

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self._quiet_since = self.loop.time()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)

    def _unset_keepalive_if_required(self) -> None:
        """The timer itself looks whether the connection is quiet."""

    def timeout_keep_alive_handler(self) -> None:
        quiet_s = self.loop.time() - self._quiet_since
        busy = self.cycle is not None and not self.cycle.response_complete
        if self.transport.is_closing():
            return
        if busy or quiet_s < self.timeout_keep_alive:
            self._close_when_quiet(self.timeout_keep_alive - (0 if busy else quiet_s))
        else:
            self.transport.close()

    def _close_when_quiet(self, after_s: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(after_s, self.timeout_keep_alive_handler)


def _head(reply: Reply, *, keep_alive: bool) -> bytes:
    """What is sent before the body of an answer."""
    more = "".join([f"{name}: {value}\r\n" for name, value in reply.headers.items()])
    ends = "\r\n" if keep_alive or "connection" in reply.headers else "connection: close\r\n\r\n"
    return (
        f"{STATUS_LINE[reply.status]}content-type: {reply.media_type}\r\ncontent-length: {len(reply.body)}\r\n"
        f"{more}{ends}"
    ).encode("latin-1", "replace")
