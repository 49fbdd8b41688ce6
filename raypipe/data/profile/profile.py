"""The profile of each column, from what all rows together hold (parts.py)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from raypipe.data.profile.parts import SHOWN_TEXT, ColumnPart, ProfilePart
from raypipe.records import ColumnProfile, Histogram, TextLengths, TopValue

TOP = 100
BINS = 20
GRID = 200
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def finish(whole: ProfilePart) -> tuple[ColumnProfile, ...]:
    """The profile of every column, in their order."""
    return tuple(_finished(name, column, whole) for name, column in whole.columns.items())


def _finished(name: str, column: ColumnPart, whole: ProfilePart) -> ColumnProfile:
    is_text = column.dtype == "string"
    known = {"name": name, "dtype": column.dtype, "shape": column.shape, "count": column.count, "nulls": column.nulls}
    if not is_text:
        known |= {"infinite": column.infinite, "zeros": column.zeros, "min": column.min, "max": column.max}
        known |= {"mean": column.sums.mean, "std": column.sums.std}
    if column.shape:
        return ColumnProfile(**known)
    values, weights = _weighted(column, whole.copies)
    known |= {
        "distinct": None if column.counts is None else len(column.counts),
        "is_exact": column.counts is not None or whole.is_all,
        "counted": int(weights.sum()),
        "num_different": len(values),
        "top": _top(values, weights),
    }
    if is_text and column.lengths is not None:
        fewest, most, total = column.lengths
        known["lengths"] = TextLengths(min=fewest, max=most, mean=total / (column.count - column.nulls))
    if not is_text and len(values):
        grid = _grid(values, weights)
        known["grid"] = grid
        known["quantiles"] = {f"{q:g}": grid[round(q * GRID)] for q in QUANTILES}
        known["histogram"] = _histogram(values, weights, float(column.min), float(column.max))
    return ColumnProfile(**known)


def _weighted(column: ColumnPart, copies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Different finite values in ascending order (text: object), and how often each occurs."""
    if column.counts is not None:
        values = sorted(column.counts)
        dtype = object if column.dtype == "string" else column.dtype
        return np.array(values, dtype), np.array([column.counts[value] for value in values], np.int64)
    if isinstance(column.sample, np.ndarray):
        there = np.isfinite(column.sample)
        sample = column.sample[there]
    else:
        texts: Any = column.sample
        there = np.asarray(texts.is_valid())
        sample = np.array(texts.drop_null().to_pylist(), object)
    values, inverse = np.unique(sample, return_inverse=True)
    weights = np.zeros(len(values), np.int64)
    np.add.at(weights, inverse, copies[there])
    return values, weights


def _top(values: np.ndarray, weights: np.ndarray) -> tuple[TopValue, ...]:
    order = np.argsort(-weights, kind="stable")[:TOP]
    pairs = zip(values[order].tolist(), weights[order].tolist(), strict=True)
    return tuple(TopValue(value=v[:SHOWN_TEXT] if isinstance(v, str) else v, count=count) for v, count in pairs)


def _grid(values: np.ndarray, weights: np.ndarray) -> tuple[float, ...]:
    reached = np.cumsum(weights)
    total = int(reached[-1])
    wanted = [max(1, -(-i * total // GRID)) for i in range(GRID + 1)]
    return tuple(values[np.searchsorted(reached, wanted)].astype(np.float64).tolist())


def _histogram(values: np.ndarray, weights: np.ndarray, low: float, high: float) -> Histogram | None:
    if not math.isfinite(high - low):
        return None
    edges = np.linspace(low, high, BINS + 1)
    if not (edges[1:] > edges[:-1]).all():
        edges = np.array([low, high])
    counts = np.zeros(len(edges) - 1, np.int64)
    np.add.at(counts, np.searchsorted(edges[1:-1], values.astype(np.float64), side="right"), weights)
    return Histogram(edges=tuple(edges.tolist()), counts=tuple(counts.tolist()))
