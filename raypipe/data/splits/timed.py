"""By time: train before val before test."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.data.splits.base import TEST, TRAIN, VAL, Misfits, SplitKeys, SplitKind, SplitState
from raypipe.data.splits.content import Content
from raypipe.data.splits.fractions import wanted_sizes
from raypipe.data.splits.ranks import Ranks, order_of
from raypipe.data.table.row_hash import Values
from raypipe.data.table.times import instants
from raypipe.errors import DataError
from raypipe.spec.data import DataSpec
from raypipe.spec.moments import WRITTEN_LIKE, microseconds
from raypipe.spec.splits import TimeSplit


class Timed(SplitKind):
    """At given times, or where shares of the rows end."""

    split: TimeSplit

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.has_borders = self.split.by_share

    def code(self, values: Mapping[str, Values], row_hash_B: np.ndarray) -> tuple[np.ndarray, list[Misfits]]:
        if self.split.by_share:
            return super().code(values, row_hash_B)
        time, misfits = _times(values[self.split.column], self.split.column)
        return _by_time(time, *_given_borders(self.split, values[self.split.column])), misfits

    def order(self, values: Mapping[str, Values], row_hash_B: np.ndarray) -> tuple[np.ndarray, list[Misfits]]:
        return _times(values[self.split.column], self.split.column)

    def borders(self, ranks: Ranks, content: Content) -> SplitState:
        split, parts = self.split, self.split.wanted
        if not len(ranks.strata):
            return {}
        if ranks.num_ends[0] < len(parts):
            raise DataError(
                f"data.split: '{split.column}' has {ranks.num_ends[0]} different time(s); {', '.join(parts)} need one "
                "each",
                "name the column that holds the time in data.split.column, or use kind: hash",
            )
        num_rows = int(ranks.rows[0])
        sizes = wanted_sizes(num_rows, split)
        sizes["train"] = num_rows - sum(sizes.values())
        ends = ranks.cut([np.array([sizes[name]]) for name in parts[:-1]])
        starts = dict(zip(parts[1:], ends, strict=True))
        return {
            f"{name}_from": order_of(int(starts[name][0]), ranks.kind) if name in starts else None
            for name in ("val", "test")
        }

    def decided(self, keys: SplitKeys, row_hash_B: np.ndarray, state: SplitState) -> np.ndarray:
        assert keys.order is not None
        return _by_time(keys.order, state["val_from"], state["test_from"])


def _times(values: Values, name: str) -> tuple[np.ndarray, list[Misfits]]:
    """Times as numbers that sort, int64 or float64 [B], and the rows that have none.

    Raises:
        DataError: the column cannot hold times.
    """
    if isinstance(values, pa.Array):
        order, missing = instants(values)
        return order, [(missing, f"'{name}' is no time; write it like {WRITTEN_LIKE}")]
    if values.ndim > 1 or values.dtype.kind not in "iuf":
        what = f"arrays of shape {list(values.shape[1:])}" if values.ndim > 1 else str(values.dtype)
        raise DataError(
            f"data.split: '{name}' holds {what}; a time is a number, a date, or a date and a time of day",
            "name the column that holds the time in data.split.column",
        )
    if values.dtype.kind == "f":
        return values.astype(np.float64), [(np.isnan(values), f"'{name}' is no time")]
    order = values.astype(np.int64)
    return order, [((order < 0) & (values > 0), f"'{name}' is no time: it is above 2**63")]


def _given_borders(split: TimeSplit, values: Values) -> list[Any]:
    """val_from and test_from, in the numbers that `_times` gives.

    Raises:
        DataError: the column holds numbers and a border is a date, or the other way round.
    """
    borders: list[Any] = []
    for moment in (split.val_from, split.test_from):
        if moment is not None and isinstance(moment, str) != isinstance(values, pa.Array):
            raise DataError(
                f"data.split: the border {moment!r} cannot be compared with '{split.column}', which holds "
                f"{'text' if isinstance(values, pa.Array) else 'numbers'}",
                "write val_from and test_from as the column is: numbers, or dates and times",
            )
        if isinstance(moment, str):
            moment = microseconds(moment)
        is_float = isinstance(values, np.ndarray) and values.dtype.kind == "f"
        borders.append(moment if moment is None or is_float else ceil(moment))
    return borders


def _by_time(order: np.ndarray, val_from: float | None, test_from: float | None) -> np.ndarray:
    code = np.full(len(order), TRAIN, np.uint8)
    for border, later in ((val_from, VAL), (test_from, TEST)):
        if border is not None:
            code[order >= border] = later
    return code
