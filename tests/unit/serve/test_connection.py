"""What arrives on a connection, in whole and in parts, and what is written back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from raypipe.serve.connection import Company, Connection
from raypipe.serve.polling import Polling
from raypipe.serve.protocols import Call, Reply

HEAD = b"POST /predict?a=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
WHOLE = HEAD + b"\r\nhello"


class Wire:
    """A transport: what was written, in which pieces."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.closed = False
        self.reads = True

    def write(self, data: bytes) -> None:
        self.pieces.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def get_extra_info(self, name: str) -> Any:
        return None


class Echo:
    """An application that answers with what it was asked, and notes how."""

    def __init__(self) -> None:
        self.company = Company()
        self.polling = Polling()
        self.whole: list[Call] = []
        self.in_parts: list[bytes] = []
        self.alone: list[bool] = []
        self.waits_for: Awaitable[Any] | None = None
        self.reply = Reply(b'{"ok":1}')

    def takes(self, path: str) -> bool:
        return not path.startswith("/-/")

    async def answer(self, call: Call, *, alone: bool) -> Reply:
        self.whole.append(call)
        self.alone.append(alone)
        if self.waits_for is not None:
            await self.waits_for
        return self.reply

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.in_parts.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"parts"})


def story(tell: Callable[[Echo, Wire, Connection], Awaitable[Any]], keep_alive_s: int = 5) -> tuple[Echo, Wire]:
    async def run() -> tuple[Echo, Wire]:
        echo, wire = Echo(), Wire()
        config = uvicorn.Config(
            lambda: echo,
            factory=True,
            interface="asgi3",
            proxy_headers=False,
            ws="none",
            log_config=None,
            timeout_keep_alive=keep_alive_s,
        )
        connection = Connection(config, ServerState(), {}, asyncio.get_running_loop())
        connection.connection_made(wire)
        await tell(echo, wire, connection)
        connection.connection_lost(None)
        await asyncio.sleep(0)
        return echo, wire

    return asyncio.run(run())


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def test_whole_request_is_answered_at_once_in_one_piece():
    async def tell(echo: Echo, wire: Wire, connection: Connection) -> None:
        echo.reply = Reply(b'{"ok":1}', headers={"x-model": "m@1"})
        connection.data_received(WHOLE)
        assert len(wire.pieces) == 1  # no turn of the event loop was taken

    echo, wire = story(tell)
    (call,) = echo.whole
    assert (call.method, call.path, call.query, call.body) == ("POST", "/predict", b"a=1", b"hello")
    assert call.headers[b"host"] == b"x" and echo.alone == [True]
    head, body = wire.pieces[0].split(b"\r\n\r\n")
    assert body == b'{"ok":1}' and head.split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"content-type: application/json",
        b"content-length: 8",
        b"x-model: m@1",
    ]


@pytest.mark.parametrize(
    "pieces",
    [
        [HEAD, b"\r\nhello"],
        [HEAD + b"\r\nhel", b"lo"],
        [HEAD + b"Expect: 100-continue\r\n\r\n", b"hello"],
        [
            HEAD.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"\r\n2\r\nhe\r\n",
            b"3\r\nllo\r\n0\r\n\r\n",
        ],
        [WHOLE.replace(b"1.1", b"1.0")],
        [WHOLE.replace(b"/predict", b"/pre%64ict")],
        [WHOLE.replace(b"/predict", b"/-/routes")],
    ],
    ids=["after the head", "in the body", "asked to wait", "chunks", "HTTP 1.0", "escaped path", "another's path"],
)
def test_what_comes_in_parts_or_is_unusual_is_answered_by_uvicorn(pieces: list[bytes]):
    async def tell(echo: Echo, wire: Wire, connection: Connection) -> None:
        for piece in pieces:
            connection.data_received(piece)
            await turns()

    echo, wire = story(tell)
    found = b"".join(wire.pieces)
    head_alone = len(pieces) == 2 and pieces[0] == HEAD  # the rest of the header came with the whole body
    if head_alone:
        assert [call.body for call in echo.whole] == [b"hello"] and b'{"ok":1}' in found
    else:
        assert echo.in_parts == [b"hello"] and not echo.whole and found.endswith(b"parts")


def test_chunks_that_are_here_whole_are_one_body():
    async def tell(echo: Echo, wire: Wire, connection: Connection) -> None:
        head = HEAD.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked")
        connection.data_received(head + b"\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")

    echo, _ = story(tell)
    assert [call.body for call in echo.whole] == [b"hello"]


