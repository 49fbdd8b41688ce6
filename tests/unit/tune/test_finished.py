"""Which trials of a search count as finished."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ray import tune

from raypipe.records import TrainResult
from raypipe.spec.tune import OptunaSearch
from raypipe.storage import layout
from raypipe.storage.local import LocalFolder
from raypipe.storage.publish import MANIFEST, publish
from raypipe.testing.fakes import tiny_dataset
from raypipe.tune.finished import FinishedTrial, finished_trials, point_of, write_outcome
from raypipe.tune.search import SEARCHES

DRAWN = {"train.optimizer.lr": np.float64(0.25), "model.hidden": np.int64(1)}


def _finish(store: LocalFolder, trial_id: str, drawn: dict[str, object]) -> None:
    key = layout.trial_artifact("r1", trial_id)
    digest = publish(store, key, {"weights": trial_id.encode()}).digest
    result = TrainResult.model_validate(
        {
            "run_id": "r1",
            "dataset": "d",
            "artifact": {"key": key, "digest": digest},
            "history": [{"epoch": 1, "step": 3, "metrics": {"val_loss": 0.5}}],
            "best_epoch": 1,
            "num_steps": 3,
            "num_parameters": 1,
            "num_workers": 1,
            "rows_per_s": 1.0,
        }
    )
    dataset = tiny_dataset(store, {"x": np.eye(4)}, np.arange(4) % 2)
    write_outcome(store, "r1", trial_id, drawn, dataset, result)


def test_finished_trial_is_found_by_its_point_as_a_search_draws_it_again(tmp_path: Path):
    store = LocalFolder(str(tmp_path))
    _finish(store, "t1", DRAWN)

    plain = {"train.optimizer.lr": 0.25, "model.hidden": 1}
    assert finished_trials(store, "r1") == {point_of(DRAWN): FinishedTrial("t1", plain)}
    assert point_of(plain) == point_of(DRAWN) != point_of({**plain, "model.hidden": 0})
    assert finished_trials(store, "r2") == {}


def test_search_that_learns_begins_with_the_points_of_finished_trials():
    finished = [{"lr": 0.25, "hidden": 1}, {"lr": 0.5, "hidden": 0}]
    search = SEARCHES["optuna"](
        OptunaSearch(kind="optuna"), seed=1, metric="val_loss", mode="min", max_concurrent=4, finished=finished
    )
    search.set_search_properties("val_loss", "min", {"lr": tune.uniform(0, 1), "hidden": tune.choice([0, 1])})

    assert [search.suggest(trial_id) for trial_id in ("t1", "t2")] == finished
    assert search.suggest("t3") not in finished


def test_finished_trial_that_is_damaged_or_without_its_model_is_trained_again(tmp_path: Path):
    store = LocalFolder(str(tmp_path))
    for number, trial_id in enumerate(("cut", "modelless", "pointless", "unended", "whole")):
        _finish(store, trial_id, {"seed": number})
    store.write(layout.trial_record("r1", "cut"), b"{")
    store.delete(f"{layout.trial_artifact('r1', 'modelless')}/{MANIFEST}")
    store.delete(layout.trial_point("r1", "pointless"))
    store.delete(layout.trial_record("r1", "unended"))

    assert [trial.trial_id for trial in finished_trials(store, "r1").values()] == ["whole"]
