"""Columns within columns, as the fields they hold: `user.age` is the `age` in `user`, in files and in requests alike.

A struct is its fields, and so is a map whose keys are text: what its rows have as keys are its fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute

from raypipe.data.table.normal_form import refused_types
from raypipe.errors import DataError

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers do not see

MAX_KEYS = 1000
"""Different keys that a map may have as fields, in one table; more are values rather than names."""


def flattened(table: pa.Table) -> pa.Table:
    """The table with the fields of its structs in their places, at any depth; those of a null are null."""
    while any(pa.types.is_struct(field.type) for field in table.schema):
        flat = table.flatten()
        # Rows that hold nothing but {} are rows all the same.
        table = flat if flat.num_columns else pa.table({table.column_names[0]: pa.nulls(table.num_rows)})
    return table


def flat_schema(schema: pa.Schema) -> pa.Schema:
    """What `flattened` makes of a schema."""
    return pa.schema([field for each in schema for field in _leaves(each, "")])


def _leaves(field: pa.Field, before: str) -> Iterator[pa.Field]:
    if pa.types.is_struct(field.type):
        for inner in field.type:
            yield from _leaves(inner, f"{before}{field.name}.")
    else:
        yield pa.field(before + field.name, field.type)


def maps_of(schema: pa.Schema) -> tuple[str, ...]:
    """The columns of a flat schema that are maps of text to what columns can hold."""
    maps = [field for field in schema if pa.types.is_map(field.type) and pa.types.is_string(field.type.key_type)]
    values = pa.schema([pa.field(field.name, field.type.item_type) for field in maps])
    unusable = refused_types(values)
    return tuple(field.name for field in maps if field.name not in unusable)


def read_for(names: Sequence[str], maps: Sequence[str]) -> list[str]:
    """The columns to read for some names: of a key of a map, the map."""
    return list(dict.fromkeys(next((each for each in maps if name.startswith(f"{each}.")), name) for name in names))


def with_keys(table: pa.Table, names: Sequence[str] | None, file: str) -> pa.Table:
    """The table with the keys of its maps in their places.

    Args:
        names: that are asked for; None is every key, of maps that have no more than MAX_KEYS of them.
    Raises:
        DataError: a row of a map has a key twice.
    """
    for column in maps_of(table.schema):
        asked = None if names is None else [name for name in names if name.startswith(f"{column}.")]
        if asked is not None:
            keys = [name.removeprefix(f"{column}.") for name in asked]
        else:
            keys = _keys(table[column])
        if keys is None:
            continue
        place = table.column_names.index(column)
        if not keys:  # a table without columns has rows all the same
            table = table.remove_column(place)
            continue
        before, after = table.column_names[:place], table.column_names[place + 1 :]
        values = [_looked_up(table[column], key, column, file) for key in keys]
        arrays = [*table.columns[:place], *values, *table.columns[place + 1 :]]
        there = [*before, *(f"{column}.{key}" for key in keys), *after]
        table = pa.table(arrays, names=there, metadata=table.schema.metadata)
    return flattened(table)


def _keys(column: pa.ChunkedArray) -> list[str] | None:
    keys = pa.chunked_array([chunk.keys for chunk in column.chunks], column.type.key_type).unique()
    return sorted(keys.to_pylist()) if len(keys) <= MAX_KEYS else None


def _looked_up(column: pa.ChunkedArray, key: str, name: str, file: str) -> pa.ChunkedArray:
    key_value = pa.scalar(key, column.type.key_type)
    every = pc.map_lookup(column, query_key=key_value, occurrence="all")
    lengths = pc.max(pc.list_value_length(every)).as_py()
    if lengths is not None and lengths > 1:
        raise DataError(f"{file}: a row of '{name}' has the key '{key}' twice", "leave one of them")
    return pc.map_lookup(column, query_key=key_value, occurrence="first")


def fields_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of JSON with the fields of its objects by their dotted names; an object without fields is nothing.

    Raises:
        ValueError: two of them have one name.
    """
    fields: dict[str, Any] = {}
    pending: list[tuple[str, Any]] = list(row.items())[::-1]
    while pending:
        name, value = pending.pop()
        if isinstance(value, dict):
            pending += [(f"{name}.{inner}", each) for inner, each in list(value.items())[::-1]]
        elif name in fields:
            raise ValueError(f"names the field '{name}' twice")
        else:
            fields[name] = value
    return fields
