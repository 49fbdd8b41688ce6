"""Optuna's tree-structured Parzen estimator, seeded."""

from __future__ import annotations

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler

from raypipe.spec.tune import TpeSearch
from raypipe.tune.search.base import Search, Setup
from raypipe.tune.search.sampled import SampledSearch


def build(setup: Setup) -> Search:
    """Learns over all fields together; where some exist beside others only, over each group of fields that do."""
    assert setup.spec.tune is not None
    spec = setup.spec.tune.search
    assert isinstance(spec, TpeSearch)
    grouped = any(values.when for values in setup.spec.tune.space.values())

    def sampler(seed: int) -> TPESampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return TPESampler(seed=seed, n_startup_trials=spec.num_random_trials, multivariate=True, group=grouped)

    return SampledSearch(setup, sampler)
