"""Counts, means and standard deviations of parts, which add up in any order and grouping to the same bits.

A chunk is summed up in float64 around its own mean, where nothing cancels; what that gives is kept as fractions, which
add up without rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

CHUNK_VALUES = 2**18
"""Summed up at a time: two megabytes stay in the processor's cache."""

PLAIN_EXPONENT = 400
"""Up to this power of two, squares of a chunk neither overflow nor vanish in float64; others are scaled before."""


@dataclass(frozen=True)
class Sums:
    """Of `count` finite numbers; one that counts several times is as many of them."""

    count: int = 0
    total: Fraction = Fraction(0)
    squares: Fraction = Fraction(0)

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.count + other.count, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float | None:
        """The float64 nearest to the mean; None without values."""
        return float(self.total / self.count) if self.count else None

    @property
    def std(self) -> float | None:
        """Population standard deviation; None without values."""
        if not self.count:
            return None
        variance = max(Fraction(0), self.squares / self.count - (self.total / self.count) ** 2)
        shift = max(0, 128 - variance.numerator.bit_length() + variance.denominator.bit_length()) // 2
        root = math.isqrt((variance.numerator << 2 * shift) // variance.denominator)
        return float(Fraction(root, 1 << shift))


def sums(values: np.ndarray, times: np.ndarray | None = None) -> Sums:
    """Of finite numbers or booleans [n], relative to their spread exact to about 1e-15.

    Args:
        times: int64 [n], how often each number counts; None: once.
    """
    total = Sums()
    for start in range(0, len(values), CHUNK_VALUES):
        some = slice(start, start + CHUNK_VALUES)
        total += _of_chunk(values[some].astype(np.float64), None if times is None else times[some])
    return total


def _of_chunk(values: np.ndarray, times: np.ndarray | None) -> Sums:
    low, high = float(values.min()), float(values.max())
    exponent = math.frexp(max(-low, high))[1]
    if abs(exponent) > PLAIN_EXPONENT:
        scaled, unit = _of_chunk(np.ldexp(values, -exponent), times), Fraction(2) ** exponent
        return Sums(scaled.count, scaled.total * unit, scaled.squares * unit**2)
    n = len(values) if times is None else int(times.sum())
    centre = float(values.mean()) if low < high else low  # equal values have no spread at all
    apart, c = values - centre, Fraction(centre)
    scaled = apart if times is None else apart * times
    rest, squares = Fraction(float(scaled.sum())), Fraction(float((scaled * apart).sum()))
    return Sums(n, n * c + rest, squares + 2 * c * rest + n * c * c)
