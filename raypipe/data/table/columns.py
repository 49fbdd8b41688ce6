"""One column, from whatever Arrow type a file gave it to numpy.

After normal_form.py a column has one of few types: null, bool, integers, float32, float64, string (plain or ENCODED),
(nested) lists of numbers, or Ray's fixed-shape tensor.  Shapes: n rows, [n] scalars, [n, *shape] tensors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NUMBERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")
_NAMES = {"float": "float32", "double": "float64", "bool": "bool", "string": "string", "null": "null"}

EXACT = 2.0**53
"""Whole numbers from here on are not all told apart as float64."""

ENCODED = pa.dictionary(pa.int32(), pa.string())
"""Text whose values repeat, as indices into its distinct values: a fifth of the time to read and to move."""


Values = np.ndarray | pa.Array
"""Numbers or true/false [n, *shape] as numpy; text [n] as Arrow, plain or ENCODED; see `exact` for gaps."""


class ColumnKind(NamedTuple):
    """What a column holds, without how Arrow keeps it."""

    dtype: str
    """As in records.Column, or `null` while no value has been seen."""
    form: str = ""
    """Empty for scalars, `list`, `list of list`, or the shape of a tensor, e.g. `[8, 8]`."""

    def __str__(self) -> str:
        return f"{self.form} of {self.dtype}" if self.form else self.dtype


TEXTS = ColumnKind("string", "list")
"""Several texts a row."""

NO_VALUES = ColumnKind("null")


def kind(column_type: pa.DataType) -> ColumnKind:
    """What a normalised Arrow type holds."""
    if isinstance(column_type, pa.BaseExtensionType):
        value_type = getattr(column_type, "scalar_type", None) or column_type.value_type
        return ColumnKind(_dtype(value_type), str(list(column_type.shape)))
    return _kind(column_type)


@lru_cache(maxsize=1024)  # a wide table has one type many times
def _kind(column_type: pa.DataType) -> ColumnKind:
    """The same of any other type than a tensor's, which a file may have forged."""
    if column_type == ENCODED:
        return ColumnKind("string")
    depth = 0
    while pa.types.is_list(column_type):
        column_type, depth = column_type.value_type, depth + 1
    return ColumnKind(_dtype(column_type), " of ".join(["list"] * depth))


def common(kinds: Iterable[ColumnKind]) -> ColumnKind | None:
    """The one kind all fit: widths of numbers unify, a column without values fits anything; None if there is none."""
    different = set(kinds) - {NO_VALUES}
    if len(different) < 2:
        return different.pop() if different else NO_VALUES
    dtypes = [k.dtype for k in different if k.dtype != "null"]
    if len({k.form for k in different}) > 1:
        return None
    if len(set(dtypes)) <= 1:
        return ColumnKind(dtypes[0] if dtypes else "null", different.pop().form)
    if not all(dtype in NUMBERS for dtype in dtypes):
        return None
    floats = [dtype.startswith("float") for dtype in dtypes]
    widest = np.result_type(*dtypes).name if all(floats) or not any(floats) else "float64"
    return ColumnKind(widest, different.pop().form)


