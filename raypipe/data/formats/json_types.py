"""Types that Arrow is told before it reads JSON: those a user declares, and text for what would be taken for a date."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa


def declared(dtypes: Mapping[str, pa.DataType], data: bytes) -> dict[str, pa.DataType]:
    """Types of fields by dotted name as types of the columns that Arrow sees: `user.age` is in `user`, or stands so."""
    types: dict[str, pa.DataType] = {}
    for name, wanted in dtypes.items():
        first, dot, rest = name.partition(".")
        if not dot or f'"{name}"'.encode() in data:
            types[name] = wanted
        else:
            types = merged(types, {first: _within(rest, wanted)})
    return types


def texts_for_dates(schema: pa.Schema) -> dict[str, pa.DataType]:
    """The columns that hold dates -> their types with text in the place of those, and nothing else."""
    found = {field.name: _text_for_dates(field.type) for field in schema}
    return {name: wanted for name, wanted in found.items() if wanted is not None}


def merged(one: Mapping[str, pa.DataType], other: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
    """All types, the fields of structs together; where both tell, the second."""
    return {**one, **{name: _merged(one[name], wanted) if name in one else wanted for name, wanted in other.items()}}


def _merged(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if not (pa.types.is_struct(one) and pa.types.is_struct(other)):
        return other
    fields = [{field.name: field.type for field in each} for each in (one, other)]
    return pa.struct(list(merged(*fields).items()))


def _within(path: str, wanted: pa.DataType) -> pa.DataType:
    first, dot, rest = path.partition(".")
    return pa.struct([(first, _within(rest, wanted) if dot else wanted)])


def _text_for_dates(column_type: pa.DataType) -> pa.DataType | None:
    if pa.types.is_temporal(column_type):
        return pa.string()
    if pa.types.is_list(column_type):
        inner = _text_for_dates(column_type.value_type)
        return None if inner is None else pa.list_(inner)
    if pa.types.is_struct(column_type):
        fields = {field.name: _text_for_dates(field.type) for field in column_type}
        changed = [(name, wanted) for name, wanted in fields.items() if wanted is not None]
        return pa.struct(changed) if changed else None
    return None
