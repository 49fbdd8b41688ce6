"""Optuna's tree-structured Parzen estimator, seeded."""

from __future__ import annotations

import logging
from typing import Any

from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch as RayOptuna

from raypipe.spec.tune import OptunaSearch


def build(spec: OptunaSearch, *, seed: int, metric: str, mode: str, max_concurrent: int) -> Any:
    """Ray's adapter around an in-memory Optuna study."""
    logging.getLogger("optuna").setLevel(logging.WARNING)
    return ConcurrencyLimiter(RayOptuna(metric=metric, mode=mode, seed=seed % 2**32), max_concurrent)
