"""Evaluation on real Ray tasks: the same metrics at any number of workers, gates, champions, honest errors."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ray
import safetensors.torch

from raypipe.data.shards import encode_target, load_rows
from raypipe.errors import GateError, ModelError, TrainingError
from raypipe.evaluate import score
from raypipe.evaluate.stage import evaluate
from raypipe.model.artifact import DESCRIPTION, WEIGHTS, Artifact
from raypipe.model.predictor import Predictor
from raypipe.records import ArtifactRef, DatasetVersion, ModelVersion, TrainResult
from raypipe.registry.stage import register
from raypipe.registry.versions import list_versions, resolve
from raypipe.runtime.context import RunContext
from raypipe.spec.evaluate import EvaluateSpec, GateSpec
from raypipe.spec.registry import RegistrySpec
from raypipe.spec.train import TrainSpec
from raypipe.storage import Store, open_store
from raypipe.storage.publish import publish
from raypipe.testing import tiny
from raypipe.testing.fakes import run_context
from raypipe.train.actors import Group

pytestmark = pytest.mark.ray

NO_WORSE = EvaluateSpec(gates=[GateSpec(metric="accuracy", min_gain_over_champion=0)])


@pytest.fixture
def ctx(ray_cluster: SimpleNamespace, tmp_path: Path) -> RunContext:
    return run_context(open_store(str(tmp_path / "store")))


@pytest.fixture
def store(ctx: RunContext) -> Store:
    return ctx.store


def champion(ctx: RunContext, dataset: DatasetVersion, strength: float = 1.0) -> tuple[TrainResult, ModelVersion]:
    trained = tiny.trained(ctx.store, dataset, run_id="rchampion", strength=strength)
    report = evaluate(EvaluateSpec(), trained, dataset, None, ctx)
    return trained, register(RegistrySpec(), "tiny", trained, dataset, report, ctx)


def without_code(ctx: RunContext, dataset: DatasetVersion) -> ArtifactRef:
    """The artifact of a user's own network whose source is not on this machine."""
    artifact = Artifact(
        model={"kind": "import", "path": "gone.py:build"},
        signature=dataset.signature,
        transforms=(),
        feature_shape=(2,),
        dataset=dataset.version,
        code={"gone.py": "0" * 64},
        versions={},
    )
    digest = publish(
        ctx.store, "gone/artifact", {DESCRIPTION: artifact.to_json(), WEIGHTS: safetensors.torch.save({})}
    ).digest
    return ArtifactRef(key="gone/artifact", digest=digest)


def test_evaluate_in_a_process_that_has_trained_gives_the_same_report_and_goes_on_without_it(
    ctx: RunContext, store: Store
):
    dataset = tiny.dataset(store)
    trained = tiny.trained(store, dataset)
    group = Group(TrainSpec())
    group.begin()
    group.retire()  # as after the training
    pid = int(ray.get(group.call(os.getpid)))  # pyright: ignore[reportArgumentType]
    within = evaluate(EvaluateSpec(), trained, dataset, None, replace(ctx, workers=group))
    assert ray.get(group.call(lambda: score._predictor.cache_info().misses)) == 1, "it was scored there"

    os.kill(pid, signal.SIGKILL)
    without = evaluate(EvaluateSpec(), trained, dataset, None, replace(ctx, workers=group))
    group.end()
    assert group.call(os.getpid) is None
    alone = evaluate(EvaluateSpec(), trained, dataset, None, replace(ctx, workers=group))
    assert within.to_json() == without.to_json() == alone.to_json()


def test_evaluate_at_1_2_and_3_workers_gives_identical_reports(ctx: RunContext, store: Store):
    dataset = tiny.dataset(store, num_test_rows=5000)
    trained = tiny.trained(store, dataset)
    reports = [evaluate(EvaluateSpec(num_workers=n), trained, dataset, None, ctx) for n in (1, 2, 3)]
    assert reports[0].to_json() == reports[1].to_json() == reports[2].to_json()
    assert reports[0].num_rows == 5000
    assert sum(map(sum, reports[0].confusion or ())) == 5000
    rows = load_rows(store, dataset, "test")
    answers = Predictor.load(store, trained.artifact).predict(rows.columns).labels()
    accuracy = float(np.mean(answers == encode_target(rows.target, dataset.signature)))
    assert reports[0].metrics["accuracy"] == accuracy > 0.8
    text = store.read("runs/rtest/evaluate/report.md").decode()
    assert f"| accuracy | {accuracy:.6g} |" in text


