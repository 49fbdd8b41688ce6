"""FAULTS U2: trials that end their process, hang, diverge, or raise; each is told and counted, and the search ends."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raypipe.runtime.progress import Progress
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import open_store
from raypipe.testing.fakes import run_context, tiny_dataset
from raypipe.testing.faults import FAULTY_TRIAL, TRIAL_FAULTS
from raypipe.tune.stage import tune

pytestmark = [
    *(pytest.mark.chaos, pytest.mark.ray, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)),
]

FAULTS = ["none", *TRIAL_FAULTS]


def test_search_in_which_trials_crash_hang_and_diverge_ends_with_the_others(tmp_path: Path) -> None:
    (tmp_path / "faulty_network.py").write_text(FAULTY_TRIAL)
    store = open_store(str(tmp_path / "store"))
    x = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
    dataset = tiny_dataset(store, {"x": x}, (x @ [1.0, -2.0, 0.5] > 0).astype(np.int64), num_val=20)
    spec = PipelineSpec.model_validate(
        {
            "name": "search",
            "data": {"source": {"format": "sklearn", "dataset": "iris"}, "target": "y"},
            "model": {"kind": "import", "path": "faulty_network.py:build", "args": {"fault": "none"}},
            "train": {"epochs": 2, "global_batch_size": 20, "optimizer": {"kind": "sgd", "lr": 0.1}},
            "tune": {
                "space": {"model.args.fault": {"choice": FAULTS}, "train.optimizer.lr": {"choice": [0.1, 0.2]}},
                "search": {"kind": "grid"},
                "max_trial_minutes": 0.3,
                "max_concurrent_trials": 2,
                "num_trials": 10,
            },
        }
    )
    stream = io.StringIO()
    context = replace(run_context(store, code_dir=tmp_path), progress=Progress("rtest", stream))

    result = tune(spec, dataset, context)

    ended = {fault: [t for t in result.trials if t.values["model.args.fault"] == fault] for fault in FAULTS}
    statuses = {fault: [trial.status for trial in trials] for fault, trials in ended.items()}
    assert statuses == {
        "none": ["completed"] * 2,
        "process ends": ["failed"] * 2,
        "diverges": ["diverged"] * 2,
        "hangs": ["failed"] * 2,
        "out of memory": ["failed"] * 2,
    }
    reasons = {fault: {trial.error for trial in trials} for fault, trials in ended.items()}
    assert reasons["process ends"] == {
        "its process was lost: killed, or out of memory (lower tune.max_concurrent_trials)"
    }
    assert reasons["hangs"] == {"it took longer than tune.max_trial_minutes=0.3"}
    assert all("cannot allocate 1 TB" in str(reason) for reason in reasons["out of memory"])
    assert all("NaN or infinite" in str(reason) for reason in reasons["diverges"])
    assert Counter(trial.status for trial in result.trials) == {"completed": 2, "diverged": 2, "failed": 6}
    assert "10 trials: 2 completed, 2 diverged, 6 failed" in stream.getvalue()
    assert result.best_values["model.args.fault"] == "none"
