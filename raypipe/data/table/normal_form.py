"""Columns of whatever Arrow type a file gave them, in the few types that columns.py reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from raypipe.data.table.columns import ENCODED, by_name, tensor_values
from raypipe.errors import DataError

MAX_WHOLE_DIGITS = 18
"""Decimals without a fraction that have no more are whole numbers of 64 bits."""

UNITS_A_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


class ColumnRefused(DataError):
    """A column that cannot be read, or masked as told; the message names columns and types, and shows no value."""


def normalise(table: pa.Table, file: str) -> pa.Table:
    """The same rows with every column in one of the few types.

    Raises:
        ColumnRefused: a column of a type that has no numbers and no text, by name; nothing is ever unpickled.
    """
    check_types(table.schema, file)
    normal = {name: _normal(column, name, file) for name, column in by_name(table).items()}
    return pa.table(normal) if normal else table


def check_types(schema: pa.Schema, file: str) -> None:
    """Raise ColumnRefused for a column that `normalise` would refuse, by its type alone."""
    if unusable := refused_types(schema):
        raise refused({name: f"has {what}" for name, what in unusable.items()}, file)


def refused_types(schema: pa.Schema) -> dict[str, str]:
    """The columns of a type that `normalise` would refuse -> that type."""
    unusable: dict[str, str] = {}
    for field in schema:
        column_type = field.type.value_type if isinstance(field.type, pa.DictionaryType) else field.type
        if isinstance(column_type, pa.BaseExtensionType):
            if not _is_tensor(column_type):
                unusable[field.name] = f"extension type {column_type.extension_name}"
        elif _normal_type(column_type) is None:
            unusable[field.name] = f"type {field.type}"
    return unusable


def refused(unusable: Mapping[str, str], file: str) -> ColumnRefused:
    """The error of columns that are needed and cannot be read.

    Args:
        unusable: column -> what is wrong with it.
    """
    what = "; ".join(f"column '{name}' {what}" for name, what in unusable.items())
    return ColumnRefused(
        f"{file}: {what}",
        "a column has a name of its own and holds numbers, text, true/false or arrays of numbers; leave the others "
        "out: name the columns you need in data.features or data.source.columns",
    )


def _normal(column: pa.ChunkedArray, name: str, file: str) -> pa.ChunkedArray:
    column_type = column.type
    if isinstance(column_type, pa.DictionaryType):
        if _normal_type(column_type.value_type) == pa.string():
            is_good = column_type == ENCODED and all(_is_distinct(chunk.dictionary) for chunk in column.chunks)
            return column if is_good else column.cast(pa.string()).dictionary_encode()
        return _normal(column.cast(column_type.value_type), name, file)
    if isinstance(column_type, pa.BaseExtensionType):
        _refuse_ragged(column, name, file)
        if not isinstance(column_type, pa.FixedShapeTensorType):
            return column
        from ray.data.extensions import ArrowTensorArray

        return pa.chunked_array([ArrowTensorArray.from_numpy(tensor_values(column))])
    if isinstance(column_type, pa.DurationType):
        return _seconds(column, column_type.unit)
    wanted = _normal_type(column_type)
    if (text := _of_fractions(column_type)) is not None:
        column = column.cast(text)
    return column if wanted == column_type else column.cast(wanted, safe=False)


def _of_fractions(column_type: pa.DataType) -> pa.DataType | None:
    """The type of text through which decimals, in lists too, become the nearest numbers: Arrow's own cast to float64
    multiplies, and makes 3.3000000000000003 of 3.30. None for all other types."""
    if pa.types.is_decimal(column_type):
        return pa.string() if _normal_type(column_type) == pa.float64() else None
    if not (pa.types.is_list(column_type) or pa.types.is_large_list(column_type)):
        return None
    inner = _of_fractions(column_type.value_type)
    return None if inner is None else pa.list_(inner)


def _seconds(column: pa.ChunkedArray, unit: str) -> pa.ChunkedArray:
    """Durations as float64 seconds."""
    return pc.call_function("divide", [column.cast(pa.int64()).cast(pa.float64(), safe=False), UNITS_A_SECOND[unit]])


def _is_tensor(column_type: pa.DataType) -> bool:
    # Imported here, for it takes seconds: ranks that train and replicas that serve read no files and need none of it.
    from ray.data.extensions import get_arrow_extension_tensor_types

    return isinstance(column_type, get_arrow_extension_tensor_types()) and hasattr(column_type, "shape")


def _is_distinct(texts: pa.Array) -> bool:
    return not texts.null_count and len(texts.unique()) == len(texts)


def _normal_type(column_type: pa.DataType) -> pa.DataType | None:
    # a tensor's type may be forged, and is no key then
    return None if isinstance(column_type, pa.BaseExtensionType) else _normal_type_of_plain(column_type)


@lru_cache(maxsize=1024)  # a wide table has one type many times
def _normal_type_of_plain(column_type: pa.DataType) -> pa.DataType | None:
    types = pa.types
    if types.is_list(column_type) or types.is_large_list(column_type) or types.is_fixed_size_list(column_type):
        return _normal_list(column_type.value_type)
    if types.is_float16(column_type):
        return pa.float32()
    if types.is_decimal(column_type):
        is_whole = column_type.scale == 0 and column_type.precision <= MAX_WHOLE_DIGITS
        return pa.int64() if is_whole else pa.float64()
    if types.is_duration(column_type):
        return pa.float64()
    if types.is_interval(column_type):
        return None
    if types.is_temporal(column_type) or types.is_large_string(column_type) or types.is_string_view(column_type):
        return pa.string()
    plain = types.is_null, types.is_boolean, types.is_integer, types.is_floating, types.is_string
    return column_type if any(is_kind(column_type) for is_kind in plain) else None


def _normal_list(value_type: pa.DataType) -> pa.DataType | None:
    """Lists of numbers at any depth, and of texts; of texts in lists there are no rows of one shape."""
    inner = _normal_type(value_type)
    if inner is None or pa.types.is_temporal(value_type):
        return None
    is_deep_text = pa.types.is_list(inner) and pa.types.is_string(inner.value_type)
    return None if is_deep_text else pa.list_(inner)


def _refuse_ragged(column: pa.ChunkedArray, name: str, file: str) -> None:
    """Raise DataError where a row of a tensor column holds another number of values than the type says."""
    size = math.prod(column.type.shape)
    for chunk in column.chunks:
        storage = chunk.storage
        is_fixed = pa.types.is_fixed_size_list(storage.type)
        lengths = [storage.type.list_size] if is_fixed else pc.call_function("list_value_length", [storage]).unique()
        if (
            storage.null_count
            or storage.flatten().null_count
            or any(length != size for length in pa.array(lengths).to_pylist())
        ):
            raise ColumnRefused(
                f"{file}: column '{name}' has rows that are missing or no tensor of shape {list(column.type.shape)}",
                "write the file again, or leave the column out with data.source.columns",
            )
