"""Rows with several labels, and with several numbers: their metrics against scikit-learn's.  B rows, K labels."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as reference

from raypipe.data.shuffle.target import finish, part
from raypipe.model.measures import Measures, times_of
from raypipe.model.target import fit_target, loss_factor, to_model, to_unit
from raypipe.model.tasks import TASKS, Task, task_of
from raypipe.records import Column, LabelSets, Signature
from raypipe.spec.metrics import is_better_when_higher, known_metrics

INPUTS = (Column(name="x", dtype="float64"),)
NAMES = ("low", "high", "seldom")
LABELS = task_of(
    Signature(
        inputs=INPUTS,
        task="multi_label",
        target="tags",
        classes=NAMES,
        label_sets=LabelSets(separator=";", threshold=0.4),
    )
)
PAIR_SIGNATURE = Signature(inputs=INPUTS, task="regression", target=("price", "size"))
PAIR = task_of(PAIR_SIGNATURE)


def in_parts(task: Task, target: NDArray[Any], values: NDArray[Any], weight: NDArray[Any] | None) -> Measures:
    """Of rows that three ranks looked at."""
    rows = np.array_split(np.arange(len(target)), 3)
    parts = (task.measure(target[r], values[r], times_of(None if weight is None else weight[r])) for r in rows)
    return reduce(Measures.__add__, parts, Measures())


def weights(num_rows: int) -> NDArray[np.float64]:
    weight = np.random.default_rng(4).uniform(0, 3, num_rows)
    return weight / weight.mean()


@pytest.mark.parametrize("is_weighted", [False, True])
def test_metrics_of_label_sets_are_scikit_learns(is_weighted: bool):
    random = np.random.default_rng(0)
    true = random.random((400, 3)) < (0.5, 0.3, 0.05)
    given = (0.5 * true + 0.5 * random.random((400, 3))).astype(np.float32)
    weight = weights(400) if is_weighted else None
    told, settings = given >= 0.4, {"sample_weight": weight, "zero_division": 0.0}
    measures = in_parts(LABELS, true, given, weight)
    found = LABELS.metrics(measures)
    for average in ("micro", "macro"):
        expected = reference.f1_score(true, told, average=average, **settings)
        assert found[f"f1_{average}"] == pytest.approx(expected, rel=1e-6)
    assert found["precision_micro"] == pytest.approx(reference.precision_score(true, told, average="micro", **settings))
    assert found["recall_micro"] == pytest.approx(reference.recall_score(true, told, average="micro", **settings))
    assert found["subset_accuracy"] == pytest.approx(reference.accuracy_score(true, told, sample_weight=weight))
    assert found["hamming_loss"] == pytest.approx(reference.hamming_loss(true, told, sample_weight=weight))
    for name, area in (
        ("mean_average_precision", reference.average_precision_score),
        ("roc_auc", reference.roc_auc_score),
    ):
        assert found[name] == pytest.approx(area(true, given, average="macro", sample_weight=weight), rel=2e-3), (
            "binned"
        )
    losses = [reference.log_loss(true[:, k], given[:, k].astype(float), sample_weight=weight) for k in range(3)]
    assert found["log_loss"] == pytest.approx(np.mean(losses), rel=1e-6)
    each = LABELS.each_class(measures)
    assert each is not None and list(each) == list(NAMES)
    by_label: Any = reference.precision_recall_fscore_support(true, told, **settings)
    assert [values["f1"] for values in each.values()] == pytest.approx(by_label[2].tolist(), rel=1e-6)
    assert [values["support"] for values in each.values()] == pytest.approx(by_label[3].tolist(), rel=1e-6)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_metrics_of_several_numbers_are_those_of_each_and_their_mean(is_weighted: bool):
    random = np.random.default_rng(1)
    true = random.normal(size=(200, 2)) * (1, 1000) + (0, 5e4)
    told = true + random.normal(size=(200, 2)) * (0.3, 200)
    weight = weights(200) if is_weighted else None
    found = PAIR.metrics(in_parts(PAIR, true, told, weight), 0.9)
    assert set(found) == set(known_metrics("regression", PAIR_SIGNATURE.targets, 0.9))
    for name, of_reference in {
        "mae": reference.mean_absolute_error,
        "rmse": reference.root_mean_squared_error,
        "r2": reference.r2_score,
        "mape": reference.mean_absolute_percentage_error,
    }.items():
        assert found[name] == pytest.approx(of_reference(true, told, sample_weight=weight), rel=1e-6)
        each: Any = of_reference(true, told, sample_weight=weight, multioutput="raw_values")
        assert [found[f"{name}.price"], found[f"{name}.size"]] == pytest.approx(each.tolist(), rel=1e-6)
    pinball = reference.mean_pinball_loss(true, told, alpha=0.9, sample_weight=weight)
    assert found["pinball_0.9"] == pytest.approx(pinball, rel=1e-6)
    assert is_better_when_higher("r2.size") and not is_better_when_higher("rmse.r2")


def test_several_targets_are_standardized_each_by_itself_and_come_back_in_their_units():
    target = np.array([[1.0, 1e6], [2.0, 3e6], [6.0, 5e6]])
    statistics = [finish([part(column)]) for column in target.T]
    transform = fit_target("standardize", PAIR_SIGNATURE, statistics)
    learned = to_model(target, transform, "price, size")
    assert learned.mean(axis=0) == pytest.approx([0, 0], abs=1e-6) and learned.std(axis=0) == pytest.approx([1, 1])
    assert to_unit(learned, transform) == pytest.approx(target, rel=1e-6)
    assert loss_factor("auto", transform) == 1.0, "their units differ"


def test_several_answers_are_told_by_name():
    rows = PAIR.json_rows(np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert rows == [{"price": 1.0, "size": 2.0}, {"price": 3.0, "size": 4.0}]
    given = np.array([[0.4, 0.39, 0.9], [0.0, 0.1, 0.2]], np.float32)
    labels, probabilities = LABELS.columns
    assert LABELS.answer(labels, given) == [["low", "seldom"], []]
    assert LABELS.answer(probabilities, given) is given
    assert LABELS.known_as(LABELS.encoded(given)) == ["low, seldom", "no label"]
    assert LABELS.is_wrong(np.array([[1, 0, 1], [1, 0, 0]]), given).tolist() == [False, True]


@pytest.mark.parametrize(
    ("task", "fields", "words"),
    [
        ("multi_label", {"label_sets": None}, "signature.label_sets: none"),
        ("multi_label", {"classes": ("a", "a")}, "each once"),
        ("multi_label", {"classes": (1, 2)}, "one or more texts"),
        ("multi_label", {"label_sets": LabelSets(separator=None, threshold=0.5)}, "they must be the targets"),
        ("regression", {"target": ("a", "a")}, "signature.target: several must be two or more, and each once"),
    ],
)
def test_signature_of_several_answers_that_cannot_be_is_refused(task: str, fields: dict[str, Any], words: str):
    whole = LABELS.signature if task == "multi_label" else PAIR_SIGNATURE
    assert not TASKS[task].problem(whole)
    assert words in TASKS[task].problem(whole.model_copy(update=fields))
