"""What some rows contribute to metrics: counts and sums that add up to the same bits in any order and grouping.

So each rank, or each scoring task, measures its own rows, and only these few numbers travel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.data.table.sums import Sums

TIMES = 2**30
"""How often a row of mean weight counts, where rows are weighted: weights become whole numbers, exact to a part in two
billion of the mean, so that what ranks measure adds up to the same bits however rows are divided. Rows of a split have
the mean weight 1, so that two billion of them can be added up."""


def times_of(weight_B: NDArray[np.floating] | None) -> NDArray[np.int64] | None:
    """How often each row counts; None: once.

    Args:
        weight_B: as shards.relative_weight gives it; None: all rows count alike.
    """
    return None if weight_B is None else np.rint(weight_B.astype(np.float64) * TIMES).astype(np.int64)


def counted(index: NDArray[Any], times: NDArray[np.int64] | None, num: int) -> NDArray[np.int64]:
    """How many rows have each index in [0, num), int64 [num].

    Args:
        index: of any shape.
        times: how often each index counts, of the same shape; None: once.
    """
    if times is None:
        return np.bincount(index.ravel(), minlength=num)
    counts = np.zeros(num, np.int64)
    np.add.at(counts, index.ravel(), times.ravel())
    return counts


@dataclass(frozen=True)
class Measures:
    """Of the rows of one task, which alone knows what its names mean; `+` joins those of other rows.

    Attributes:
        counts: whole numbers, int64 of any shape; where rows are weighted, one counts `times_of` its weight.
        sums: of numbers, without rounding.
    """

    counts: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    sums: Mapping[str, Sums] = field(default_factory=dict)

    def __add__(self, other: Measures) -> Measures:
        return Measures(
            {name: _added(self.counts.get(name), other.counts.get(name)) for name in {**self.counts, **other.counts}},
            {name: self.sums.get(name, Sums()) + other.sums.get(name, Sums()) for name in {**self.sums, **other.sums}},
        )


def _added(left: NDArray[np.int64] | None, right: NDArray[np.int64] | None) -> NDArray[np.int64]:
    if left is None or right is None:
        found = right if left is None else left
        assert found is not None
        return found
    return np.asarray(left + right)
