"""Metrics from the counts and sums that rows leave (measures.py); here, not in evaluate, because training needs them.

Shape letters: B rows, K classes, N bins.
"""

from __future__ import annotations

import math
import sys
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from raypipe.data.table.sums import Sums
from raypipe.spec.metrics import BITS

CALIBRATION_BINS = 10
"""Of confidence, as wide as each other."""

CONFIDENCE_UNIT = 2.0**-32
"""Confidences are added up as whole multiples of it: exact to less than 2e-10 a row, and for 2 billion rows."""


def classification_metrics(
    hits_K: NDArray[np.int64], support_K: NDArray[np.int64], predicted_K: NDArray[np.int64]
) -> dict[str, float]:
    """What right and wrong answers alone tell.

    Args:
        hits_K: rows of each class that were answered rightly.
        support_K: rows of each class.
        predicted_K: rows for which each class was answered.
    Returns:
        accuracy; precision, recall and F1 averaged over classes that occur in targets or answers; balanced accuracy,
        the recall averaged over classes that have rows; the correlation of Matthews for K classes, from -1 to 1.
        A ratio with nothing under it (a class never predicted) is 0.
    Source: Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient".
    """
    num_rows = int(support_K.sum())
    occurs_K = (support_K + predicted_K) > 0
    precision_K, recall_K, f1_K = _rates(hits_K, support_K, predicted_K)
    return {
        "accuracy": float(hits_K.sum() / num_rows),
        "precision_macro": float(precision_K[occurs_K].mean()),
        "recall_macro": float(recall_K[occurs_K].mean()),
        "f1_macro": float(f1_K[occurs_K].mean()),
        "balanced_accuracy": float(recall_K[support_K > 0].mean()),
        "mcc": _mcc(hits_K, support_K, predicted_K),
    }


def label_metrics(
    hits_K: NDArray[np.int64],
    support_K: NDArray[np.int64],
    predicted_K: NDArray[np.int64],
    num_right: int,
    num_rows: int,
) -> dict[str, float]:
    """What right and wrong labels of rows that may have several alone tell.

    Args:
        hits_K: rows that have a label and were given it.
        support_K, predicted_K: rows that have each label, and that were given it.
        num_right: rows that were given their very labels.
    Returns:
        F1 over all labels of all rows (micro), and as the mean over labels (macro); precision and recall over all; the
        share of rows that were given their very labels, and that of labels of all rows that are wrong. A ratio with
        nothing under it is 0.
    """
    hits, support, predicted = (int(each.sum()) for each in (hits_K, support_K, predicted_K))
    _, _, f1_K = _rates(hits_K, support_K, predicted_K)
    return {
        "f1_micro": 2 * hits / (support + predicted) if support + predicted else 0.0,
        "f1_macro": float(f1_K.mean()),
        "precision_micro": hits / predicted if predicted else 0.0,
        "recall_micro": hits / support if support else 0.0,
        "subset_accuracy": num_right / num_rows,
        "hamming_loss": (support + predicted - 2 * hits) / (num_rows * len(hits_K)),
    }


def each_class(
    hits_K: NDArray[np.int64], support_K: NDArray[np.int64], predicted_K: NDArray[np.int64], unit: int = 1
) -> list[dict[str, float]]:
    """Precision, recall, F1 and number of rows of each class; see `classification_metrics`.

    Args:
        unit: how often one row counts in the others.
    """
    return [
        {"precision": float(p), "recall": float(r), "f1": float(f), "support": float(s / unit)}
        for p, r, f, s in zip(*_rates(hits_K, support_K, predicted_K), support_K, strict=True)
    ]


