"""Shares held and streamed, rank by rank in this process."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.data.shards import encode_target, load_rows
from raypipe.data.transforms import FittedTransforms
from raypipe.errors import DigestMismatch
from raypipe.records import DatasetVersion
from raypipe.spec.transforms import OneHotTransform, StandardizeTransform
from raypipe.storage import Store
from raypipe.testing.fakes import MemoryStore, tiny_dataset
from raypipe.train import rows as rows_module
from raypipe.train.resident import Resident
from raypipe.train.rows import Batch, Reader, Rows, Share, StoredSplit, World
from raypipe.train.streamed import ReadAhead, Streamed
from tests.conftest import examples
from tests.unit.train.stores import CountingStore

Opener = Callable[[Store, DatasetVersion, str, World, int], Share]


def _resident(store: Store, dataset: DatasetVersion, split: str, world: World, window_rows: int) -> Share:
    return Resident(StoredSplit(store, dataset, split), world, window_rows, home=world.device)


def _streamed(store: Store, dataset: DatasetVersion, split: str, world: World, window_rows: int) -> Share:
    return Streamed(StoredSplit(store, dataset, split), world, window_rows)


OPENERS = [_resident, _streamed]


def _numbered(store: Store, num_train: int, *, num_val: int = 0, rows_per_shard: int = 10) -> DatasetVersion:
    """Rows whose only feature is their number."""
    number = np.arange(num_train + num_val, dtype=np.float64)
    return tiny_dataset(store, {"n": number}, number, task="regression", num_val=num_val, rows_per_shard=rows_per_shard)


def _numbers(rows: Rows) -> list[int]:
    return rows.features[:, 0].int().tolist()


def _epoch(share: Share, batch_rows: int, seed: int = 0, first_step: int = 0) -> list[Batch]:
    with closing(share.batches(batch_rows, seed, first_step=first_step)) as batches:
        return list(batches)


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("raypipe-rows")]


@settings(max_examples=examples(60))
@given(
    num_rows=st.integers(1, 60),
    world_size=st.integers(1, 4),
    batch_rows=st.integers(1, 70),
    window_rows=st.integers(1, 70),
    rows_per_shard=st.integers(1, 30),
    seed=st.integers(0, 2**32),
)
def test_batches_of_an_epoch_hold_every_row_once_held_or_streamed(
    num_rows: int, world_size: int, batch_rows: int, window_rows: int, rows_per_shard: int, seed: int
) -> None:
    num_rows = max(num_rows, world_size)
    store = MemoryStore()
    dataset = _numbered(store, num_rows, rows_per_shard=rows_per_shard)
    epochs = []
    for opened in OPENERS:
        ranks = [opened(store, dataset, "train", World(rank, world_size), window_rows) for rank in range(world_size)]
        epoch = [_epoch(share, batch_rows, seed) for share in ranks]
        seen = Counter(n for rank in epoch for batch in rank for n in _numbers(batch.rows)[: batch.num_rows])
        assert seen == Counter(range(num_rows))
        assert len({len(rank) for rank in epoch}) == 1, "every rank takes part in every step"
        for step in zip(*epoch, strict=True):
            assert sum(batch.weight for batch in step) == pytest.approx(world_size)
            assert all(len(batch.rows.target) == batch.num_rows for batch in step)
            assert all(batch.num_rows >= min(2, batch_rows, num_rows // world_size) for batch in step)
        epochs.append(epoch)
    for held, read in zip(*epochs, strict=True):
        for a, b in zip(held, read, strict=True):
            assert torch.equal(a.rows.features, b.rows.features) and torch.equal(a.rows.target, b.rows.target)
            assert (a.weight, a.num_rows) == (b.weight, b.num_rows)


@pytest.mark.parametrize("opened", OPENERS)
@pytest.mark.parametrize("rank", [0, 1])
def test_batches_from_any_step_are_those_of_the_whole_epoch(opened: Opener, rank: int) -> None:
    store = MemoryStore()
    share = opened(store, _numbered(store, 41), "train", World(rank, 2), 7)
    whole = _epoch(share, 4)
    assert [batch.num_rows for batch in whole] == [4, 4, 4, 4, 4 + rank], "a single row is taken with the step before"

    for step in range(len(whole) + 1):
        later = _epoch(share, 4, first_step=step)
        assert [_numbers(batch.rows) for batch in later] == [_numbers(batch.rows) for batch in whole[step:]]
        assert [batch[1:] for batch in later] == [batch[1:] for batch in whole[step:]]


@pytest.mark.parametrize("opened", OPENERS)
def test_in_order_gives_the_rows_as_they_are_stored(opened: Opener) -> None:
    store = MemoryStore()
    share = opened(store, _numbered(store, 5, num_val=37), "val", World(1, 2), 8)

    batches = [_numbers(rows) for rows in share.in_order(6)]

    assert [n for batch in batches for n in batch] == list(range(5 + 18, 5 + 37))
    assert [len(batch) for batch in batches] == [6, 6, 6, 1]
    assert _numbers(share.first(2)) == [23, 24]


@pytest.mark.parametrize("opened", OPENERS)
def test_in_order_rows_that_a_model_changed_in_place_come_unchanged_again(opened: Opener) -> None:
    store = MemoryStore()
    share = opened(store, _numbered(store, 20), "train", World(), 8)

    share.first(3).features.zero_()
    for rows in share.in_order(6):
        rows.features.zero_()

    assert [n for rows in share.in_order(6) for n in _numbers(rows)] == list(range(20))


@pytest.mark.parametrize("opened", OPENERS)
def test_first_of_a_share_that_begins_with_the_last_row_of_a_shard_is_a_whole_batch(opened: Opener) -> None:
    store = MemoryStore()
    share = opened(store, _numbered(store, 21, rows_per_shard=11), "train", World(1, 2), 8)

    assert share.groups[0][0].num_rows == 1
    assert _numbers(share.first(4)) == [10, 11, 12, 13]
    assert not _threads()


@pytest.mark.parametrize("opened", OPENERS)
def test_share_without_rows_gives_no_batches(opened: Opener) -> None:
    store = MemoryStore()
    share = opened(store, _numbered(store, 5, num_val=1), "val", World(0, 2), 8)

    assert share.num_rows == 0 and list(share.in_order(6)) == []


@pytest.mark.parametrize("opened", OPENERS)
def test_share_of_one_row_is_one_batch(opened: Opener) -> None:
    store = MemoryStore()

    (batch,) = _epoch(opened(store, _numbered(store, 1), "train", World(), 8), 128)

    assert _numbers(batch.rows) == [0] and batch[1:] == (1.0, 1, 1)


@pytest.mark.parametrize("opened", OPENERS)
def test_features_and_target_are_the_transformed_rows(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "CHUNK_BYTES", 100)  # several chunks a shard
    random = np.random.default_rng(0)
    store = MemoryStore()
    dataset = tiny_dataset(
        store,
        {"a": random.normal(size=90), "city": random.choice(np.array(["x", "y", "z"], object), 90)},
        random.choice(np.array(["no", "yes"], object), 90),
        transforms=[
            StandardizeTransform(kind="standardize", columns=["a"]),
            OneHotTransform(kind="one_hot", columns=["city"]),
        ],
        rows_per_shard=40,
    )
    raw = load_rows(store, dataset, "train")
    expected = FittedTransforms.from_state(dataset.transforms).apply(raw.columns, dataset.signature.inputs)

    (rows,) = opened(store, dataset, "train", World(), 25).in_order(1000)

    assert rows.features.dtype == torch.float32 and rows.features.numpy().tobytes() == expected.tobytes()
    assert rows.target.dtype == torch.int64
    assert rows.target.tolist() == encode_target(raw.target, dataset.signature).tolist()


@pytest.mark.parametrize("window_rows", [4, 15, 25, 100])
def test_streamed_reads_each_shard_of_the_share_once_an_epoch(window_rows: int) -> None:
    store = CountingStore()
    dataset = _numbered(store, 100)
    share = _streamed(store, dataset, "train", World(1, 2), window_rows)

    _epoch(share, 8)

    mine = [shard.key for shard in dataset.splits["train"].shards[5:]]
    assert store.reads == Counter(mine)


def test_streamed_from_a_later_step_does_not_read_what_is_done() -> None:
    store = CountingStore()
    share = _streamed(store, _numbered(store, 100), "train", World(), 10)

    _epoch(share, 8, first_step=10)  # 80 of 100 rows are done: eight of ten windows

    assert store.reads.total() == 2


def test_streamed_has_room_for_two_windows_however_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms: list[int] = []
    empty = Reader.empty

    def counted(self: Reader, num_rows: int, device: torch.device) -> Rows:
        rooms.append(num_rows)
        return empty(self, num_rows, device)

    monkeypatch.setattr(Reader, "empty", counted)  # room is asked for nowhere else
    store = MemoryStore()

    _epoch(_streamed(store, _numbered(store, 200), "train", World(), 10), 7)

    assert rooms == [10, 10]


def test_streamed_damaged_shard_is_raised_to_the_loop_and_the_thread_ends() -> None:
    store = MemoryStore()
    dataset = _numbered(store, 40)
    key = dataset.splits["train"].shards[2].key
    data = bytearray(store.read(key))
    data[len(data) // 2] ^= 1
    store.write(key, bytes(data))

    with pytest.raises(DigestMismatch, match="00002"):
        _epoch(_streamed(store, dataset, "train", World(), 10), 7)
    assert not _threads()


def test_streamed_epoch_that_is_left_early_ends_its_thread() -> None:
    store = MemoryStore()
    share = _streamed(store, _numbered(store, 100), "train", World(), 10)

    with closing(share.batches(8, 0, first_step=0)) as batches:
        next(batches)
        assert _threads()

    assert not _threads()


def test_read_ahead_reads_the_next_window_while_one_is_used() -> None:
    store = CountingStore()
    dataset = _numbered(store, 30)
    share = _streamed(store, dataset, "train", World(), 10)
    order = [window for group in share.groups for window in group]

    with ReadAhead(Reader(StoredSplit(store, dataset, "train")), order) as ahead:
        ahead.window(order[0])
        assert ahead._next is not None
        ahead._next[1].result(timeout=10.0)
        assert store.reads.total() == 2