def test_evaluate_of_a_regression_at_1_and_3_workers_gives_identical_metrics(ctx: RunContext, store: Store):
    dataset = tiny.dataset(store, num_test_rows=4000, task="regression")
    trained = tiny.trained(store, dataset)
    reports = [evaluate(EvaluateSpec(num_workers=n), trained, dataset, None, ctx) for n in (1, 3)]
    assert reports[0] == reports[1]
    assert 0.25 < reports[0].metrics["rmse"] < 0.35  # the noise put into the rows is 0.3
    assert reports[0].confusion is None


def test_failed_gate_is_reported_and_blocks_registration(ctx: RunContext, store: Store):
    dataset = tiny.dataset(store)
    trained = tiny.trained(store, dataset)
    report = evaluate(EvaluateSpec(gates=[GateSpec(metric="accuracy", min=0.999)]), trained, dataset, None, ctx)
    assert not report.passed
    with pytest.raises(GateError, match=r"accuracy >= 0\.999: 0\.8\d+ is 0\.1\d+ under 0\.999"):
        register(RegistrySpec(), "tiny", trained, dataset, report, ctx)
    assert list_versions(store, "tiny") == []


def test_worse_candidate_on_the_same_dataset_does_not_pass_and_the_champion_stays(ctx: RunContext, store: Store):
    dataset = tiny.dataset(store)
    _, served = champion(ctx, dataset)
    worse = tiny.trained(store, dataset, strength=0)
    report = evaluate(NO_WORSE, worse, dataset, served, ctx)
    assert [gate.passed for gate in report.gates] == [False]
    assert "worse than version 1's" in report.gates[0].reason
    assert resolve(store, "tiny").version == 1


def test_champion_judged_on_other_rows_is_scored_again_on_these(ctx: RunContext, store: Store):
    _, served = champion(ctx, tiny.dataset(store))
    other = tiny.dataset(store, seed=1)
    candidate = tiny.trained(store, other, strength=1.0)  # the champion's weights, so the same answers
    report = evaluate(NO_WORSE, candidate, other, served, ctx)
    assert report.passed
    assert "equal to version 1's" in report.gates[0].reason
    assert report.metrics["accuracy"] != served.metrics["accuracy"]


def test_champion_of_another_kind_cannot_be_compared_and_closes_the_gate(ctx: RunContext, store: Store):
    _, served = champion(ctx, tiny.dataset(store))
    amounts = tiny.dataset(store, task="regression")
    spec = EvaluateSpec(gates=[GateSpec(metric="r2", min_gain_over_champion=0)])
    report = evaluate(spec, tiny.trained(store, amounts), amounts, served, ctx)
    assert not report.passed
    told = "version 1, the champion, cannot be compared: it has task classification, the candidate regression"
    assert report.gates[0].reason == told


def test_champion_that_cannot_be_loaded_closes_the_gate_and_says_why(ctx: RunContext, store: Store):
    _, served = champion(ctx, tiny.dataset(store))
    code = served.model_copy(update={"artifact": without_code(ctx, tiny.dataset(store))})
    other = tiny.dataset(store, seed=1)
    report = evaluate(NO_WORSE, tiny.trained(store, other), other, code, ctx)
    assert not report.passed
    assert "cannot be compared: model.path: gone.py:build" in report.gates[0].reason


def test_model_that_answers_infinity_is_an_error_with_its_type(ctx: RunContext, store: Store):
    dataset = tiny.dataset(store, num_test_rows=3000, task="regression")
    trained = tiny.trained(store, dataset, strength=3e38)
    with pytest.raises(TrainingError, match="answers NaN or infinity") as caught:
        evaluate(EvaluateSpec(num_workers=2), trained, dataset, None, ctx)
    assert type(caught.value) is TrainingError


def test_model_whose_code_is_gone_is_an_error_with_its_type(ctx: RunContext, store: Store):
    dataset = tiny.dataset(store)
    trained = tiny.trained(store, dataset).model_copy(update={"artifact": without_code(ctx, dataset)})
    with pytest.raises(
        ModelError, match=r"gone\.py:build is a model of somebody's own code, and its folder is not given"
    ):
        evaluate(EvaluateSpec(), trained, dataset, None, ctx)
