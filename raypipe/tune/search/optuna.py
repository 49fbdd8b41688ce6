"""Optuna's tree-structured Parzen estimator, seeded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch as RayOptuna

from raypipe.runtime.seeds import derive
from raypipe.spec.tune import OptunaSearch


def build(
    spec: OptunaSearch,
    *,
    seed: int,
    metric: str,
    mode: str,
    max_concurrent: int,
    finished: Sequence[dict[str, Any]] = (),
) -> Any:
    """Ray's adapter around an in-memory Optuna study.

    A search that goes on begins with the points of the trials that finished, whichever order they ended in, and learns
    from them. Where there are some it draws from another seed: it would repeat its first points otherwise.
    """
    logging.getLogger("optuna").setLevel(logging.WARNING)
    seed = derive(seed, "goes on", len(finished)) if finished else seed
    study = RayOptuna(metric=metric, mode=mode, seed=seed % 2**32, points_to_evaluate=list(finished) or None)
    return ConcurrencyLimiter(study, max_concurrent)
