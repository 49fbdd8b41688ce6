"""A small training of the network of `raypipe.testing.faults`, which kills its own worker or raises when told to."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from raypipe.records import DatasetVersion, TrainResult
from raypipe.runtime.context import RunContext
from raypipe.runtime.progress import Progress, read_events
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import Store, open_store
from raypipe.testing import faults
from raypipe.testing.fakes import tiny_dataset
from raypipe.train.stage import train


def dataset(store: Store, num_train: int = 80) -> DatasetVersion:
    """Rows of three numbers in two classes, 20 of them val."""
    random = np.random.default_rng(0)
    x = random.normal(size=(num_train + 20, 3)).astype(np.float32)
    return tiny_dataset(store, {"x": x}, (x @ [1.0, -2.0, 0.5] > 0).astype(np.int64), num_val=20)


def pipeline(
    folder: Path, *, raises: int = 0, dropout_frac: float = 0.5, step_s: float = 0.0, **train: Any
) -> PipelineSpec:
    """Two workers of half a CPU, 8 steps an epoch, a checkpoint every 3 steps and at each epoch's end."""
    return PipelineSpec.model_validate(
        {
            "name": "faulty",
            "data": {"source": {"format": "sklearn", "dataset": "iris"}, "target": "y"},
            "model": {
                "kind": "import",
                "path": "faulty_model.py:build",
                "args": {
                    "folder": os.fspath(folder),
                    "raises": raises,
                    "dropout_frac": dropout_frac,
                    "step_s": step_s,
                },
            },
            "train": {
                "num_workers": 2,
                "resources": {"num_cpus": 0.5},
                "epochs": 3,
                "global_batch_size": 10,
                "checkpoint": {"every_steps": 3},
                "optimizer": {"kind": "adamw", "lr": 0.01},
                **train,
            },
        }
    )


def run(
    spec: PipelineSpec, store: Store, code_dir: Path, run_id: str, num_train: int = 80
) -> tuple[TrainResult, list[dict[str, Any]]]:
    """The result, and what was told on the way.

    Args:
        num_train: rows.
    """
    progress = Progress(run_id, stream=io.StringIO())
    ctx = RunContext(run_id=run_id, store=store, progress=progress, name=spec.name, code_dir=code_dir)
    try:
        result = train(spec, dataset(store, num_train), ctx)
    finally:
        progress.save(store)
    return result, events(store, run_id)


def events(store: Store, run_id: str) -> list[dict[str, Any]]:
    return read_events(store, run_id)


def starts(told: list[dict[str, Any]]) -> list[int]:
    """At which step each attempt began."""
    return [event["step"] for event in told if event.get("event") == "start"]


Trained = tuple[TrainResult, list[dict[str, Any]]]
"""A training's result, and what was told on the way."""


def trained_either_way(folder: Path, num_workers: int) -> dict[tuple[str, str], Trained]:
    """Trainings by who starts the workers and whether the last of them is killed on the way: "whole" or "killed".

    Args:
        folder: the network is written to `code` in it, and `store` keeps the trainings, as runs of `run_id_of`.
    """
    store = open_store(str(folder / "store"))
    code_dir = faults.write_network(folder / "code", plan=[])
    trained: dict[tuple[str, str], Trained] = {}
    for trainer in ("auto", "ray_train"):
        for situation, plan in (("whole", []), ("killed", [f"{num_workers - 1} 6"])):
            for mark in code_dir.glob("killed-*"):
                mark.unlink()
            faults.write_network(code_dir, plan)
            spec = pipeline(
                code_dir,
                trainer=trainer,
                num_workers=num_workers,
                global_batch_size=12,
                epochs=2,
                resources={"num_cpus": 0.5},
                max_failures=1,
            )
            result, told = run(spec, store, code_dir, run_id_of(trainer, situation))
            assert result.attempts == 1 + len(plan)
            check_goodput(result, told, is_killed=bool(plan))
            assert starts(told) == [0, 3][: 1 + len(plan)]
            assert all(faults.is_gone(pid) for pid, _ in faults.kills(code_dir))
            trained[trainer, situation] = result, told
    return trained


def run_id_of(trainer: str, situation: str) -> str:
    """Of such a training."""
    return f"{trainer.replace('_', '')}{situation}"


def digests_of(trained: dict[tuple[str, str], Trained]) -> dict[tuple[str, str], str]:
    """Of the artifacts."""
    return {way: result.artifact.digest for way, (result, _) in trained.items()}


def check_goodput(result: TrainResult, told: list[dict[str, Any]], *, is_killed: bool) -> None:
    """What was told at the end is what the result holds, and the time between the first and the last line holds it."""
    found = result.goodput
    assert found is not None and 0 < found.share < 1
    assert [event["text"] for event in told if event.get("event") == "goodput"] == [found.text]
    parts = found.model_dump(exclude={"share", "mfu", "failures_s"})
    assert all(seconds > 0 for seconds in parts.values()), parts
    assert (found.failures_s > 0.1) == is_killed, "other processes take longer than that to start"
    assert found.whole_s <= told[-1]["time"] - told[0]["time"] + 1.0
