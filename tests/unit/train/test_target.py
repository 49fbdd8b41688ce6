"""Trainings on a target in any unit: what is learned does not depend on it, what is told is in it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from raypipe.batch.stage import PREDICTION, Answerer
from raypipe.data.shards import load_rows
from raypipe.errors import DataError
from raypipe.evaluate.score import Piece, score_piece
from raypipe.evaluate.stage import measure
from raypipe.model.artifact import DESCRIPTION, WEIGHTS
from raypipe.model.predictor import Predictor
from raypipe.model.tasks import task_of
from raypipe.records import ArtifactRef, DatasetVersion, EvaluationReport, ModelVersion, TrainResult
from raypipe.runtime.progress import Progress
from raypipe.spec.pipeline import PipelineSpec
from raypipe.spec.train import TrainSpec
from raypipe.storage import open_store
from raypipe.storage.local import LocalFolder
from raypipe.storage.publish import publish, read_published
from raypipe.testing.fakes import tiny_dataset
from raypipe.testing.served import ask, model_app
from raypipe.train import loop, reporter
from raypipe.train.order import TrainOrder
from raypipe.train.progress_lines import ProgressLines
from raypipe.train.rows import World

ISSUE = {"epochs": 15, "global_batch_size": 64, "optimizer": {"kind": "adamw", "lr": 0.003}}
QUICK = {"epochs": 2, "global_batch_size": 64, "optimizer": {"kind": "adamw", "lr": 0.01}}


pytestmark = pytest.mark.usefixtures("one_thread")


def _dataset(folder: Path, unit: float = 1.0, *, num_rows: int = 6000, positive: bool = False) -> DatasetVersion:
    """Four features and a number that follows them but for a little noise, in some unit."""
    random = np.random.default_rng(0)
    x = random.normal(size=(num_rows, 4))
    y = 5 + x[:, 0] - 2 * x[:, 1] + np.sin(3 * x[:, 2]) + x[:, 2] * x[:, 3] + random.normal(scale=0.2, size=num_rows)
    target = np.exp(y / 4) if positive else y
    return tiny_dataset(
        LocalFolder(str(folder)),
        {name: x[:, i] for i, name in enumerate("abcd")},
        target * unit,
        task="regression",
        num_val=num_rows // 10,
        num_test=num_rows // 6,
        name=f"unit{unit:.0f}",
    )


def _metrics(data: DatasetVersion, target: np.ndarray, values: np.ndarray) -> dict[str, float]:
    task = task_of(data.signature)
    return task.metrics(task.measure(target, values))


def _order(folder: Path, data: DatasetVersion, train: dict[str, Any], run_id: str = "r1") -> TrainOrder:
    spec = PipelineSpec.model_validate(
        {
            "name": "small",
            "seed": 7,
            "data": {"source": {"format": "sklearn", "dataset": "diabetes"}, "target": "y", "task": "regression"},
            "model": {"kind": "mlp", "hidden": [64]},
            "train": train,
        }
    )
    return TrainOrder(spec, data, str(folder), run_id, f"runs/{run_id}/train/artifact")


def _run(order: TrainOrder, events: list[dict[str, Any]] | None = None) -> TrainResult:
    return loop.run(order, World(), (lambda event: None) if events is None else events.append)


def _evaluated(folder: Path, data: DatasetVersion, artifact: ArtifactRef) -> tuple[np.ndarray, EvaluationReport]:
    stop = data.splits["test"].num_rows
    scored = score_piece(Piece(str(folder), artifact, data, 0, stop, device="cpu", num_threads=1, code_dir=None))
    return scored.answer, measure(scored, artifact, data)


@pytest.mark.thorough
def test_same_target_in_other_units_is_learned_and_told_alike(tmp_path: Path) -> None:
    reports: dict[float, EvaluationReport] = {}
    results: dict[float, TrainResult] = {}
    for unit in (1.0, 1e3, 1e6):
        data = _dataset(tmp_path, unit)
        results[unit] = _run(_order(tmp_path, data, ISSUE, f"r{unit:.0f}"))
        reports[unit] = _evaluated(tmp_path, data, results[unit].artifact)[1]

    assert reports[1.0].metrics["r2"] > 0.95
    for unit in (1e3, 1e6):
        assert reports[unit].metrics["r2"] == pytest.approx(reports[1.0].metrics["r2"], abs=0.01)
        assert reports[unit].metrics["rmse"] == pytest.approx(unit * reports[1.0].metrics["rmse"], rel=0.05)
        found, expected = results[unit].metrics, results[1.0].metrics
        for name, factor in {"train_loss": unit**2, "val_loss": unit**2, "val_mae": unit, "val_r2": 1.0}.items():
            assert found[name] == pytest.approx(factor * expected[name], rel=0.05), name


def test_target_left_as_it_is_in_a_large_unit_is_not_learned(tmp_path: Path) -> None:
    """What `none` means, and why it is not the default."""
    data = _dataset(tmp_path, 1e4, num_rows=1200)

    left = _run(_order(tmp_path, data, {**ISSUE, "target_transform": "none"}, "left"))
    scaled = _run(_order(tmp_path, data, ISSUE, "scaled"))

    assert left.metrics["val_r2"] < 0 < 0.5 < scaled.metrics["val_r2"]


@pytest.mark.parametrize("kind", ["standardize", "log"])
def test_predictions_of_http_batch_and_evaluation_are_the_same_digits_in_the_targets_unit(
    kind: str, tmp_path: Path
) -> None:
    data = _dataset(tmp_path, 1e6, num_rows=1200, positive=True)
    trained = _run(_order(tmp_path, data, {**QUICK, "target_transform": kind}))
    store = open_store(str(tmp_path))
    rows = load_rows(store, data, "test")

    evaluated, report = _evaluated(tmp_path, data, trained.artifact)
    answerer = Answerer(str(tmp_path), trained.artifact, None, "cpu", 1)
    batch = answerer(pa.table(dict(rows.columns)))[PREDICTION]
    model = ModelVersion(
        model="small",
        version=1,
        artifact=trained.artifact,
        signature=data.signature,
        run_id="r1",
        dataset=data.version,
        metrics=report.metrics,
        evaluation=report,
        created_at="2026-01-01T00:00:00Z",
    )
    instances = [{name: float(values[i]) for name, values in rows.columns.items()} for i in range(len(rows))]
    answer = ask(model_app(store, model), "POST", "/predict", orjson.dumps({"instances": instances}))
    http = orjson.loads(answer.body)["predictions"]

    assert http == batch.to_pylist() == evaluated.tolist()
    assert evaluated.dtype == np.float64
    assert 0.5e6 < float(np.median(evaluated)) < 20e6
    assert report.metrics == _metrics(data, rows.target, evaluated)
    assert report.metrics["r2"] > 0.5


def test_validation_metrics_are_those_of_the_predictor_on_the_same_rows(tmp_path: Path) -> None:
    data = _dataset(tmp_path, 1e6, num_rows=1200)
    result = _run(_order(tmp_path, data, QUICK))
    store = open_store(str(tmp_path))
    rows = load_rows(store, data, "val")

    answers = Predictor.load(store, result.artifact).predict(rows.columns).values

    expected = _metrics(data, rows.target, answers)
    for name, value in expected.items():
        assert result.metrics[f"val_{name}"] == pytest.approx(value, rel=1e-5)
    assert result.metrics["val_loss"] == pytest.approx(expected["rmse"] ** 2, rel=1e-5), "mse, in the squared unit"


def test_log_losses_are_of_the_logarithm_and_say_so_metrics_are_in_the_targets_unit(tmp_path: Path) -> None:
    data = _dataset(tmp_path, 1e6, num_rows=1200, positive=True)
    events: list[dict[str, Any]] = []
    result = _run(_order(tmp_path, data, {**QUICK, "target_transform": "log"}), events)
    store = open_store(str(tmp_path))
    rows = load_rows(store, data, "val")

    answers = Predictor.load(store, result.artifact).predict(rows.columns).values

    logarithms = _metrics(data, np.log(rows.target), np.log(answers))
    assert result.metrics["val_loss"] == pytest.approx(logarithms["rmse"] ** 2, rel=1e-4)
    assert result.metrics["val_mae"] == pytest.approx(_metrics(data, rows.target, answers)["mae"], rel=1e-5)
    assert result.target_transform.kind == "log"
    stream = io.StringIO()
    progress_lines = ProgressLines(Progress("r1", stream), TrainSpec(epochs=2, target_transform="log"))
    for event in events:
        progress_lines.tell(event)
    assert "target y: its natural logarithm is standardized (mean " in stream.getvalue()
    assert f"ln loss {result.metrics['train_loss']:.4g}  ln val_loss {result.metrics['val_loss']:.4g}" in (
        stream.getvalue()
    )


def test_mae_and_steps_are_told_in_the_targets_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "REPORT_EVERY_S", 0.0)
    data = _dataset(tmp_path, 1e6, num_rows=600)
    events: list[dict[str, Any]] = []

    result = _run(_order(tmp_path, data, {**QUICK, "loss": "mae"}), events)

    assert result.metrics["val_loss"] == pytest.approx(result.metrics["val_mae"], rel=1e-5)
    steps = [event["loss"] for event in events if event["event"] == "step"]
    assert steps and min(steps) > 1e5


def test_early_stopping_min_delta_is_in_the_targets_unit(tmp_path: Path) -> None:
    data = _dataset(tmp_path, 1e6, num_rows=600)
    early = {"metric": "val_mae", "patience_epochs": 2, "min_delta": 1e6}

    result = _run(_order(tmp_path, data, {**QUICK, "epochs": 30, "early_stopping": early}))

    gains = np.diff([entry.metrics["val_mae"] for entry in result.history])
    assert result.stopped_early and len(result.history) == result.best_epoch + 2
    assert (gains[result.best_epoch - 1 :] > -1e6).all() and (gains[result.best_epoch - 1 :] < -1).any()


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("rows", [{}, {"resident_bytes": 0, "window_rows": 20}], ids=["held", "streamed"])
def test_log_of_rows_not_above_0_is_refused_and_nothing_is_published(
    split: str, rows: dict[str, Any], tmp_path: Path
) -> None:
    target = np.linspace(1, 2, 120)
    target[5 if split == "train" else 115] = -4.0
    store = LocalFolder(str(tmp_path))
    data = tiny_dataset(store, {"x": target}, target, task="regression", num_val=20, rows_per_shard=50)
    order = _order(tmp_path, data, {**QUICK, "target_transform": "log", "rows": rows})

    with pytest.raises(DataError, match=r"log needs a target above 0, but 'y' is not in 1 of \d+ rows.*, e\.g\. -4"):
        _run(order)
    assert not list(store.list(order.artifact_key))


def test_constant_target_trains_and_says_that_there_is_nothing_to_learn(tmp_path: Path) -> None:
    data = tiny_dataset(
        LocalFolder(str(tmp_path)),
        {"x": np.arange(60.0)},
        np.full(60, 3e6),
        task="regression",
        num_val=10,
        num_test=10,
    )
    events: list[dict[str, Any]] = []

    result = _run(_order(tmp_path, data, {**QUICK, "optimizer": {"kind": "sgd", "lr": 1e-6}}), events)

    assert [event["text"] for event in events if event["event"] == "target"] == [
        "target y: all 40 train rows hold 3e+06, so there is nothing to learn"
    ]
    assert _evaluated(tmp_path, data, result.artifact)[0] == pytest.approx(3e6, abs=100)


def test_figures_that_an_older_record_lacks_are_read_and_give_the_same_weights(tmp_path: Path) -> None:
    data = _dataset(tmp_path, 1e3, num_rows=300)

    new = _run(_order(tmp_path, data, QUICK, "new"))
    old = _run(_order(tmp_path, data.model_copy(update={"target_statistics": None}), QUICK, "old"))

    assert new.artifact.digest == old.artifact.digest


def test_artifact_from_before_the_field_answers_as_its_network_does(tmp_path: Path) -> None:
    data = _dataset(tmp_path, num_rows=300)
    trained = _run(_order(tmp_path, data, {**QUICK, "target_transform": "none"}))
    store = open_store(str(tmp_path))
    files = read_published(store, trained.artifact.key)
    description = json.loads(files[DESCRIPTION])
    assert description.pop("target_transform")["kind"] == "none"
    older = {DESCRIPTION: json.dumps(description).encode(), WEIGHTS: files[WEIGHTS]}
    ref = ArtifactRef(key="older", digest=publish(store, "older", older).digest)
    rows = load_rows(store, data, "test")

    answers = Predictor.load(store, ref).predict(rows.columns).values

    assert answers.dtype == np.float32
    assert answers.tolist() == Predictor.load(store, trained.artifact).predict(rows.columns).values.tolist()
