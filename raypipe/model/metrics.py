"""Metrics as pure functions over arrays; here, not in evaluate, because training needs them.

Shape letters: B rows, K classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def classification_metrics(
    target_B: NDArray[np.int64], label_B: NDArray[np.int64], num_classes: int
) -> tuple[dict[str, float], list[dict[str, float]], NDArray[np.int64]]:
    """Accuracy, precision, recall and F1 from true and predicted classes.

    Args:
        target_B: true class of each row, in [0, num_classes).
        label_B: predicted class of each row, in [0, num_classes).
    Returns:
        Metrics of the whole (accuracy; precision, recall, F1 averaged over classes that occur in either array);
        per class precision, recall, f1, support; the confusion matrix [K, K], rows true, columns predicted.
        A ratio with nothing under it (a class never predicted) is 0.
    Raises:
        ValueError: the row counts differ, or there are no rows.
    """
    _check_rows(target_B, label_B)
    pairs = target_B.astype(np.int64) * num_classes + label_B.astype(np.int64)
    confusion_KK = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    hits_K = np.diag(confusion_KK).astype(np.float64)
    support_K = confusion_KK.sum(axis=1).astype(np.float64)
    predicted_K = confusion_KK.sum(axis=0).astype(np.float64)
    precision_K = _ratio(hits_K, predicted_K)
    recall_K = _ratio(hits_K, support_K)
    f1_K = _ratio(2 * hits_K, support_K + predicted_K)
    occurs_K = (support_K + predicted_K) > 0
    metrics = {
        "accuracy": float(hits_K.sum() / len(target_B)),
        "precision_macro": float(precision_K[occurs_K].mean()),
        "recall_macro": float(recall_K[occurs_K].mean()),
        "f1_macro": float(f1_K[occurs_K].mean()),
    }
    per_class = [
        {"precision": float(p), "recall": float(r), "f1": float(f), "support": float(s)}
        for p, r, f, s in zip(precision_K, recall_K, f1_K, support_K, strict=True)
    ]
    return metrics, per_class, confusion_KK


def regression_metrics(target_B: NDArray[np.floating], value_B: NDArray[np.floating]) -> dict[str, float]:
    """Mean absolute error, root mean squared error (both in the target's unit) and R squared.

    R squared of a constant target is 1 for a perfect prediction, else 0 (as scikit-learn does).

    Raises:
        ValueError: the row counts differ, or there are no rows.
    """
    _check_rows(target_B, value_B)
    target = target_B.astype(np.float64)
    error = value_B.astype(np.float64) - target
    squared, spread = float((error**2).sum()), float(((target - target.mean()) ** 2).sum())
    r2 = 1 - squared / spread if spread > 0 else float(squared == 0)
    return {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt((error**2).mean())), "r2": r2}


def _ratio(part_K: NDArray[np.float64], whole_K: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part_K, whole_K, out=np.zeros_like(part_K), where=whole_K > 0)


def _check_rows(left_B: NDArray, right_B: NDArray) -> None:
    if len(left_B) != len(right_B):
        raise ValueError(f"{len(left_B)} targets but {len(right_B)} predictions; the row counts must be equal")
    if len(left_B) == 0:
        raise ValueError("no rows to measure")
