"""Metrics of a task against scikit-learn's; the rows come in parts that are put together.  B rows, K classes."""

from __future__ import annotations

import warnings
from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as reference

from raypipe.errors import TrainingError
from raypipe.model.measures import Measures
from raypipe.model.metrics import confusion_matrix, each_class
from raypipe.model.tasks import TASKS, Task, task_of
from raypipe.model.tasks.language_model import LanguageModel
from raypipe.model.tasks.sequence_to_sequence import SequenceToSequence
from raypipe.records import Column, LabelSets, Language, Signature
from raypipe.spec.metrics import HIGHER_IS_BETTER, METRICS, known_metrics
from tests.conftest import examples

NUM_CLASSES = 7
NOTHING_IS_ZERO: Any = {"zero_division": 0.0}
INPUTS = (Column(name="x", dtype="float64"),)
NUMBERS = task_of(Signature(inputs=INPUTS, task="regression", target="y"))


def classes(num_classes: int) -> Task:
    labels = tuple(f"c{k}" for k in range(num_classes))
    return task_of(Signature(inputs=INPUTS, task="classification", target="y", classes=labels))


def labels(num_labels: int) -> Task:
    names = tuple(f"l{k}" for k in range(num_labels))
    kept = LabelSets(separator=";", threshold=0.5)
    return task_of(Signature(inputs=INPUTS, task="multi_label", target="y", classes=names, label_sets=kept))


def in_parts(task: Task, target_B: NDArray[Any], values: NDArray[Any], num_parts: int) -> Measures:
    """Of rows that different ranks looked at."""
    rows = np.array_split(np.arange(len(target_B)), num_parts)
    return reduce(Measures.__add__, (task.measure(target_B[some], values[some]) for some in rows), Measures())


def certain(label_B: NDArray[np.int64], num_classes: int) -> NDArray[np.float32]:
    return np.eye(num_classes, dtype=np.float32)[label_B]


