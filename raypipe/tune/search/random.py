"""Independent draws, seeded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ray.tune.search.basic_variant import BasicVariantGenerator

from raypipe.spec.tune import RandomSearch


def build(
    spec: RandomSearch,
    *,
    seed: int,
    metric: str,
    mode: str,
    max_concurrent: int,
    finished: Sequence[dict[str, Any]] = (),
) -> Any:
    """Tune's own generator, with a random state of its own.

    A search that goes on draws the same points again, those of finished trials among them: so it ends as it would have.
    """
    return BasicVariantGenerator(max_concurrent=max_concurrent, random_state=np.random.RandomState(seed % 2**32))
