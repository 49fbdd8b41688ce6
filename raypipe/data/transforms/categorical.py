"""Categories (text or numbers) to numbers.

B rows, K categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe.data.table.row_hash import row_hash
from raypipe.data.transforms.base import (
    Fitted,
    State,
    TransformKind,
    Values,
    distinct,
    first,
    need_filled,
    need_single,
    nothing_to_fit,
    numbers,
    pc,
    refuse_missing,
    refuse_too_many,
)
from raypipe.data.transforms.numeric import one_hot
from raypipe.errors import DataError
from raypipe.records import Column
from raypipe.spec.transforms import CrossTransform, HashingTransform, OneHotTransform, OrdinalTransform

SHOWN = 20


class Categorical(TransformKind):
    """A kind that knows the categories of one column, learnt from train unless they are given."""

    distinct = True

    @staticmethod
    def needs_rows(spec: Any) -> bool:
        return True

    @staticmethod
    def refuses(spec: Any) -> bool:
        return spec.unknown == "error"

    @staticmethod
    def partial(spec: Any, values: Values, name: str) -> set[Any]:
        refuse_missing(values, name)
        categories = distinct(values)
        refuse_too_many(spec, categories, name)
        return set(categories.tolist())

    @staticmethod
    def combine(spec: Any, first: set[Any], second: set[Any], name: str) -> set[Any]:
        both = first if second <= first else first | second
        refuse_too_many(spec, both, name)
        return both

    @staticmethod
    def finish(spec: Any, partial: set[Any] | None, name: str) -> Fitted:
        if not partial:
            raise nothing_to_fit(spec, name)
        return {"categories": sorted(partial)}

    def __init__(self, state: State, fitted: Fitted, name: str) -> None:
        super().__init__(state, fitted, name)
        self._lookup = Lookup(fitted["categories"])

    def places(self, values: list[Any]) -> list[int] | None:
        """Which category each row is; None where one is unknown or missing."""
        try:
            return [self._lookup.position[value] for value in values]
        except (KeyError, TypeError):
            return None

    def index(self, values: Values) -> np.ndarray:
        """Which category each row is, int64 [B]; -1 where it is unknown and may be."""
        refuse_missing(values, self.name)
        return _known(self, values, self._lookup.index(values))


class OneHot(Categorical):
    """One column a category of the train split."""

    @staticmethod
    def check(spec: OneHotTransform, column: Column) -> Column:
        return _check(spec, column, (-1,))

    def apply(self, values: Values) -> np.ndarray:
        return one_hot(self.index(values), len(self.fitted["categories"]))

    def of_few(self, values: list[Any]) -> np.ndarray | None:
        places = self.places(values)
        if places is None:
            return None
        hot = np.zeros((len(places), len(self.fitted["categories"])))
        for row, place in enumerate(places):
            hot[row, place] = 1.0
        return hot


class Ordinal(Categorical):
    """The category's index."""

    @staticmethod
    def needs_rows(spec: OrdinalTransform) -> bool:
        return spec.categories is None

    @staticmethod
    def check(spec: OrdinalTransform, column: Column) -> Column:
        if spec.categories is not None and isinstance(spec.categories[0], str) != (column.dtype == "string"):
            raise DataError(
                f"data.transforms: ordinal categories {spec.categories[:SHOWN]} do not fit column '{column.name}' of "
                f"{column.dtype}",
                "give text for a text column and numbers for a number column",
            )
        return _check(spec, column, ())

    @staticmethod
    def finish(spec: OrdinalTransform, partial: set[Any] | None, name: str) -> Fitted:
        if spec.categories is not None:
            return {"categories": list(spec.categories)}
        return Categorical.finish(spec, partial, name)

    def apply(self, values: Values) -> np.ndarray:
        return self.index(values).astype(np.float64)

    def of_few(self, values: list[Any]) -> np.ndarray | None:
        places = self.places(values)
        return None if places is None else np.array(places, np.float64)


class Hashing(TransformKind):
    """One of a fixed number of buckets, by the hash that also splits rows."""

    @staticmethod
    def check(spec: HashingTransform, column: Column) -> Column:
        return _check(spec, column, (spec.num_buckets,) if spec.output == "one_hot" else ())

    def apply(self, values: Values) -> np.ndarray:
        refuse_missing(values, self.name)
        bucket_B = row_hash({self.state["salt"]: values}) % np.uint64(self.state["num_buckets"])
        return _encoded(bucket_B.astype(np.int64), self.state["num_buckets"], self.state["output"])


