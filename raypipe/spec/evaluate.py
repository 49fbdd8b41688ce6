"""How a model is judged before it may be registered."""

from __future__ import annotations

from pydantic import Field, model_validator
from typing_extensions import Self

from raypipe.spec.base import Spec
from raypipe.spec.resources import ResourceSpec


class GateSpec(Spec):
    """A condition on a test metric; all gates must hold before the model is registered."""

    metric: str
    """Classification: accuracy, precision_macro, recall_macro, f1_macro, balanced_accuracy, mcc, log_loss,
    top_5_accuracy (of more than 5 classes), roc_auc and pr_auc (of at most 256 classes: of two the second, of more the
    mean of each against all others), expected_calibration_error. Multi-label: f1_micro, f1_macro, precision_micro,
    recall_micro, subset_accuracy, hamming_loss, log_loss, mean_average_precision and roc_auc (means over labels).
    Regression: mae, rmse, r2, mape; pinball_0.9 where train.loss: quantile learns the 0.9 quantile; of several targets
    their mean, and `mae.price` that of one. Language model: perplexity, and bits_per_character where its
    tokenizer is char, else bits_per_byte."""
    min: float | None = None
    """The metric must be at least this."""
    max: float | None = None
    """The metric must be at most this."""
    min_gain_over_champion: float | None = None
    """How much better than the champion on the same test rows (0: no worse); holds when there is no champion."""

    @model_validator(mode="after")
    def says_something(self) -> Self:
        if self.min is None and self.max is None and self.min_gain_over_champion is None:
            raise ValueError("a gate needs min, max or min_gain_over_champion")
        return self


class EvaluateSpec(Spec):
    """Scoring of the test split."""

    num_workers: int = Field(default=1, ge=1, le=4096)
    """Scoring processes; never changes a metric."""
    resources: ResourceSpec = ResourceSpec()
    """What one scoring process occupies."""
    gates: list[GateSpec] = []
    """Conditions that must all hold before the model is registered."""
