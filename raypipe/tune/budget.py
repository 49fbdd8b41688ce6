"""How long a search may take."""

from __future__ import annotations

import time
from collections.abc import Callable


class Budget:
    """Time of a search, over all attempts at it.

    Args:
        max_minutes: None for any time.
        spent_s: what earlier attempts took.
    """

    def __init__(
        self, max_minutes: float | None, spent_s: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_s = None if max_minutes is None else max_minutes * 60
        self._before_s, self._clock, self._start = spent_s, clock, clock()

    @property
    def spent_s(self) -> float:
        """Seconds so far."""
        return self._before_s + self._clock() - self._start

    @property
    def is_spent(self) -> bool:
        """Whether there is no time left."""
        return self._max_s is not None and self.spent_s >= self._max_s