class Cross(TransformKind):
    """Combinations of several columns as categories, learnt from train or hashed."""

    joint = True

    @staticmethod
    def needs_rows(spec: CrossTransform) -> bool:
        return spec.num_buckets is None

    @staticmethod
    def refuses(spec: CrossTransform) -> bool:
        return spec.unknown == "error" and spec.num_buckets is None

    @staticmethod
    def check(spec: CrossTransform, column: Column) -> Column:
        return _check(spec, column, ())

    @staticmethod
    def partial(spec: CrossTransform, values: pa.StructArray, name: str) -> set[tuple[Any, ...]]:
        refuse_missing(values, name)
        table = pa.Table.from_struct_array(values)
        combinations = table.group_by(table.column_names).aggregate([])
        for column in combinations.columns:
            refuse_too_many(spec, column.combine_chunks(), name)
        return set(zip(*(column.to_pylist() for column in combinations.columns), strict=True))

    combine = staticmethod(Categorical.combine)

    @staticmethod
    def finish(spec: CrossTransform, partial: set[tuple[Any, ...]] | None, name: str) -> Fitted:
        if spec.num_buckets is not None:
            return {}
        if not partial:
            raise nothing_to_fit(spec, name)
        return {"categories": [list(category) for category in sorted(partial)]}

    def __init__(self, state: State, fitted: Fitted, name: str) -> None:
        super().__init__(state, fitted, name)
        self._levels: list[tuple[Lookup, Lookup]] = []
        index_K = np.zeros(len(fitted.get("categories", ())), np.int64)
        for values in zip(*fitted.get("categories", ()), strict=True):
            field = Lookup(sorted(set(values)))
            own_K = np.array([field.position[value] for value in values])
            codes, index_K = np.unique(index_K * len(field) + own_K, return_inverse=True)
            self._levels.append((field, Lookup(codes.tolist())))

    def apply(self, values: pa.StructArray) -> np.ndarray:
        refuse_missing(values, self.name)
        fields = [f if pa.types.is_string(f.type) else f.to_numpy() for f in values.flatten()]
        num_buckets = self.state["num_buckets"]
        if num_buckets is None:
            index_B = _known(self, values, self._index(fields, len(values)))
            return _encoded(index_B, len(self.fitted["categories"]), self.state["output"])
        hashed = row_hash({f"{self.state['salt']}/{i}": field for i, field in enumerate(fields)})
        return _encoded((hashed % np.uint64(num_buckets)).astype(np.int64), num_buckets, self.state["output"])

    def _index(self, fields: Sequence[Values], num_rows: int) -> np.ndarray:
        """Field by field: the index of the combination so far among those of the categories."""
        index_B = np.zeros(num_rows, np.int64)
        for values, (field, combinations) in zip(fields, self._levels, strict=True):
            own_B = field.index(values)
            code_B = np.where((index_B < 0) | (own_B < 0), -1, index_B * len(field) + own_B)
            index_B = combinations.index(code_B)
        return index_B


class Lookup:
    """Value -> its place in a list of different values, all text or all numbers."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.position = {value: i for i, value in enumerate(values)}
        if isinstance(values[0], str):
            self._text = pa.array(values, pa.string())
        else:
            self._order = np.argsort(values)
            self._sorted = np.array(values)[self._order]

    def __len__(self) -> int:
        return len(self.position)

    def index(self, values: Values) -> np.ndarray:
        """int64 [B]; -1 where the value is not in the list."""
        if isinstance(values, np.ndarray):
            place_B = np.minimum(np.searchsorted(self._sorted, values), len(self) - 1)
            return np.where(self._sorted[place_B] == values, self._order[place_B], -1)
        found = pc.index_in(values, self._text)
        found = found.fill_null(-1) if found.null_count else found
        return found.to_numpy(zero_copy_only=False).astype(np.int64)


def _check(spec: Any, column: Column, shape: tuple[int, ...]) -> Column:
    need_single(spec, column)
    need_filled(spec, column)
    return numbers(column, shape)


def _encoded(index_B: np.ndarray, num: int, output: str) -> np.ndarray:
    return index_B.astype(np.float64) if output == "index" else one_hot(index_B, num)


def _known(kind: TransformKind, values: Values, index_B: np.ndarray) -> np.ndarray:
    """The same, unless a category is unknown and that is an error."""
    if kind.state["unknown"] == "error" and (index_B < 0).any():
        value = first(values, index_B < 0)
        value = tuple(value.values()) if isinstance(value, dict) else value
        raise DataError(
            f"column '{kind.name}' holds {value!r}, a category that train has not; known are "
            f"{kind.fitted['categories'][:SHOWN]}",
            "correct the value, or set `unknown: ignore` on the transform",
        )
    return index_B
