"""Names of the metrics of each task, as gates, early stopping and searches name them, and which are better when higher.

How they are computed is in model/metrics.py; a test compares both lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

TOP = 5
"""`top_5_accuracy` asks whether the true class is among the five most probable."""

METRICS: dict[str, tuple[str, ...]] = {
    "classification": (
        "accuracy",
        "precision_macro",
        "recall_macro",
        "f1_macro",
        "balanced_accuracy",
        "mcc",
        "log_loss",
        f"top_{TOP}_accuracy",
        "roc_auc",
        "pr_auc",
        "expected_calibration_error",
    ),
    "multi_label": (
        "f1_micro",
        "f1_macro",
        "precision_micro",
        "recall_micro",
        "subset_accuracy",
        "hamming_loss",
        "log_loss",
        "mean_average_precision",
        "roc_auc",
    ),
    "regression": ("mae", "rmse", "r2", "mape"),
    "language_model": ("perplexity", "bits_per_character", "bits_per_byte"),
    "sequence_to_sequence": ("exact_match", "token_accuracy", "perplexity"),
}
"""Task -> metrics; a regression that learns a quantile has its pinball loss too, and one of several targets each metric
as the mean over its targets and, by `of_target`, of each."""

BITS = {"char": "bits_per_character", "byte": "bits_per_byte", "bpe": "bits_per_byte"}
"""Tokenizer of a language model -> the metric that tells its loss in bits of something that others count, too."""

HIGHER_IS_BETTER = frozenset(
    (
        "accuracy",
        "precision_macro",
        "recall_macro",
        "f1_macro",
        "balanced_accuracy",
        "mcc",
        f"top_{TOP}_accuracy",
        "roc_auc",
        "pr_auc",
        "r2",
        "exact_match",
        "token_accuracy",
        "f1_micro",
        "precision_micro",
        "recall_micro",
        "subset_accuracy",
        "mean_average_precision",
    )
)

MAIN_METRICS = frozenset(
    (
        "accuracy",
        "precision_macro",
        "recall_macro",
        "f1_micro",
        "f1_macro",
        "subset_accuracy",
        "mean_average_precision",
        "mae",
        "rmse",
        "r2",
        "perplexity",
        "bits_per_character",
        "bits_per_byte",
        "exact_match",
        "token_accuracy",
    )
)
"""What one line has room for; reports and records have all."""


def pinball(quantile: float) -> str:
    """Name of the pinball loss of a quantile: `pinball_0.9`."""
    return f"pinball_{quantile:g}"


def main_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """What one line tells of them: the main ones, or all where none is."""
    return {name: value for name, value in metrics.items() if name in MAIN_METRICS} or dict(metrics)


def of_target(metric: str, target: str) -> str:
    """Name of a metric of one of several targets: `mae.price`."""
    return f"{metric}.{target}"


def is_better_when_higher(metric: str) -> bool:
    """Whether more of a metric is better, that of one of several targets too."""
    return metric.partition(".")[0] in HIGHER_IS_BETTER


def known_metrics(
    task: str, targets: Sequence[str], quantile: float | None, tokenizer: str = "char"
) -> tuple[str, ...]:
    """Names of the metrics of a model, as gates, early stopping and searches may name them.

    Args:
        tokenizer: of a language model.
    """
    known = METRICS[task] if quantile is None else (*METRICS[task], pinball(quantile))
    others = set(BITS.values()) - {BITS.get(tokenizer)}
    known = tuple(name for name in known if name not in others)
    if task != "regression" or len(targets) == 1:
        return known
    return (*known, *(of_target(metric, target) for target in targets for metric in known))
