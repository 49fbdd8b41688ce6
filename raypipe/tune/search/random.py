"""Independent draws, seeded."""

from __future__ import annotations

from typing import Any

import numpy as np
from ray.tune.search.basic_variant import BasicVariantGenerator

from raypipe.spec.tune import RandomSearch


def build(spec: RandomSearch, *, seed: int, metric: str, mode: str, max_concurrent: int) -> Any:
    """Tune's own generator, with a random state of its own."""
    return BasicVariantGenerator(max_concurrent=max_concurrent, random_state=np.random.RandomState(seed % 2**32))
