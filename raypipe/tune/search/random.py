"""Independent draws, seeded."""

from __future__ import annotations

from optuna.samplers import RandomSampler

from raypipe.tune.search.base import Search, Setup
from raypipe.tune.search.sampled import SampledSearch


def build(setup: Setup) -> Search:
    """Optuna's random sampler. The points follow from the seed alone, however many trials run at one time."""
    return SampledSearch(setup, lambda seed: RandomSampler(seed=seed))
