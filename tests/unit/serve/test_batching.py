from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from raypipe.errors import DataError, RequestError
from raypipe.model.predictions import Predictions
from raypipe.serve import batching
from raypipe.serve.batching import Batcher, Features
from raypipe.spec.serve import BatchingSpec

TIMEOUT_S = 30.0


class Double:
    """Answers twice its input; notes how many rows each call had, and in which thread."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.threads: list[str] = []

    def __call__(self, features: Features) -> Predictions:
        self.calls.append(len(features))
        self.threads.append(threading.current_thread().name)
        if (features < 0).any():
            raise DataError("negative")
        return Predictions(None, (2 * features).astype(np.float32))


def rows(*values: float) -> Features:
    return np.array(values, np.float32)


def together(batcher: Batcher, asks: list[Features]) -> list[Any]:
    async def run() -> list[Any]:
        answers = await asyncio.gather(*(batcher.predict(a) for a in asks), return_exceptions=True)
        return [a.values.tolist() if isinstance(a, Predictions) else a for a in answers]

    return asyncio.run(run())


def test_asks_at_once_share_one_call_and_get_their_own_rows():
    model = Double()
    assert together(Batcher(model, BatchingSpec(), TIMEOUT_S), [rows(1), rows(2, 3), rows(4)]) == [[2], [4, 6], [8]]
    assert model.calls == [4]


def test_asks_beyond_max_rows_go_into_the_next_call_in_order():
    model = Double()
    batcher = Batcher(model, BatchingSpec(max_rows=3), TIMEOUT_S)
    assert together(batcher, [rows(1, 1), rows(2, 2), rows(3), rows(4, 4, 4, 4, 4)]) == [
        [2, 2],
        [4, 4],
        [6],
        [8, 8, 8, 8, 8],
    ]
    assert model.calls == [2, 3, 5]


def test_ask_that_the_model_refuses_fails_alone():
    model = Double()
    one, bad, two = together(Batcher(model, BatchingSpec(), TIMEOUT_S), [rows(1), rows(-1), rows(2)])
    assert (one, two) == ([2], [4]) and isinstance(bad, DataError)


def test_ask_that_failed_comes_again_and_shares_no_call():
    model = Double()
    batcher = Batcher(model, BatchingSpec(), TIMEOUT_S)
    together(batcher, [rows(1), rows(-1)])
    model.calls.clear()
    one, bad, two = together(batcher, [rows(1), rows(-1), rows(2)])
    assert (one, two) == ([2], [4]) and isinstance(bad, DataError)
    assert model.calls == [2, 1]


def test_ask_that_failed_once_and_does_no_more_shares_calls_again():
    model, fails = Double(), [True]

    def recovering(features: Features) -> Predictions:
        if fails.pop() if fails else False:
            raise DataError("out of memory")
        return model(features)

    batcher = Batcher(recovering, BatchingSpec(), TIMEOUT_S)
    assert isinstance(together(batcher, [rows(1)])[0], DataError)
    assert together(batcher, [rows(1)]) == [[2]]
    model.calls.clear()
    assert together(batcher, [rows(1), rows(2)]) == [[2], [4]] and model.calls == [2]


def test_ask_whose_client_is_gone_is_not_computed():
    model = Double()
    batcher = Batcher(model, BatchingSpec(), TIMEOUT_S)

    async def run() -> list[float]:
        gone = asyncio.create_task(batcher.predict(rows(1)))
        stays = asyncio.create_task(batcher.predict(rows(2)))
        await asyncio.sleep(0)  # both have asked
        gone.cancel()
        return (await stays).values.tolist()

    assert asyncio.run(run()) == [4] and model.calls == [1]


def test_wait_lets_a_later_ask_join():
    model = Double()
    batcher = Batcher(model, BatchingSpec(wait_ms=200), TIMEOUT_S)

    async def run() -> None:
        first = asyncio.create_task(batcher.predict(rows(1)))
        for _ in range(5):
            await asyncio.sleep(0)  # the first has asked, and the batcher waits for more
        await asyncio.gather(first, batcher.predict(rows(2)))

    asyncio.run(run())
    assert model.calls == [2]


def test_slow_model_is_called_in_a_thread_and_the_loop_stays_free(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batching, "INLINE_MAX_S", 0.0)  # every model is slow
    model, entered, free = Double(), threading.Event(), threading.Event()

    def slow(features: Features) -> Predictions:
        entered.set()
        assert free.wait(10)  # only a free event loop can set it
        return model(features)

    batcher = Batcher(slow, BatchingSpec(), TIMEOUT_S)

    async def ask() -> None:
        asked = asyncio.create_task(batcher.predict(rows(1)))
        while not entered.is_set():
            await asyncio.sleep(0)  # one turn of the loop
        free.set()
        await asked

    async def run() -> None:
        await ask()
        entered.clear()
        free.clear()
        await ask()

    asyncio.run(run())
    assert len(model.threads) == 2 and all(name.startswith("raypipe-predict") for name in model.threads)


def test_quick_model_is_called_in_the_loop_once_its_time_is_known(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batching, "INLINE_MAX_S", 10.0)  # every model is quick, on a busy machine too
    model = Double()
    batcher = Batcher(model, BatchingSpec(), TIMEOUT_S)

    async def run() -> None:
        await batcher.predict(rows(1))
        await batcher.predict(rows(2))

    asyncio.run(run())
    assert model.threads[0].startswith("raypipe-predict") and model.threads[1] == "MainThread"


def test_batcher_after_an_error_answers_on():
    batcher = Batcher(Double(), BatchingSpec(), TIMEOUT_S)
    assert isinstance(together(batcher, [rows(-1)])[0], DataError)
    assert together(batcher, [rows(5)]) == [[10]]


def test_ask_that_takes_too_long_is_given_up_and_does_not_harm_the_next():
    model = Double()
    stuck = threading.Event()

    def slow(features: Features) -> Predictions:
        if features[0] == 1:
            stuck.wait(TIMEOUT_S)
        return model(features)

    async def run() -> Predictions:
        batcher = Batcher(slow, BatchingSpec(), 0.05)
        with pytest.raises(RequestError, match=r"did not answer 1 rows within 0\.05 s") as raised:
            await batcher.predict(rows(1))
        assert raised.value.status == 504
        # Waits behind the call that is still stuck, and is never put to the model.
        with pytest.raises(RequestError):
            await batcher.predict(rows(2))
        stuck.set()
        return await batcher.predict(rows(3), since=asyncio.get_running_loop().time() + TIMEOUT_S)

    assert asyncio.run(run()).values.tolist() == [6]
    assert model.calls == [1, 1]  # the rows given up while they waited were never computed


async def held_back(batcher: Batcher, since: float) -> bool:
    """Whether a refusal waits now; ends it."""
    refusal = asyncio.create_task(batcher.hold_back(since))
    await asyncio.sleep(0)  # one turn of the loop: it has ended, or it waits
    waits = not refusal.done()
    await refusal
    return waits


def test_refusal_beside_slow_answers_waits_as_they_do():
    async def run() -> None:
        batcher = Batcher(Double(), BatchingSpec(), TIMEOUT_S)
        now = asyncio.get_running_loop().time()
        await batcher.predict(rows(1), since=now - 10)  # came 10 s ago and is answered now
        assert await held_back(batcher, asyncio.get_running_loop().time())

    asyncio.run(run())


def test_refusal_that_took_as_long_as_an_answer_is_told_at_once():
    async def run() -> None:
        batcher = Batcher(Double(), BatchingSpec(), TIMEOUT_S)
        now = asyncio.get_running_loop().time()
        await batcher.predict(rows(1), since=now - 10)
        assert not await held_back(batcher, now - 10)

    asyncio.run(run())


def test_refusal_where_nobody_is_answered_is_told_at_once():
    async def run() -> None:
        batcher = Batcher(Double(), BatchingSpec(), TIMEOUT_S)
        assert not await held_back(batcher, asyncio.get_running_loop().time())

    asyncio.run(run())


def test_waits_of_two_event_loops_do_not_stand_in_each_others_way():
    batcher = Batcher(Double(), BatchingSpec(wait_ms=20), TIMEOUT_S)
    for _ in range(2):  # an application of tests, or of a notebook, is asked in several
        assert together(batcher, [rows(1), rows(2)]) == [[2], [4]]
