"""FAULTS U1: the driver of a search of forty trials is killed at five random points."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from raypipe.runtime.progress import Progress
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import layout, open_store
from raypipe.testing.fakes import run_context, tiny_dataset
from raypipe.tune.stage import tune
from tests.integration.search_driver import Driver

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.timeout(1200)]

NUM_TRIALS = 40
NUM_KILLS = 5

SPEC = {
    "name": "search",
    "data": {"source": {"format": "sklearn", "dataset": "iris"}, "target": "y"},
    "model": {"kind": "linear"},
    "train": {"epochs": 3, "global_batch_size": 20, "optimizer": {"kind": "sgd"}},
    "tune": {
        "space": {
            "train.optimizer.lr": {"log_uniform": [0.001, 1.0]},
            "train.optimizer.momentum": {"uniform": [0.0, 0.9]},
        },
        "search": {"kind": "tpe"},
        "num_trials": NUM_TRIALS,
        "max_concurrent_trials": 1,  # so that the search learns the same in the same order
    },
}


def test_search_of_forty_trials_whose_driver_is_killed_five_times_ends_as_if_it_had_not_been(
    tmp_path: Path, ray_cluster: SimpleNamespace
) -> None:
    store = open_store(str(tmp_path / "store"))
    x = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
    dataset = tiny_dataset(store, {"x": x}, (x @ [1.0, -2.0, 0.5] > 0).astype(np.int64), num_val=20)
    spec = PipelineSpec.model_validate(SPEC)
    driver = Driver(ray_cluster.address, store, "killed", spec, dataset, tmp_path)
    random = np.random.default_rng(18)
    written: dict[str, int] = {}
    finished = 0

    for _ in range(NUM_KILLS):
        more = finished + int(random.integers(1, 6))
        finished = driver.run_until(lambda num_finished, more=more: num_finished >= more, float(random.uniform(0, 0.3)))
        assert finished < NUM_TRIALS
        now = _records(tmp_path)
        assert {trial_id: now[trial_id] for trial_id in written} == written, "no finished trial was written again"
        written = now
    stream = io.StringIO()
    context = replace(run_context(store, run_id="killed"), progress=Progress("killed", stream))
    result = tune(spec, dataset, context)

    assert f"{finished} of {NUM_TRIALS} trials ended before and are kept" in stream.getvalue()
    now = _records(tmp_path)
    assert {trial_id: now[trial_id] for trial_id in written} == written
    assert len(result.trials) == len(now) == NUM_TRIALS == len({str(trial.values) for trial in result.trials})
    whole = tune(spec, dataset, run_context(store, run_id="whole"))
    assert result.trials == whole.trials, "the same trials, points and metrics"
    assert (result.best_trial, result.best.artifact.digest) == (whole.best_trial, whole.best.artifact.digest)


def _records(folder: Path) -> dict[str, int]:
    """When each finished trial's record was written."""
    trials = folder / "store" / layout.trials("killed")
    return {file.parent.name: file.stat().st_mtime_ns for file in trials.glob("*/record.json")}
