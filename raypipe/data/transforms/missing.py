"""Missing values to values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from raypipe.data.transforms import statistics
from raypipe.data.transforms.base import Fitted, Kind, Values, is_missing, need_numbers, need_single, nothing_to_fit, pc
from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.spec.transforms import ImputeTransform


class Impute(Kind):
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
            return _counts(values)
        assert isinstance(values, np.ndarray)
        return statistics.moments(values) if spec.strategy == "mean" else values[~is_missing(values)]

    @staticmethod
    def merge(spec: ImputeTransform, partials: Sequence[Any], name: str) -> Fitted:
        if spec.strategy == "constant":
            return {"fill": spec.value}
        if spec.strategy == "median":
            found, num_sampled = statistics.quantiles(partials, [0.5])
            if found:
                return {"fill": found[0], "num_sampled": num_sampled}
        elif spec.strategy == "mean":
            count, mean, _ = statistics.merged_moments(partials)
            if count.all():
                return {"fill": float(mean[0])}
        else:
            counts: Counter[Any] = Counter()
            for more in partials:
                counts.update(more)
            if counts:
                return {"fill": min(counts, key=lambda value: (-counts[value], value))}
        raise nothing_to_fit(spec, name)

    def apply(self, values: Values) -> Values:
        missing = is_missing(values)
        if not missing.any():
            return values
        fill = self.fitted["fill"]
        return np.where(missing, fill, values) if isinstance(values, np.ndarray) else values.fill_null(fill)


def _counts(values: Values) -> Counter[Any]:
    """How often each value occurs; missing ones do not count."""
    if isinstance(values, np.ndarray):
        found, counts = np.unique(values[~is_missing(values)], return_counts=True)
        return Counter(dict(zip(found.tolist(), counts.tolist(), strict=True)))
    return Counter({pair["values"]: pair["counts"] for pair in pc.value_counts(values.drop_null()).to_pylist()})
