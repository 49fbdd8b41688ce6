"""Missing values to values."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.data.transforms import statistics
from raypipe.data.transforms.base import (
    Fitted,
    TransformKind,
    Values,
    is_missing,
    need_numbers,
    need_single,
    nothing_to_fit,
    pc,
    refuse_too_many,
)
from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.spec.transforms import ImputeTransform


class Impute(TransformKind):
    """The train split's mean, median or most frequent value (of several the smallest), or a constant."""

    fills = True

    @staticmethod
    def needs_rows(spec: ImputeTransform) -> bool:
        return spec.strategy != "constant"

    @staticmethod
    def enough_rows(spec: ImputeTransform) -> int | None:
        return statistics.MAX_EXACT if spec.strategy == "median" else None

    @staticmethod
    def check(spec: ImputeTransform, column: Column) -> Column:
        if spec.strategy in ("mean", "median"):
            need_numbers(spec, column)
        need_single(spec, column)
        if spec.strategy == "constant" and isinstance(spec.value, str) != (column.dtype == "string"):
            raise DataError(
                f"data.transforms: impute value {spec.value!r} does not fit column '{column.name}' of {column.dtype}",
                "give text for a text column and a number for a number column",
            )
        return column.model_copy(update={"nullable": False})

    @staticmethod
    def partial(spec: ImputeTransform, values: Values, name: str) -> Any:
        if spec.strategy == "most_frequent":
            return _counts(spec, values, name)
        assert isinstance(values, np.ndarray)
        return statistics.moments(values) if spec.strategy == "mean" else [values[~is_missing(values)]]

    @staticmethod
    def combine(spec: ImputeTransform, first: Any, second: Any, name: str) -> Any:
        if spec.strategy == "mean":
            return statistics.merged(first, second)
        if spec.strategy == "median":
            return first + second
        refuse_too_many(spec, both := first + second, name)
        return both

    @staticmethod
    def finish(spec: ImputeTransform, partial: Any, name: str) -> Fitted:
        if spec.strategy == "constant":
            return {"fill": spec.value}
        if spec.strategy == "median":
            (median,), num_sampled = statistics.quantiles(spec, partial, [0.5], name)
            return {"fill": median, "num_sampled": num_sampled}
        if spec.strategy == "mean" and partial is not None and partial[0].all():
            return {"fill": float(partial[1][0])}
        if spec.strategy == "most_frequent" and partial:
            return {"fill": min(partial, key=lambda value: (-partial[value], value))}
        raise nothing_to_fit(spec, name)

    def apply(self, values: Values) -> Values:
        missing = is_missing(values)
        if not missing.any():
            return values
        fill = self.fitted["fill"]
        return np.where(missing, fill, values) if isinstance(values, np.ndarray) else values.fill_null(fill)

    def constants(self) -> tuple[float, ...] | None:
        return None if isinstance(self.fitted["fill"], str) else (self.fitted["fill"],)

    @staticmethod
    def compute(values: np.ndarray, fill: Any) -> np.ndarray:
        missing = np.isnan(values)
        return np.where(missing, fill, values) if missing.any() else values


def _counts(spec: ImputeTransform, values: Values, name: str) -> Counter[Any]:
    """How often each value occurs; missing ones do not count."""
    there = values[~is_missing(values)] if isinstance(values, np.ndarray) else values.drop_null()
    distinct, counts = pc.value_counts(pa.array(there)).flatten()
    refuse_too_many(spec, distinct, name)
    return Counter(dict(zip(distinct.to_pylist(), counts.to_pylist(), strict=True)))
