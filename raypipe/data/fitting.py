"""Fitting transforms on train: sums a shard, merged in shard order.

No more than a shard is in memory at once, and the same shards give the same bits every time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from raypipe.data.transforms import FittedTransforms, State, is_missing, refuse_missing, still_text
from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.spec.data import ImputeTransform, Transform

Partial = dict[str, Any]
"""What one shard contributes to each column of one transform."""

Moments = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Count, mean and sum of squared deviations, float64, one a feature."""

CHUNK_VALUES = 2**18
"""Values summed up at a time: two megabytes stay in the processor's cache."""

RunShards = Callable[[FittedTransforms, Sequence[Transform]], list[list[Partial]]]
"""Given what is fitted already and the transforms to fit next: `partials` of every shard, in shard order."""


def fit(transforms: Sequence[Transform], inputs: Sequence[Column], run: RunShards) -> FittedTransforms:
    """Fit all transforms, in as few passes over the train shards as their order allows.

    Raises:
        DataError: a transform does not fit its column, or there is nothing to fit on.
    """
    check_types(transforms, inputs)
    fitted = FittedTransforms(())
    for group in _passes(transforms):
        needs_rows = any(_is_fitted(transform) for transform in group)
        shards = run(fitted, group) if needs_rows else []
        states = [_merge(transform, [shard[i] for shard in shards]) for i, transform in enumerate(group)]
        fitted = FittedTransforms((*fitted.state(), *states))
    return fitted


def partials(
    before: FittedTransforms, group: Sequence[Transform], columns: Mapping[str, np.ndarray], inputs: Sequence[Column]
) -> list[Partial]:
    """What one shard's rows contribute to each transform of the group."""
    by_name = {column.name: column for column in inputs}
    found: list[Partial] = []
    for transform in group:
        values = {name: before.column(columns[name], by_name[name]) for name in transform.columns}
        found.append({name: _partial(transform, values[name], name) for name in transform.columns})
    return found


def fit_columns(
    transforms: Sequence[Transform], inputs: Sequence[Column], shards: Sequence[Mapping[str, np.ndarray]]
) -> FittedTransforms:
    """`fit` over shards that are in memory."""
    return fit(transforms, inputs, lambda before, group: [partials(before, group, s, inputs) for s in shards])


def _passes(transforms: Sequence[Transform]) -> list[list[Transform]]:
    """Neighbours that share no column are fitted together."""
    groups: list[list[Transform]] = []
    for transform in transforms:
        taken = {name for other in groups[-1] for name in other.columns} if groups else set(transform.columns)
        if taken.isdisjoint(transform.columns):
            groups[-1].append(transform)
        else:
            groups.append([transform])
    return groups


def _is_fitted(transform: Transform) -> bool:
    return transform.kind != "scale" and not (transform.kind == "impute" and transform.strategy == "constant")


def check_types(transforms: Sequence[Transform], inputs: Sequence[Column]) -> None:
    """Raise DataError unless every transform fits its columns and all text becomes numbers; reads no rows."""
    by_name = {column.name: column for column in inputs}
    for transform in transforms:
        for name in transform.columns:
            _check_type(transform, by_name[name])
    encoded = {name for t in transforms if t.kind in ("one_hot", "ordinal") for name in t.columns}
    for column in inputs:
        if column.dtype == "string" and column.name not in encoded:
            raise still_text(column)


def _check_type(transform: Transform, column: Column) -> None:
    needs_numbers = transform.kind in ("scale", "standardize")
    if isinstance(transform, ImputeTransform):
        needs_numbers = transform.strategy == "mean"
        _check_constant(transform, column)
    if needs_numbers and column.dtype == "string":
        raise DataError(
            f"data.transforms: {transform.kind} needs numbers, but column '{column.name}' holds text",
            f"use one_hot or ordinal for '{column.name}', or correct the values that are no numbers",
        )
    if transform.kind in ("impute", "one_hot", "ordinal") and column.shape:
        raise DataError(
            f"data.transforms: {transform.kind} works on single values, but column '{column.name}' holds arrays of "
            f"shape {list(column.shape)}",
            "use scale or standardize for arrays",
        )


