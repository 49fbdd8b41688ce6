"""A client that asks again at once is looked out for, and nobody else waits for that."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from raypipe.serve import polling
from raypipe.serve.connection import Connection
from raypipe.serve.polling import Polling
from tests.unit.serve.test_connection import WHOLE, Echo

LONG_S = 30.0
"""A look that nothing ends, beside ANSWER_S."""

ANSWER_S = 10.0


class Noted(Polling):
    """Notes how each look ended."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[object | None] = []
        self.begun = threading.Event()
        self.over = threading.Event()

    def first(self, until: float) -> object | None:
        self.begun.set()
        found = super().first(until)
        self.looks.append(found)
        if found is None:
            self.over.set()
        return found


@contextmanager
def server(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[tuple[Noted, int]]:
    """Connections of one event loop, in a thread; their port."""
    echo, noted, loop = Echo(), Noted(), new_loop()
    echo.polling = noted
    config = uvicorn.Config(
        lambda: echo, factory=True, interface="asgi3", ws="none", proxy_headers=False, log_config=None
    )

    async def listen() -> asyncio.Server:
        return await loop.create_server(lambda: Connection(config, ServerState(), {}, loop), "127.0.0.1", 0)

    listening = loop.run_until_complete(listen())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield noted, listening.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        listening.close()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def ask(client: socket.socket) -> None:
    client.sendall(WHOLE)
    assert client.recv(65536).startswith(b"HTTP/1.1 200")


def opened(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S)
    ask(client)
    return client


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_who_hurries_is_looked_out_for_and_others_are_answered_meanwhile(
    new_loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(polling, "POLL_S", LONG_S)
    with server(new_loop) as (noted, port), closing(opened(port)) as first, closing(opened(port)) as second:
        for _ in range(5):
            ask(first)
        assert [look for look in noted.looks if look is not None] == noted.looks != []
        ask(second)
        ask(first)
        first.close()
        ask(second)
        second.close()


def test_who_takes_longer_is_not_looked_out_for_until_it_hurries_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(polling, "POLL_S", 0.0)
    with server(asyncio.new_event_loop) as (noted, port), closing(opened(port)) as client:
        for _ in range(3):
            ask(client)
        assert not noted.begun.is_set()
        monkeypatch.setattr(polling, "POLL_S", 0.5)
        ask(client)
        ask(client)
        assert noted.over.wait(ANSWER_S)
        noted.begun.clear()
        monkeypatch.setattr(polling, "POLL_S", 0.0)
        for _ in range(3):
            ask(client)
        assert not noted.begun.is_set()


def test_number_of_a_closed_connection_may_be_anothers_by_now():
    found, one, other = Polling(), object(), object()
    near, far = socket.socketpair()
    with near, far:
        found.add(near.fileno(), one)
        found.add(near.fileno(), other)
        found.remove(near.fileno(), one)
        far.send(b"x")
        assert found.first(float("inf")) is other
        found.remove(near.fileno(), other)
        assert found.first(0.0) is None
