"""What a model call of so many rows is expected to take, from the calls so far."""

from __future__ import annotations

import math

FORGET = 0.98
"""Weight of what was measured before, at each call: the last fifty calls count most."""


class CallCost:
    """Predicts seconds of a model call from its rows: a fixed part and a part a row, fitted to the calls so far."""

    def __init__(self) -> None:
        self._weight = self._rows = self._seconds = self._rows_rows = self._rows_seconds = 0.0
        self._parts = (math.inf, 0.0)

    def note(self, num_rows: int, seconds: float) -> None:
        """Learn from one call."""
        self._weight = self._weight * FORGET + 1
        self._rows = self._rows * FORGET + num_rows
        self._seconds = self._seconds * FORGET + seconds
        self._rows_rows = self._rows_rows * FORGET + num_rows * num_rows
        self._rows_seconds = self._rows_seconds * FORGET + num_rows * seconds
        self._parts = self._fitted()

    def parts(self) -> tuple[float, float]:
        """Fixed seconds, seconds a row; neither is negative. Infinite while nothing is known."""
        return self._parts

    def _fitted(self) -> tuple[float, float]:
        spread = self._weight * self._rows_rows - self._rows**2
        mean_s, mean_rows = self._seconds / self._weight, self._rows / self._weight
        if spread <= 1e-9 * self._weight * self._rows_rows:  # all calls had as many rows
            return mean_s, 0.0
        per_row = max(0.0, (self._weight * self._rows_seconds - self._rows * self._seconds) / spread)
        fixed = mean_s - per_row * mean_rows
        return (fixed, per_row) if fixed >= 0 else (0.0, mean_s / mean_rows)

    def of(self, num_rows: int) -> float:
        """Seconds that a call of so many rows is expected to take."""
        fixed, per_row = self._parts
        return fixed + per_row * num_rows
