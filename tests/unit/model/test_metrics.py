from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from raypipe.model.metrics import classification_metrics, regression_metrics

NUM_CLASSES = 5
NOTHING_IS_ZERO: Any = {"zero_division": 0.0}


@given(st.lists(st.tuples(st.integers(0, NUM_CLASSES - 1), st.integers(0, NUM_CLASSES - 1)), min_size=1, max_size=60))
def test_classification_metrics_any_rows_equal_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    target_B, label_B = (np.array(side) for side in zip(*pairs, strict=True))
    occurring = np.unique(np.concatenate([target_B, label_B]))

    metrics, per_class, confusion_KK = classification_metrics(target_B, label_B, NUM_CLASSES)

    macro: Any = reference.precision_recall_fscore_support(
        target_B, label_B, labels=occurring, average="macro", **NOTHING_IS_ZERO
    )
    assert metrics["accuracy"] == pytest.approx(reference.accuracy_score(target_B, label_B), abs=1e-12)
    found = [metrics["precision_macro"], metrics["recall_macro"], metrics["f1_macro"]]
    assert found == pytest.approx(list(macro[:3]), abs=1e-12)
    each: Any = reference.precision_recall_fscore_support(
        target_B, label_B, labels=range(NUM_CLASSES), average=None, **NOTHING_IS_ZERO
    )
    for name, expected in zip(("precision", "recall", "f1", "support"), each, strict=True):
        assert [row[name] for row in per_class] == pytest.approx(list(expected), abs=1e-12)
    expected_KK = reference.confusion_matrix(target_B, label_B, labels=range(NUM_CLASSES))
    np.testing.assert_array_equal(confusion_KK, expected_KK)


def test_classification_metrics_class_that_never_occurs_leaves_macro_alone() -> None:
    target_B = np.array([0, 0, 1, 1])

    metrics, per_class, _ = classification_metrics(target_B, target_B, num_classes=3)

    assert metrics["f1_macro"] == 1.0
    assert per_class[2] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0.0}


# Values that differ at all differ by enough for the spread to be more than rounding.
NUMBER = st.integers(-10_000, 10_000).map(lambda n: n / 8)


@given(st.lists(st.tuples(NUMBER, NUMBER), min_size=2, max_size=60))
def test_regression_metrics_any_rows_equal_scikit_learn(pairs: list[tuple[float, float]]) -> None:
    target_B, value_B = (np.array(side) for side in zip(*pairs, strict=True))

    metrics = regression_metrics(target_B, value_B)

    assert metrics["mae"] == pytest.approx(reference.mean_absolute_error(target_B, value_B), abs=1e-9)
    assert metrics["rmse"] == pytest.approx(reference.root_mean_squared_error(target_B, value_B), abs=1e-9)
    assert metrics["r2"] == pytest.approx(reference.r2_score(target_B, value_B), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("value", "expected"), [(3.0, 1.0), (2.0, 0.0)])
def test_regression_metrics_constant_target_gives_r2_one_or_zero(value: float, expected: float) -> None:
    assert regression_metrics(np.full(4, 3.0), np.full(4, value))["r2"] == expected


def test_metrics_row_counts_differ_is_refused() -> None:
    with pytest.raises(ValueError, match="3 targets but 2 predictions"):
        classification_metrics(np.zeros(3, np.int64), np.zeros(2, np.int64), 2)


def test_metrics_no_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        regression_metrics(np.zeros(0), np.zeros(0))
