"""TensorFlow Serving's REST API, which KServe v1 and Vertex AI share: POST /v1/models/NAME[/versions/N]:predict.

Rows under `instances` are answered with `predictions`, columns under `inputs` with `outputs`. A picture may stand as
{"b64": text}. One document tells TensorFlow Serving's clients the state of the model and KServe's that it is ready.
Sources: https://www.tensorflow.org/tfx/serving/api_rest, https://kserve.github.io/website (V1 protocol)
"""

from __future__ import annotations

import json
from typing import Any

from raypipe.errors import RequestError
from raypipe.model.predictions import Predictions
from raypipe.records import Column
from raypipe.serve import schemas
from raypipe.serve.base64_files import unwrapped
from raypipe.serve.protocols.base import (
    JSON,
    Ask,
    Call,
    Protocol,
    Reply,
    Route,
    Served,
    in_one_line,
    may_hold_booleans,
    to_json,
)
from raypipe.serve.schema import example_of, kind_of, shown
from raypipe.serve.sent_files import only_file_column

SIGNATURE_NAME = "serving_default"
"""The only signature a model has here; clients may name it."""

FORMS = ("instances", "inputs")

DTYPES = {"float32": "DT_FLOAT", "float64": "DT_DOUBLE", "bool": "DT_BOOL", "string": "DT_STRING"}
"""Of TensorFlow's types; integers are named alike: DT_UINT8."""


