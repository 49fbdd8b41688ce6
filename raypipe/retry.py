"""One retry policy: which errors, how often, until which deadline."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from raypipe.errors import RaypipeError

T = TypeVar("T")


@dataclass(frozen=True)
class Retry:
    """Full-jitter exponential backoff, bounded in tries and in time."""

    max_attempts: int = 5
    first_delay_s: float = 0.1
    max_delay_s: float = 5.0
    deadline_s: float = 30.0

    def call(self, action: Callable[[], T], *, sleep: Callable[[float], None] = time.sleep) -> T:
        """Run `action` until it succeeds, fails for good, or the budget is spent.

        Only errors marked transient are tried again; `action` must therefore be safe to repeat.
        """
        end = time.monotonic() + self.deadline_s
        for attempt in range(1, self.max_attempts + 1):
            try:
                return action()
            except RaypipeError as error:
                delay = random.uniform(0, min(self.max_delay_s, self.first_delay_s * 2**attempt))
                if not error.transient or attempt == self.max_attempts or time.monotonic() + delay > end:
                    raise
                sleep(delay)
        raise AssertionError("unreachable: the loop returns or raises")
