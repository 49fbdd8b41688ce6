"""What several numeric kinds learn from train: moments, extremes, quantiles.

B rows, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from raypipe.data.transforms.base import Fitted, Numeric, State, TransformKind, is_missing, nothing_to_fit

MAX_EXACT = 1_000_000
"""Train rows from which quantiles are exact; of more, those with the smallest row ids stand for all."""

Moments = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Count, mean and sum of squared deviations, float64, one a feature."""

CHUNK_VALUES = 2**18
"""Values summed up at a time: two megabytes stay in the processor's cache."""


def by_feature(values: np.ndarray) -> np.ndarray:
    """[n, F]: the features of a vector; all values of an image, and of a single number, as one feature."""
    return values if values.ndim == 2 else values.reshape(-1, 1)


def per_feature(fitted: np.ndarray, values: np.ndarray) -> np.ndarray:
    """What was fitted for `by_feature` (float64 [F]), ready to be combined with the values [B, *shape]."""
    fitted = fitted.astype(values.dtype, copy=False)
    return fitted if values.ndim == 2 else fitted[0]


def spread(width: np.ndarray) -> np.ndarray:
    """What to divide by: 1 where the width is nothing but rounding, as scikit-learn decides it."""
    return np.where(width < 10 * np.finfo(np.float64).eps, 1.0, width)


def moments(values: np.ndarray) -> Moments:
    """Of one shard: per feature of a vector, over all values of an image; missing values are left out."""
    table = by_feature(values)
    rows = max(1, CHUNK_VALUES // table.shape[1])
    total = _chunk_moments(table[:rows])
    for start in range(rows, len(table), rows):
        total = merged(total, _chunk_moments(table[start : start + rows]))
    return total


def std(total: Moments) -> np.ndarray:
    """Population standard deviation; 1 where the column is constant up to rounding, as scikit-learn decides it."""
    count, mean, squares = total
    variance = squares / count
    eps = np.finfo(np.float64).eps
    constant = variance <= count * eps * variance + (count * mean * eps) ** 2
    return np.where(constant, 1.0, np.sqrt(variance))


class MeanAndStd(Numeric):
    """(x - mean) / std; a kind of it says by its `partial` whose mean and standard deviation that is."""

    @staticmethod
    def needs_rows(spec: Any) -> bool:
        return True

    @staticmethod
    def combine(spec: Any, first: Moments, second: Moments, name: str) -> Moments:
        return merged(first, second)

    @staticmethod
    def finish(spec: Any, partial: Moments | None, name: str) -> Fitted:
        if partial is None or not partial[0].all():
            raise nothing_to_fit(spec, name)
        return {"mean": partial[1].tolist(), "std": std(partial).tolist()}

    def __init__(self, state: State, fitted: Fitted, name: str) -> None:
        super().__init__(state, fitted, name)
        self.mean, self.std = np.array(fitted["mean"]), np.array(fitted["std"])


class Sampled(TransformKind):
    """Rests on the values of the first MAX_EXACT rows of train."""

    @staticmethod
    def needs_rows(spec: Any) -> bool:
        return True

    @staticmethod
    def enough_rows(spec: Any) -> int:
        return MAX_EXACT

    @staticmethod
    def partial(spec: Any, values: np.ndarray, name: str) -> list[np.ndarray]:
        return [values[~is_missing(values)]]

    @staticmethod
    def combine(spec: Any, first: list[np.ndarray], second: list[np.ndarray], name: str) -> list[np.ndarray]:
        return first + second


def quantiles(
    spec: Any, partial: list[np.ndarray] | None, fracs: Sequence[float], name: str
) -> tuple[list[float], int]:
    """Quantiles with linear interpolation, and of how many values.

    Raises:
        DataError: there is no value.
    """
    values = np.concatenate([*(partial or ()), np.empty(0)])
    if not len(values):
        raise nothing_to_fit(spec, name)
    return np.quantile(values, fracs).tolist(), len(values)


def _chunk_moments(table: np.ndarray) -> Moments:
    table = table.astype(np.float64)
    there = ~np.isnan(table)
    count = there.sum(axis=0).astype(np.float64)
    if not there.all():
        mean = np.where(there, table, 0.0).sum(axis=0) / np.maximum(count, 1)
        return count, mean, np.where(there, (table - mean) ** 2, 0.0).sum(axis=0)
    mean = table.sum(axis=0) / np.maximum(count, 1)
    return count, mean, ((table - mean) ** 2).sum(axis=0)


def merged(a: Moments, b: Moments) -> Moments:
    """Of the rows of both.

    Source: Chan, Golub and LeVeque 1983, "Algorithms for Computing the Sample Variance", eq. 2.1.
    """
    count = a[0] + b[0]
    share = np.divide(b[0], count, out=np.zeros_like(count), where=count > 0)
    delta = b[1] - a[1]
    return count, a[1] + delta * share, a[2] + b[2] + delta**2 * a[0] * share
