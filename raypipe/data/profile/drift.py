"""How far a column has moved between two profiles.

Shares come from the profiles alone, so that a profile kept years ago, or one of serving traffic, can be compared.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from raypipe.data.profile.profile import TOP
from raypipe.records import ColumnProfile, DataProfile, Value

NUM_BINS = 10
MAX_CATEGORIES = 20
"""Categories compared one by one, the most frequent of the baseline; the others count together."""

SMALLEST_SHARE = 1e-4
"""An empty bin counts as this share: its logarithm stays finite."""


@dataclass(frozen=True)
class ColumnDrift:
    """One column now against before.

    Attributes:
        psi: population stability index: 0 is none; rules of thumb call less than 0.1 stable, more than 0.25 a shift.
        ks: numbers: the largest distance of the two cumulative distributions, in [0, 1], to about 0.005.
        share_change: the largest change of one bin's or category's share, in [0, 1].
        null_change: share of missing values now, minus before.
        new, lost: values of one profile that the other has not; empty unless each value is counted on that side.
    """

    psi: float
    ks: float | None
    share_change: float
    null_change: float
    new: tuple[Value, ...] = ()
    lost: tuple[Value, ...] = ()


def drift(now: DataProfile, before: DataProfile) -> dict[str, ColumnDrift]:
    """Every column of single values that both profiles have, numbers or text in both, with a value in both."""
    found: dict[str, ColumnDrift] = {}
    for column in now.columns:
        earlier = before.column(column.name)
        if earlier is not None and _comparable(column, earlier):
            found[column.name] = column_drift(column, earlier)
    return found


def column_drift(now: ColumnProfile, before: ColumnProfile) -> ColumnDrift:
    """One column now against before; both hold single values of one type.

    Source: PSI as in Siddiqi 2006, "Credit Risk Scorecards", ch. 9, over ten bins of equal share of the baseline.
    """
    if now.grid:
        edges = sorted({before.grid[len(before.grid) * i // NUM_BINS] for i in range(1, NUM_BINS)})
        shares, earlier = _bin_shares(now.grid, edges), _bin_shares(before.grid, edges)
        points = sorted({*now.grid, *before.grid})
        ks = max(abs(_share_up_to(now.grid, p) - _share_up_to(before.grid, p)) for p in points)
    else:
        categories = [top.value for top in before.top[:MAX_CATEGORIES]]
        shares, earlier = _category_shares(now, categories), _category_shares(before, categories)
        ks = None
    values, earlier_values = {top.value for top in now.top}, {top.value for top in before.top}
    return ColumnDrift(
        psi=psi(shares, earlier),
        ks=ks,
        share_change=max(abs(a - b) for a, b in zip(shares, earlier, strict=True)),
        null_change=_null_share(now) - _null_share(before),
        new=tuple(sorted(values - earlier_values, key=str)) if _is_complete(before) else (),
        lost=tuple(sorted(earlier_values - values, key=str)) if _is_complete(now) else (),
    )


def psi(shares: Sequence[float], expected: Sequence[float]) -> float:
    """Population stability index of two lists of shares over the same bins."""
    pairs = [(max(a, SMALLEST_SHARE), max(b, SMALLEST_SHARE)) for a, b in zip(shares, expected, strict=True)]
    return sum((a - b) * math.log(a / b) for a, b in pairs)


def _comparable(a: ColumnProfile, b: ColumnProfile) -> bool:
    return not a.shape and not b.shape and bool(a.grid) == bool(b.grid) and bool(a.counted and b.counted)


def _share_up_to(grid: Sequence[float], value: float) -> float:
    """Share of the values that are at most `value`, as a grid of equally spaced quantiles tells it."""
    return max(0, bisect_right(grid, value) - 1) / (len(grid) - 1)


def _bin_shares(grid: Sequence[float], edges: Sequence[float]) -> list[float]:
    reached = [0.0, *(_share_up_to(grid, edge) for edge in edges), 1.0]
    return [b - a for a, b in pairwise(reached)]


def _category_shares(column: ColumnProfile, categories: Sequence[Value]) -> list[float]:
    """One share a category, then that of all others."""
    counts = {top.value: top.count for top in column.top}
    shares = [counts.get(category, 0) / column.counted for category in categories]
    return [*shares, max(0.0, 1.0 - sum(shares))]


def _null_share(column: ColumnProfile) -> float:
    return column.nulls / column.count


def _is_complete(column: ColumnProfile) -> bool:
    """Whether `top` lists every value there is."""
    return column.distinct is not None and column.distinct <= TOP
