"""Search algorithms.  To add one: a file here with `build(spec, seed, metric, mode, max_concurrent, finished)`, a
variant in spec/tune.py, a line in SEARCHES; the search contract finds it by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raypipe.tune.search import optuna, random

SEARCHES: dict[str, Callable[..., Any]] = {"random": random.build, "optuna": optuna.build}
