"""A search for the tests, and how its trials do."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import numpy as np

from raypipe.records import Trial
from raypipe.spec.pipeline import PipelineSpec
from raypipe.tune.points import Point

LR = "train.optimizer.lr"
MOMENTUM = "train.optimizer.momentum"


def search_spec(space: dict[str, Any], *, epochs: int = 3, optimizer: Any = None, **tune: Any) -> PipelineSpec:
    """A file with a search of this space."""
    return PipelineSpec.model_validate(
        {
            "name": "search",
            "data": {"source": {"format": "sklearn", "dataset": "iris"}, "target": "y"},
            "model": {"kind": "mlp"},
            "train": {"epochs": epochs, "global_batch_size": 16, "optimizer": optimizer or {"kind": "sgd"}},
            "tune": {"space": space, **tune},
        }
    )


def far_from_a_tenth(point: Point, epoch: int) -> float:
    """A trial's metric: best where the rate is a tenth, better with each epoch."""
    return abs(np.log10(point.values[LR] / 0.1)) + 1 / epoch


def told_lines(stream: io.StringIO) -> list[str]:
    """What the search told."""
    return [line.split("tune", 1)[1].strip() for line in stream.getvalue().splitlines()]


def status_counts(trials: list[Trial]) -> Counter[str]:
    """Trials by status."""
    return Counter(trial.status for trial in trials)
