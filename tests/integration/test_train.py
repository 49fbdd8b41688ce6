"""train() on real Ray Train workers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from raypipe.data.shards import load_rows
from raypipe.errors import ClusterError, NonFiniteLossError, TrainingError
from raypipe.model.artifact import WEIGHTS
from raypipe.model.predictor import Predictor
from raypipe.records import ArtifactRef, TrainResult
from raypipe.runtime.context import RunContext
from raypipe.runtime.progress import Progress
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import Store, layout, open_store
from raypipe.storage.publish import read_published
from raypipe.testing import faults
from raypipe.train.stage import train
from tests.integration import faulty

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def _train(spec: PipelineSpec, store: Store, code_dir: Path, run_id: str) -> tuple[TrainResult, list[dict[str, Any]]]:
    """The result, and what was told on the way."""
    progress = Progress(run_id, stream=io.StringIO())
    ctx = RunContext(run_id=run_id, store=store, progress=progress, name=spec.name, code_dir=code_dir)
    try:
        result = train(spec, faulty.dataset(store), ctx)
    finally:
        progress.save(store)
    return result, _events(store, run_id)


def _events(store: Store, run_id: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in store.read(layout.events(run_id)).splitlines()]


def _starts(events: list[dict[str, Any]]) -> list[int]:
    return [event["step"] for event in events if event.get("event") == "start"]


def _weights(store: Store, ref: ArtifactRef) -> dict[str, torch.Tensor]:
    return safetensors.torch.load(read_published(store, ref.key, digest=ref.digest)[WEIGHTS])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, ray_cluster: object) -> tuple[Store, TrainResult, list[dict]]:
    """A run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    code_dir = faults.write_network(folder / "code", plan=[])
    store = open_store(str(folder / "store"))
    return store, *_train(faulty.pipeline(code_dir), store, code_dir, "whole")


def test_train_two_workers_leave_a_model_that_answers(whole: tuple[Store, TrainResult, list[dict]]) -> None:
    store, result, events = whole

    assert (result.num_workers, result.num_steps, result.attempts) == (2, 24, 1)
    assert [entry.step for entry in result.history] == [8, 16, 24]
    code_dir = Path(store.uri).parent / "code"
    predictor = Predictor.load(store, result.artifact, code_dir=code_dir)
    rows = faulty.dataset(store)
    columns = load_rows(store, rows, "val")
    labels = predictor.predict(columns.columns).labels()
    assert result.metrics["val_accuracy"] == (labels == columns.target).mean()
    assert _starts(events) == [0]
    assert [event["metrics"] for event in events if event.get("event") == "epoch"] == [
        e.metrics for e in result.history
    ]
    kept = {info.key.split("/")[-2] for info in store.list(layout.checkpoints("whole"))}
    assert kept == {"step-00000021", "step-00000024"}


@pytest.mark.s3
def test_train_worker_killed_on_s3_loses_one_interval_and_ends_with_the_same_bits(
    whole: tuple[Store, TrainResult, list[dict]], bucket: str, tmp_path: Path
) -> None:
    code_dir = faults.write_network(tmp_path / "code", plan=["1 12"])  # one call settles DDP, so within step 11
    store = open_store(f"s3://{bucket}/some/prefix")

    result, events = _train(faulty.pipeline(code_dir), store, code_dir, "killed")

    ((pid, _),) = faults.kills(code_dir)
    assert faults.is_gone(pid), "the fault must have happened"
    assert _starts(events) == [0, 9], "step 10 was done, and the newest checkpoint is that of step 9"
    assert result.attempts == 2
    expected, found = _weights(whole[0], whole[1].artifact), _weights(store, result.artifact)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert result.history == whole[1].history
    assert not list(store.list("runs/killed/train/ray")), "Ray Train's own notes are cleared"


def test_train_network_that_raises_names_the_cause(tmp_path: Path) -> None:
    code_dir = faults.write_network(tmp_path / "code", plan=[])
    store = open_store(str(tmp_path / "store"))
    spec = faulty.pipeline(code_dir, raises=3, max_failures=0)

    with pytest.raises(TrainingError, match=r"train: worker [01] of 2 failed: .*does not feel like it") as caught:
        _train(spec, store, code_dir, "raises")
    assert "--resume raises" in caught.value.hint


def test_train_rate_far_too_high_stops_at_once_and_publishes_nothing(tmp_path: Path) -> None:
    code_dir = faults.write_network(tmp_path / "code", plan=[])
    store = open_store(str(tmp_path / "store"))
    spec = faulty.pipeline(code_dir, optimizer={"kind": "sgd", "lr": 1e30}, max_failures=3)

    with pytest.raises(NonFiniteLossError, match=r"training step [23] \(epoch 1\)"):
        _train(spec, store, code_dir, "nan")

    assert _starts(_events(store, "nan")) == [0], "trying again would not help"
    assert not list(store.list(layout.artifact("nan", "train")))


def test_train_more_workers_than_fit_says_so_after_the_deadline(tmp_path: Path) -> None:
    code_dir = faults.write_network(tmp_path / "code", plan=[])
    store = open_store(str(tmp_path / "store"))
    spec = faulty.pipeline(code_dir, resources={"num_cpus": 64}, start_timeout_s=3)

    with pytest.raises(ClusterError, match=r"2 workers of \{'CPU': 64.0\} were not placed within 3s"):
        _train(spec, store, code_dir, "toobig")
