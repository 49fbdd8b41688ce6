"""Steps of texts: short ones in the event loop, long ones in a thread, and everybody's turn comes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from raypipe.serve import writing as module
from raypipe.serve.batching import INLINE_MAX_S
from raypipe.serve.writing import Writing

SHORT_S = 1e-5


class StepTime:
    """The clock that steps are measured by: it goes on by what they are meant to take, however busy the machine is."""

    now_s = 0.0

    @classmethod
    def perf_counter(cls) -> float:
        return cls.now_s


@pytest.fixture(autouse=True)
def step_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "time", StepTime)


class Text:
    """Notes which thread each step of it ran in."""

    def __init__(self, num_tokens: int, step_s: float = 0.0) -> None:
        self.num_tokens, self.step_s = num_tokens, step_s
        self.threads: list[str] = []

    def steps(self) -> Iterator[str]:
        for number in range(self.num_tokens):
            time.sleep(self.step_s)  # the step itself
            StepTime.now_s += self.step_s or SHORT_S
            self.threads.append(threading.current_thread().name)
            yield f"{number} "


async def written(writing: Writing, text: Text, order: list[Text] | None = None, num_read: int = 1) -> str:
    found = ""
    async for token in writing.tokens(text.steps, asyncio.get_running_loop().time(), num_read):
        found += token
        if order is not None:
            order.append(text)
    return found


def of_main(text: Text) -> list[bool]:
    return [name == threading.main_thread().name for name in text.threads]


def test_short_steps_run_in_the_event_loop_once_one_was_measured():
    writing, text = Writing(60.0), Text(6)
    assert asyncio.run(written(writing, text)) == "0 1 2 3 4 5 "
    assert of_main(text) == [False, True, True, True, True, True]
    assert writing.num_texts == 0


def test_long_steps_run_beside_it_and_leave_it_to_others():
    writing, text = Writing(60.0), Text(4, step_s=3 * INLINE_MAX_S)

    async def turns() -> int:
        task, count = asyncio.create_task(written(writing, text)), 0
        while not task.done():
            count += 1
            await asyncio.sleep(0)
        return count

    assert asyncio.run(turns()) > 8
    assert not any(of_main(text))


def test_texts_of_short_steps_take_turns():
    writing, first, second = Writing(60.0), Text(40), Text(40)
    order: list[Text] = []

    async def both() -> None:
        await written(writing, Text(1))  # so that it is known what a step takes
        await asyncio.gather(*map(partial(written, writing, order=order), (first, second)))

    asyncio.run(both())
    assert order.index(second) < 4 and order[::-1].index(first) < 6


def test_prompt_that_takes_long_to_read_is_read_beside_the_event_loop():
    writing = Writing(60.0)
    long, short = Text(1, step_s=20 * INLINE_MAX_S), Text(1)

    async def several() -> None:
        for _ in range(3):
            await written(writing, long, num_read=1000)
            await written(writing, short)

    asyncio.run(several())
    assert not any(of_main(long))
    assert of_main(short)[-1]


class Held(Text):
    """Its one step ends when it is let go; whether another step was done meanwhile, it notes."""

    def __init__(self, other: Text) -> None:
        super().__init__(1)
        self.other, self.begun, self.go = other, threading.Event(), threading.Event()
        self.done_meanwhile = -1

    def steps(self) -> Iterator[str]:
        before = len(self.other.threads)
        self.begun.set()
        assert self.go.wait(30)
        self.done_meanwhile = len(self.other.threads) - before
        yield from super().steps()


def test_step_that_nobody_waits_for_any_more_has_the_model_to_itself_until_its_end():
    writing, short = Writing(60.0), Text(2)
    held = Held(short)

    async def left() -> None:
        for _ in range(3):  # so that it is known which steps are short
            await written(writing, Text(1, step_s=20 * INLINE_MAX_S), num_read=1000)
            await written(writing, Text(1))
        leaves = asyncio.create_task(written(writing, held, num_read=1000))
        while not held.begun.is_set():
            await asyncio.sleep(0)
        leaves.cancel()
        await asyncio.wait([leaves])
        stays = asyncio.create_task(written(writing, short))
        for _ in range(5):
            await asyncio.sleep(0)
        held.go.set()
        assert await stays == "0 1 "

    asyncio.run(left())
    assert held.done_meanwhile == 0