def drawn(seed: int, num_rows: int, num_classes: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Classes, and probabilities that know something of them."""
    random = np.random.default_rng(seed)
    target_B = random.integers(0, num_classes, num_rows)
    logits_BK = random.normal(size=(num_rows, num_classes)) + 1.5 * np.eye(num_classes)[target_B]
    odds_BK = np.exp(logits_BK)
    return target_B, (odds_BK / odds_BK.sum(axis=1, keepdims=True)).astype(np.float32)


PAIRS = st.lists(st.tuples(st.integers(0, NUM_CLASSES - 1), st.integers(0, NUM_CLASSES - 1)), min_size=1, max_size=60)


@settings(max_examples=examples(40))
@given(PAIRS, st.integers(1, 4))
def test_metrics_of_labels_any_rows_in_any_parts_equal_scikit_learn(pairs: list[tuple[int, int]], num_parts: int):
    target_B, label_B = (np.array(side) for side in zip(*pairs, strict=True))
    task, occurring = classes(NUM_CLASSES), np.unique(np.concatenate([target_B, label_B]))

    metrics = task.metrics(in_parts(task, target_B, certain(label_B, NUM_CLASSES), num_parts))

    macro: Any = reference.precision_recall_fscore_support(
        target_B, label_B, labels=occurring, average="macro", **NOTHING_IS_ZERO
    )
    assert metrics["accuracy"] == pytest.approx(reference.accuracy_score(target_B, label_B), abs=1e-12)
    found = [metrics["precision_macro"], metrics["recall_macro"], metrics["f1_macro"]]
    assert found == pytest.approx(list(macro[:3]), abs=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rows that hold one class, or lack one that was answered
        assert metrics["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(target_B, label_B))
        assert metrics["mcc"] == pytest.approx(reference.matthews_corrcoef(target_B, label_B), abs=1e-12)
    confusion_KK = confusion_matrix(target_B, label_B, NUM_CLASSES)
    np.testing.assert_array_equal(
        confusion_KK, reference.confusion_matrix(target_B, label_B, labels=range(NUM_CLASSES))
    )
    each: Any = reference.precision_recall_fscore_support(
        target_B, label_B, labels=range(NUM_CLASSES), average=None, **NOTHING_IS_ZERO
    )
    per_class = each_class(np.diag(confusion_KK), confusion_KK.sum(axis=1), confusion_KK.sum(axis=0))
    for name, expected in zip(("precision", "recall", "f1", "support"), each, strict=True):
        assert [row[name] for row in per_class] == pytest.approx(list(expected), abs=1e-12)


@pytest.mark.parametrize(("num_classes", "num_rows"), [(2, 400), (7, 700), (30, 2000)])
def test_metrics_of_probabilities_equal_scikit_learn(num_classes: int, num_rows: int):
    task, (target_B, given_BK) = classes(num_classes), drawn(3, num_rows, num_classes)
    exact_BK = given_BK.astype(np.float64) / given_BK.astype(np.float64).sum(axis=1, keepdims=True)

    metrics = task.metrics(in_parts(task, target_B, given_BK, 3))

    labels = range(num_classes)
    assert metrics["log_loss"] == pytest.approx(reference.log_loss(target_B, exact_BK, labels=labels), rel=1e-6)
    if num_classes > 5:
        expected = reference.top_k_accuracy_score(target_B, given_BK, k=5, labels=labels)
        assert metrics["top_5_accuracy"] == pytest.approx(expected, abs=1e-12)
    right_B, sure_B = given_BK.argmax(axis=1) == target_B, given_BK.max(axis=1).astype(np.float64)
    gap = 0.0
    for low in np.arange(10) / 10:
        some_B = (sure_B >= low) & ((sure_B < low + 0.1) | (low > 0.85))
        gap += abs(right_B[some_B].sum() - sure_B[some_B].sum())
    assert metrics["expected_calibration_error"] == pytest.approx(gap / num_rows, abs=1e-8)
    ranked = range(1, 2) if num_classes == 2 else labels
    areas = [reference.roc_auc_score(target_B == k, given_BK[:, k]) for k in ranked]
    assert metrics["roc_auc"] == pytest.approx(np.mean(areas), abs=2e-3)
    areas = [reference.average_precision_score(target_B == k, given_BK[:, k]) for k in ranked]
    assert metrics["pr_auc"] == pytest.approx(np.mean(areas), abs=5e-3)


def test_top_5_accuracy_of_equal_probabilities_takes_the_first_classes():
    task, alike_BK = classes(7), np.full((2, 7), 1 / 7, np.float32)
    assert task.metrics(task.measure(np.array([4, 5]), alike_BK))["top_5_accuracy"] == 0.5


def test_metrics_class_that_never_occurs_leaves_macro_alone():
    target_B, task = np.array([0, 0, 1, 1]), classes(3)
    assert task.metrics(task.measure(target_B, certain(target_B, 3)))["f1_macro"] == 1.0


def test_metrics_of_rows_of_one_class_have_no_roc_auc():
    task, target_B = classes(2), np.zeros(3, np.int64)
    metrics = task.metrics(task.measure(target_B, certain(target_B, 2)))
    assert "roc_auc" not in metrics and "pr_auc" not in metrics and metrics["accuracy"] == 1.0


# Values that differ at all differ by enough for the spread to be more than rounding.
NUMBER = st.integers(-10_000, 10_000).map(lambda n: n / 8)


@settings(max_examples=examples(40))
@given(st.lists(st.tuples(NUMBER, NUMBER), min_size=2, max_size=60), st.integers(1, 4), st.floats(0.01, 0.99))
def test_regression_metrics_any_rows_in_any_parts_equal_scikit_learn(
    pairs: list[tuple[float, float]], num_parts: int, quantile: float
):
    target_B, value_B = (np.array(side) for side in zip(*pairs, strict=True))

    metrics = NUMBERS.metrics(in_parts(NUMBERS, target_B, value_B, num_parts), quantile)

    assert metrics["mae"] == pytest.approx(reference.mean_absolute_error(target_B, value_B), abs=1e-9)
    assert metrics["rmse"] == pytest.approx(reference.root_mean_squared_error(target_B, value_B), abs=1e-9)
    assert metrics["r2"] == pytest.approx(reference.r2_score(target_B, value_B), rel=1e-9, abs=1e-9)
    expected = reference.mean_absolute_percentage_error(target_B, value_B)
    assert metrics["mape"] == pytest.approx(expected, rel=1e-9, abs=1e-9)
    expected = reference.mean_pinball_loss(target_B, value_B, alpha=quantile)
    assert metrics[f"pinball_{quantile:g}"] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_r2_of_a_target_far_from_zero_loses_no_digits():
    random = np.random.default_rng(0)
    target_B = 1e9 + random.normal(size=5000)
    value_B = target_B + 0.5 * random.normal(size=5000)
    metrics = NUMBERS.metrics(in_parts(NUMBERS, target_B, value_B, 7))
    assert metrics["r2"] == pytest.approx(reference.r2_score(target_B, value_B), rel=1e-6)


@pytest.mark.parametrize(("value", "expected"), [(3.0, 1.0), (2.0, 0.0)])
def test_regression_metrics_constant_target_gives_r2_one_or_zero(value: float, expected: float):
    assert NUMBERS.metrics(NUMBERS.measure(np.full(4, 3.0), np.full(4, value)))["r2"] == expected


def test_regression_metrics_of_errors_beyond_float64_are_infinite_and_raise_nothing():
    metrics = NUMBERS.metrics(NUMBERS.measure(np.array([-1e308, 1.0]), np.array([1e308, 1.0])))
    assert metrics["rmse"] == np.inf and np.isfinite(metrics["mae"])


@settings(max_examples=examples(20))
@given(st.integers(0, 1000), st.integers(2, 9))
def test_measures_of_any_parts_are_the_same_bits(seed: int, num_parts: int):
    random = np.random.default_rng(seed)
    target_B, given_BK = drawn(seed, 90, 3)
    values_B = random.normal(size=90)
    chunks = np.array_split(np.arange(90), 9)
    for task, target, values in ((classes(3), target_B, given_BK), (NUMBERS, values_B, values_B * 1.1)):
        measured = [task.measure(target[some], values[some]) for some in chunks]
        one_by_one = reduce(Measures.__add__, measured, Measures())
        groups = [reduce(Measures.__add__, measured[i::num_parts], Measures()) for i in range(num_parts)]
        grouped = reduce(Measures.__add__, groups[::-1], Measures())
        assert task.metrics(one_by_one) == task.metrics(grouped)


def test_metrics_of_an_answer_that_is_no_number_are_refused_with_how_many_there_are():
    for task, target, values in (
        (classes(2), np.array([0, 1]), np.array([[np.nan, np.nan], [0.5, 0.5]], np.float32)),
        (NUMBERS, np.array([0.0, 1.0]), np.array([np.inf, 1.0])),
    ):
        with pytest.raises(TrainingError, match="answers NaN or infinity for 1 of 2 rows"):
            task.metrics(task.measure(target, values))


def test_metrics_row_counts_differ_is_refused():
    with pytest.raises(ValueError, match="3 targets but 2 predictions"):
        NUMBERS.measure(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="3 targets but 2 predictions"):
        confusion_matrix(np.zeros(3, np.int64), np.zeros(2, np.int64), 2)


def test_metrics_no_rows_is_refused():
    with pytest.raises(ValueError, match="no rows"):
        NUMBERS.metrics(NUMBERS.measure(np.zeros(0), np.zeros(0)))


def test_each_task_tells_the_metrics_that_the_file_may_name():
    target_B, given_BK = drawn(1, 100, 6)
    language = Language(context_length=3, tokens=("a", "b"))
    text = LanguageModel(Signature(inputs=(), task="language_model", target="text", language=language))
    pairs = SequenceToSequence(Signature(inputs=(), task="sequence_to_sequence", target="text", language=language))
    told = {
        "classification": (classes(6), target_B, given_BK),
        "multi_label": (labels(6), given_BK > 0.2, given_BK),
        "regression": (NUMBERS, given_BK[:, 0], given_BK[:, 1]),
        "language_model": (text, np.ones(100), np.stack([-given_BK[:, 0], np.full(100, 3.0)], axis=1)),
        "sequence_to_sequence": (
            pairs,
            np.full((100, 3), 2),
            np.stack([*[np.full(100, 2.0)] * 3, -given_BK[:, 0], -given_BK[:, 1], np.ones(100), np.full(100, 3)], 1),
        ),
    }
    assert told.keys() == TASKS.keys() == METRICS.keys()
    for name, (task, target, values) in told.items():
        assert tuple(task.metrics(task.measure(target, values))) == known_metrics(name, ("text",), None)
    assert {name for names in METRICS.values() for name in names} >= HIGHER_IS_BETTER


def test_a_right_answer_is_never_worse_than_a_wrong_one_by_any_metric():
    target_B, given_BK = drawn(2, 300, 6)
    numbers_B = np.linspace(1, 5, 300)
    for task, target, right, wrong in (
        (classes(6), target_B, certain(target_B, 6), given_BK),
        (NUMBERS, numbers_B, numbers_B, numbers_B[::-1]),
    ):
        best, worse = (task.metrics(task.measure(target, values), 0.9) for values in (right, wrong))
        for name in best:
            sign = 1 if name in HIGHER_IS_BETTER else -1
            assert sign * best[name] > sign * worse[name], name
