"""Bodies that come slowly, or not at all: cut in time, and not before it where they keep coming."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from raypipe.errors import RequestError
from raypipe.serve import body as bodies
from raypipe.serve.body import Arriving, whole_body
from raypipe.serve.room import Room
from raypipe.spec.limits import LimitsSpec
from raypipe.spec.serve import ServeSpec
from tests.unit.serve.own_time import run_in_own_time

SPEC = ServeSpec(limits=LimitsSpec(body_timeout_s=0.1), request_timeout_s=0.6, max_body_bytes=100_000)


def read(parts: AsyncIterator[bytes], spec: ServeSpec = SPEC) -> tuple[bytes | bytearray | RequestError, float, Room]:
    """What came of it, after how many seconds."""

    async def story() -> tuple[bytes | bytearray | RequestError, float, Room]:
        async def receive() -> Any:
            try:
                return {"type": "http.request", "body": await anext(parts), "more_body": True}
            except StopAsyncIteration:
                return {"type": "http.request", "body": b"", "more_body": False}

        room = Room(spec)
        stay = room.enter()
        start = asyncio.get_running_loop().time()
        try:
            found: bytes | bytearray | RequestError = await whole_body({}, Arriving(receive), spec, stay)
        except RequestError as error:
            found = error
        task = asyncio.current_task()
        assert task is not None and not getattr(task, "cancelling", int)(), "the task may go on"
        await asyncio.sleep(0)
        stay.__exit__()
        return found, asyncio.get_running_loop().time() - start, room

    return run_in_own_time(story())


async def never() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


async def dripping(part: bytes, every_s: float, count: int = 10**6) -> AsyncIterator[bytes]:
    for _ in range(count):
        await asyncio.sleep(every_s)
        yield part


@pytest.mark.parametrize("parts", [never(), dripping(b"x", 0.01)], ids=["nothing", "a byte at a time"])
def test_body_that_does_not_come_in_time_is_408(parts: AsyncIterator[bytes]):
    found, seconds, room = read(parts)
    assert isinstance(found, RequestError) and found.status == 408
    assert seconds == pytest.approx(0.1) and "in 0.1 s" in found.message
    assert (room.requests, room.held_bytes) == (0, 0)


def test_body_that_keeps_coming_fast_enough_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bodies, "BYTES_A_SECOND", 500)
    monkeypatch.setattr(bodies, "LOOK_EVERY_S", 0.1)
    found, seconds, _ = read(dripping(b"x" * 100, 0.03, count=8))
    assert found == b"x" * 800 and seconds == pytest.approx(0.24)


def test_body_that_begins_fast_and_then_drips_is_cut(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bodies, "LOOK_EVERY_S", 0.1)

    async def parts() -> AsyncIterator[bytes]:
        yield b"x" * 50_000
        while True:
            await asyncio.sleep(0.01)
            yield b"x"

    found, seconds, _ = read(parts())
    assert isinstance(found, RequestError) and found.status == 408 and seconds == pytest.approx(0.2)


def test_no_body_is_waited_for_longer_than_the_request_may_take(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bodies, "BYTES_A_SECOND", 1)
    monkeypatch.setattr(bodies, "LOOK_EVERY_S", 0.1)
    found, seconds, _ = read(dripping(b"x", 0.01))
    assert isinstance(found, RequestError) and found.status == 408 and seconds == pytest.approx(0.6)


def test_client_that_goes_ends_the_wait_as_it_should():
    async def story() -> None:
        stay = Room(SPEC).enter()
        task = asyncio.create_task(whole_body({}, Arriving(asyncio.Event().wait), SPEC, stay))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(story())
