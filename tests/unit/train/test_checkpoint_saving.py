"""Checkpoints while the training goes on: what a step waits for, and what a store that is slow, away or full does."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import torch

from raypipe.errors import ModelError, StoreAccessError, StoreError, TrainingError
from raypipe.spec.train import TrainSpec
from raypipe.storage import layout
from raypipe.storage.publish import MANIFEST
from raypipe.testing.fakes import MemoryStore
from raypipe.train.checkpoints import Saver, Span, cut, restore, saving, whole
from raypipe.train.checkpoints.image import PartImage
from raypipe.train.checkpoints.writing import Writer
from raypipe.train.rows import World
from tests.unit.train.side_by_side import TENSORS, SideBySide, opened, same_bits, state

WAIT_S = 20.0
"""Longest wait for another thread, on a busy machine."""


class GatedStore(MemoryStore):
    """Writes nothing until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def write(self, key: str, data: bytes | memoryview) -> None:
        assert self.gate.wait(WAIT_S)
        super().write(key, data)


class AwayStore(MemoryStore):
    """Does not answer writes of keys for which `is_away` says so, as a store after all its own retries."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away: Callable[[str], bool] = lambda key: False
        self.error: type[StoreError] = StoreError
        self.asked = threading.Event()

    def write(self, key: str, data: bytes | memoryview) -> None:
        if self.is_away(key):
            self.asked.set()
            raise self.error(f"{self.uri}/{key}: no answer")
        super().write(key, data)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "RETRY_S", 0.01)
    monkeypatch.setattr(saving, "FIRST_PATIENCE_S", 0.05)
    monkeypatch.setattr(saving, "PATIENCE_S", 0.05)
    monkeypatch.setattr(saving, "CLOSE_S", 0.05)


def _all_done(ranks: SideBySide) -> None:
    for saver in ranks.savers:
        assert saver._pending is None or saver._pending.done.wait(WAIT_S)


def test_save_waits_for_the_copy_alone_and_keeps_what_was_copied() -> None:
    store = GatedStore()
    ranks = SideBySide(store, 2)
    tensors = {name: value.clone() for name, value in TENSORS.items()}
    where = state(3, history=[])

    assert ranks.save(where, tensors, wait=False) == [True, True]
    for tensor in tensors.values():
        tensor.zero_()
    where.step, where.history = 4, [{"epoch": 1}]
    store.gate.set()
    _all_done(ranks)

    found = opened(store, 3)
    assert same_bits(found.read(), TENSORS) and found.state == state(3)


def test_save_finds_the_write_before_unfinished_and_is_left_out_without_stopping() -> None:
    store = GatedStore()
    ranks = SideBySide(store, 2)

    saved = [ranks.save(state(step), wait=False) for step in (3, 6, 9)]
    store.gate.set()
    ranks.finish(state(12))

    assert saved == [[True, True], [False, False], [False, False]]
    assert ranks.savers[0].left_out == ranks.savers[1].left_out == [6, 9]
    assert len([text for text in ranks.said if "left out" in text]) == 1, "an outage is told once"
    assert "has not taken the checkpoint of step 3" in ranks.said[0] and "that of step 6 is left out" in ranks.said[0]
    assert [opened(store, step).state.step for step in (3, 12)] == [3, 12]


@pytest.mark.parametrize("away", ["part-0-", "part-1-", "part-1-of-2-.*json", "index", "manifest"])
def test_save_while_the_store_is_away_is_tried_until_it_is_there(away: str) -> None:
    store = AwayStore()
    store.is_away = lambda key: re.search(away, key) is not None
    ranks = SideBySide(store, 2)

    assert ranks.save(state(3), wait=False) == [True, True]
    assert store.asked.wait(WAIT_S)
    assert ranks.save(state(6), wait=False) == [False, False], "the training goes on"
    store.is_away = lambda key: False
    _all_done(ranks)
    assert ranks.save(state(9)) == [True, True]

    assert [same_bits(opened(store, step).read(), TENSORS) for step in (3, 9)] == [True, True]
    assert all("no answer" in text or "has not taken" in text for text in ranks.said)


def test_save_while_the_store_is_away_tells_its_error_once() -> None:
    store = AwayStore()
    store.is_away = lambda key: "part" in key
    ranks = SideBySide(store, 1)
    ranks.save(state(3), wait=False)
    assert store.asked.wait(WAIT_S)

    for step in (6, 9, 12):
        ranks.save(state(step), wait=False)

    assert len(ranks.said) == 1 and "part-0-of-1" in ranks.said[0] and "no answer; training goes on" in ranks.said[0]
    ranks.savers[0].close()


@pytest.mark.parametrize("rank", [0, 1])
def test_save_gives_up_on_all_ranks_after_max_unsaved_s(rank: int) -> None:
    store = AwayStore()
    store.is_away = lambda key: f"part-{rank}-" in key
    ranks = SideBySide(store, 2, {"checkpoint": {"max_unsaved_s": 0.05}})
    ranks.save(state(3), wait=False)
    _all_done(ranks)

    with pytest.raises(StoreError, match=r"step 3 could not be written for 0\.05 s \(train\.checkpoint\.max_uns") as e:
        ranks.save(state(6), wait=False)
    assert "--resume r1" in e.value.hint
    assert restore(store, "r1", "f", World(), lambda found: None)[0] is None


def test_save_after_an_error_that_does_not_pass_raises_it_on_all_ranks_at_once() -> None:
    store = AwayStore()
    store.error = StoreAccessError
    store.is_away = lambda key: "part-1-" in key
    ranks = SideBySide(store, 2)
    ranks.save(state(3), wait=False)
    assert ranks.savers[1]._pending is not None and ranks.savers[1]._pending.done.wait(WAIT_S)

    with pytest.raises(StoreAccessError, match="no answer"):
        ranks.save(state(6), wait=False)


@pytest.mark.parametrize("how", ["finish", "save"])
def test_wait_for_a_part_that_never_comes_ends_with_its_error_on_all_ranks(how: str) -> None:
    store = AwayStore()
    store.error = StoreAccessError
    store.is_away = lambda key: "part-1-" in key
    ranks = SideBySide(store, 2)  # rank 0 would look for rank 1's receipt for half an hour
    ranks.save(state(3), wait=False)

    with ThreadPoolExecutor(1) as beside:
        ended = beside.submit(ranks.finish if how == "finish" else ranks.save, state(3))
        with pytest.raises(StoreAccessError, match="no answer"):
            ended.result(WAIT_S)
    assert all(saver._pending is not None and saver._pending.stopped.is_set() for saver in ranks.savers)


def test_save_copy_that_fails_on_one_rank_raises_on_all() -> None:
    ranks = SideBySide(MemoryStore(), 2)
    one = {"model/odd": Span(torch.zeros(2, dtype=torch.complex128), (2,))}

    with pytest.raises(ModelError, match=r"model/odd is of torch\.complex128, which a checkpoint cannot hold"):
        ranks.save_spans(state(3), [{}, one])


def test_save_of_a_thread_that_breaks_is_an_error_with_words(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = SideBySide(MemoryStore(), 1)
    monkeypatch.setattr("raypipe.train.checkpoints.writing.sha256", lambda data: 1 / 0)

    with pytest.raises(TrainingError, match="the checkpoint of step 3 failed: ZeroDivisionError"):
        ranks.save(state(3))


def test_finish_saves_once_what_was_left_out_and_nothing_twice() -> None:
    store = MemoryStore()
    ranks = SideBySide(store, 2)
    ranks.save(state(3), wait=False)

    ranks.finish(state(3))
    assert [saver.num_saved for saver in ranks.savers] == [1, 1]
    ranks.finish(state(5))

    assert [saver.num_saved for saver in ranks.savers] == [2, 2]
    assert opened(store, 5).state == state(5)


def test_finish_that_waits_for_the_store_is_alive_for_who_looks_for_hung_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, pulses = GatedStore(), itertools.count()
    monkeypatch.setattr(saving, "ASK_S", 0.01)
    saver = Saver(store, "r1", TrainSpec(), alive=lambda: None if next(pulses) < 3 else store.gate.set())
    spans = lambda: cut(TENSORS, 0, 1)  # noqa: E731
    saver.save(state(3), spans)

    saver.finish(state(3), spans)  # nobody but the pulse opens the store

    assert next(pulses) >= 4
    assert opened(store, 3).state == state(3)


def test_close_leaves_a_write_that_hangs_and_may_be_called_again() -> None:
    store = AwayStore()
    store.is_away = lambda key: True
    ranks = SideBySide(store, 1)
    ranks.save(state(3), wait=False)

    ranks.savers[0].close()
    ranks.savers[0].close()

    _all_done(ranks)
    assert not list(store.list(layout.checkpoints("r1")))


def test_image_is_used_again_and_made_anew_where_pieces_are_others() -> None:
    image, cpu = PartImage(), torch.device("cpu")
    image.take(whole(TENSORS), cpu)
    first = image._buffer.data_ptr()

    image.take(whole({name: value.clone() for name, value in TENSORS.items()}), cpu)
    assert image._buffer.data_ptr() == first
    image.take(whole({**TENSORS, "best/a": torch.ones(100_000)}), cpu)
    assert len(image.data) > 400_000


def test_parts_of_two_attempts_at_one_step_are_never_read_as_one() -> None:
    """Rank 1 of a first attempt is gone before its part is whole; a second attempt has other numbers at that step."""
    store = AwayStore()
    store.is_away = lambda key: "part-1-" in key
    first = SideBySide(store, 2)
    first.save(state(3), wait=False)
    assert store.asked.wait(WAIT_S)
    second = SideBySide(store, 2)
    others = {name: torch.zeros_like(value) for name, value in TENSORS.items()}
    first.savers[1].close()
    store.is_away = lambda key: False
    second.save(state(3), others)

    first.savers[0].close()
    assert same_bits(opened(store, 3).read(), others)


class Crash(BaseException):
    """The process ends here."""


class CrashingStore(MemoryStore):
    """At the `at`-th write or delete the process ends: before it, after it, or with a part of the object there."""

    def __init__(self) -> None:
        super().__init__()
        self.at, self.how, self.calls = -1, "", 0

    def write(self, key: str, data: bytes | memoryview) -> None:
        write = super().write
        half = data[: len(data) // 2]
        # The contract says of an object that it is there whole or not; of a manifest all depends on it.
        self._meet(lambda: write(key, data), lambda: None if key.endswith(MANIFEST) else write(key, half))

    def delete(self, key: str) -> None:
        delete = super().delete
        self._meet(lambda: delete(key), lambda: None)

    def _meet(self, act: Callable[[], None], half: Callable[[], None]) -> None:
        self.calls += 1
        if self.calls != self.at:
            return act()
        {"before": lambda: None, "after": act, "half": half}[self.how]()
        raise Crash


def _write(store: CrashingStore, step: int, tensors: dict[str, torch.Tensor], token: str) -> None:
    """All ranks' writes, one rank after the other on this thread; rank 0 last, as it waits for the others."""
    spec = TrainSpec.model_validate({"checkpoint": {"num_to_keep": 1}})
    for rank in (1, 0):
        image = PartImage()
        image.take(cut(tensors, rank, 2), torch.device("cpu"))
        Writer(store, "r1", spec, rank, 2, token).write(image, state(step, epoch_step=0))


