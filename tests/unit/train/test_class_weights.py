"""Weights of classes: from the rows or the file, in the losses alone; and the quantile that a regression may learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.utils.class_weight import compute_class_weight

from raypipe.data.shards import load_rows
from raypipe.errors import DataError
from raypipe.evaluate.gates import judge
from raypipe.evaluate.score import Piece, score_piece
from raypipe.evaluate.stage import measure
from raypipe.model.predictor import Predictor
from raypipe.records import DatasetVersion
from raypipe.spec.evaluate import GateSpec
from raypipe.spec.pipeline import PipelineSpec
from raypipe.spec.train import LATER_FIELDS, TrainSpec
from raypipe.storage import layout
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.train import loop
from raypipe.train.class_weights import class_weights
from raypipe.train.order import TrainOrder
from raypipe.train.rows import World

QUICK = {"epochs": 6, "global_batch_size": 50, "optimizer": {"kind": "adamw", "lr": 0.05}}


def rare(folder: Path, labels: tuple[Any, Any] = ("no", "yes"), **options: Any) -> DatasetVersion:
    """One row in ten is of the second class, and hard to tell from the others."""
    random = np.random.default_rng(0)
    is_second = np.arange(1000) % 10 == 0
    x = random.normal(size=1000) + 1.2 * is_second
    target = np.array(labels, object)[is_second.astype(int)]
    return tiny_dataset(LocalFolder(str(folder)), {"x": x}, target, num_val=200, **options)


def noisy(folder: Path) -> DatasetVersion:
    random = np.random.default_rng(0)
    x = random.normal(size=3000)
    target = 1e4 + 100 * (x + random.gumbel(size=3000))
    return tiny_dataset(LocalFolder(str(folder)), {"x": x}, target, task="regression", num_val=500, num_test=1000)


def trained(
    folder: Path, data: DatasetVersion, train: dict[str, Any], events: list[Any] | None = None, **sections: Any
) -> Any:
    spec = PipelineSpec.model_validate(
        {
            "name": "weighed",
            "data": {
                "source": {"format": "sklearn", "dataset": "digits"},
                "target": "y",
                "task": data.signature.task,
            },
            "model": {"kind": "linear"},
            "train": {**QUICK, **train},
            **sections,
        }
    )
    store = LocalFolder(str(folder))
    order = TrainOrder(spec, data, store.uri, "r1", layout.artifact("r1", "train"), checkpoints=False)
    return loop.run(order, World(), (events if events is not None else []).append)


def test_balanced_weights_are_those_of_scikit_learn_counted_or_recorded(tmp_path: Path):
    data, store = rare(tmp_path), LocalFolder(str(tmp_path))
    target = load_rows(store, data, "train").target
    expected = compute_class_weight("balanced", classes=np.array(["no", "yes"], object), y=target)
    recorded = data.model_copy(update={"class_counts": (720, 80)})
    for each in (data, recorded):
        weights, told = class_weights(TrainSpec(class_weights="balanced"), each, store)
        assert weights is not None and weights.tolist() == pytest.approx(expected.tolist())
    assert told == (
        "classes count no 0.5556, yes 5 times in the losses, val_loss among them; metrics do not weigh classes"
    )


@pytest.mark.parametrize(
    ("labels", "written", "expected"),
    [
        (("no", "yes"), {"yes": 3}, [1, 3]),
        ((0, 1), {1: 0.5, 0: 2}, [2, 0.5]),
        ((0, 1), {"1": 0.5}, [1, 0.5]),  # as the file comes back from JSON
        ((False, True), {True: 7}, [1, 7]),
        ((0.5, 1.5), {1.5: 4}, [1, 4]),
    ],
)
def test_weights_of_named_classes_are_taken_and_others_count_once(tmp_path: Path, labels, written, expected):
    spec = TrainSpec.model_validate({"class_weights": written})
    again = TrainSpec.model_validate_json(spec.model_dump_json())
    data = rare(tmp_path, labels)
    data = data.model_copy(update={"signature": data.signature.model_copy(update={"classes": labels})})
    for each in (spec, again):
        weights, _ = class_weights(each, data, LocalFolder(str(tmp_path)))
        assert weights is not None and weights.tolist() == expected


def test_balanced_weights_find_more_of_a_rare_class_and_leave_metrics_unweighted(tmp_path: Path):
    data, events = rare(tmp_path), []
    plain, balanced = trained(tmp_path, data, {}), trained(tmp_path, data, {"class_weights": "balanced"}, events)
    assert balanced.metrics["val_balanced_accuracy"] > plain.metrics["val_balanced_accuracy"] + 0.1
    store = LocalFolder(str(tmp_path))
    rows = load_rows(store, data, "val")
    right = Predictor.load(store, balanced.artifact).predict(rows.columns).labels() == (rows.target == "yes")
    assert balanced.metrics["val_accuracy"] == right.mean()
    assert balanced.metrics["val_loss"] != pytest.approx(balanced.metrics["val_log_loss"], rel=1e-3)
    assert plain.metrics["val_loss"] == pytest.approx(plain.metrics["val_log_loss"], rel=1e-5)
    (start,) = [event for event in events if event["event"] == "start"]
    assert "classes count no 0.5556, yes 5 times in the losses" in start["notes"][0]


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"yess": 2}, r"names the class 'yess', which target 'y' does not have.*did you mean.*'yes'"),
        ({"no": 0, "yes": 0.0}, "every class has the weight 0, so no row would be learned from"),
    ],
)
def test_weights_that_do_not_fit_the_classes_are_refused(tmp_path: Path, weights: dict[str, float], words: str):
    with pytest.raises(DataError, match=words):
        trained(tmp_path, rare(tmp_path), {"class_weights": weights})


@pytest.mark.parametrize(
    ("task", "train", "words"),
    [
        ("classification", {"class_weights": {"a": -1}}, "greater than or equal to 0"),
        ("classification", {"class_weights": {"a": float("nan")}}, "finite"),
        ("classification", {"class_weights": {}}, "names no class"),
        ("classification", {"class_weights": "even"}, "balanced"),
        ("regression", {"class_weights": "balanced"}, "train.class_weights needs data.task: classification"),
        ("regression", {"loss": "quantile"}, "needs `quantile`"),
        ("regression", {"quantile": 0.9}, "quantile needs loss: quantile"),
        ("regression", {"loss": "quantile", "quantile": 1.0}, "less than 1"),
        ("classification", {"loss": "quantile", "quantile": 0.9}, "does not fit data.task: classification"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_starts(task: str, train: dict[str, Any], words: str):
    with pytest.raises(ValidationError, match=words):
        PipelineSpec.model_validate(
            {
                "name": "p",
                "data": {"source": {"format": "sklearn", "dataset": "digits"}, "target": "y", "task": task},
                "model": {"kind": "linear"},
                "train": train,
            }
        )


@pytest.mark.parametrize(
    ("space", "metric", "words"),
    [
        ("train.class_weights", "val_loss", "compare them by val_log_loss or val_balanced_accuracy"),
        ("train.class_weights", "val_balanced_accuracy", ""),
    ],
)
def test_trials_of_other_weights_are_not_compared_by_the_weighted_loss(space: str, metric: str, words: str):
    file = {
        "name": "p",
        "data": {"source": {"format": "sklearn", "dataset": "digits"}, "target": "y"},
        "model": {"kind": "linear"},
        "tune": {"space": {space: {"choice": [None, "balanced"]}}, "metric": metric},
    }
    if words:
        with pytest.raises(ValidationError, match=words):
            PipelineSpec.model_validate(file)
    else:
        PipelineSpec.model_validate(file)


def test_new_settings_left_alone_do_not_change_what_a_training_is_known_by():
    assert not {"class_weights", "quantile"} & TrainSpec().shaping().keys()
    assert TrainSpec(class_weights="balanced").shaping()["class_weights"] == "balanced"
    assert {"class_weights", "quantile"} <= LATER_FIELDS.keys()


@pytest.mark.parametrize("quantile", [0.1, 0.9])
@pytest.mark.parametrize("target_transform", ["standardize", "log"])
def test_quantile_is_learned_in_the_targets_unit_and_judged_by_its_pinball_loss(
    tmp_path: Path, quantile: float, target_transform: str
):
    data, store = noisy(tmp_path), LocalFolder(str(tmp_path))
    train = {"loss": "quantile", "quantile": quantile, "target_transform": target_transform, "epochs": 15}
    result = trained(tmp_path, data, train)
    name = f"pinball_{quantile:g}"
    rows = load_rows(store, data, "test")
    answers = Predictor.load(store, result.artifact).predict(rows.columns).values
    assert (rows.target <= answers).mean() == pytest.approx(quantile, abs=0.04)
    if target_transform == "standardize":
        assert result.metrics["val_loss"] == pytest.approx(result.metrics[f"val_{name}"], rel=1e-4)
    scored = score_piece(Piece(store.uri, result.artifact, data, 0, 1000, "cpu", 1, None))
    report = measure(scored, result.artifact, data, result.quantile)
    missing = rows.target - answers
    expected = np.maximum(quantile * missing, (quantile - 1) * missing).mean()
    assert report.metrics[name] == pytest.approx(expected)
    (gate,) = judge([GateSpec(metric=name, max=expected + 1)], report.metrics, None)
    assert gate.passed


def test_gate_may_name_the_pinball_loss_of_the_quantile_that_is_learned_and_no_other():
    file: dict[str, Any] = {
        "name": "p",
        "data": {"source": {"format": "sklearn", "dataset": "diabetes"}, "target": "y", "task": "regression"},
        "model": {"kind": "linear"},
        "train": {"loss": "quantile", "quantile": 0.9},
        "evaluate": {"gates": [{"metric": "pinball_0.9", "max": 1}]},
    }
    PipelineSpec.model_validate(file)
    with pytest.raises(ValidationError, match=r"'pinball_0.5' is not a metric of regression"):
        PipelineSpec.model_validate({**file, "evaluate": {"gates": [{"metric": "pinball_0.5", "max": 1}]}})


@pytest.mark.parametrize("field", ["early_stopping", "schedule", "tune"])
def test_going_by_a_metric_that_the_rows_do_not_define_is_refused_and_says_which_are(tmp_path: Path, field: str):
    data = rare(tmp_path)
    rows = data.splits["train"].model_copy(update={"num_rows": 1, "shards": (data.splits["train"].shards[0],)})
    assert load_rows(LocalFolder(str(tmp_path)), data, "train").target[0] == "yes", "validated on this row alone"
    data = data.model_copy(update={"splits": {**data.splits, "val": rows}})
    watching: dict[str, Any] = {
        "early_stopping": {"early_stopping": {"metric": "val_roc_auc"}},
        "schedule": {"schedule": {"kind": "plateau", "metric": "val_roc_auc"}},
    }.get(field, {})
    search: dict[str, Any] = (
        {"tune": {"space": {"train.epochs": {"choice": [1]}}, "metric": "val_roc_auc"}} if field == "tune" else {}
    )
    with pytest.raises(DataError, match=r"do not define val_roc_auc.*\ntry: go by one of val_loss, val_accuracy"):
        trained(tmp_path, data, watching, **search)
