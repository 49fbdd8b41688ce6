"""A thread beside the event loop takes short turns while it works, and only then."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import Iterator

import pytest

from raypipe.serve.worker_thread import SWITCH_S, WorkerThread


@pytest.fixture(autouse=True)
def usual() -> Iterator[float]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.004)
    yield 0.004
    sys.setswitchinterval(before)


def test_turns_are_short_while_any_thread_works_and_as_before_afterwards(usual: float):
    first, second, go = WorkerThread("first"), WorkerThread("second"), threading.Event()

    def wait() -> float:
        assert go.wait(30)
        return sys.getswitchinterval()

    async def both() -> tuple[float, float]:
        long = asyncio.create_task(first.run(wait))
        short = await second.run(sys.getswitchinterval)
        go.set()
        return short, await long

    assert asyncio.run(both()) == pytest.approx((SWITCH_S, SWITCH_S))
    assert sys.getswitchinterval() == pytest.approx(usual)


def test_what_is_raised_there_is_raised_here_and_turns_are_as_before(usual: float):
    with pytest.raises(ZeroDivisionError):
        asyncio.run(WorkerThread("one").run(lambda: 1 // 0))
    assert sys.getswitchinterval() == pytest.approx(usual)


def test_shorter_turns_than_ours_stay():
    sys.setswitchinterval(SWITCH_S / 10)
    assert asyncio.run(WorkerThread("one").run(sys.getswitchinterval)) == pytest.approx(SWITCH_S / 10, rel=0.05)


def test_one_thing_at_a_time_by_name_with_arguments():
    thread = WorkerThread("named")

    def told(*, number: int) -> tuple[int, str]:
        return number, threading.current_thread().name

    async def several() -> list[tuple[int, str]]:
        return await asyncio.gather(*(thread.run(told, number=i) for i in range(3)))

    assert asyncio.run(several()) == [(i, "named_0") for i in range(3)]


def test_it_is_busy_until_what_has_begun_ends_whoever_waits_and_not_with_what_was_given_up_before():
    thread, begun, go = WorkerThread("one"), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go.wait(30)

    async def given_up() -> None:
        first, second = asyncio.create_task(thread.run(work)), asyncio.create_task(thread.run(sys.exit))
        await asyncio.sleep(0)
        assert begun.wait(30)
        for task in (first, second):
            task.cancel()
        await asyncio.wait([first, second])
        assert first.cancelled() and second.cancelled() and thread.is_busy
        go.set()
        await thread.run(int)
        assert not thread.is_busy

    asyncio.run(given_up())


def test_what_failed_is_let_go_at_once_with_all_that_it_was_given():
    class Body:
        """Of a request."""

    def refuse(body: Body) -> None:
        raise ValueError(f"{type(body).__name__} of nothing")

    async def refused(thread: WorkerThread) -> weakref.ref[Body]:
        body = Body()
        with pytest.raises(ValueError, match="Body of nothing"):
            await thread.run(refuse, body)
        await thread.run(int)  # a thread keeps the last thing it did until the next
        return weakref.ref(body)

    gc.disable()  # which would find it later, and hold up requests meanwhile
    try:
        assert asyncio.run(refused(WorkerThread("one")))() is None
    finally:
        gc.enable()
