"""Rows with several labels, and with several numbers: from stored rows to a judged model, its page and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raypipe.batch.stage import answer_names
from raypipe.data.shards import encode_target, load_rows
from raypipe.errors import DataError, NonFiniteLossError
from raypipe.evaluate.details import details_of
from raypipe.evaluate.gates import judge
from raypipe.evaluate.report import to_markdown
from raypipe.evaluate.score import Piece, score_piece
from raypipe.evaluate.stage import measure
from raypipe.model.predictor import Predictor
from raypipe.records import DatasetVersion, TrainResult
from raypipe.report.charts import Charts
from raypipe.report.evaluation import evaluation_parts
from raypipe.spec.evaluate import GateSpec
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import layout
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.train import loop
from raypipe.train.order import TrainOrder
from raypipe.train.rows import World
from tests.unit.train.orders import NAN_FOR_ONE_ROW, order

NUM_TEST = 60


def rows(folder: Path, task: Any, *, as_text: bool = True) -> DatasetVersion:
    """Two numbers; three labels that follow from them, or two numbers of unlike size that do."""
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 2))
    if task == "multi_label":
        has = np.stack([x[:, 0] > 0, x[:, 1] > 0.5, x.sum(axis=1) < -1], axis=1)
        target: Any = has
        if as_text:
            target = np.array(
                [";".join(n for n, there in zip("abc", row, strict=True) if there) for row in has], object
            )
    else:
        target = np.stack([3 * x[:, 0] - 1, 5e4 + 2e3 * x[:, 1]], axis=1)
    options: Any = {"num_val": 60, "num_test": NUM_TEST}
    return tiny_dataset(LocalFolder(str(folder)), {"x": x}, target, task=task, **options)


def trained(folder: Path, data: DatasetVersion, **train: Any) -> tuple[TrainResult, list[dict[str, Any]]]:
    signature = data.signature
    target = signature.target if isinstance(signature.target, str) else list(signature.target)
    spec = PipelineSpec.model_validate(
        {
            "name": "several",
            "data": {"source": {"format": "sklearn", "dataset": "digits"}, "target": target, "task": signature.task},
            "model": {"kind": "linear"},
            "train": {"epochs": 12, "global_batch_size": 40, "optimizer": {"kind": "adamw", "lr": 0.1}, **train},
        }
    )
    events: list[dict[str, Any]] = []
    store = LocalFolder(str(folder))
    order = TrainOrder(spec, data, store.uri, "r1", layout.artifact("r1", "train"), checkpoints=False)
    return loop.run(order, World(), events.append), events


@pytest.mark.parametrize("as_text", [True, False])
def test_labels_are_learned_and_judged_each(tmp_path: Path, as_text: bool):
    data, store = rows(tmp_path, "multi_label", as_text=as_text), LocalFolder(str(tmp_path))
    result, _ = trained(tmp_path, data)
    assert result.metrics["val_f1_micro"] > 0.9 and result.metrics["val_loss"] == pytest.approx(
        result.metrics["val_log_loss"], rel=1e-5
    )
    scored = score_piece(Piece(store.uri, result.artifact, data, 0, NUM_TEST, "cpu", 1, None))
    report = measure(scored, result.artifact, data)
    assert report.confusion is None and report.per_class is not None
    assert list(report.per_class) == list(data.signature.classes or ())
    predictor = Predictor.load(store, result.artifact)
    test = load_rows(store, data, "test")
    right = predictor.task.encoded(predictor.predict(test.columns).values) == encode_target(test.target, data.signature)
    assert report.metrics["subset_accuracy"] == pytest.approx(right.all(axis=1).mean())
    (gate,) = judge([GateSpec(metric="mean_average_precision", min=0.9)], report.metrics, None)
    assert gate.passed
    details = details_of(scored.target, scored.answer, scored.confidence, scored.worst, has_residuals=False)
    assert all(isinstance(row.true, str) and row.true != row.predicted for row in details.worst)
    parts = evaluation_parts(report, details, Charts())
    assert parts["per_class"] is not None and parts["confusion"] is None and "## Each class" in to_markdown(report, "t")
    if details.worst:
        assert "loss" in parts["worst"].headers
    (name,) = answer_names(predictor.task).values()
    assert name == "prediction"


def test_several_numbers_are_learned_each_in_its_unit_and_told_by_name(tmp_path: Path):
    data, store = rows(tmp_path, "regression"), LocalFolder(str(tmp_path))
    result, events = trained(tmp_path, data)
    (said,) = [event["text"] for event in events if event["event"] == "target"]
    assert "y0 mean" in said and "y1 mean" in said
    assert result.metrics["val_r2.y0"] > 0.9 and result.metrics["val_r2.y1"] > 0.9
    assert result.metrics["val_rmse"] == pytest.approx(
        (result.metrics["val_rmse.y0"] + result.metrics["val_rmse.y1"]) / 2
    )
    predictor = Predictor.load(store, result.artifact)
    test = load_rows(store, data, "test")
    values = predictor.predict(test.columns).values
    assert values.shape == (NUM_TEST, 2) and np.abs(values[:, 1] - test.target[:, 1]).mean() < 1000
    scored = score_piece(Piece(store.uri, result.artifact, data, 0, NUM_TEST, "cpu", 1, None))
    report = measure(scored, result.artifact, data)
    gates = [GateSpec(metric="r2.y1", min=0.9), GateSpec(metric="mae.y0", max=1)]
    assert all(gate.passed for gate in judge(gates, report.metrics, None))
    details = details_of(scored.target, scored.answer, scored.confidence, scored.worst, has_residuals=False)
    assert details.residuals is None and str(details.worst[0].true).startswith("y0 ")
    names = answer_names(predictor.task)
    table = pa.table({name: predictor.task.answer(column, values) for column, name in names.items()})
    assert table.column_names == ["prediction_y0", "prediction_y1"]


@pytest.mark.parametrize(
    ("watched", "train"),
    [("val_mae.y1", {}), ("val_pinball_0.9.y0", {"loss": "quantile", "quantile": 0.9}), (None, {})],
)
def test_answers_to_validation_rows_that_are_no_numbers_end_the_training_as_one_that_diverged(
    tmp_path: Path, watched: str | None, train: dict[str, Any]
):
    (tmp_path / "nan_model.py").write_text(NAN_FOR_ONE_ROW)
    x = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    x[45, 0] = 99.0  # of val
    data = tiny_dataset(LocalFolder(str(tmp_path)), {"x": x}, x[:, :2] + 1.0, task="regression", num_val=10)
    early = {} if watched is None else {"early_stopping": {"metric": watched, "patience_epochs": 2}}
    file = {"source": {"format": "sklearn", "dataset": "digits"}, "target": ["y0", "y1"], "task": "regression"}
    own = {"kind": "import", "path": "nan_model.py:build"}
    made = order(
        tmp_path,
        "r1",
        {**train, **early, "global_batch_size": 40},
        model=own,
        described=file,
        data=data,
        code_dir=tmp_path,
    )
    with pytest.raises(NonFiniteLossError, match=r"validation after step 1: the model's answers to 1 of 10 rows, and "):
        loop.run(made, World(), lambda event: None)


def test_several_numbers_whose_logarithm_is_asked_for_name_the_one_that_has_none(tmp_path: Path):
    with pytest.raises(DataError, match="log needs a target above 0, but 'y0' is not"):
        trained(tmp_path, rows(tmp_path, "regression"), target_transform="log")
