"""Requests that arrive together share one model call; how many, and whether to wait for more, is measured.

Only one call runs at a time: on a CPU two would take twice as long, and while one runs the next group gathers.
Shape letters: B rows.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress

import numpy as np

from raypipe.errors import RequestError
from raypipe.model.predictions import Predictions
from raypipe.serve.apart import Apart, Features, Waiting
from raypipe.serve.call_cost import CallCost
from raypipe.serve.worker_thread import WorkerThread
from raypipe.spec.serve import BatchingSpec

INLINE_MAX_S = 0.002
"""A call predicted to be shorter than this runs in the event loop: handing it to a thread costs more than it frees. A
longer one runs in a thread, so that health checks and other requests are not held up."""

WAIT_SHARE = 0.75
"""Of a call's fixed cost, which is what a call saved is worth: so long is waited for company at most. With 0.5, 4
connections got 0.86 to 0.89 of what the best fixed wait gives; with 1, 64 got 0.87; with this, both 0.96 (measured)."""

MIN_WAIT_S = 0.0002
"""A shorter wait is no longer than a turn of the event loop, which is taken anyway."""

REFUSAL_MAX_WAIT_S = 0.1
"""Longest that a refusal is held back."""


class Batcher:
    """Gathers rows of several requests into one model call; each request gets its own rows back.

    Args:
        answer: features -> predictions, row for row.
        spec: most rows a call, most rows that may wait, longest wait for company.
        timeout_s: longest time from a request's arrival to its answer.
    """

    def __init__(self, answer: Callable[[Features], Predictions], spec: BatchingSpec, timeout_s: float) -> None:
        self._model = answer
        self._spec = spec
        self._timeout_s = timeout_s
        self._waiting: deque[Waiting] = deque()
        self._apart = Apart()
        self._rows_waiting = 0
        self._asked: deque[Waiting] = deque()  # in order of arrival, so of deadlines but for a moment
        self._timer: asyncio.TimerHandle | None = None
        self._worker: asyncio.Task[None] | None = None
        self._thread = WorkerThread("raypipe-predict")
        self._cost = CallCost()
        self._arrived = asyncio.Event()
        self._company = 1.0
        self._answer_s = 0.0  # from arrival, lately
        self._answered_at = -math.inf

    async def predict(
        self, features: Features, *, since: float | None = None, alone: bool = False, of: Hashable = None
    ) -> Predictions:
        """Answer these rows.

        Args:
            since: when their request arrived, by the event loop's clock; unset: now.
            alone: no other request is there, so none will share the call.
            of: who asks, e.g. a connection: where rows of a caller failed the model lately, its next ones are asked
                apart from those of others. None: unknown.
        Raises:
            RequestError: 503 at once, where what waits already will not leave time for these; 504, the answer did not
                come in time. A call the model has begun is not cut short by that.
            Exception: what the model raises for these rows, and only for these.
        """
        if alone and self._worker is None and self._cost.of(len(features)) <= INLINE_MAX_S and not self._spec.wait_ms:
            return self._timed(features)
        loop = asyncio.get_running_loop()
        now = loop.time()
        arrived = now if since is None else since
        deadline = arrived + self._timeout_s
        self.admit(len(features), deadline - now)
        ask = Waiting(features, loop.create_future(), deadline, of)
        if self._apart.is_for(ask):
            if self._apart.num_rows + len(features) > self._spec.max_waiting_rows:
                raise self._too_many(self._apart.num_rows)
            self._apart.add(ask)
        else:
            self._waiting.append(ask)
            self._rows_waiting += len(features)
        self._asked.append(ask)
        self._arrived.set()
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        if self._timer is None:  # one for all: a timer a request costs more than the rest of this
            self._timer = loop.call_at(deadline, self._give_up, loop)
        try:
            return await ask.answer
        finally:
            self._answered_at = loop.time()
            self._answer_s += 0.1 * (self._answered_at - arrived - self._answer_s)

    async def hold_back(self, since: float) -> None:
        """Wait, with a refusal, until it took as long as an answer does just now.

        Who sends bad rows again and again would else hear sooner than the others, so ask more often, and take their
        time: 1 client of 64 took a third of it (measured). Where nobody is being answered there is no wait.

        Args:
            since: when the refused request arrived, by the event loop's clock.
        """
        now = asyncio.get_running_loop().time()
        left_s = self._answer_s - (now - since)
        others = self._worker is not None or now - self._answered_at < self._answer_s
        if left_s > 0 and others:
            await asyncio.sleep(min(left_s, REFUSAL_MAX_WAIT_S))

    def admit(self, num_rows: int, left_s: float = math.inf) -> None:
        """Refuse rows that would wait too long, before they take anybody's turn.

        Args:
            left_s: until their answer is of no use.
        Raises:
            RequestError: 503, with what to wait before another try.
        """
        if not self._waiting:
            return
        too_long = len(self._waiting) > 1 and self._predicted_s(self._rows_waiting) > self._spec.max_wait_s
        too_late = left_s < math.inf and self._predicted_s(self._rows_waiting + num_rows) > left_s
        if too_long or too_late or self._rows_waiting + num_rows > self._spec.max_waiting_rows:
            raise self._too_many(self._rows_waiting)

    def _too_many(self, num_rows: int) -> RequestError:
        return RequestError(
            f"{num_rows} rows wait for the model already",
            "ask again after the seconds that Retry-After says, or raise serve.max_replicas",
            status=503,
            headers={"retry-after": str(max(1, math.ceil(self._predicted_s(num_rows) / 2)))},
        )

    def _predicted_s(self, num_rows: int) -> float:
        """Of the calls that so many rows take; nothing while no call has been measured."""
        fixed, per_row = self._cost.parts()
        return math.ceil(num_rows / self._spec.max_rows) * fixed + per_row * num_rows if fixed < math.inf else 0.0

    def _give_up(self, loop: asyncio.AbstractEventLoop) -> None:
        """Fail who has waited too long, and come back for the next."""
        now = loop.time()
        while self._asked and (self._asked[0].answer.done() or self._asked[0].deadline <= now):
            ask = self._asked.popleft()
            message = f"the model did not answer {len(ask.features)} rows within {self._timeout_s:g} s"
            hint = "ask again later, send fewer rows per request, or raise serve.request_timeout_s"
            _fail(ask, RequestError(message, hint, status=504))
        self._timer = loop.call_at(self._asked[0].deadline, self._give_up, loop) if self._asked else None

    async def _work(self) -> None:
        """Answer until nobody waits. While a call runs in the thread, the next group gathers by itself."""
        try:
            while self._waiting or self._apart:
                while self._asked and self._asked[0].answer.done():
                    self._asked.popleft()
                if self._waiting:
                    await self._gather()
                group = self._take()
                if group:
                    self._company += 0.2 * (len(group) + len(self._waiting) - self._company)
                    start = time.perf_counter()
                    await self._answer(group)
                    self._apart.others_took(time.perf_counter() - start, asyncio.get_running_loop().time())
                if self._apart:
                    await self._answer_apart()
        finally:
            self._worker = None

    async def _gather(self) -> None:
        """Wait for as much company as there was lately, while that is worth more than the wait."""
        if self._spec.wait_ms is not None:
            wait_s, expected = self._spec.wait_ms / 1000, math.inf
        else:
            fixed, _ = self._cost.parts()
            wait_s, expected = WAIT_SHARE * fixed if fixed < math.inf else 0.0, round(self._company)
        if wait_s < MIN_WAIT_S:
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        while len(self._waiting) < expected and self._rows_waiting < self._spec.max_rows:
            left_s = until - loop.time()
            if left_s <= 0:
                return
            await self._arrival(left_s)

    async def _arrival(self, longest_s: float) -> None:
        """Wait for somebody to ask."""
        self._arrived = asyncio.Event()  # a new one: it belongs to the loop it was waited for in
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), longest_s)

    def _take(self) -> list[Waiting]:
        """The next asks, in order of arrival; a single ask may be larger than a group."""
        group: list[Waiting] = []
        num_rows = 0
        while self._waiting:
            ask = self._waiting[0]
            if group and num_rows + len(ask.features) > self._spec.max_rows:
                break
            self._waiting.popleft()
            self._rows_waiting -= len(ask.features)
            if not ask.answer.done():  # done: its client is gone, or its time is over
                group.append(ask)
                num_rows += len(ask.features)
        return group

    async def _answer(self, group: list[Waiting]) -> None:
        """Answer all; one bad row must not fail its neighbours, nor cost a call for each."""
        for half in await self._answered(group):
            await self._answer(half)

    async def _answered(self, group: list[Waiting]) -> list[list[Waiting]]:
        """One call. Where it failed, what is to be asked again: halves, until it is known whose rows failed it."""
        try:
            predictions = await self._call(_join(group))
        except Exception as error:  # the model is the user's code: anything may come
            if len(group) > 1:
                half = len(group) // 2
                return [group[:half], group[half:]]
            self._apart.failed(group[0])
            _fail(group[0], error)
            return []
        start = 0
        for ask in group:
            if not ask.answer.done():
                ask.answer.set_result(_part(predictions, start, start + len(ask.features)))
            start += len(ask.features)
            self._apart.answered(ask)
        return []

    async def _answer_apart(self) -> None:
        """One call of those that share none with the others, if it is time for one."""
        group = self._apart.head(self._spec.max_rows)
        loop = asyncio.get_running_loop()
        cost_s = self._cost.of(sum(len(ask.features) for ask in group))
        wait_s = self._apart.wait_s(cost_s, loop.time()) if group else 0.0
        if wait_s > 0:
            if not self._waiting:
                await self._arrival(wait_s)
            return
        start = time.perf_counter()
        left = await self._answered(group) if group else []
        self._apart.taken(time.perf_counter() - start, left)

    async def _call(self, features: Features) -> Predictions:
        if self._cost.of(len(features)) <= INLINE_MAX_S:
            return self._timed(features)
        return await self._thread.run(self._timed, features)

    def _timed(self, features: Features) -> Predictions:
        start = time.perf_counter()
        predictions = self._model(features)
        self._cost.note(len(features), time.perf_counter() - start)  # not of a call that failed: it ended early
        return predictions


def _join(group: list[Waiting]) -> Features:
    return group[0].features if len(group) == 1 else np.concatenate([ask.features for ask in group])


def _part(predictions: Predictions, start: int, stop: int) -> Predictions:
    if stop - start == len(predictions.values):
        return predictions
    return Predictions(predictions.classes, predictions.values[start:stop])


def _fail(ask: Waiting, error: Exception) -> None:
    if not ask.answer.done():
        ask.answer.set_exception(error)
