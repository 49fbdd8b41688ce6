"""Fit on train, apply anywhere; the fitted state is plain JSON and travels inside the artifact.

Each transform of the spec changes its columns one by one.  Numbers equal scikit-learn's StandardScaler, SimpleImputer,
OneHotEncoder and OrdinalEncoder; text is never taken for a number.  fitting.py makes the state.

Computation is in float64, except for tensors of small integers or float32, which stay in float32.
B rows, K categories, F features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raypipe.errors import DataError
from raypipe.records import Column

FLOAT32_TENSORS = ("uint8", "int8", "uint16", "int16", "float32")

State = dict[str, Any]
"""`kind`, `columns` (name -> what was fitted), and the transform's own settings."""


class FittedTransforms:
    """The transforms of one dataset version, ready for any rows."""

    def __init__(self, states: Sequence[State]) -> None:
        self._states = tuple(states)

    @classmethod
    def from_state(cls, states: Sequence[State]) -> FittedTransforms:
        """Rebuild from what `state` gave, e.g. DatasetVersion.transforms."""
        return cls(states)

    def state(self) -> tuple[State, ...]:
        """JSON-able; one entry a transform, in order."""
        return self._states

    def apply(self, columns: Mapping[str, np.ndarray], inputs: Sequence[Column]) -> np.ndarray:
        """What the model reads.

        Args:
            columns: name -> raw values [B, *shape]; text as object arrays, missing as None or NaN.
            inputs: the raw feature columns, in order (Signature.inputs).
        Returns:
            float32 [B, *feature_shape]: a single tensor column keeps its shape, otherwise [B, F] in `inputs` order.
        Raises:
            DataError: an unknown category, or a missing or infinite value; names column and value.
        """
        return self.apply_exact(columns, inputs).astype(np.float32, copy=False)

    def apply_exact(self, columns: Mapping[str, np.ndarray], inputs: Sequence[Column]) -> np.ndarray:
        """`apply` before the cast to float32."""
        absent = [column.name for column in inputs if column.name not in columns]
        if absent:
            raise DataError(f"column '{absent[0]}' is missing; the columns are {list(columns)}", "give every feature")
        parts = [_finished(self.column(columns[column.name], column), column) for column in inputs]
        if len(parts) == 1:
            return parts[0] if parts[0].ndim > 1 else parts[0][:, None]
        return np.concatenate([part.reshape(len(part), math.prod(part.shape[1:])) for part in parts], axis=1)

    def feature_shape(self, inputs: Sequence[Column]) -> tuple[int, ...]:
        """Shape of one row after `apply`."""
        empty = {c.name: np.empty((0, *c.shape), object if c.dtype == "string" else c.dtype) for c in inputs}
        return self.apply_exact(empty, inputs).shape[1:]

    def column(self, values: np.ndarray, column: Column) -> np.ndarray:
        """One column after all its transforms; missing values that nothing filled stay NaN or None."""
        values = _start(values, column)
        for state in self._states:
            if column.name in state["columns"]:
                values = _APPLY[state["kind"]](values, state["columns"][column.name], state, column)
        return values


def _scale(values: np.ndarray, fitted: State, state: State, column: Column) -> np.ndarray:
    return values * values.dtype.type(state["factor"]) + values.dtype.type(state["offset"])


def _standardize(values: np.ndarray, fitted: State, state: State, column: Column) -> np.ndarray:
    mean, std = (np.array(fitted[key], values.dtype) for key in ("mean", "std"))
    return (values - mean) / std if values.ndim == 2 else (values - mean[0]) / std[0]


def _impute(values: np.ndarray, fitted: State, state: State, column: Column) -> np.ndarray:
    missing = is_missing(values)
    return np.where(missing, fitted["fill"], values).astype(values.dtype) if missing.any() else values


def _one_hot(values: np.ndarray, fitted: State, state: State, column: Column) -> np.ndarray:
    index_B = _category_index(values, fitted["categories"], state["unknown"], column.name)
    hot_BK = np.zeros((len(values), len(fitted["categories"])))
    known = np.flatnonzero(index_B >= 0)
    hot_BK[known, index_B[known]] = 1.0
    return hot_BK


def _ordinal(values: np.ndarray, fitted: State, state: State, column: Column) -> np.ndarray:
    return _category_index(values, fitted["categories"], state["unknown"], column.name).astype(np.float64)


_APPLY = {"scale": _scale, "standardize": _standardize, "impute": _impute, "one_hot": _one_hot, "ordinal": _ordinal}


def _category_index(values: np.ndarray, categories: list[Any], unknown: str, name: str) -> np.ndarray:
    """Index of each value in the sorted categories, int64 [B]; -1 where it is unknown and that is ignored."""
    refuse_missing(values, name)
    if values.dtype == object:
        lookup = {category: i for i, category in enumerate(categories)}
        index_B = np.fromiter((lookup.get(v, -1) for v in values), np.int64, count=len(values))
    else:
        sorted_K = np.array(categories)
        index_B = np.minimum(np.searchsorted(sorted_K, values), len(sorted_K) - 1)
        index_B = np.where(sorted_K[index_B] == values, index_B, -1)
    if unknown == "error" and (index_B < 0).any():
        value = values[index_B < 0][:1].tolist()[0]
        raise DataError(
            f"column '{name}' holds {value!r}, a category that train has not; known are {categories[:20]}",
            "correct the value, or set `unknown: ignore` on the transform",
        )
    return index_B


def _start(values: np.ndarray, column: Column) -> np.ndarray:
    """The raw values in the type that is computed with: the column's own, never that of the batch at hand."""
    values = np.asarray(values)
    if column.dtype == "string":
        return values
    if column.shape:
        return values.astype(np.float32 if column.dtype in FLOAT32_TENSORS else np.float64)
    return values.astype(np.float64)


def _finished(values: np.ndarray, column: Column) -> np.ndarray:
    if values.dtype == object:
        raise still_text(column)
    if not np.isfinite(values).all():
        bad = values[~np.isfinite(values)].ravel()[0]
        what = "a missing value" if np.isnan(bad) else f"{bad}"
        raise DataError(
            f"column '{column.name}' holds {what}; every value must be a finite number",
            "give a value, or train with an `impute` transform for the column",
        )
    return values


def still_text(column: Column) -> DataError:
    """The error of a text column that no transform encodes."""
    return DataError(
        f"column '{column.name}' holds text, and no transform makes numbers of it",
        f"add a one_hot or ordinal transform for '{column.name}', or leave it out of data.features",
    )


def is_missing(values: np.ndarray) -> np.ndarray:
    """None or NaN, bool [B, ...]."""
    if values.dtype == object:
        return np.fromiter((v is None or v != v for v in values), bool, count=len(values))
    return np.isnan(values)


def refuse_missing(values: np.ndarray, name: str) -> None:
    """Raise DataError when a value is missing."""
    if is_missing(values).any():
        raise DataError(f"column '{name}' has a missing value", f"add an `impute` transform before that of '{name}'")