def test_requests_of_one_connection_are_answered_in_their_order():
    async def tell(echo: Echo, wire: Wire, connection: Connection) -> None:
        echo.waits_for = waiting = asyncio.get_running_loop().create_future()
        connection.data_received(WHOLE + WHOLE)
        await turns()
        assert not wire.pieces and not wire.reads  # the second waits, and no third is read
        waiting.set_result(None)
        await turns(10)
        assert wire.reads

    echo, wire = story(tell)
    found = b"".join(wire.pieces)
    assert found.index(b'{"ok":1}') < found.index(b"parts") and echo.in_parts == [b"hello"]


def test_client_that_is_gone_is_not_computed_for():
    cancelled: list[bool] = []

    async def tell(echo: Echo, wire: Wire, connection: Connection) -> None:
        async def wait() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

        echo.waits_for = wait()
        connection.data_received(WHOLE)
        await turns()
        connection.connection_lost(None)
        await turns()

    _, wire = story(tell)
    assert cancelled == [True] and not wire.pieces


def test_client_that_is_gone_is_not_computed_for_where_it_sent_more_behind():
    async def tell(echo: Echo, wire: Wire, connection: Connection) -> None:
        echo.waits_for = waiting = asyncio.get_running_loop().create_future()
        connection.data_received(WHOLE + WHOLE)
        await turns()
        connection.connection_lost(None)
        await turns()
        assert waiting.cancelled() and not connection.tasks

    _, wire = story(tell)
    assert not wire.pieces


@pytest.mark.parametrize("late", [False, True])
def test_application_that_fails_ends_the_connection_and_not_the_server(late: bool, caplog: pytest.LogCaptureFixture):
    async def tell(echo: Echo, wire: Wire, connection: Connection) -> None:
        async def fail() -> None:
            if late:
                await asyncio.sleep(0)
            raise ZeroDivisionError("the application")

        echo.waits_for = fail()
        connection.data_received(WHOLE)
        await turns()

    _, wire = story(tell)
    assert wire.closed and not wire.pieces


def test_connection_that_is_not_kept_alive_is_told_so_and_closed():
    async def tell(echo: Echo, wire: Wire, connection: Connection) -> None:
        connection.data_received(WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

    _, wire = story(tell)
    assert wire.closed and b"\r\nconnection: close\r\n" in wire.pieces[0]


def test_shutting_down_lets_the_request_that_is_here_have_its_answer():
    async def tell(echo: Echo, wire: Wire, connection: Connection) -> None:
        echo.waits_for = waiting = asyncio.get_running_loop().create_future()
        connection.data_received(WHOLE)
        connection.shutdown()
        assert not wire.closed
        waiting.set_result(None)
        await turns()

    _, wire = story(tell)
    assert wire.closed and b"connection: close" in wire.pieces[0] and wire.pieces[0].endswith(b'{"ok":1}')


def test_head_has_no_body_and_headers_of_a_reply_are_sent():
    async def tell(echo: Echo, wire: Wire, connection: Connection) -> None:
        echo.reply = Reply(b"12345678", 503, headers={"retry-after": "2"})
        connection.data_received(b"HEAD /healthz HTTP/1.1\r\nhost: x\r\n\r\n")

    _, wire = story(tell)
    (found,) = wire.pieces
    assert found.startswith(b"HTTP/1.1 503 Service Unavailable\r\n") and found.endswith(b"\r\n\r\n")
    assert b"content-length: 8\r\n" in found and b"retry-after: 2\r\n" in found


def test_quiet_connection_is_closed_and_a_busy_one_is_not():
    async def tell(echo: Echo, wire: Wire, connection: Connection) -> None:
        echo.waits_for = waiting = asyncio.get_running_loop().create_future()
        connection.data_received(WHOLE)
        connection._quiet_since -= 60
        connection.timeout_keep_alive_handler()
        assert not wire.closed
        waiting.set_result(None)
        await turns()
        connection.timeout_keep_alive_handler()
        assert not wire.closed  # it has answered just now
        connection._quiet_since -= 60
        connection.timeout_keep_alive_handler()
        assert wire.closed

    story(tell, keep_alive_s=30)


def test_requests_of_one_turn_are_company_for_each_other_and_for_who_comes_later():
    async def run() -> list[bool]:
        loop, company = asyncio.get_running_loop(), Company()
        found = []
        for _ in range(3):
            found.append([company.arrives(loop) for _ in range(4)])
            await turns(2)
        for _ in range(20):
            last = company.arrives(loop)
            await turns(2)
        return [*found, last]

    assert asyncio.run(run()) == [[True, False, False, False], [False] * 4, [False] * 4, True]
