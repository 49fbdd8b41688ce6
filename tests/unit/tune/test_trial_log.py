"""Which checkpoints of trials stay."""

from __future__ import annotations

import pytest

from raypipe.errors import SpecError
from raypipe.storage import layout
from raypipe.testing.fakes import MemoryStore
from raypipe.tune.points import End, Point
from raypipe.tune.trial_log import TrialLog, delete_search


def _checkpoint(trial_id: str) -> str:
    return f"{layout.checkpoint(layout.training_of_trial('r1', trial_id), 3)}/manifest.json"


def test_checkpoints_of_a_trial_lie_with_it_and_go_without_its_point() -> None:
    store = MemoryStore()
    log = TrialLog(store, "r1", "search", "val_loss")
    for trial_id in ("t00001", "t00002", "t00003"):
        log.begin(Point(trial_id, "trial", {"seed": 1}))
        store.write(_checkpoint(trial_id), b"{}")
    assert _checkpoint("t00001").startswith(f"{layout.trial('r1', 't00001')}/")

    log.clear_checkpoints(["t00001"])
    assert [store.exists(_checkpoint(t)) for t in ("t00001", "t00002", "t00003")] == [False, True, True]
    log.clear_checkpoints()
    assert not any(store.exists(_checkpoint(t)) for t in ("t00002", "t00003"))
    assert len(TrialLog(store, "r1", "search", "val_loss").points) == 3


def test_end_comes_back_as_it_was_kept_unless_it_will_be_tried_again() -> None:
    store = MemoryStore()
    log = TrialLog(store, "r1", "search", "val_loss")
    stopped = End("stopped", 0.5, {1: 0.75, 2: 0.5})
    lost = End("failed", reason="its process was lost", lasting=False)
    for trial_id, end in (("t00001", stopped), ("t00002", lost)):
        log.begin(Point(trial_id, "trial", {"seed": 1}))
        log.end(trial_id, end)
    log.spend(12.5)

    again = TrialLog(store, "r1", "search", "val_loss")
    assert again.ends == {"t00001": stopped} and set(again.points) == {"t00001", "t00002"} and again.spent_s == 12.5

    delete_search(store, "r1")
    assert not list(store.list(f"{layout.run('r1')}/tune"))


def test_only_checkpoints_have_a_place_below_a_run_id_of_a_trial() -> None:
    with pytest.raises(SpecError):
        layout.run(layout.training_of_trial("r1", "t00001"))
    with pytest.raises(SpecError):
        layout.checkpoints("r1/../r2")
