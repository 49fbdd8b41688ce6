"""Rows that count differently (data.weight): in the losses and the metrics, against scikit-learn and repeated rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as reference

from raypipe.data.shards import encode_target, load_rows
from raypipe.errors import UserCodeError
from raypipe.evaluate.report import to_markdown
from raypipe.evaluate.score import Piece, score_piece
from raypipe.evaluate.stage import measure
from raypipe.model.predictor import Predictor
from raypipe.records import DatasetVersion, TrainResult
from raypipe.report.charts import Charts
from raypipe.report.evaluation import evaluation_parts
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.train import loop
from raypipe.train.rows import World
from tests.unit.train.orders import order

NUM_TRAIN, NUM_VAL, NUM_TEST = 60, 30, 40
STILL = {"kind": "sgd", "lr": 1e-30}
OWN_STEP = """
def step(network, features, target, loss):
    return loss(network(features), target{how})
"""


def rows(folder: Path, task: Any = "classification", *, scale: float = 1.0) -> DatasetVersion:
    """Rows of whole weights from 0 to 3, times `scale`."""
    random = np.random.default_rng(1)
    x = random.normal(size=(NUM_TRAIN + NUM_VAL + NUM_TEST, 3))
    score = x @ [1.0, -2.0, 0.5] + random.normal(scale=0.7, size=len(x))
    target = np.array(["a", "b", "c"], object)[np.digitize(score, [-1, 1])] if task == "classification" else score
    weight = random.integers(0, 4, len(x)) * scale
    return tiny_dataset(
        LocalFolder(str(folder)), {"x": x}, target, task=task, weight=weight, num_val=NUM_VAL, num_test=NUM_TEST
    )


def trained(folder: Path, data: DatasetVersion, run_id: str = "r", **train: Any) -> TrainResult:
    settings = {"optimizer": {"kind": "sgd", "lr": 0.3}, "global_batch_size": 1000, "epochs": 4, **train}
    code = {"code_dir": folder} if "step" in train else {}
    made = order(folder, run_id, settings, model={"kind": "linear"}, data=data, checkpoints=False, **code)
    if data.signature.task == "regression":
        task = made.spec.data.model_copy(update={"task": "regression"})
        object.__setattr__(made, "spec", made.spec.model_copy(update={"data": task}))
    return loop.run(made, World(), lambda event: None)


def test_a_row_of_weight_3_teaches_what_three_rows_do_and_one_of_0_nothing(tmp_path: Path):
    data, store = rows(tmp_path), LocalFolder(str(tmp_path))
    train = load_rows(store, data, "train")
    assert data.weights is not None and train.weight is not None
    times = np.rint(train.weight * data.weights.sums["train"] / NUM_TRAIN).astype(int)
    x, y = np.repeat(train.columns["x"], times, axis=0), np.repeat(train.target, times)
    repeated = trained(tmp_path, tiny_dataset(store, {"x": x}, y), "repeated")
    for run, settings in (("whole", {}), ("accumulated", {"micro_batch_rows": 7})):
        weighted = trained(tmp_path, data, run, **settings)
        for ours, theirs in zip(weighted.history, repeated.history, strict=True):
            assert ours.metrics["train_loss"] == pytest.approx(theirs.metrics["train_loss"], rel=1e-5)
    assert trained(tmp_path, data).weighted_by == "w" and repeated.weighted_by is None


def test_only_the_proportions_of_weights_count(tmp_path: Path):
    one, other = (trained(tmp_path, rows(tmp_path, scale=scale), f"r{scale:g}").history for scale in (1.0, 1e6))
    for ours, theirs in zip(one, other, strict=True):
        assert ours.metrics == pytest.approx(theirs.metrics, rel=1e-6)


def test_losses_and_metrics_of_a_classification_are_scikit_learns_with_sample_weights(tmp_path: Path):
    data, store = rows(tmp_path), LocalFolder(str(tmp_path))
    result = trained(tmp_path, data)
    predictor = Predictor.load(store, result.artifact)
    val = load_rows(store, data, "val")
    given, true = predictor.predict(val.columns).values, encode_target(val.target, data.signature)
    weighted: dict[str, Any] = {"sample_weight": val.weight}
    label, found = given.argmax(axis=1), result.metrics
    exact = given.astype(np.float64) / given.sum(axis=1, dtype=np.float64, keepdims=True)
    close: Any = {"rel": 1e-6}
    assert found["val_loss"] == pytest.approx(reference.log_loss(true, exact, **weighted), **close)
    assert found["val_log_loss"] == pytest.approx(reference.log_loss(true, exact, **weighted), **close)
    assert found["val_accuracy"] == pytest.approx(reference.accuracy_score(true, label, **weighted), **close)
    assert found["val_f1_macro"] == pytest.approx(reference.f1_score(true, label, average="macro", **weighted), **close)
    assert found["val_mcc"] == pytest.approx(reference.matthews_corrcoef(true, label, **weighted), **close)
    balanced = reference.balanced_accuracy_score(true, label, **weighted)
    assert found["val_balanced_accuracy"] == pytest.approx(balanced, **close)
    areas = [
        [area(true == k, given[:, k], **weighted) for k in range(3)]
        for area in (reference.roc_auc_score, reference.average_precision_score)
    ]
    assert found["val_roc_auc"] == pytest.approx(np.mean(areas[0]), rel=1e-3), "binned: see model/ranking.py"
    assert found["val_pr_auc"] == pytest.approx(np.mean(areas[1]), rel=1e-3)


def test_losses_and_metrics_of_a_regression_are_scikit_learns_with_sample_weights(tmp_path: Path):
    data, store = rows(tmp_path, "regression"), LocalFolder(str(tmp_path))
    result = trained(tmp_path, data)
    val = load_rows(store, data, "val")
    values = Predictor.load(store, result.artifact).predict(val.columns).values
    for name, expected in {
        "mae": reference.mean_absolute_error,
        "rmse": reference.root_mean_squared_error,
        "r2": reference.r2_score,
        "mape": reference.mean_absolute_percentage_error,
    }.items():
        found = result.metrics[f"val_{name}"]
        assert found == pytest.approx(expected(val.target, values, sample_weight=val.weight), rel=1e-6), name
    assert result.metrics["val_loss"] == pytest.approx(result.metrics["val_rmse"] ** 2, rel=1e-5)


def test_weights_of_rows_and_of_classes_are_multiplied_and_balanced_ones_count_rows_by_weight(tmp_path: Path):
    data, store = rows(tmp_path), LocalFolder(str(tmp_path))
    result = trained(tmp_path, data, class_weights={"b": 5}, optimizer=STILL, epochs=1)
    train = load_rows(store, data, "train")
    given = Predictor.load(store, result.artifact).predict(train.columns).values
    loss = -np.log(given[np.arange(NUM_TRAIN), encode_target(train.target, data.signature)])
    assert train.weight is not None
    expected = np.sum(loss * train.weight * np.where(train.target == "b", 5, 1)) / train.weight.sum()
    assert result.metrics["train_loss"] == pytest.approx(expected, rel=1e-5)
    balanced = trained(tmp_path, data, "balanced", class_weights="balanced", optimizer=STILL, epochs=1)
    of_classes = [np.average(loss[train.target == c], weights=train.weight[train.target == c]) for c in "abc"]
    assert balanced.metrics["train_loss"] == pytest.approx(np.mean(of_classes), rel=1e-5)


def test_evaluation_says_by_which_column_its_metrics_are_weighted(tmp_path: Path):
    data, store = rows(tmp_path), LocalFolder(str(tmp_path))
    result = trained(tmp_path, data)
    scored = score_piece(Piece(store.uri, result.artifact, data, 0, NUM_TEST, "cpu", 1, None))
    report = measure(scored, result.artifact, data)
    test = load_rows(store, data, "test")
    answer = np.array(["a", "b", "c"], object)[scored.answer]
    settings: dict[str, Any] = {"sample_weight": test.weight, "output_dict": True, "zero_division": 0.0}
    expected: Any = reference.classification_report(test.target, answer, **settings)
    assert report.weighted_by == "w" and report.metrics["accuracy"] == pytest.approx(expected["accuracy"], rel=1e-6)
    assert report.per_class is not None
    for label, values in report.per_class.items():
        for ours, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert values[ours] == pytest.approx(expected[label][theirs], rel=1e-6)
        assert values["support"] == pytest.approx(expected[label]["support"], rel=1e-6)
    assert report.confusion is not None and sum(map(sum, report.confusion)) == NUM_TEST
    text = to_markdown(report, "t")
    assert "40 test rows weighted by w" in text and "## Metrics of rows weighted by w" in text
    assert evaluation_parts(report, None, Charts())["metrics"].caption == "Metrics, rows weighted by w"


@pytest.mark.parametrize(("how", "fails"), [("", False), (", reduction='mean'", True)])
def test_own_step_must_tell_the_loss_of_each_row_where_rows_are_weighted(tmp_path: Path, how: str, fails: bool):
    data = rows(tmp_path)
    (tmp_path / f"steps{len(how)}.py").write_text(OWN_STEP.format(how=how))
    step = f"steps{len(how)}.py:step"
    if fails:
        with pytest.raises(UserCodeError, match=r"answered one number for 60 rows.*it must return the loss of each"):
            trained(tmp_path, data, step=step)
    else:
        own, usual = trained(tmp_path, data, "own", step=step), trained(tmp_path, data, "usual")
        assert own.metrics == pytest.approx(usual.metrics, rel=1e-6)
