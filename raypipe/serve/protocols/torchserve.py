"""TorchServe's inference API: GET /ping, POST (or PUT, as `curl -T` sends it) /predictions/NAME[/VERSION].

A body is JSON rows, bare or under `instances`, or the bytes of a picture or recording where the model reads such.
Source: https://pytorch.org/serve/inference_api.html
"""

from __future__ import annotations

import json

from raypipe.errors import RequestError
from raypipe.model.predictions import Predictions
from raypipe.serve import schemas, sent_files
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
from raypipe.serve.schema import example_of, kind_of

ERROR_TYPES = {
    400: "BadRequestException",
    404: "ResourceNotFoundException",
    405: "MethodNotAllowedException",
    408: "RequestTimeoutException",
    413: "RequestEntityTooLargeException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
    504: "RequestTimeoutException",
}
"""HTTP status -> the class of error that TorchServe names; all others are a BadRequestException."""


class TorchServe(Protocol):
    """What TorchServe's clients speak."""

    prefixes = ("/predictions/",)

    def __init__(self, served: Served) -> None:
        super().__init__(served)
        self._file = sent_files.only_file_column(self.signature, served.notes.files)

    def routes(self) -> list[Route]:
        rows = schemas.rows_schema(self.signature, self.served.notes)
        named = {"type": "object", "properties": {"instances": rows}, "required": ["instances"]}
        base = f"/predictions/{self.model.model}"
        asked = [
            Route(
                method,
                path,
                self.predict,
                accepts=(JSON, *(sent_files.MEDIA_TYPES if self._file is not None else ())),
                summary="Predict rows, or one picture or recording that is the body.",
                request={"anyOf": [named, rows]},
                response=schemas.closed_object(predictions=schemas.answers_schema(self.signature)),
                example=self.rows_example(),
            )
            for path in (base, f"{base}/{self.model.version}")
            for method in ("POST", "PUT")
        ]
        healthy = schemas.closed_object(status={"const": "Healthy"})
        summary = "Whether this replica answers."
        return [*asked, Route("GET", "/ping", self.ping, scope="open", summary=summary, response=healthy)]

    def ping(self, call: Call) -> Reply:
        """This replica answers."""
        return Reply(b'{"status":"Healthy"}')

    def predict(self, call: Call) -> Ask:
        """JSON rows, or the bytes of one file."""
        if self._file is not None and self._is_file(call):
            return Ask(self.checker.rows([call.body]), 1, self.render)
        hint = example_of(self.signature)
        request = self.json_value(call.body, hint)
        rows = request.get("instances") if isinstance(request, dict) else request
        if not isinstance(rows, list):
            found = f"an object with {', '.join(sorted(request))[:80]}" if isinstance(request, dict) else kind_of(rows)
            raise RequestError(f"the body must be a list of rows, or hold one in 'instances'; found {found}", hint)
        return Ask(self.checker.rows(rows, booleans=may_hold_booleans(call.body)), len(rows), self.render)

    def _is_file(self, call: Call) -> bool:
        """By what the client says, or by how the body begins: `curl -T` says nothing."""
        return call.media_type() in sent_files.MEDIA_TYPES or sent_files.looks_like_file(call.body)

    def render(self, predictions: Predictions) -> Reply:
        """{"predictions": [...]}."""
        return Reply(to_json({"predictions": self.task.json_rows(predictions.values)}))

    def refuse(self, error: RequestError) -> Reply:
        """{"code": status, "type": class of error, "message": text}."""
        kind = ERROR_TYPES.get(error.status, ERROR_TYPES[400])
        document = {"code": error.status, "type": kind, "message": in_one_line(error)}
        return Reply(json.dumps(document).encode(), error.status)
