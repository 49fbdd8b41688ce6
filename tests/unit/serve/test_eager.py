"""A coroutine that begins at once goes on without a task, and ends as a task would."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from raypipe.serve.eager import Begun

Coroutines = Callable[[list[str]], Coroutine[Any, Any, None]]


def story(made: Coroutines, *, cancel_in_turn: int | None = None) -> tuple[list[str], list[BaseException | None]]:
    """What the coroutine told, and what it was told to have ended with; it has ten seconds."""

    async def run() -> tuple[list[str], list[BaseException | None]]:
        told: list[str] = []
        ends: list[BaseException | None] = []
        end = asyncio.Event()

        def ended(begun: Begun, error: BaseException | None) -> None:
            assert begun.is_done
            ends.append(error)
            end.set()

        begun = Begun(made(told), asyncio.get_running_loop(), ended)
        told.append("constructed")
        if cancel_in_turn is not None:
            for _ in range(cancel_in_turn):
                await asyncio.sleep(0)
            begun.cancel("it is enough")
        if not begun.is_done:
            await asyncio.wait_for(end.wait(), 10)
        for _ in range(3):
            await asyncio.sleep(0)
        return told, ends

    return asyncio.run(run())


def test_what_waits_for_nothing_is_at_its_end_at_once():
    async def short(told: list[str]) -> None:
        told.append("short")

    assert story(short) == (["short", "constructed"], [])


def test_it_goes_on_after_bare_yields_futures_threads_and_sleeps():
    async def long(told: list[str]) -> None:
        told.append("begun")
        await asyncio.sleep(0)
        assert asyncio.current_task() is None
        await asyncio.sleep(0.001)
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[str] = loop.create_future()
        loop.call_soon(waiting.set_result, "future")
        told.append(await waiting)
        with ThreadPoolExecutor(1) as pool:
            told.append(await loop.run_in_executor(pool, str, "thread"))
        told.append(await asyncio.create_task(asyncio.sleep(0.001, "task")))

    assert story(long) == (["begun", "constructed", "future", "thread", "task"], [None])


def test_what_is_raised_where_it_waits_is_raised_in_it_and_what_it_raises_is_told():
    async def fails(told: list[str]) -> None:
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[str] = loop.create_future()
        loop.call_soon(waiting.set_exception, ValueError("no"))
        try:
            await waiting
        except ValueError as error:
            told.append(str(error))
        await asyncio.sleep(0)
        raise KeyError("mine")

    told, (error,) = story(fails)
    assert told == ["constructed", "no"] and isinstance(error, KeyError)


def test_what_is_raised_before_the_first_wait_is_raised_by_the_constructor():
    async def fails(told: list[str]) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError):
        story(fails)


@pytest.mark.parametrize("turn", [0, 2])
@pytest.mark.parametrize("seconds", [0, 60])
def test_it_can_be_cancelled_where_it_waits(turn: int, seconds: float):
    async def waits(told: list[str]) -> None:
        try:
            while True:
                await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            told.append("cancelled")
            await asyncio.sleep(0)
            told.append("cleaned up")
            raise

    told, (error,) = story(waits, cancel_in_turn=turn)
    assert told == ["constructed", "cancelled", "cleaned up"] and isinstance(error, asyncio.CancelledError)


def test_to_cancel_what_has_ended_changes_nothing():
    async def short(told: list[str]) -> None:
        await asyncio.sleep(0)

    assert story(short, cancel_in_turn=4) == (["constructed"], [None])
