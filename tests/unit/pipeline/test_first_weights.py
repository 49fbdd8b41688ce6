"""A training that starts from other weights: found by name, followed by content, kept where workers read."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from raypipe.errors import DigestMismatch, RegistryError, SpecError
from raypipe.pipeline.api import Pipeline
from raypipe.pipeline.first_weights import digest_of_first_weights, placed
from raypipe.pipeline.plan import Planner, changes
from raypipe.pipeline.state import Inputs, RunState
from raypipe.records import ArtifactRef, DatasetVersion, EvaluationReport, Signature, TrainResult
from raypipe.registry.stage import register
from raypipe.spec.load import load_pipeline
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import layout
from raypipe.storage.publish import publish
from raypipe.testing.fakes import MemoryStore, run_context
from raypipe.train.order import TrainOrder

FILE = """\
name: flowers
data: {source: {format: sklearn, dataset: iris}, target: target}
model: {kind: linear, init_from: weights.safetensors}
"""

DATASET = DatasetVersion(
    name="flowers",
    version="d1",
    signature=Signature(inputs=(), task="classification", target="y", classes=("no", "yes")),
    splits={},
    transforms=(),
    feature_shape=(1,),
    content_fingerprint="c",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.yaml").write_text(FILE)
    write_weights(tmp_path, 1.0)
    return tmp_path


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def write_weights(folder: Path, value: float, name: str = "weights.safetensors") -> bytes:
    data = safetensors.torch.save({"1.weight": torch.full((2, 2), value)})
    (folder / name).write_bytes(data)
    return data


def spec_of(folder: Path, *sets: str) -> PipelineSpec:
    return load_pipeline(folder / "pipeline.yaml", sets).spec


def inputs_of(folder: Path, store: MemoryStore, *sets: str) -> Inputs:
    """What the plan compares of a training."""
    planned = Planner(spec=spec_of(folder, *sets), store=store, state=RunState(store, "r1", "flowers"), code_dir=folder)
    inputs = planned.decide("train", {"data": DATASET}).inputs
    assert inputs is not None
    return inputs


def order_of(folder: Path, store: MemoryStore, *sets: str) -> TrainOrder:
    spec = spec_of(folder, *sets)
    first = placed(spec.model, store, folder)
    return TrainOrder(spec, DATASET, store.uri, "r1", "runs/r1/train/artifact", first_weights=first)


def registered(store: MemoryStore, weights: bytes) -> None:
    """As the next version of `flowers`, the champion."""
    digest = publish(store, "runs/r0/train/artifact", {layout.WEIGHTS: weights, "artifact.json": weights[:9]}).digest
    ref = ArtifactRef(key="runs/r0/train/artifact", digest=digest)
    trained = TrainResult(
        run_id="r0",
        dataset="d1",
        artifact=ref,
        history=(),
        best_epoch=1,
        num_steps=1,
        num_parameters=1,
        num_workers=1,
        rows_per_s=1.0,
    )
    report = EvaluationReport(artifact=ref, dataset="d1", num_rows=1, metrics={"accuracy": 1.0})
    ctx = run_context(store, run_id=f"r{digest[:6]}")
    spec = PipelineSpec.model_validate(
        {"name": "flowers", "data": {"source": {"format": "sklearn", "dataset": "iris"}, "target": "target"}}
        | {"model": {"kind": "linear"}}
    )
    register(spec.registry, "flowers", trained, DATASET, report, ctx)


def test_file_that_changed_is_another_training_and_one_that_moved_is_not(folder: Path, store: MemoryStore) -> None:
    before = inputs_of(folder, store)
    write_weights(folder, 1.0, "moved.safetensors")
    moved = inputs_of(folder, store, "model.init_from=moved.safetensors")
    order = order_of(folder, store)
    write_weights(folder, 2.0)

    changed = inputs_of(folder, store)

    assert moved == before
    assert changes(before, changed) == ["the weights that model.init_from names"]
    assert order_of(folder, store).fingerprint() != order.fingerprint()


def test_training_without_a_start_compares_nothing_of_it(folder: Path, store: MemoryStore) -> None:
    inputs = inputs_of(folder, store, "model.init_from=null")
    assert "first_weights" not in inputs
    assert inputs["model"] == {"kind": "linear"}


def test_file_is_read_by_workers_from_the_store(folder: Path, store: MemoryStore) -> None:
    data = (folder / "weights.safetensors").read_bytes()
    order = order_of(folder, store)
    (folder / "weights.safetensors").unlink()

    assert order.read_first_weights(store) == data
    assert order.first_weights is not None
    write_weights(folder, 1.0)
    assert digest_of_first_weights(order.spec.model, store, folder) == order.first_weights.digest
    store.write(f"{order.first_weights.key}/{layout.WEIGHTS}", data[:-1] + b"\0")
    with pytest.raises(DigestMismatch):
        order.read_first_weights(store)


def test_version_is_found_by_number_and_by_alias_and_followed_as_the_alias_moves(
    folder: Path, store: MemoryStore
) -> None:
    one, two = (write_weights(folder, value) for value in (1.0, 2.0))
    registered(store, one)
    by_number = order_of(folder, store, "model.init_from=flowers@1")
    by_alias = inputs_of(folder, store, "model.init_from=flowers@champion")
    registered(store, two)

    assert by_number.read_first_weights(store) == one
    assert order_of(folder, store, "model.init_from=flowers@champion").read_first_weights(store) == two
    assert changes(by_alias, inputs_of(folder, store, "model.init_from=flowers@champion")) == [
        "the weights that model.init_from names"
    ]
    assert inputs_of(folder, store, "model.init_from=flowers@1") == by_alias


def test_version_that_is_not_there_is_told_by_the_plan(folder: Path, store: MemoryStore) -> None:
    registered(store, write_weights(folder, 1.0))
    with pytest.raises(RegistryError, match="flowers has no version 7"):
        inputs_of(folder, store, "model.init_from=flowers@7")


def test_file_that_is_not_there_is_told_with_its_line(folder: Path, store: MemoryStore) -> None:
    (folder / "weights.safetensors").unlink()
    with pytest.raises(SpecError, match=r"pipeline.yaml:3: model.init_from: .*weights.safetensors does not exist"):
        Pipeline.load(folder / "pipeline.yaml", store=store).validate()


def test_start_that_trials_would_differ_in_is_refused(folder: Path) -> None:
    space = "tune={num_trials: 2, metric: val_loss, space: {model.init_from: {choice: [a@1, b@2]}}}"
    with pytest.raises(SpecError, match=r"model.init_from cannot be searched; every trial starts from weights"):
        spec_of(folder, space)
