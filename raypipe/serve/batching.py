"""Requests that arrive together share one model call."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from raypipe.errors import RequestError
from raypipe.model.predictions import Predictions
from raypipe.serve.schema import Columns
from raypipe.spec.serve import BatchingSpec

INLINE_MAX_S = 0.002
"""A call shorter than this runs in the event loop: handing it to a thread costs more than it frees. A longer one runs
in a thread, so that health checks and other requests are not held up."""


@dataclass
class _Ask:
    columns: Columns
    num_rows: int
    answer: asyncio.Future[Predictions]


class Batcher:
    """Gathers rows of several requests into one model call; each request gets its own rows back.

    Args:
        predict: columns -> predictions, row for row.
        spec: most rows a call, longest wait for company.
        timeout_s: longest time from a request's arrival to its answer.
    """

    def __init__(self, predict: Callable[[Columns], Predictions], spec: BatchingSpec, timeout_s: float) -> None:
        self._predict = predict
        self._spec = spec
        self._timeout_s = timeout_s
        self._waiting: deque[_Ask] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="raypipe-predict")
        self._last_call_s = math.inf  # not known to be short

    async def predict(self, columns: Columns, num_rows: int, *, since: float | None = None) -> Predictions:
        """Answer these rows.

        Args:
            since: when their request arrived, by the event loop's clock; unset: now.
        Raises:
            RequestError: 408, the answer did not come in time; a call the model has begun is not cut short by that.
            Exception: what the model raises for these rows, and only for these.
        """
        loop = asyncio.get_running_loop()
        ask = _Ask(columns, num_rows, loop.create_future())
        self._waiting.append(ask)
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        # A bare timer: asyncio.wait_for makes a task of each request, 20 us more (measured).
        timer = loop.call_at((loop.time() if since is None else since) + self._timeout_s, self._give_up, ask)
        try:
            return await ask.answer
        finally:
            timer.cancel()

    def _give_up(self, ask: _Ask) -> None:
        message = f"the model did not answer {ask.num_rows} rows within {self._timeout_s:g} s"
        hint = "ask again later, send fewer rows per request, or raise serve.request_timeout_s"
        _fail(ask, RequestError(message, hint, status=408))

    async def _work(self) -> None:
        """Answer until nobody waits. While a call runs in the thread, the next group gathers by itself."""
        try:
            if self._spec.wait_ms:
                await asyncio.sleep(self._spec.wait_ms / 1000)
            while self._waiting:
                group = self._take()
                if group:
                    await self._answer(group)
        finally:
            self._worker = None

    def _take(self) -> list[_Ask]:
        """The next asks, in order of arrival; a single ask may be larger than a group."""
        group: list[_Ask] = []
        num_rows = 0
        while self._waiting:
            ask = self._waiting[0]
            if group and num_rows + ask.num_rows > self._spec.max_rows:
                break
            self._waiting.popleft()
            if not ask.answer.done():  # done: its client is gone, or its time is over
                group.append(ask)
                num_rows += ask.num_rows
        return group

    async def _answer(self, group: list[_Ask]) -> None:
        try:
            predictions = await self._call(_join(group), sum(ask.num_rows for ask in group))
        except Exception as error:  # the model is the user's code: anything may come
            if len(group) == 1:
                _fail(group[0], error)
                return
            for ask in group:  # one bad row must not fail its neighbours
                await self._answer([ask])
            return
        start = 0
        for ask in group:
            if not ask.answer.done():
                ask.answer.set_result(_part(predictions, start, start + ask.num_rows))
            start += ask.num_rows

    async def _call(self, columns: Columns, num_rows: int) -> Predictions:
        if self._last_call_s <= INLINE_MAX_S and num_rows <= self._spec.max_rows:
            return self._timed(columns)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._timed, columns)

    def _timed(self, columns: Columns) -> Predictions:
        start = time.perf_counter()
        try:
            return self._predict(columns)
        finally:
            self._last_call_s = time.perf_counter() - start


def _join(group: list[_Ask]) -> Columns:
    if len(group) == 1:
        return group[0].columns
    return {name: np.concatenate([ask.columns[name] for ask in group]) for name in group[0].columns}


def _part(predictions: Predictions, start: int, stop: int) -> Predictions:
    if stop - start == len(predictions.values):
        return predictions
    return Predictions(predictions.classes, predictions.values[start:stop])


def _fail(ask: _Ask, error: Exception) -> None:
    if not ask.answer.done():
        ask.answer.set_exception(error)
