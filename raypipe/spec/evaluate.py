"""How a model is judged before it may be registered."""

from __future__ import annotations

from pydantic import Field, model_validator
from typing_extensions import Self

from raypipe.spec.base import Spec
from raypipe.spec.resources import ResourceSpec


class GateSpec(Spec):
    """A condition on a test metric; all gates must hold before the model is registered."""

    metric: str
    """accuracy, precision_macro, recall_macro, f1_macro; mae, rmse, r2."""
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