def confusion_matrix(target_B: NDArray[np.int64], label_B: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """Rows of each pair of classes [K, K], true by predicted.

    Raises:
        ValueError: the row counts differ.
    """
    if len(target_B) != len(label_B):
        raise ValueError(f"{len(target_B)} targets but {len(label_B)} predictions; the row counts must be equal")
    pairs = target_B.astype(np.int64) * num_classes + label_B
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def confidence_bins(
    right_B: NDArray[np.bool_], confidence_B: NDArray[np.floating], times_B: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Rows, right answers and summed confidence of each bin of confidence, [3, N]; confidence as a whole multiple of
    CONFIDENCE_UNIT, or of 1 where rows count many times (TIMES)."""
    confidence = confidence_B.astype(np.float64)
    bin_B = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    counts_3N = np.zeros((3, CALIBRATION_BINS), np.int64)
    once = 1 if times_B is None else times_B
    np.add.at(counts_3N[0], bin_B, once)
    np.add.at(counts_3N[1], bin_B, right_B.astype(np.int64) * once)
    unit = CONFIDENCE_UNIT if times_B is None else 1.0
    np.add.at(counts_3N[2], bin_B, np.round(confidence * once / unit).astype(np.int64))
    return counts_3N


def expected_calibration_error(counts_3N: NDArray[np.int64], unit: float = CONFIDENCE_UNIT) -> float:
    """Gap between confidence and share of right answers, averaged over rows; 0 is perfectly calibrated.

    Args:
        counts_3N: see `confidence_bins`; of one row or more.
        unit: of the confidence.
    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3, with 10 bins.
    """
    rows_N, right_N, confidence_N = counts_3N
    return float(np.abs(right_N - confidence_N * unit).sum() / rows_N.sum())


def regression_metrics(target: Sums, error: Sums, under: Sums, over: Sums, relative: Sums) -> dict[str, float]:
    """Mean absolute error, root mean squared error (both in the target's unit), R squared, and mean absolute error as a
    fraction of the target.

    R squared of a constant target is 1 for a perfect prediction, else 0 (as scikit-learn does).

    Args:
        error: predicted less true.
        under, over: by how much predictions lie under, and over, the target; 0 where they do not.
        relative: absolute error over the size of the target.
    """
    spread = target.squares - target.total**2 / target.count
    r2 = 1 - error.squares / spread if spread > 0 else Fraction(error.squares == 0)
    return {
        "mae": _number((under.total + over.total) / error.count),
        "rmse": math.sqrt(_number(error.squares / error.count)),
        "r2": _number(r2),
        "mape": _number(relative.total / relative.count),
    }


def language_metrics(log_likelihood: Sums, num_tokens: int, num_units: int | None, tokenizer: str) -> dict[str, float]:
    """How surprised a model is by a text: e to the power of its mean loss a token (what a choice among so many equally
    likely tokens would cost), and the loss in bits a character or a byte, which other tokenizers count alike.

    Args:
        log_likelihood: natural logarithms of the probabilities that the model gave the texts.
        num_tokens: of all texts together; none of which nothing was asked.
        num_units: characters or bytes that these tokens are; None: not known.
        tokenizer: what tokens are, as in Language.
    """
    found = {"perplexity": perplexity(log_likelihood, num_tokens)}
    if num_units is not None:
        found[BITS[tokenizer]] = -_number(log_likelihood.total) / max(1, num_units) / math.log(2)
    return found


def perplexity(log_likelihood: Sums, num_tokens: int) -> float:
    """As if so many tokens were equally likely, each time; see `language_metrics`."""
    nats = -_number(log_likelihood.total) / max(1, num_tokens)
    return math.exp(nats) if nats < math.log(sys.float_info.max) else math.inf


def pinball_loss(under: Sums, over: Sums, quantile: float) -> float:
    """What predictions of a quantile are judged by, in the target's unit: an answer that is too low costs `quantile`
    times the distance, one that is too high the rest.

    Source: Koenker and Bassett 1978, "Regression Quantiles".
    """
    share = Fraction(quantile)
    return _number((share * under.total + (1 - share) * over.total) / under.count)


def _rates(
    hits_K: NDArray[np.int64], support_K: NDArray[np.int64], predicted_K: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision, recall and F1 of each class."""
    return _ratio(hits_K, predicted_K), _ratio(hits_K, support_K), _ratio(2 * hits_K, support_K + predicted_K)


def _ratio(part_K: NDArray[np.int64], whole_K: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part_K, whole_K, out=np.zeros(len(part_K)), where=whole_K > 0)


def _mcc(hits_K: NDArray[np.int64], support_K: NDArray[np.int64], predicted_K: NDArray[np.int64]) -> float:
    right, rows = int(hits_K.sum()), int(support_K.sum())
    true, told = [int(n) for n in support_K], [int(n) for n in predicted_K]  # squares of many rows fit no int64
    spread = (rows**2 - sum(n * n for n in true)) * (rows**2 - sum(n * n for n in told))
    together = right * rows - sum(t * p for t, p in zip(true, told, strict=True))
    return together / math.sqrt(spread) if spread else 0.0


def _number(value: Fraction) -> float:
    """The nearest float64; infinity beyond them."""
    try:
        return float(value)
    except OverflowError:
        return math.inf
