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
from raypipe.model.tasks import OutputColumn, task_of
from raypipe.records import Column, Signature
from raypipe.serve.schema import objects_within, path_of

Schema = dict[str, Any]

NESTED_FORMATS = ("jsonl", "parquet", "arrow")
"""Of files whose fields may stand in objects."""

MAX_LISTED = 200
"""More allowed values than this are not listed one by one."""

PICTURE_TEXT = {
    "type": "string",
    "contentEncoding": "base64",
    "description": "a PNG, JPEG, WebP, GIF or TIFF file in base64, or as a data URL",
    "pattern": "^(data:image/(png|jpeg|webp|gif|tiff);base64,)?[A-Za-z0-9+/]{16,}={0,2}$",
}

RECORDING_TEXT = {
    "type": "string",
    "contentEncoding": "base64",
    "description": "a WAV, FLAC, OGG or MP3 file in base64, or as a data URL",
    "pattern": "^(data:audio/(x-)?(wav|wave|vnd.wave|flac|ogg|mpeg|mp3);base64,)?[A-Za-z0-9+/]{16,}={0,2}$",
}


@dataclass(frozen=True)
class Notes:
    """What a signature does not tell about the inputs of a model.

    Attributes:
        max_rows: most rows of one request.
        pictures, recordings: columns that also take such a file as text.
        taken: what the transforms of a column take, where they tell.
    """

    max_rows: int | None = None
    pictures: frozenset[str] = frozenset()
    recordings: frozenset[str] = frozenset()
    taken: Mapping[str, Taken] = field(default_factory=dict)

    @property
    def files(self) -> frozenset[str]:
        """Columns of files."""
        return self.pictures | self.recordings


NO_NOTES = Notes()


def value_schema(column: Column, signature: Signature, notes: Notes = NO_NOTES) -> Schema:
    """One value of a column, in every form that is taken."""
    if column.is_list:
        return {"type": "array", "items": {"type": "string"}}
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
    if column.name in notes.files:
        text = file_text(column, notes)
        forms += [text, closed_object(b64=text)]
    return nested if len(forms) == 1 else {"anyOf": forms}


def file_text(column: Column, notes: Notes) -> Schema:
    """A file in place of the numbers of a column of files."""
    return PICTURE_TEXT if column.name in notes.pictures else RECORDING_TEXT


def fields_schema(signature: Signature, notes: Notes = NO_NOTES) -> Schema:
    """One row as an object {field: value}."""
    return _named({c.name: value_schema(c, signature, notes) for c in signature.inputs}, signature)


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
    by_name = _named(columns, signature)
    return {"anyOf": [by_name, *columns.values()]} if len(columns) == 1 else by_name


def _named(values: Mapping[str, Schema], signature: Signature) -> Schema:
    """An object of the model's fields, by their names or in objects: `user.age` is the `age` of `user`."""
    others = signature.extra_columns == "ignore"
    within = objects_within(signature)
    paths = {name: path_of(name, within) for name in values}
    in_objects = [name for name, path in paths.items() if len(path) > 1]
    outer = {paths[name][0]: False for name in in_objects}
    flat = _object({**values, **outer}, list(values), others)
    if not within:
        return flat
    nested = _nested({paths[name]: value for name, value in values.items()}, others)
    nested["properties"] |= dict.fromkeys(in_objects, False)
    return {"anyOf": [flat, nested]}


def _nested(values: Mapping[tuple[str, ...], Schema], others: bool) -> Schema:
    """Fields by the path to each."""
    properties: dict[str, Schema] = {}
    for first in dict.fromkeys(path[0] for path in values):
        inner = {path[1:]: value for path, value in values.items() if path[0] == first}
        properties[first] = inner[()] if () in inner else _nested(inner, others)
    return _object(properties, list(properties), others)


def _object(properties: Mapping[str, Any], required: Sequence[str], others: bool) -> Schema:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": others,
    }


def answer_schema(signature: Signature) -> Schema:
    """The answer for one row: a bare number, several by name, or a label or labels with all probabilities in class
    order."""
    columns = {column.name: _output_schema(column) for column in task_of(signature).columns}
    return next(iter(columns.values())) if len(columns) == 1 else closed_object(**columns)


def _output_schema(column: OutputColumn) -> Schema:
    if column.labels:
        label: Schema = {"enum": list(column.labels)}
        return {"type": "array", "items": label, "uniqueItems": True} if column.is_set else label
    schema: Schema = {"type": "string" if column.dtype == "string" else "number"}
    if column.is_probability:
        schema |= {"minimum": 0, "maximum": 1}
    for size in reversed(column.shape):
        schema = {"type": "array", "items": schema, "minItems": size, "maxItems": size}
    return schema


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
    """Column -> a value that the checker takes; whether the transforms do, only trying tells."""
    return {column.name: _example(column, notes.taken.get(column.name)) for column in signature.inputs}


def as_in_files(row: Mapping[str, Any], signature: Signature) -> dict[str, Any]:
    """A row with its fields in objects, where they stood in such in the files."""
    is_nested = signature.reading is not None and signature.reading.format in NESTED_FORMATS
    within = objects_within(signature) if is_nested else {}
    nested: dict[str, Any] = {}
    for name, value in row.items():
        *outer, last = path_of(name, within)
        place = nested
        for each in outer:
            place = place.setdefault(each, {})
        place[last] = value
    return nested


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
    if column.is_list:
        return [value]
    if column.dtype.startswith("float"):
        value = float(value)
    for size in reversed(column.shape):
        value = [value] * size
    return value