def by_name(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    """All columns; a table that is asked for one by name looks through all names."""
    return dict(zip(table.column_names, table.columns, strict=True))


def arrow_type(wanted: ColumnKind) -> pa.DataType:
    """The Arrow type of scalars and lists."""
    column_type = pa.type_for_alias(wanted.dtype)
    for _ in range(wanted.form.count("list")):
        column_type = pa.list_(column_type)
    return column_type


def shapes(column: pa.ChunkedArray) -> Counter[tuple[int, ...]]:
    """How many rows have which shape; rows that are null or irregular are not counted."""
    if isinstance(column.type, pa.BaseExtensionType):
        return Counter({tuple(column.type.shape): len(column)})
    if not pa.types.is_list(column.type):
        return Counter()
    row_shapes = _list_shapes(_one_array(column))
    distinct, counts = np.unique(row_shapes[(row_shapes >= 0).all(axis=1)], axis=0, return_counts=True)
    return Counter({tuple(int(d) for d in s): int(c) for s, c in zip(distinct, counts, strict=True)})


def scalars(column: pa.ChunkedArray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Numbers or booleans.

    Returns:
        values [n] of `dtype` (missing: NaN in floats, else 0), and missing [n] bool (null or NaN).
    """
    array = _one_array(column)
    if pa.types.is_null(array.type):
        array = array.cast(pa.type_for_alias(dtype))
    missing = _missing(array)
    if array.null_count:
        filler = float("nan") if pa.types.is_floating(array.type) else False if pa.types.is_boolean(array.type) else 0
        array = array.fill_null(filler)
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype.kind == "f":
        missing = np.isnan(values)
    if np.dtype(dtype).kind != "f":
        return values.astype(dtype), missing
    values = np.add(values, 0.0, dtype=dtype)  # -0.0 becomes 0.0: equal rows have equal bytes
    if missing.any():
        values[missing] = np.nan
    return values, missing


def exact(column: pa.ChunkedArray, dtype: str) -> Values:
    """Single values without loss, [n]: text in Arrow; numbers and true/false in numpy, in Arrow where gaps would have
    no place among them (floats have NaN)."""
    if dtype == "string":
        return strings(column)[0]
    if column.null_count and not dtype.startswith("float"):
        return _one_array(column).cast(pa.type_for_alias(dtype))
    return scalars(column, dtype)[0]


def present(values: Values) -> np.ndarray:
    """Bool [n]: the rows that have a value; of arrays, one in every place.

    Args:
        values: [n, *shape], missing numbers NaN; or Arrow [n], missing null.
    """
    if not isinstance(values, np.ndarray):
        return np.asarray(values.is_valid())
    if values.dtype.kind != "f":
        return np.ones(len(values), bool)
    missing = np.isnan(values)
    return np.logical_not(np.logical_or.reduce(flat(missing), axis=1) if values.ndim > 1 else missing)


def flat(values: np.ndarray) -> np.ndarray:
    """Arrays [n, *shape] as [n, m], also where n is 0."""
    return values.reshape(len(values), int(np.prod(values.shape[1:])))


def tensors(column: pa.ChunkedArray, dtype: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Arrays of one shape.

    Returns:
        values [n, *shape] of `dtype`, and misfit [n] bool: rows of another shape, or with gaps (their values are 0).
    """
    num_rows = len(column)
    values = np.zeros((num_rows, *shape), dtype)
    if isinstance(column.type, pa.BaseExtensionType):
        if num_rows:
            values[:] = tensor_values(column)
        misfit = np.zeros(num_rows, bool)
    elif pa.types.is_null(column.type):
        misfit = np.ones(num_rows, bool)
    else:
        array = _one_array(column)
        misfit = (_list_shapes(array) != np.array(shape)).any(axis=1)
        flat = array.filter(pa.array(~misfit))
        while pa.types.is_list(flat.type):
            flat = flat.flatten()
        fitting = flat.to_numpy(zero_copy_only=False).reshape(-1, *shape)
        if flat.null_count and values.dtype.kind != "f":  # numpy gave NaN for the gaps, which integers do not have
            gaps = np.isnan(fitting).reshape(len(fitting), -1).any(axis=1)
            misfit[np.flatnonzero(~misfit)[gaps]] = True
            fitting = fitting[~gaps]
        values[~misfit] = fitting
    if values.dtype.kind == "f":
        values += 0.0
    return values, misfit


def tensor_values(column: pa.ChunkedArray) -> np.ndarray:
    """[n, *shape] of a fixed-shape tensor column that has rows."""
    parts = [c.to_numpy_ndarray() if hasattr(c, "to_numpy_ndarray") else c.to_numpy() for c in column.chunks if len(c)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def strings(column: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """Text [n] as Arrow, plain or dictionary-encoded as it came, and missing [n] bool."""
    array = _one_array(column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column)
    if pa.types.is_null(array.type):
        array = array.cast(pa.string())
    return array, _missing(array)


def without(column: pa.ChunkedArray, words: Collection[str]) -> pa.ChunkedArray:
    """Text with null in place of some words, plain; as it came where it holds none of them."""
    if not words or not is_text(column.type):
        return column
    is_word = pc.call_function("is_in", [column], pc.SetLookupOptions(pa.array(sorted(words), pa.string())))
    if not pc.call_function("any", [is_word]).as_py():
        return column
    plain = column.cast(pa.string())
    return pc.call_function("if_else", [is_word, pa.scalar(None, pa.string()), plain])


def counts(column: pa.ChunkedArray) -> Counter[Any]:
    """How many rows hold each value."""
    return Counter({pair["values"]: pair["counts"] for pair in column.value_counts().to_pylist()})


def values(column: pa.ChunkedArray) -> Any:
    """A stored column, packed or not, as rows are computed with: [n, *shape] numpy, or text [n] as Arrow."""
    if isinstance(column.type, pa.BaseExtensionType):
        return (
            tensor_values(column)
            if len(column)
            else np.empty((0, *column.type.shape), column.type.value_type.to_pandas_dtype())
        )
    return strings(column)[0] if is_text(column.type) else column.to_numpy()


def is_text(column_type: pa.DataType) -> bool:
    """Whether a normalised, or packed, column holds text."""
    return pa.types.is_string(column_type) or pa.types.is_dictionary(column_type)


def raw_bytes(values: Values) -> int:
    """Of numbers, or of the characters of text: a function of the values alone, encoded or not."""
    if isinstance(values, np.ndarray):
        return values.nbytes
    if isinstance(values, pa.DictionaryArray):
        lengths = pc.call_function("binary_length", [values.dictionary]).to_numpy()
        return int(np.bincount(values.indices.drop_null().to_numpy(), minlength=len(lengths)) @ lengths)
    return pc.call_function("sum", [pc.call_function("binary_length", [values])]).as_py() or 0


def _dtype(value_type: pa.DataType) -> str:
    return _NAMES.get(str(value_type), str(value_type))


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _missing(array: pa.Array) -> np.ndarray:
    return array.is_null().to_numpy(zero_copy_only=False) if array.null_count else np.zeros(len(array), bool)


def _list_shapes(array: pa.Array) -> np.ndarray:
    """Shape of each row, int64 [n, depth]; -1 where it is null or irregular."""
    if not pa.types.is_list(array.type):
        return np.empty((len(array), 0), np.int64)
    lengths = (
        pc.call_function("list_value_length", [array]).cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
    )
    inner = _list_shapes(array.flatten())
    row_shapes = np.full((len(array), 1 + inner.shape[1]), -1, np.int64)
    row_shapes[:, 0] = lengths
    filled = lengths > 0
    if inner.shape[1] and filled.any():
        starts = np.concatenate([[0], np.cumsum(np.maximum(lengths, 0))[:-1]])[filled]
        low, high = np.minimum.reduceat(inner, starts), np.maximum.reduceat(inner, starts)
        row_shapes[filled, 1:] = np.where(low == high, low, -1)
    return row_shapes
