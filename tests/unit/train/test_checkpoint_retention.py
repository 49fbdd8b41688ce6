"""Which checkpoints stay."""

from __future__ import annotations

from typing import Any

import pytest

from raypipe.spec.train import TrainSpec
from raypipe.storage import layout
from raypipe.testing.fakes import MemoryStore
from raypipe.train.checkpoints.retention import best_steps, steps_to_delete
from tests.unit.train.side_by_side import SideBySide, opened, state


def _history(*values: float, metric: str = "val_loss") -> list[dict[str, Any]]:
    """Epochs of ten steps."""
    return [
        {"epoch": number + 1, "step": 10 * (number + 1), "metrics": {metric: value}}
        for number, value in enumerate(values)
    ]


def _spec(**checkpoint: Any) -> TrainSpec:
    return TrainSpec.model_validate({"checkpoint": checkpoint})


def _kept(steps: list[int], history: list[dict[str, Any]], **checkpoint: Any) -> list[int]:
    gone = steps_to_delete(steps, state(steps[-1], history=history), _spec(**checkpoint))
    return [step for step in steps if step not in gone]


def test_retention_last_ones_and_the_newest_end_of_an_epoch() -> None:
    assert _kept([10, 20, 25, 30, 33, 36], _history(3, 2, 1), num_to_keep=2) == [30, 33, 36]
    assert _kept([33, 36], _history(3, 2, 1), num_to_keep=5) == [33, 36]
    assert _kept([3, 6, 9], [], num_to_keep=1) == [9]


def test_retention_best_ones_by_the_loss_of_val_rows() -> None:
    steps = [10, 20, 30, 40, 50]
    assert _kept(steps, _history(3, 1, 2, 4, 5), num_to_keep=1, num_best_to_keep=2) == [20, 30, 50]
    assert _kept(steps, _history(1, 1, 1, 1, 1), num_to_keep=1, num_best_to_keep=1) == [10, 50], "the earlier of equals"


@pytest.mark.parametrize(("metric", "best"), [("val_accuracy", [30]), ("val_mae", [20])])
def test_retention_best_ones_by_the_metric_of_early_stopping(metric: str, best: list[int]) -> None:
    spec = TrainSpec.model_validate({"early_stopping": {"metric": metric}, "checkpoint": {"num_best_to_keep": 1}})
    history = _history(0.5, 0.1, 0.9, metric=metric)
    for epoch in history:
        epoch["metrics"]["val_loss"] = epoch["epoch"]
    assert best_steps(spec, history) == best


def test_retention_without_val_rows_goes_by_the_loss_of_train_rows() -> None:
    assert best_steps(_spec(num_best_to_keep=1), _history(3, 1, 2, metric="train_loss")) == [20]


def test_saved_checkpoints_that_are_too_many_are_deleted_with_all_parts() -> None:
    store = MemoryStore()
    ranks = SideBySide(store, 2, {"checkpoint": {"num_to_keep": 2}})

    for step in (1, 2, 3, 4):
        ranks.save(state(step))

    kept = {info.key.split("/")[-2] for info in store.list(layout.checkpoints("r1"))}
    assert kept == {"step-00000003", "step-00000004"}


def test_saved_below_a_damaged_one_is_kept() -> None:
    store = MemoryStore()
    ranks = SideBySide(store, 1, {"checkpoint": {"num_to_keep": 1}})
    ranks.save(state(20))
    ranks.save(state(10))

    ranks.save(state(11))

    assert opened(store, 11).state.step == 11
    assert [step for step in (10, 11, 20) if list(store.list(layout.checkpoint("r1", step)))] == [11, 20]
