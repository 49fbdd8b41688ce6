"""Where a worker's rows go, and how that is told."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from raypipe.errors import DataError
from raypipe.records import DatasetVersion
from raypipe.spec.data import Task
from raypipe.spec.train import TrainSpec
from raypipe.storage import Store
from raypipe.testing.fakes import MemoryStore, tiny_dataset, tiny_text
from raypipe.train import shares
from raypipe.train.resident import Resident
from raypipe.train.rows import World
from raypipe.train.shares import Budget, open_shares, plan
from raypipe.train.step import micro_batches
from raypipe.train.streamed import Streamed

ROW_BYTES = 4 * 3 + 8
TRAIN_BYTES, VAL_BYTES = 61 * ROW_BYTES, 20 * ROW_BYTES
CUDA = World(device=torch.device("cuda"))
"""Planned for, never opened: no test needs a GPU."""


def _dataset(store: Store, num_val: int = 20) -> DatasetVersion:
    x = np.arange((61 + num_val) * 3, dtype=np.float32).reshape(-1, 3)
    return tiny_dataset(store, {"x": x}, np.arange(len(x)) % 2, num_val=num_val, rows_per_shard=10)


def _spec(**fields: Any) -> TrainSpec:
    return TrainSpec.model_validate({"global_batch_size": 12, **fields})


@pytest.mark.parametrize(
    ("resident_bytes", "homes"),
    [
        (TRAIN_BYTES + VAL_BYTES, [Resident, Resident]),
        (TRAIN_BYTES + VAL_BYTES - 1, [Resident, Streamed]),
        (TRAIN_BYTES - 1, [Streamed, Resident]),
        (0, [Streamed, Streamed]),
        (None, [Resident, Resident]),
    ],
)
def test_open_shares_holds_what_fits_the_budget(resident_bytes: int | None, homes: list[type]) -> None:
    store = MemoryStore()
    spec = _spec(rows={"resident_bytes": resident_bytes, "window_rows": 10})

    opened = open_shares(store, _dataset(store), spec, World())

    assert [type(opened.train), type(opened.val)] == homes
    named = {Resident: "memory", Streamed: "store"}
    assert [each["home"] for each in opened.told["rows"].values()] == [named[home] for home in homes]


def test_open_shares_says_the_choice_and_its_reason() -> None:
    store = MemoryStore()
    spec = _spec(rows={"resident_bytes": 1000, "window_rows": 10}, global_batch_size=64)

    told = open_shares(store, _dataset(store), spec, World()).told

    assert told["text"] == (
        "rows: train streamed in windows of 10 rows (1.22 kB), val resident in memory (400 B); "
        "budget of a worker: 1 kB, train.rows.resident_bytes; "
        "one step an epoch: global_batch_size 64 is more than all 61 rows"
    )


@pytest.mark.parametrize(
    ("task", "is_weighted"),
    [
        ("classification", False),
        ("classification", True),
        ("regression", False),
        ("regression", True),
        ("language_model", False),
    ],
)
def test_open_shares_tells_the_bytes_that_its_tensors_take(task: Task, is_weighted: bool) -> None:
    store, x = MemoryStore(), np.arange(60, dtype=np.float32).reshape(20, 3)
    if task == "language_model":
        data = tiny_text(store, "to be or not to be " * 20)
    else:
        weight = np.linspace(1, 2, len(x)) if is_weighted else None
        data = tiny_dataset(store, {"x": x}, np.arange(len(x)) % 2 * 1.0, task=task, weight=weight)

    opened = open_shares(store, data, _spec(), World())

    assert isinstance(opened.train, Resident)
    held = sum(values.nbytes for values in opened.train.rows if values is not None)
    assert opened.told["rows"]["train"]["num_bytes"] == held


def test_open_shares_is_alive_for_who_looks_for_hung_workers_as_rows_are_read() -> None:
    store, pulses = MemoryStore(), itertools.count()
    data = _dataset(store)

    open_shares(store, data, _spec(), World(), alive=lambda: next(pulses))  # pyright: ignore[reportArgumentType]

    assert next(pulses) >= sum(len(split.shards) for split in data.splits.values())


def test_open_shares_without_val_rows_has_none() -> None:
    store = MemoryStore()

    opened = open_shares(store, _dataset(store, num_val=0), _spec(), World())

    assert opened.val is None and list(opened.told["rows"]) == ["train"]


def test_open_shares_of_fewer_rows_than_workers_is_refused() -> None:
    store = MemoryStore()

    with pytest.raises(DataError, match="62 workers cannot share 61 training rows"):
        open_shares(store, _dataset(store), _spec(), World(size=62))


def test_budget_unset_is_a_share_of_what_the_workers_of_a_node_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "available_bytes", lambda: 6_000_000_000)  # on any machine

    budget = shares.budget_of(_spec(), World(size=4, local_size=2), 3)
    less = shares.budget_of(_spec(resources={"memory_bytes": 500_000_000}), World(size=4, local_size=2), 3)

    assert (budget.host_bytes, budget.why) == (400_000_000, "40% of 6 GB available to 6 worker(s)")
    assert (less.host_bytes, less.why) == (200_000_000, "40% of the 500 MB of train.resources.memory_bytes")


@pytest.mark.parametrize(
    ("gpu_bytes", "host_bytes", "homes"),
    [
        (TRAIN_BYTES + VAL_BYTES, 0, ["gpu", "gpu"]),
        (TRAIN_BYTES, VAL_BYTES, ["gpu", "memory"]),
        (VAL_BYTES, TRAIN_BYTES, ["memory", "gpu"]),
        (0, 0, ["store", "store"]),
    ],
)
def test_plan_puts_rows_on_the_gpu_first_then_in_memory(gpu_bytes: int, host_bytes: int, homes: list[str]) -> None:
    plans = plan(_dataset(MemoryStore()), CUDA, Budget(host_bytes, gpu_bytes, ""), window_rows=10)

    assert [each.home for each in plans] == homes


def test_plan_of_a_share_counts_the_rows_of_this_worker_alone() -> None:
    plans = plan(_dataset(MemoryStore()), World(rank=0, size=2), Budget(30 * ROW_BYTES, 0, ""), window_rows=10)

    assert [(each.home, each.num_bytes) for each in plans] == [("memory", 30 * ROW_BYTES), ("store", 10 * ROW_BYTES)]


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(0, "0 B"), (999, "999 B"), (1220, "1.22 kB"), (4.1e9, "4.1 GB"), (2e13, "20 TB")]
)
def test_size_is_short(num_bytes: float, text: str) -> None:
    assert shares.size(num_bytes) == text


def test_window_unset_does_not_depend_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    dataset = _dataset(store)
    told = []
    for there in (10**12, 10**3):
        monkeypatch.setattr(shares, "available_bytes", lambda there=there: there)  # two machines
        told.append(open_shares(store, dataset, _spec(), World()).told)

    assert {each["window_rows"] for each in told} == {shares.WINDOW_BYTES // ROW_BYTES}
    assert [each["rows"]["train"]["home"] for each in told] == ["memory", "store"]


@pytest.mark.parametrize("resident_bytes", [0, None], ids=["streamed", "resident"])
@pytest.mark.parametrize("num_workers", [1, 2, 3, 5])
def test_elastic_workers_take_the_same_rows_in_each_step_whatever_their_number(
    num_workers: int, resident_bytes: int | None
) -> None:
    store = MemoryStore()
    dataset = _dataset(store)
    spec = _spec(
        num_workers={"min": 1, "max": 5},
        global_batch_size=20,
        rows={"resident_bytes": resident_bytes, "window_rows": 4},
    )

    def steps(size: int, first_step: int) -> list[list[float]]:
        """First feature of every row, by step."""
        opened = [open_shares(store, dataset, spec, World(rank, size)).train for rank in range(size)]
        assert {each.num_steps(20 // 5) for each in opened} == {3}
        found: list[list[float]] = []
        for parts in zip(*(each.epoch(20 // 5, 0, 2, first_step=first_step) for each in opened), strict=True):
            assert sum(part.num_rows for part in parts) == parts[0].num_rows_all
            assert sum(part.weight for part in parts) == pytest.approx(size), "DDP averages over the workers"
            assert len({part.num_rows_all for part in parts}) == 1
            micro = {len(micro_batches(part, 3, size, 5)) for part in parts}
            assert len(micro) == 1, "every worker makes as many passes"
            found.append(sorted(value for part in parts for value in part.rows.features[:, 0].tolist()))
        return found

    found = steps(num_workers, 0)
    assert found == steps(5, 0)
    assert found[1:] == steps(num_workers, 1), "from a later step on too"
    assert sorted(value for step in found for value in step) == [3.0 * row for row in range(61)], "every row once"


def test_elastic_plan_counts_the_rows_of_all_shares_of_a_worker() -> None:
    dataset = _dataset(MemoryStore())
    budget = Budget(10**9, 0, "")
    (train, val), (last, _) = (plan(dataset, World(rank, 2), budget, 10, num_shares=3) for rank in (0, 1))
    assert (train.num_bytes, last.num_bytes) == (20 * ROW_BYTES, 41 * ROW_BYTES)
    assert val.num_bytes == VAL_BYTES // 2


def test_open_shares_of_fewer_rows_than_elastic_workers_at_most_is_refused() -> None:
    store = MemoryStore()
    spec = _spec(num_workers={"min": 1, "max": 62}, global_batch_size=62)
    with pytest.raises(DataError, match="62 workers cannot share 61 training rows") as caught:
        open_shares(store, _dataset(store), spec, World())
    assert caught.value.hint == "lower train.num_workers.max"
