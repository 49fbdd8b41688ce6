"""What callers pay whose neighbour's rows fail the model, each of them other ones: counted in calls and rows."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

import numpy as np
import pytest

from raypipe.errors import DataError, RequestError
from raypipe.model.predictions import Predictions
from raypipe.serve.apart import GOOD_IN_A_ROW, REMEMBERED, SHARE, Apart, Waiting, caller_of
from raypipe.serve.batching import Batcher, Features
from raypipe.serve.client_header import CLIENT
from raypipe.spec.serve import BatchingSpec

OTHERS, ROUNDS = 15, 40


class Late:
    """Raises for a negative row once it has computed; notes the rows of each call."""

    def __init__(self) -> None:
        self.calls: list[list[float]] = []

    def __call__(self, features: Features) -> Predictions:
        self.calls.append(features.tolist())
        if (features < 0).any():
            raise DataError("negative")
        return Predictions(None, features)

    def failed_with_neighbours(self) -> int:
        return sum(1 for rows in self.calls if min(rows) < 0 and max(rows) > 0)


def rows(*values: float) -> Features:
    return np.array(values, np.float32)


async def client(batcher: Batcher, number: int, of: Hashable) -> None:
    for _ in range(ROUNDS):
        found = await batcher.predict(rows(number), of=of)
        assert found.values.tolist() == [number]


async def wrong_client(batcher: Batcher, of: Hashable, until: asyncio.Event, start: int = 1) -> None:
    """Ever other rows, and each of them is its own failure."""
    number = start
    while not until.is_set():
        with pytest.raises(DataError):
            await batcher.predict(rows(-number), of=of)
        number += 1


async def beside_others(batcher: Batcher, *wrong: Hashable) -> None:
    done = asyncio.Event()
    tasks = [asyncio.create_task(wrong_client(batcher, of, done, 1 + 10_000 * i)) for i, of in enumerate(wrong)]
    await asyncio.gather(*(client(batcher, i, f"client {i}") for i in range(1, OTHERS + 1)))
    done.set()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("num_wrong", [1, 3])
def test_caller_whose_rows_fail_spoils_a_few_calls_and_then_no_more(num_wrong: int):
    model = Late()
    batcher = Batcher(model, BatchingSpec(), 30.0)
    asyncio.run(beside_others(batcher, *(f"wrong {i}" for i in range(num_wrong))))
    depth = (OTHERS + num_wrong).bit_length()
    assert model.failed_with_neighbours() <= num_wrong * depth
    good = [each for each in model.calls if min(each) > 0]
    assert sum(map(len, good)) == OTHERS * ROUNDS and len(good) <= ROUNDS + num_wrong * depth


def test_without_knowing_who_asks_every_round_is_spoiled():
    model = Late()
    asyncio.run(beside_others(Batcher(model, BatchingSpec(), 30.0), None))
    assert model.failed_with_neighbours() > ROUNDS


def test_many_wrong_asks_of_one_caller_hold_up_its_own_only():
    """They share calls with each other, and what fails is halved one call a turn."""
    model = Late()
    batcher = Batcher(model, BatchingSpec(), 30.0)

    async def run() -> None:
        with pytest.raises(DataError):
            await batcher.predict(rows(-1), of="wrong")
        asked = [batcher.predict(rows(-2 - i), of="wrong") for i in range(8)]
        right = [batcher.predict(rows(100 + i), of="wrong") for i in range(8)]
        found = await asyncio.gather(*asked, *right, client(batcher, 1, "other"), return_exceptions=True)
        assert all(isinstance(each, DataError) for each in found[:8])
        answers = [each.values.tolist() for each in found[8:16] if isinstance(each, Predictions)]
        assert answers == [[100.0 + i] for i in range(8)]

    asyncio.run(run())
    assert not [each for each in model.calls if 1 in each and len(each) > 1]
    assert max(map(len, model.calls)) == 16, "its asks share a call"


def test_caller_is_trusted_again_after_good_answers_in_a_row():
    model = Late()
    batcher = Batcher(model, BatchingSpec(), 30.0)

    async def run() -> None:
        with pytest.raises(DataError):
            await batcher.predict(rows(-1), of="a")
        for _ in range(GOOD_IN_A_ROW):
            await batcher.predict(rows(5), of="a")
        model.calls.clear()
        await asyncio.gather(batcher.predict(rows(1), of="a"), batcher.predict(rows(2), of="b"))

    asyncio.run(run())
    assert model.calls == [[1, 2]]


def test_rows_that_wait_apart_are_bounded_and_others_are_taken_on():
    async def run() -> None:
        batcher = Batcher(Late(), BatchingSpec(max_rows=2, max_waiting_rows=2), 30.0)
        with pytest.raises(DataError):
            await batcher.predict(rows(-1), of="a")
        asked = [asyncio.create_task(batcher.predict(rows(i, i), of="a")) for i in (1, 2)]
        other = asyncio.create_task(batcher.predict(rows(3), of="b"))
        found = await asyncio.gather(*asked, other, return_exceptions=True)
        assert isinstance(found[0], Predictions) and isinstance(found[2], Predictions)
        assert isinstance(found[1], RequestError) and found[1].status == 503

    asyncio.run(run())


def waiting(*values: float, of: Hashable = None) -> Waiting:
    return Waiting(rows(*values), asyncio.get_running_loop().create_future(), 0.0, of)


def test_calls_apart_take_their_share_of_the_time_while_others_ask():
    async def run() -> None:
        lately, now = Apart(), 100.0
        lately.failed(waiting(-1, of="a"))
        again = waiting(-2, of="a")
        assert lately.is_for(again)
        lately.add(again)
        assert lately.head(10) == [again]
        assert lately.wait_s(1.0, now) == 0, "nobody else asks"
        turns = 1
        lately.others_took(1.0, now)
        while lately.wait_s(1.0, now) > 0:
            now, turns = now + 1.0, turns + 1
            lately.others_took(1.0, now)
        assert turns == 1 / SHARE
        lately.taken(1.0, [])
        assert not lately and lately.wait_s(1.0, now) == 1.0, "what was saved is spent"
        assert lately.wait_s(1.0, now + 1.0) == 0, "others came no more"

    asyncio.run(run())


def test_caller_is_a_connection_and_a_key():
    assert caller_of({}, "") is None
    proxied, other = {CLIENT: b"10.0.0.1:5"}, {CLIENT: b"10.0.0.1:6"}
    assert caller_of(proxied, "") != caller_of(other, "")
    assert caller_of(proxied, "ann") == caller_of(dict(proxied), "ann")
    assert caller_of(proxied, "ann") != caller_of(proxied, "ben")
    assert caller_of({}, "ann") == caller_of({}, "ann") is not None


def test_no_more_are_remembered_than_there_is_room_for():
    async def run() -> None:
        lately = Apart()
        for number in range(REMEMBERED + 1):
            lately.failed(waiting(-number, of=number))
        assert not lately.is_for(waiting(1, of=0)) and lately.is_for(waiting(1, of=1))
        assert not lately.is_for(waiting(0)) and lately.is_for(waiting(-1))

    asyncio.run(run())
