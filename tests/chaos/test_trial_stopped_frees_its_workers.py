"""A trial of several workers that is stopped early: what it held is free, and the search goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import open_store
from raypipe.testing.fakes import run_context, tiny_dataset
from raypipe.tune.stage import tune

pytestmark = [
    *(pytest.mark.chaos, pytest.mark.ray, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)),
]

SPEC = {
    "name": "search",
    "data": {"source": {"format": "sklearn", "dataset": "iris"}, "target": "y"},
    "model": {"kind": "linear"},
    "train": {
        "epochs": 2,
        "global_batch_size": 20,
        "num_workers": 2,
        "resources": {"num_cpus": 1.5},
        "optimizer": {"kind": "sgd"},
    },
    "tune": {
        "space": {"train.optimizer.lr": {"choice": [1.0, 1e-06, 1e-07]}},
        "search": {"kind": "grid"},
        "num_trials": 3,
        "scheduler": {"kind": "asha", "reduction_factor": 2},
        "max_concurrent_trials": 1,
    },
}


def test_tune_trials_that_asha_stops_free_the_workers_of_their_own(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    x = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
    dataset = tiny_dataset(store, {"x": x}, (x @ [1.0, -2.0, 0.5] > 0).astype(np.int64), num_val=20)

    result = tune(PipelineSpec.model_validate(SPEC), dataset, run_context(store))

    assert [trial.status for trial in result.trials][:2] == ["completed", "stopped"]
    assert len(result.trials) == 3, "workers that stay would leave no room on the four CPUs for the third"
    assert result.best.num_workers == 2