@pytest.mark.parametrize("step", [20, 10], ids=["next step", "same step again"])
@pytest.mark.parametrize("how", ["before", "after", "half"])
def test_crash_at_any_call_leaves_the_old_checkpoint_or_the_new_one_whole(how: str, step: int) -> None:
    old, new = TENSORS, {name: torch.ones_like(value) for name, value in TENSORS.items()}
    seen: list[bool] = []
    for at in itertools.count(1):
        store = CrashingStore()
        _write(store, 10, old, "00000001")
        store.calls, store.at, store.how = 0, at, how
        with suppress(Crash):
            _write(store, step, new, "00000002")
        found: list[dict[str, torch.Tensor]] = []
        restore(store, "r1", "f", World(), lambda each, found=found: found.append(each.read()))
        is_new = same_bits(found[-1], new)
        assert is_new or same_bits(found[-1], old)
        seen.append(is_new)
        if store.calls < at:
            break  # it was written without meeting the fault
    assert seen == sorted(seen) and set(seen) == {False, True}, "old until one call, new from then on"
    assert len(seen) > 6


def test_saver_alone_needs_no_one_to_agree_with() -> None:
    store = MemoryStore()
    saver = Saver(store, "r1", TrainSpec())

    assert saver.save(state(3), lambda: whole(TENSORS), wait=True)

    assert same_bits(opened(store, 3).read(), TENSORS)
    assert saver.waited_s > 0
