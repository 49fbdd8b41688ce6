"""Sums and sums of squares without any rounding, so that they do not depend on how rows are cut or ordered.

A chunk of values is written as a few whole numbers of 19 bits each (a slice [k, n] for every power of two), whose
products float64 adds up exactly; the sums of the slices are put together as Python integers.
Source: the splitting of Ozaki, Ogita, Oishi and Rump 2012, "Error-free transformations of matrix multiplication".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

BITS = 19
"""Of a slice: products of two have 38 bits, and float64 adds CHUNK_ROWS of them exactly."""

CHUNK_ROWS = 2**15

WINDOW_BITS = 60
"""Values this much smaller than the largest are added up apart, so that few slices do."""

NUM_SLICES = math.ceil((WINDOW_BITS + 53 + 1) / BITS)


@dataclass(frozen=True)
class Sums:
    """Of `count` finite numbers."""

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
        """Population standard deviation, within one unit in the last place; None without values."""
        if not self.count:
            return None
        variance = self.squares / self.count - (self.total / self.count) ** 2
        shift = max(0, 128 - variance.numerator.bit_length() + variance.denominator.bit_length()) // 2
        root = math.isqrt((variance.numerator << 2 * shift) // variance.denominator)
        return float(Fraction(root, 1 << shift))


def exact_sums(values: np.ndarray) -> Sums:
    """Of finite numbers or booleans [n]."""
    if values.dtype.kind in "biu":
        return _of_integers(values.astype(np.uint8) if values.dtype == bool else values)
    return _of_floats(values.astype(np.float64, copy=False))


def _of_integers(values: np.ndarray) -> Sums:
    if not len(values):
        return Sums()
    num_slices = max(abs(int(values.min())), abs(int(values.max()))).bit_length() // BITS + 1
    total = squares = 0
    slices = np.empty((num_slices + 1, CHUNK_ROWS))
    for start in range(0, len(values), CHUNK_ROWS):
        rest = values[start : start + CHUNK_ROWS]
        for k in range(num_slices - 1):
            slices[k, : len(rest)] = rest & (2**BITS - 1)
            rest = rest >> BITS
        slices[num_slices - 1, : len(rest)] = rest
        more, more_squares = _added(slices[:, : len(rest)], [BITS * k for k in range(num_slices)])
        total, squares = total + more, squares + more_squares
    return Sums(len(values), Fraction(total), Fraction(squares))


def _of_floats(values: np.ndarray) -> Sums:
    size = np.abs(values)
    largest = float(size.max(initial=0.0))
    if largest == 0:
        return Sums(len(values))
    exponent = math.frexp(largest)[1]  # every value is below 2**exponent
    apart = size < math.ldexp(1.0, exponent - WINDOW_BITS)
    apart &= size > 0
    if not apart.any():
        return _of_window(values, exponent)
    return _of_window(values[~apart], exponent) + _of_floats(values[apart])


def _of_window(values: np.ndarray, exponent: int) -> Sums:
    """Of values that are 0 or between 2**(exponent - WINDOW_BITS) and 2**exponent in size."""
    total = squares = 0
    slices = np.empty((NUM_SLICES + 1, CHUNK_ROWS))
    powers = [BITS * (NUM_SLICES - 1 - k) for k in range(NUM_SLICES)]
    for start in range(0, len(values), CHUNK_ROWS):
        rest = np.ldexp(values[start : start + CHUNK_ROWS], BITS - 1 - exponent)
        used = 0
        while rest.min() < 0 or rest.max() > 0:  # faster than `any`, which makes booleans of them first
            np.rint(rest, out=slices[used, : len(rest)])
            rest -= slices[used, : len(rest)]
            rest *= 2.0**BITS
            used += 1
        more, more_squares = _added(slices[: used + 1, : len(rest)], powers[:used])
        total, squares = total + more, squares + more_squares
    unit = Fraction(2) ** (exponent - (BITS - 1) - powers[0])
    return Sums(len(values), total * unit, squares * unit**2)


def _added(slices: np.ndarray, powers: list[int]) -> tuple[int, int]:
    """Sum and sum of squares of the numbers whose slices have these powers of two.

    Args:
        slices: [k + 1, n]; the last row is overwritten with ones, which gives the sums beside the products.
    """
    slices[-1] = 1.0
    products = (slices[:-1] @ slices.T).tolist()
    total = squares = 0
    for (*row, value), power in zip(products, powers, strict=True):
        total += int(value) << power
        squares += sum(int(product) << power + other for product, other in zip(row, powers, strict=True))
    return total, squares
