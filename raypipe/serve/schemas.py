"""JSON Schemas (2020-12) and examples of what a model reads and answers, for the reference page and OpenAPI.

They say as exactly as a schema can what checker.py takes, so that a body which breaks them is refused and one that
keeps them is answered; only the transforms of the model may refuse more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raypipe.data.table import fits
from raypipe.data.transforms.taken import Taken
from raypipe.records import Column, Signature

Schema = dict[str, Any]

MAX_LISTED = 200
"""More allowed values than this are not listed one by one."""

PICTURE_TEXT = {
    "type": "string",
    "contentEncoding": "base64",
    "description": "a PNG or JPEG file in base64, or as a data URL",
    "pattern": "^(data:image/(png|jpeg);base64,)?[A-Za-z0-9+/]{16,}={0,2}$",
}


@dataclass(frozen=True)
class Notes:
    """What a signature does not tell about the inputs of a model.

    Attributes:
        max_rows: most rows of one request.
        pictures: columns that also take a picture file as text.
        taken: what the transforms of a column take, where they tell.
    """

    max_rows: int | None = None
    pictures: frozenset[str] = frozenset()
    taken: Mapping[str, Taken] = field(default_factory=dict)


NO_NOTES = Notes()


def value_schema(column: Column, signature: Signature, notes: Notes = NO_NOTES) -> Schema:
    """One value of a column, in every form that is taken."""
    if not column.shape:
        return _scalar(column, signature.null_words, notes.taken.get(column.name))
    item = _scalar(column, frozenset(), None)
    nested = item
    for size in reversed(column.shape):
        nested = {"type": "array", "items": nested, "minItems": size, "maxItems": size}
    forms = [nested]
    if len(column.shape) > 1:
        size = math.prod(column.shape)
        forms.append({"type": "array", "items": item, "minItems": size, "maxItems": size})
    if column.name in notes.pictures:
        forms += [PICTURE_TEXT, closed_object(b64=PICTURE_TEXT)]
    return nested if len(forms) == 1 else {"anyOf": forms}


def fields_schema(signature: Signature, notes: Notes = NO_NOTES) -> Schema:
    """One row as an object {field: value}."""
    return {
        "type": "object",
        "properties": {c.name: value_schema(c, signature, notes) for c in signature.inputs},
        "required": [column.name for column in signature.inputs],
        "additionalProperties": signature.extra_columns == "ignore",
    }


def row_schema(signature: Signature, notes: Notes = NO_NOTES) -> Schema:
    """One row: an object, a list in the signature's order, or the bare value of a single input."""
    values = [value_schema(column, signature, notes) for column in signature.inputs]
    if len(values) == 1:
        return {"anyOf": [fields_schema(signature, notes), values[0]]}
    in_order = {"type": "array", "prefixItems": values, "minItems": len(values), "maxItems": len(values)}
    return {"anyOf": [fields_schema(signature, notes), in_order]}


def rows_schema(signature: Signature, notes: Notes = NO_NOTES) -> Schema:
    """The rows of a request."""
    return _list_of(row_schema(signature, notes), notes)


def columns_schema(signature: Signature, notes: Notes = NO_NOTES) -> Schema:
    """The rows of a request column by column: {field: [value, ...]}, or the bare list of a single input."""
    columns = {c.name: _list_of(value_schema(c, signature, notes), notes) for c in signature.inputs}
    by_name = {
        "type": "object",
        "properties": columns,
        "required": list(columns),
        "additionalProperties": signature.extra_columns == "ignore",
    }
    return {"anyOf": [by_name, *columns.values()]} if len(columns) == 1 else by_name


def answer_schema(signature: Signature) -> Schema:
    """The answer for one row: a number, or a label with all probabilities in class order."""
    if signature.classes is None:
        return {"type": "number"}
    probability = {"type": "number", "minimum": 0, "maximum": 1}
    num = len(signature.classes)
    return closed_object(
        label={"enum": list(signature.classes)},
        probability=probability,
        probabilities={"type": "array", "items": probability, "minItems": num, "maxItems": num},
    )


def answers_schema(signature: Signature) -> Schema:
    """The answers of a request, one a row."""
    return {"type": "array", "items": answer_schema(signature), "minItems": 1}


def closed_object(**properties: Schema) -> Schema:
    """An object that has these properties and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def one_of_names(names: Sequence[str], value: Schema) -> Schema:
    """An object with exactly one of these properties; others are not looked at."""
    return {
        "type": "object",
        "properties": {name: value for name in names},
        "oneOf": [{"required": [name]} for name in names],
    }


def example_row(signature: Signature, notes: Notes = NO_NOTES) -> dict[str, Any]:
    """A row that the checker takes; whether the transforms do, only trying tells."""
    return {column.name: _example(column, notes.taken.get(column.name)) for column in signature.inputs}


def instances_example(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A body of this one row, where there is one."""
    return None if row is None else {"instances": [row]}


def columns_example(row: Mapping[str, Any] | None, name: str) -> dict[str, Any] | None:
    """A body that holds the row column by column under `name`, where there is one."""
    return None if row is None else {name: {field: [value] for field, value in row.items()}}


def _list_of(item: Schema, notes: Notes) -> Schema:
    most = {} if notes.max_rows is None else {"maxItems": notes.max_rows}
    return {"type": "array", "items": item, "minItems": 1, **most}


def _scalar(column: Column, null_words: frozenset[str], taken: Taken | None) -> Schema:
    """One number, text or boolean; null and the words for it where a value may be missing."""
    words = sorted(null_words)
    if taken is not None and 0 < len(taken.only) <= MAX_LISTED:
        nothing = [None, *words] if column.nullable else []
        return {"enum": [*(value for value in taken.only if value not in null_words), *nothing]}
    schema = _of_dtype(column.dtype)
    if column.nullable:
        return {"anyOf": [schema, {"enum": [None, *words]}]}
    if words and column.dtype == "string":
        return {**schema, "not": {"enum": words}}
    return schema


def _of_dtype(dtype: str) -> Schema:
    if dtype == "string":
        return {"type": "string"}
    if dtype == "bool":
        return {"type": "boolean"}
    if dtype == "float64":  # what becomes of it in float32 is for the transforms to say, which may scale it before
        return {"type": "number"}
    low, high = fits.limits(dtype)
    if dtype.startswith("float"):
        return {"type": "number", "minimum": low, "maximum": high}
    return {"type": "integer", "minimum": low, "maximum": high}


def _example(column: Column, taken: Taken | None) -> Any:
    value: Any = {"string": "text", "bool": True}.get(column.dtype, 1)
    if taken is not None:
        value = taken.example
    if column.dtype.startswith("float"):
        value = float(value)
    for size in reversed(column.shape):
        value = [value] * size
    return value