def _check_constant(transform: ImputeTransform, column: Column) -> None:
    if transform.strategy == "constant" and isinstance(transform.value, str) != (column.dtype == "string"):
        raise DataError(
            f"data.transforms: impute value {transform.value!r} does not fit column '{column.name}' of {column.dtype}",
            "give text for a text column and a number for a number column",
        )


def _partial(transform: Transform, values: np.ndarray, name: str) -> Any:
    if transform.kind == "standardize" or (transform.kind == "impute" and transform.strategy == "mean"):
        return _moments(values)
    if transform.kind in ("one_hot", "ordinal"):
        refuse_missing(values, name)
        return Counter(dict.fromkeys(np.unique(values).tolist(), 1))
    if transform.kind == "impute" and transform.strategy == "most_frequent":
        there = values[~is_missing(values)]
        distinct, counts = np.unique(there, return_counts=True)
        return Counter(dict(zip(distinct.tolist(), counts.tolist(), strict=True)))
    return None


def _moments(values: np.ndarray) -> Moments:
    """Of one shard: per feature of a vector, over all values of an image; missing values are left out."""
    table = values.reshape(len(values), -1) if values.ndim == 2 else values.reshape(-1, 1)
    rows = max(1, CHUNK_VALUES // table.shape[1])
    total = _chunk_moments(table[:rows])
    for start in range(rows, len(table), rows):
        total = _merged_moments(total, _chunk_moments(table[start : start + rows]))
    return total


def _chunk_moments(table: np.ndarray) -> Moments:
    table = table.astype(np.float64)
    there = ~np.isnan(table)
    count = there.sum(axis=0).astype(np.float64)
    if not there.all():
        mean = np.where(there, table, 0.0).sum(axis=0) / np.maximum(count, 1)
        return count, mean, np.where(there, (table - mean) ** 2, 0.0).sum(axis=0)
    mean = table.sum(axis=0) / np.maximum(count, 1)
    return count, mean, ((table - mean) ** 2).sum(axis=0)


def _merge(transform: Transform, shards: list[Partial]) -> State:
    settings = transform.model_dump(mode="json", exclude={"columns"})
    return {**settings, "columns": {n: _fitted(transform, n, [s[n] for s in shards]) for n in transform.columns}}


def _fitted(transform: Transform, name: str, shards: list[Any]) -> Any:
    if not _is_fitted(transform):
        return {"fill": transform.value} if transform.kind == "impute" else {}
    if transform.kind in ("one_hot", "ordinal"):
        return {"categories": sorted(_sum(shards))}
    if transform.kind == "impute" and transform.strategy == "most_frequent":
        counts = _sum(shards)
        if not counts:
            raise _nothing_to_fit(transform, name)
        return {"fill": min(counts, key=lambda value: (-counts[value], value))}
    count, mean, squares = shards[0]
    for more in shards[1:]:
        count, mean, squares = _merged_moments((count, mean, squares), more)
    if not count.all():
        raise _nothing_to_fit(transform, name)
    if transform.kind == "impute":
        return {"fill": float(mean[0])}
    return {"mean": mean.tolist(), "std": _std(count, mean, squares).tolist()}


def _merged_moments(a: Moments, b: Moments) -> Moments:
    """Source: Chan, Golub and LeVeque 1983, "Algorithms for Computing the Sample Variance", eq. 2.1."""
    count = a[0] + b[0]
    share = np.divide(b[0], count, out=np.zeros_like(count), where=count > 0)
    delta = b[1] - a[1]
    return count, a[1] + delta * share, a[2] + b[2] + delta**2 * a[0] * share


def _std(count: np.ndarray, mean: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Population standard deviation; 1 where the column is constant up to rounding, as scikit-learn decides it."""
    variance = squares / count
    eps = np.finfo(np.float64).eps
    constant = variance <= count * eps * variance + (count * mean * eps) ** 2
    return np.where(constant, 1.0, np.sqrt(variance))


def _sum(counters: list[Counter[Any]]) -> Counter[Any]:
    total: Counter[Any] = Counter()
    for counter in counters:
        total.update(counter)
    return total


def _nothing_to_fit(transform: Transform, name: str) -> DataError:
    return DataError(
        f"data.transforms: {transform.kind} finds no value of column '{name}' in the train split",
        "leave the column out, or impute it with strategy: constant",
    )
