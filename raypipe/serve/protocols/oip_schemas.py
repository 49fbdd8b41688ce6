"""JSON Schemas and an example of the Open Inference Protocol's bodies, for the reference page and OpenAPI.

That a tensor's data are as many as its shape says, and of its datatype, no schema can say; the endpoint refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from raypipe.data.table import text_lists
from raypipe.records import Column, Signature
from raypipe.serve.protocols.model_tensors import ModelTensors, datatype_of_column
from raypipe.serve.protocols.tensors import DATATYPES, MAX_DIM, MAX_DIMS, TEXT

Schema = dict[str, Any]

TEXT_SCHEMA = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT_SCHEMA}

PARAMETERS = {
    "type": ["object", "null"],
    "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
    "description": "binary_data_size of an input, binary_data of an output, binary_data_output of the request",
}


def _closed(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


LIVE = _closed(live={"const": True})
READY = _closed(ready={"const": True})
MODEL_READY = _closed(name=TEXT_SCHEMA, ready={"const": True})
SERVER = _closed(name=TEXT_SCHEMA, version=TEXT_SCHEMA, extensions=TEXTS)
INDEX_REQUEST = {"type": "object", "properties": {"ready": {"type": "boolean"}}}


def index(name: str, version: int) -> Schema:
    """Of the repository's list."""
    row = _closed(name={"const": name}, version={"const": str(version)}, state={"const": "READY"}, reason={"const": ""})
    return {"type": "array", "items": row, "minItems": 1, "maxItems": 1}


def metadata(model: ModelTensors) -> Schema:
    """Of a model's metadata."""
    inputs, outputs = ({"const": tensors} for tensors in (model.inputs(), model.outputs()))
    return _closed(name=TEXT_SCHEMA, versions=TEXTS, platform=TEXT_SCHEMA, inputs=inputs, outputs=outputs)


def request(model: ModelTensors) -> Schema:
    """Of a request without binary data."""
    size = {"type": "integer", "minimum": 0, "maximum": MAX_DIM}
    tensor = {
        "type": "object",
        "properties": {
            "name": TEXT_SCHEMA,
            "datatype": {"enum": list(DATATYPES)},
            "shape": {"type": "array", "items": size, "minItems": 1, "maxItems": MAX_DIMS},
            "parameters": PARAMETERS,
            "data": {"type": "array", "description": "row-major, flat or nested as 'shape' says"},
        },
        "required": ["name", "datatype", "shape", "data"],
    }
    output = {
        "type": "object",
        "properties": {"name": {"enum": model.output_names}, "parameters": PARAMETERS},
        "required": ["name"],
    }
    needed = [{"contains": {"properties": {"name": {"const": name}}}} for name in model.input_names]
    return {
        "type": "object",
        "properties": {
            "id": {"type": ["string", "null"]},
            "parameters": PARAMETERS,
            "inputs": {"type": "array", "items": tensor, "minItems": len(needed), "allOf": needed},
            "outputs": {"type": ["array", "null"], "items": output, "maxItems": len(model.output_names)},
        },
        "required": ["inputs"],
    }


def response(model: ModelTensors) -> Schema:
    """Of an answer in JSON; outputs that are asked for as binary data have their size and no data there."""
    outputs = []
    for tensor in model.outputs():
        num_dims = len(tensor["shape"])
        sizes = {"type": "array", "items": {"type": "integer", "minimum": 1}}
        outputs.append(
            {
                **_closed(
                    name={"const": tensor["name"]},
                    datatype={"const": tensor["datatype"]},
                    shape={**sizes, "minItems": num_dims, "maxItems": num_dims},
                    data={"type": "array", "items": _item(tensor["datatype"]), "minItems": 1},
                ),
            }
        )
    document = _closed(
        model_name=TEXT_SCHEMA,
        model_version=TEXT_SCHEMA,
        outputs={"type": "array", "items": {"anyOf": outputs}, "minItems": 1},
    )
    document["properties"]["id"] = TEXT_SCHEMA
    return document


def example(signature: Signature, row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A request of one row.

    Args:
        row: column -> its value, nested as its shape says; None: no row is known, and there is no example.
    """
    if row is None:
        return None
    inputs = [
        {
            "name": column.name,
            "datatype": datatype_of_column(column),
            "shape": [1, *column.shape],
            "data": _data(column, row[column.name]),
        }
        for column in signature.inputs
    ]
    return {"inputs": inputs}


def _data(column: Column, value: Any) -> list[Any]:
    """The data of a tensor of one row."""
    if column.is_list:
        return [text_lists.written(value)]
    return np.array(value, object).ravel().tolist()


def _item(datatype: str) -> Schema:
    if datatype == TEXT:
        return TEXT_SCHEMA
    if datatype == "BOOL":
        return {"type": "boolean"}
    return {"type": "integer" if "INT" in datatype else "number"}
