"""Optuna's covariance matrix adaptation, seeded."""

from __future__ import annotations

import logging

from optuna.samplers import CmaEsSampler, RandomSampler

from raypipe.spec.tune import CmaEsSearch
from raypipe.tune.search.base import Search, Setup
from raypipe.tune.search.sampled import SampledSearch


def build(setup: Setup) -> Search:
    """Moves the numbers together; draws the options of choices at random beside them.

    Optuna pickles the state of the algorithm into the trials of its study, which here is in memory and never leaves it.
    """
    assert setup.spec.tune is not None
    spec = setup.spec.tune.search
    assert isinstance(spec, CmaEsSearch)
    # It says of each choice that it is drawn at random, which the reference does.
    logging.getLogger("optuna.samplers._cmaes").setLevel(logging.ERROR)

    def sampler(seed: int) -> CmaEsSampler:
        return CmaEsSampler(seed=seed, popsize=spec.population, independent_sampler=RandomSampler(seed=seed))

    return SampledSearch(setup, sampler, keeps_state=True)
