"""Rows of rare classes are visited several times an epoch (train.balance), the same ones however rows are held."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from raypipe.records import DatasetVersion
from raypipe.spec.pipeline import PipelineSpec
from raypipe.spec.train import TrainSpec
from raypipe.storage import Store
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import MemoryStore, tiny_dataset
from raypipe.train import loop
from raypipe.train.oversampling import visits_of
from raypipe.train.rows import Share, World, row_bytes
from raypipe.train.shares import open_shares
from tests.conftest import examples
from tests.unit.train.orders import STREAMED, order
from tests.unit.train.stores import CountingStore

OVERSAMPLED = {"balance": "oversample", "global_batch_size": 4}


def rows(store: Store, counts: list[int], **options: Any) -> DatasetVersion:
    """So many rows of each class, mixed; each is known by its only feature."""
    target = np.random.default_rng(2).permutation(np.repeat(np.arange(len(counts)), counts))
    return tiny_dataset(store, {"x": np.arange(len(target), dtype=np.float32)}, target, rows_per_shard=7, **options)


def share(store: Store, data: DatasetVersion, rank: int = 0, size: int = 1, **train: Any) -> Share:
    world = World(rank, size)
    return open_shares(store, data, TrainSpec.model_validate({**OVERSAMPLED, **train}), world).train


def visited(share: Share, seed: int, *, skip: int = 0) -> list[tuple[int, int]]:
    """Row and class of each visit of an epoch, in order."""
    with closing(share.shuffled(3, seed, skip=skip)) as batches:
        return [
            (int(x), int(y))
            for features, target, _ in batches
            for x, y in zip(features.flatten().tolist(), target.tolist(), strict=True)
        ]


@settings(max_examples=examples(20))
@given(st.lists(st.integers(1, 25), min_size=2, max_size=4), st.integers(1, 3), st.booleans())
def test_an_epoch_visits_each_class_as_often_as_the_largest_on_any_number_of_workers(
    counts: list[int], size: int, is_streamed: bool
):
    store = MemoryStore()
    data = rows(store, counts)
    held = {"rows": STREAMED} if is_streamed else {"rows": {"window_rows": 8}}
    shares = [
        share(store, data, rank, size, global_batch_size=4 * size, num_workers=size, **held) for rank in range(size)
    ]
    visits = [visit for each in shares for visit in visited(each, seed=5)]
    assert Counter(y for _, y in visits) == dict.fromkeys(range(len(counts)), max(counts))
    assert len({x for x, _ in visits}) == sum(counts), "every row is visited"
    times = Counter(visits)
    for label, count in enumerate(counts):
        assert {n for (_, y), n in times.items() if y == label} <= {max(counts) // count, -(-max(counts) // count)}
    lengths = [each.num_rows for each in shares]
    assert max(lengths) - min(lengths) <= 1 and sum(lengths) == shares[0].num_rows_all == len(visits)


def test_visits_are_those_of_the_seed_in_memory_streamed_and_from_the_middle_on():
    store = MemoryStore()
    data = rows(store, [23, 4, 9])
    resident = share(store, data, rows={"window_rows": STREAMED["window_rows"]})
    streamed = share(store, data, rows=STREAMED)
    whole = visited(resident, seed=5)
    assert whole == visited(streamed, seed=5) == visited(resident, seed=5) != visited(resident, seed=6)
    for skip in (1, 24, 60):
        assert visited(resident, seed=5, skip=skip) == visited(streamed, seed=5, skip=skip) == whole[skip:]
    more = [{visit for visit, n in Counter(visited(resident, seed)).items() if n == 6} for seed in (5, 6)]
    assert more[0] and more[0] != more[1], "which rows are visited once more is drawn anew"


def rare_last(store: Store) -> DatasetVersion:
    """20 rows of one class, and behind them 2 of another: of the two halves of the visits one has 20 rows, one 2."""
    target = np.repeat([0, 1], [20, 2])
    return tiny_dataset(store, {"x": np.arange(22, dtype=np.float32)}, target, rows_per_shard=7)


@pytest.mark.parametrize(("rank", "num_rows"), [(0, 20), (1, 2)])
def test_rows_of_a_share_are_held_where_there_is_room_for_those_it_has_not_for_its_part_of_all(
    rank: int, num_rows: int
):
    store = MemoryStore()
    data = rare_last(store)
    room = 12 * row_bytes(data)
    spec = TrainSpec.model_validate({**OVERSAMPLED, "num_workers": 2, "rows": {"resident_bytes": room}})
    shares = open_shares(store, data, spec, World(rank, 2))
    assert shares.train.num_stored == num_rows and shares.train.num_rows == 20
    told = shares.told["rows"]["train"]
    assert told["num_bytes"] == num_rows * row_bytes(data)
    assert told["home"] == ("memory" if num_rows * row_bytes(data) <= room else "store")


@pytest.mark.parametrize("held", [STREAMED, {"window_rows": 8}], ids=["streamed", "resident"])
def test_first_rows_are_as_many_as_a_batch_has_though_fewer_are_stored(held: dict[str, Any]):
    store = MemoryStore()
    data = rare_last(store)
    first = share(store, data, 1, 2, num_workers=2, rows=held).first(8)
    assert first.features.flatten().tolist() == [20.0, 21.0] * 4 and first.target.tolist() == [1] * 8
    assert len(share(store, data, 1, 2, num_workers=2, rows=held).first(50).target) == 20, "all its visits"
    assert share(store, data, 0, 2, num_workers=2, rows=held).first(8).features.flatten().tolist() == [*range(8)]


def test_shares_of_an_elastic_worker_are_found_in_one_pass_and_as_each_by_itself():
    store = CountingStore()
    data = rows(store, [23, 4, 9]).model_copy(update={"class_counts": (23, 4, 9)})
    keys = {shard.key for shard in data.splits["train"].shards}
    store.reads.clear()
    together = visits_of(store, data, range(5), 5)
    assert {key: store.reads[key] for key in keys} == dict.fromkeys(keys, 1)
    for number, one in enumerate(together):
        (alone,) = visits_of(store, data, [number], 5)
        assert (one.first_row, one.num_all) == (alone.first_row, alone.num_all)
        np.testing.assert_array_equal(one.class_R, alone.class_R)
        np.testing.assert_array_equal(one.times_R, alone.times_R)


def test_validation_rows_stay_as_they_are(tmp_path: Path):
    store = LocalFolder(str(tmp_path))
    data = rows(store, [30, 3], num_val=11)
    shares = open_shares(store, data, TrainSpec.model_validate(OVERSAMPLED), World())
    assert shares.val is not None and shares.val.num_rows_all == 11
    assert shares.train.num_rows_all % 2 == 0 and "each class" in shares.told["text"]
    with closing(shares.train.in_order(100)) as batches:
        assert torch.cat([batch.target for batch in batches]).numel() == 22, "each row once"


def test_training_of_a_rare_class_finds_more_of_it(tmp_path: Path):
    random = np.random.default_rng(0)
    is_rare = np.arange(400) % 10 == 0
    x = random.normal(size=400) + 1.2 * is_rare
    data = tiny_dataset(LocalFolder(str(tmp_path)), {"x": x}, is_rare.astype(int), num_val=100)
    train = {"global_batch_size": 50, "epochs": 6, "optimizer": {"kind": "adamw", "lr": 0.05}}
    recalls = [
        loop.run(
            order(
                tmp_path,
                "plain" if balance is None else balance,
                {**train, "balance": balance},
                model={"kind": "linear"},
                data=data,
            ),
            World(),
            lambda event: None,
        ).metrics["val_balanced_accuracy"]
        for balance in (None, "oversample")
    ]
    assert recalls[1] > recalls[0] + 0.1


@pytest.mark.parametrize(
    ("task", "train", "words"),
    [
        ("regression", {}, "train.balance needs data.task: classification"),
        ("classification", {"class_weights": "balanced"}, "together rare ones would count more than others"),
    ],
)
def test_balance_that_makes_no_sense_is_refused(task: str, train: dict[str, Any], words: str):
    file = {
        "name": "p",
        "data": {"source": {"format": "sklearn", "dataset": "digits"}, "target": "y", "task": task},
        "model": {"kind": "linear"},
        "train": {"balance": "oversample", **train},
    }
    with pytest.raises(ValidationError, match=words):
        PipelineSpec.model_validate(file)
