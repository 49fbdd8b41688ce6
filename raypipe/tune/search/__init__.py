"""Search algorithms.  To add one: a file here with `build(setup)`, which gives a `Search`, a variant in spec/tune.py, a
line in SEARCHES; the search contract finds it by itself."""

from __future__ import annotations

from collections.abc import Callable

from raypipe.tune.search import cma_es, grid, pbt, random, tpe
from raypipe.tune.search.base import Search, Setup

SEARCHES: dict[str, Callable[[Setup], Search]] = {
    "random": random.build,
    "grid": grid.build,
    "tpe": tpe.build,
    "cma_es": cma_es.build,
    "pbt": pbt.build,
}