class TensorFlowServing(Protocol):
    """What TensorFlow Serving's clients speak."""

    prefixes = ("/v1/",)

    def __init__(self, served: Served) -> None:
        super().__init__(served)
        self._takes_bare_file = only_file_column(self.signature, served.notes.files) is not None

    def routes(self) -> list[Route]:
        base = f"/v1/models/{self.model.model}"
        names = {"type": "array", "items": {"const": self.model.model}, "minItems": 1}
        listed = Route(
            "GET",
            "/v1/models",
            self.models,
            summary="The models that answer here.",
            response=schemas.closed_object(models=names),
        )
        versions = (base, f"{base}/versions/{self.model.version}")
        return [listed, *(route for path in versions for route in self._routes_of(path))]

    def _routes_of(self, path: str) -> tuple[Route, ...]:
        anything = {"type": "object"}
        return (
            Route(
                "POST",
                f"{path}:predict",
                self.predict,
                accepts=(JSON,),
                summary="Predict rows (instances) or columns (inputs).",
                request=self._request_schema(),
                response=self._answer_schema(),
                example=self.rows_example(),
            ),
            Route(
                "GET",
                path,
                self.status,
                summary="Which version answers, and that it is ready.",
                response=schemas.closed_object(
                    name={"const": self.model.model},
                    ready={"const": True},
                    model_version_status={"type": "array", "items": anything, "minItems": 1, "maxItems": 1},
                ),
            ),
            Route(
                "GET",
                f"{path}/metadata",
                self.metadata,
                summary="Names, types and shapes of inputs and outputs.",
                response=schemas.closed_object(model_spec=anything, metadata=anything),
            ),
        )

    def models(self, call: Call) -> Reply:
        """The only model, as KServe lists models."""
        return Reply(to_json({"models": [self.model.model]}))

    def status(self, call: Call) -> Reply:
        """The state of the only version."""
        state = {
            "version": str(self.model.version),
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
        return Reply(to_json({"name": self.model.model, "ready": True, "model_version_status": [state]}))

    def metadata(self, call: Call) -> Reply:
        """Inputs and outputs, as TensorFlow Serving describes a SignatureDef."""
        described = {
            "inputs": {column.name: _tensor(column) for column in self.signature.inputs},
            "outputs": {column.name: _tensor(column) for column in self._outputs()},
            "method_name": "tensorflow/serving/predict",
        }
        spec = {"name": self.model.model, "signature_name": "", "version": str(self.model.version)}
        signatures = {"signature_def": {SIGNATURE_NAME: described}}
        return Reply(to_json({"model_spec": spec, "metadata": {"signature_def": signatures}}))

    def predict(self, call: Call) -> Ask:
        """Rows under `instances`, or columns under `inputs`."""
        request = self.json_object(call.body, example_of(self.signature))
        self._check_names(request)
        booleans = may_hold_booleans(call.body)
        if "inputs" in request:
            columns = self.checker.columns(request["inputs"], booleans=booleans)
            return Ask(columns, len(next(iter(columns.values()))), self.render_columns)
        rows = request["instances"]
        if self._takes_bare_file and isinstance(rows, list) and len(rows) <= self.checker.max_rows:
            rows = [unwrapped(row) for row in rows]
        return Ask(self.checker.rows(rows, booleans=booleans), len(rows), self.render)

    def render(self, predictions: Predictions) -> Reply:
        """One answer a row."""
        return Reply(to_json({"predictions": self.task.json_rows(predictions.values)}))

    def render_columns(self, predictions: Predictions) -> Reply:
        """One list an output, by name where there are several."""
        outputs = self.task.answers(predictions.values)
        (first, *others) = outputs.values()
        return Reply(to_json({"outputs": outputs if others else first}))

    def refuse(self, error: RequestError) -> Reply:
        """{"error": text}."""
        return Reply(json.dumps({"error": in_one_line(error)}).encode(), error.status)

    def _check_names(self, request: dict[str, Any]) -> None:
        named = request.get("signature_name", SIGNATURE_NAME)
        if named not in (SIGNATURE_NAME, "", None):
            raise RequestError(f"'signature_name' must be '{SIGNATURE_NAME}'; found {shown(named)}", "leave it out")
        if request.get("parameters") not in (None, {}):
            raise RequestError(
                f"'parameters' are not read here; found {kind_of(request['parameters'])}",
                "the model takes none: leave them out",
            )
        given = [name for name in FORMS if name in request]
        if len(given) != 1:
            found = "both" if given else ", ".join(sorted(request))[:80] or "an empty object"
            raise RequestError(
                f"the body must hold either 'instances' (rows) or 'inputs' (columns); found {found}",
                example_of(self.signature),
            )

    def _outputs(self) -> list[Column]:
        columns = self.task.columns
        if len(columns) == 1:
            return [Column(name="outputs", dtype=columns[0].dtype, shape=columns[0].shape)]
        return [Column(name=c.name, dtype=c.dtype, shape=(-1,) if c.is_set else c.shape) for c in columns]

    def _request_schema(self) -> schemas.Schema:
        rows = schemas.rows_schema(self.signature, self.served.notes)
        if self._takes_bare_file:
            text = schemas.file_text(self.signature.inputs[0], self.served.notes)
            rows["items"]["anyOf"].append(schemas.closed_object(b64=text))
        columns = schemas.columns_schema(self.signature, self.served.notes)
        return {
            "type": "object",
            "properties": {
                "instances": rows,
                "inputs": columns,
                "signature_name": {"enum": [SIGNATURE_NAME, "", None]},
                "parameters": {"enum": [None, {}]},
            },
            "oneOf": [{"required": [name]} for name in FORMS],
        }

    def _answer_schema(self) -> schemas.Schema:
        by_row = schemas.closed_object(predictions=schemas.answers_schema(self.signature))
        answer = schemas.answer_schema(self.signature)
        if len(self.task.columns) == 1:
            outputs: schemas.Schema = {"type": "array", "items": answer, "minItems": 1}
        else:
            outputs = schemas.closed_object(
                **{name: {"type": "array", "items": each} for name, each in answer["properties"].items()}
            )
        return {"anyOf": [by_row, schemas.closed_object(outputs=outputs)]}


def _tensor(column: Column) -> dict[str, Any]:
    """As a TensorInfo in JSON; -1 is the axis of the rows."""
    dims = [{"size": str(size), "name": ""} for size in (-1, *column.shape)]
    dtype = DTYPES.get(column.dtype, f"DT_{column.dtype.upper()}")
    return {"dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": column.name}
