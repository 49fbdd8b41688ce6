from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from raypipe.errors import DataError
from raypipe.model.predictor import Predictions
from raypipe.serve import batching
from raypipe.serve.batching import Batcher
from raypipe.serve.schema import Columns
from raypipe.spec.serve import BatchingSpec


class Double:
    """Answers twice its input; notes how many rows each call had, and in which thread."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.threads: list[str] = []

    def __call__(self, columns: Columns) -> Predictions:
        self.calls.append(len(columns["x"]))
        self.threads.append(threading.current_thread().name)
        if (columns["x"] < 0).any():
            raise DataError("negative")
        return Predictions(None, (2 * columns["x"]).astype(np.float32))


def rows(*values: float) -> Columns:
    return {"x": np.array(values)}


def together(batcher: Batcher, asks: list[Columns]) -> list[Any]:
    async def run() -> list[Any]:
        answers = await asyncio.gather(*(batcher.predict(a, len(a["x"])) for a in asks), return_exceptions=True)
        return [a.values.tolist() if isinstance(a, Predictions) else a for a in answers]

    return asyncio.run(run())


def test_asks_at_once_share_one_call_and_get_their_own_rows():
    model = Double()
    assert together(Batcher(model, BatchingSpec()), [rows(1), rows(2, 3), rows(4)]) == [[2], [4, 6], [8]]
    assert model.calls == [4]


def test_asks_beyond_max_rows_go_into_the_next_call_in_order():
    model = Double()
    batcher = Batcher(model, BatchingSpec(max_rows=3))
    assert together(batcher, [rows(1, 1), rows(2, 2), rows(3), rows(4, 4, 4, 4, 4)]) == [
        [2, 2],
        [4, 4],
        [6],
        [8, 8, 8, 8, 8],
    ]
    assert model.calls == [2, 3, 5]


def test_ask_that_the_model_refuses_fails_alone():
    model = Double()
    one, bad, two = together(Batcher(model, BatchingSpec()), [rows(1), rows(-1), rows(2)])
    assert (one, two) == ([2], [4]) and isinstance(bad, DataError)


def test_ask_whose_client_is_gone_is_not_computed():
    model = Double()
    batcher = Batcher(model, BatchingSpec())

    async def run() -> list[float]:
        gone = asyncio.create_task(batcher.predict(rows(1), 1))
        stays = asyncio.create_task(batcher.predict(rows(2), 1))
        await asyncio.sleep(0)
        gone.cancel()
        return (await stays).values.tolist()

    assert asyncio.run(run()) == [4] and model.calls == [1]


def test_wait_lets_a_later_ask_join():
    model = Double()
    batcher = Batcher(model, BatchingSpec(wait_ms=200))

    async def run() -> None:
        first = asyncio.create_task(batcher.predict(rows(1), 1))
        for _ in range(5):
            await asyncio.sleep(0)
        await asyncio.gather(first, batcher.predict(rows(2), 1))

    asyncio.run(run())
    assert model.calls == [2]


def test_slow_model_moves_to_a_thread_and_the_loop_stays_free(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batching, "INLINE_MAX_S", 0.0)
    model, entered, free = Double(), threading.Event(), threading.Event()

    def slow(columns: Columns) -> Predictions:
        if threading.current_thread() is not threading.main_thread():
            entered.set()
            assert free.wait(10)  # only a free event loop can set it
        return model(columns)

    batcher = Batcher(slow, BatchingSpec())

    async def run() -> None:
        await batcher.predict(rows(1), 1)
        asked = asyncio.create_task(batcher.predict(rows(2), 1))
        while not entered.is_set():
            await asyncio.sleep(0)
        free.set()
        await asked

    asyncio.run(run())
    assert model.threads[0] == "MainThread" and model.threads[1].startswith("raypipe-predict")


def test_batcher_after_an_error_answers_on():
    batcher = Batcher(Double(), BatchingSpec())
    assert isinstance(together(batcher, [rows(-1)])[0], DataError)
    assert together(batcher, [rows(5)]) == [[10]]
