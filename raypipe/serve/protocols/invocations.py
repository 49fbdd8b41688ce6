"""What SageMaker asks of a container and MLflow's scoring server answers: GET /ping, POST /invocations.

JSON holds exactly one of `dataframe_split`, `dataframe_records`, `instances` (rows) and `inputs` (columns); CSV is
read and answered as csv_rows.py says. AWS's runtime client, pointed here, asks at /endpoints/MODEL/invocations.
Sources: https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally,
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

from __future__ import annotations

import importlib.metadata
import json
from typing import Any

from raypipe.errors import RequestError
from raypipe.model.predictions import Predictions
from raypipe.serve import csv_rows, schemas
from raypipe.serve.checker import Columns
from raypipe.serve.protocols.base import (
    JSON,
    Ask,
    Call,
    Protocol,
    Reply,
    Route,
    in_one_line,
    may_hold_booleans,
    to_json,
)
from raypipe.serve.schema import check_row_count, example_of, first_repeated, kind_of, shown

CSV = "text/csv"

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")

ERROR_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "ENDPOINT_NOT_FOUND",
    413: "REQUEST_LIMIT_EXCEEDED",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""HTTP status -> MLflow's word for it; all others are a BAD_REQUEST."""


class Invocations(Protocol):
    """What clients of MLflow and SageMaker speak."""

    prefixes = ("/invocations", "/endpoints/", "/ping", "/version")

    def routes(self) -> list[Route]:
        request, response = (
            self._request_schema(),
            schemas.closed_object(predictions=schemas.answers_schema(self.signature)),
        )
        asked = [
            Route(
                "POST",
                path,
                self.predict,
                accepts=(JSON, CSV),
                summary="Predict rows: a dataframe, instances, inputs, or CSV.",
                request=request,
                response=response,
                example=self.rows_example(),
                answers=(JSON, CSV),
            )
            for path in ("/invocations", f"/endpoints/{self.model.model}/invocations")
        ]
        healthy = schemas.closed_object(status={"const": "Healthy"})
        return [
            *asked,
            *(
                Route("GET", path, self.ping, scope="open", summary="Whether this replica answers.", response=healthy)
                for path in ("/ping", "/health")
            ),
            Route("GET", "/version", self.version, summary="The version of raypipe.", answers=("text/plain",)),
        ]

    def ping(self, call: Call) -> Reply:
        """This replica answers; the same document as TorchServe's."""
        return Reply(b'{"status":"Healthy"}')

    def version(self, call: Call) -> Reply:
        """Of the server, as MLflow's tells its own."""
        return Reply(importlib.metadata.version("raypipe").encode(), media_type="text/plain")

    def predict(self, call: Call) -> Ask:
        """Rows in any of the forms; the answer is JSON, or CSV where the client prefers it."""
        render = self.render_csv if wanted(call.headers.get(b"accept", b"")) == CSV else self.render
        if call.media_type() == CSV:
            columns, num_rows = csv_rows.read(call.body, self.signature, self.checker)
        else:
            columns, num_rows = self._of_json(call)
        return Ask(columns, num_rows, render)

    def render(self, predictions: Predictions) -> Reply:
        """{"predictions": [...]}."""
        return Reply(to_json({"predictions": self.task.json_rows(predictions.values)}))

    def render_csv(self, predictions: Predictions) -> Reply:
        """One line a row."""
        return Reply(csv_rows.written(predictions, self.task), media_type=CSV)

    def refuse(self, error: RequestError) -> Reply:
        """{"error_code": word, "message": text}, which AWS's clients read too."""
        document = {"error_code": ERROR_CODES.get(error.status, "BAD_REQUEST"), "message": in_one_line(error)}
        return Reply(json.dumps(document).encode(), error.status)

    def _of_json(self, call: Call) -> tuple[Columns, int]:
        request = self.json_object(call.body, example_of(self.signature))
        given = [name for name in FORMS if name in request]
        if len(given) != 1:
            found = " and ".join(given) or ", ".join(sorted(request))[:80] or "an empty object"
            raise RequestError(
                f"the body must hold exactly one of {', '.join(FORMS)}; found {found}", example_of(self.signature)
            )
        if request.get("params") not in (None, {}):
            raise RequestError(
                f"'params' are not read here; found {kind_of(request['params'])}",
                "the model takes none: leave them out",
            )
        form, sent = given[0], request[given[0]]
        booleans = may_hold_booleans(call.body)
        is_matrix = form == "inputs" and isinstance(sent, list) and len(self.signature.inputs) > 1
        if form == "dataframe_split":
            columns = self._of_split(sent, booleans)
        elif form == "inputs" and not is_matrix:
            columns = self.checker.columns(sent, booleans=booleans)
        else:
            columns = self.checker.rows(sent, booleans=booleans)
        return columns, len(next(iter(columns.values())))

    def _of_split(self, frame: Any, booleans: bool) -> Columns:
        """A DataFrame as pandas' to_dict(orient="split") has it: `columns`, `data` by row, and an index, unread."""
        if not isinstance(frame, dict) or not isinstance(frame.get("data"), list):
            found = kind_of(frame) if not isinstance(frame, dict) else f"'data' {kind_of(frame.get('data'))}"
            raise RequestError(
                f"'dataframe_split' must be an object with 'columns' and a list 'data'; found {found}",
                example_of(self.signature),
            )
        extra = sorted(set(frame) - {"columns", "data", "index"})
        if extra:
            raise RequestError(f"'dataframe_split' holds 'columns', 'index' and 'data'; found {shown(extra[0])}")
        names, rows = frame.get("columns"), frame["data"]
        check_row_count(len(rows), self.signature, self.checker.max_rows)
        if names is None or (isinstance(names, list) and names == list(range(len(names)))):
            return self.checker.rows(rows, booleans=booleans)  # pandas numbers columns that have no names
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise RequestError(
                "'columns' of 'dataframe_split' must be a list of field names", example_of(self.signature)
            )
        twice = first_repeated(names)
        if twice is not None:
            raise RequestError(f"'columns' of 'dataframe_split' names {shown(twice)} twice", "name each field once")
        for row, values in enumerate(rows):
            if not isinstance(values, list) or len(values) != len(names):
                raise RequestError(
                    f"row {row}: found {kind_of(values)}; expected a list of {len(names)} values, one a column",
                    "send one list a row in 'data'",
                )
        by_column = [list(values) for values in zip(*rows, strict=True)]
        return self.checker.columns(dict(zip(names, by_column, strict=True)), booleans=booleans)

    def _request_schema(self) -> schemas.Schema:
        rows = schemas.rows_schema(self.signature, self.served.notes)
        columns = schemas.columns_schema(self.signature, self.served.notes)
        in_order = {"items": rows["items"]["anyOf"][1]}
        split = {
            "type": "object",
            "properties": {
                "columns": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
                "data": {"type": "array", "items": {"type": "array"}, "minItems": 1},
                "index": {},
            },
            "required": ["data"],
            "additionalProperties": False,
        }
        inputs = columns if len(self.signature.inputs) == 1 else {"anyOf": [columns, {**rows, **in_order}]}
        return {
            "type": "object",
            "properties": {
                "dataframe_split": split,
                "dataframe_records": rows,
                "instances": rows,
                "inputs": inputs,
                "params": {"enum": [None, {}]},
            },
            "oneOf": [{"required": [name]} for name in FORMS],
        }


def wanted(accept: bytes) -> str:
    """The media type of an answer that a client prefers.

    Args:
        accept: the header, e.g. `text/csv, application/json;q=0.5`; empty: anything will do.
    Raises:
        RequestError: 406, it takes none that is written here.
    """
    best, best_quality = "", 0.0
    for part in accept[:1000].decode("latin-1").lower().split(",") if accept.strip() else ["*/*"]:
        kind, *parameters = (word.strip() for word in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        named = {"*/*": JSON, "application/*": JSON, JSON: JSON, "text/*": CSV, CSV: CSV}.get(kind)
        if named is not None and quality > best_quality:
            best, best_quality = named, quality
    if not best:
        raise RequestError(
            f"the header 'accept: {shown(accept.decode('latin-1'))}' names no type that is answered here",
            f"accept {JSON} or {CSV}",
            status=406,
        )
    return best
