"""Numbers to numbers.

Arrays are changed value by value; what is fitted is fitted per feature of a vector, and over all values of an image.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from raypipe.data.transforms import statistics
from raypipe.data.transforms.base import (
    Fitted,
    Numeric,
    State,
    need_filled,
    need_numbers,
    need_single,
    nothing_to_fit,
    numbers,
    refuse_missing,
)
from raypipe.data.transforms.statistics import MeanAndStd, Moments, Sampled, by_feature, per_feature
from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.spec.transforms import (
    BucketizeTransform,
    ClipTransform,
    LogTransform,
    MinMaxTransform,
    RobustTransform,
    StandardizeTransform,
)


class Scale(Numeric):
    """x * factor + offset."""

    by_value = True

    def apply(self, values: np.ndarray) -> np.ndarray:
        as_type = values.dtype.type
        return self.compute(values, as_type(self.state["factor"]), as_type(self.state["offset"]))

    def constants(self) -> tuple[float, ...]:
        return self.state["factor"], self.state["offset"]

    @staticmethod
    def compute(values: np.ndarray, factor: Any, offset: Any) -> np.ndarray:
        return values * factor + offset


class Standardize(MeanAndStd):
    """(x - mean) / std, by feature."""

    @staticmethod
    def partial(spec: StandardizeTransform, values: np.ndarray, name: str) -> Moments:
        return statistics.moments(values)

    def apply(self, values: np.ndarray) -> np.ndarray:
        return self.compute(values, per_feature(self.mean, values), per_feature(self.std, values))

    def constants(self) -> tuple[float, ...]:
        return self.mean[0], self.std[0]

    @staticmethod
    def compute(values: np.ndarray, mean: Any, std: Any) -> np.ndarray:
        return (values - mean) / std


class MinMax(Numeric):
    """The train split's extremes to the ends of feature_range."""

    @staticmethod
    def needs_rows(spec: MinMaxTransform) -> bool:
        return True

    @staticmethod
    def partial(spec: MinMaxTransform, values: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
        table = by_feature(values)
        return np.fmin.reduce(table, axis=0, initial=np.inf), np.fmax.reduce(table, axis=0, initial=-np.inf)

    @staticmethod
    def combine(spec: MinMaxTransform, first: Any, second: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
        return np.minimum(first[0], second[0]), np.maximum(first[1], second[1])

    @staticmethod
    def finish(spec: MinMaxTransform, partial: Any, name: str) -> Fitted:
        if partial is None or (partial[0] > partial[1]).any():
            raise nothing_to_fit(spec, name)
        return {"min": partial[0].tolist(), "max": partial[1].tolist()}

    def __init__(self, state: State, fitted: Fitted, name: str) -> None:
        super().__init__(state, fitted, name)
        self._low, self._high = state["feature_range"]
        self._min = np.array(fitted["min"])
        self._width = statistics.spread(np.array(fitted["max"]) - self._min)

    def apply(self, values: np.ndarray) -> np.ndarray:
        least, width = per_feature(self._min, values), per_feature(self._width, values)
        return self.compute(values, least, width, self._high - self._low, self._low)

    def constants(self) -> tuple[float, ...]:
        return self._min[0], self._width[0], self._high - self._low, self._low

    @staticmethod
    def compute(values: np.ndarray, least: Any, width: Any, factor: Any, offset: Any) -> np.ndarray:
        return (values - least) / width * factor + offset


class Robust(Sampled):
    """(x - median) / (upper quantile - lower quantile)."""

    @staticmethod
    def check(spec: RobustTransform, column: Column) -> Column:
        need_numbers(spec, column)
        need_single(spec, column)
        return column

    @staticmethod
    def finish(spec: RobustTransform, partial: list[np.ndarray] | None, name: str) -> Fitted:
        fracs = [spec.quantile_range[0], 0.5, spec.quantile_range[1]]
        (low, median, high), num_sampled = statistics.quantiles(spec, partial, fracs, name)
        return {"median": median, "width": float(statistics.spread(np.array(high - low))), "num_sampled": num_sampled}

    def apply(self, values: np.ndarray) -> np.ndarray:
        return self.compute(values, *self.constants())

    def constants(self) -> tuple[float, ...]:
        return self.fitted["median"], self.fitted["width"]

    @staticmethod
    def compute(values: np.ndarray, median: Any, width: Any) -> np.ndarray:
        return (values - median) / width


class Clip(Sampled):
    """The nearest value between two ends."""

    @staticmethod
    def needs_rows(spec: ClipTransform) -> bool:
        return spec.quantile_range is not None

    @staticmethod
    def check(spec: ClipTransform, column: Column) -> Column:
        need_numbers(spec, column)
        if spec.quantile_range is not None:
            need_single(spec, column)
        return column

    @staticmethod
    def finish(spec: ClipTransform, partial: list[np.ndarray] | None, name: str) -> Fitted:
        if spec.quantile_range is None:
            return {"min": spec.min, "max": spec.max}
        (low, high), num_sampled = statistics.quantiles(spec, partial, spec.quantile_range, name)
        return {"min": low, "max": high, "num_sampled": num_sampled}

    def apply(self, values: np.ndarray) -> np.ndarray:
        return np.clip(values, self.fitted["min"], self.fitted["max"])


class Log(Numeric):
    """Natural logarithm of (x + offset)."""

    @staticmethod
    def refuses(spec: LogTransform) -> bool:
        return True

    def apply(self, values: np.ndarray) -> np.ndarray:
        offset = self.state["offset"]
        too_small = values <= -offset
        if too_small.any():
            value = np.ravel(values[too_small])[0]
            raise DataError(
                f"column '{self.name}' holds {value:g}; log with offset {offset:g} takes values above {-offset:g}",
                "correct the value, clip the column before, or set a larger `offset`",
            )
        return np.log1p(values) if offset == 1 else np.log(values + offset)


class Bucketize(Sampled):
    """Which interval the number lies in, by index or one-hot."""

    @staticmethod
    def needs_rows(spec: BucketizeTransform) -> bool:
        return spec.boundaries is None

    @staticmethod
    def check(spec: BucketizeTransform, column: Column) -> Column:
        need_numbers(spec, column)
        need_single(spec, column)
        need_filled(spec, column)
        return numbers(column, (-1,) if spec.output == "one_hot" else ())

    @staticmethod
    def partial(spec: BucketizeTransform, values: np.ndarray, name: str) -> list[np.ndarray]:
        refuse_missing(values, name)
        return [values]

    @staticmethod
    def finish(spec: BucketizeTransform, partial: list[np.ndarray] | None, name: str) -> Fitted:
        if spec.num_buckets is None:
            return {"boundaries": spec.boundaries}
        fracs = np.linspace(0, 1, spec.num_buckets + 1).tolist()
        edges, num_sampled = statistics.quantiles(spec, partial, fracs, name)
        return {"boundaries": np.unique(edges)[1:-1].tolist(), "num_sampled": num_sampled}

    def __init__(self, state: State, fitted: Fitted, name: str) -> None:
        super().__init__(state, fitted, name)
        self._boundaries = np.array(fitted["boundaries"], np.float64)

    def apply(self, values: np.ndarray) -> np.ndarray:
        refuse_missing(values, self.name)
        index_B = np.searchsorted(self._boundaries, values, side="right")
        if self.state["output"] == "index":
            return index_B.astype(np.float64)
        return one_hot(index_B, len(self._boundaries) + 1)


def one_hot(index_B: np.ndarray, num: int) -> np.ndarray:
    """float64 [B, num]: 1 at the index of each row; all zeros where it is -1."""
    hot = np.zeros((len(index_B), num))
    known = np.flatnonzero(index_B >= 0)
    hot[known, index_B[known]] = 1.0
    return hot
