"""TensorFlow Serving's REST API, which KServe v1 and Vertex AI share: POST /v1/models/NAME[/versions/N]:predict.

Source: https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

from raypipe.errors import RequestError
from raypipe.model.predictions import Predictions
from raypipe.serve.protocols.base import (
    JSON,
    Ask,
    Call,
    Protocol,
    Reply,
    Route,
    answer_rows,
    json_object,
    may_hold_booleans,
    to_json,
)
from raypipe.serve.schema import example_of

SIGNATURE_NAME = "serving_default"
"""The only signature a model has here; clients may name it."""


class TensorFlowServing(Protocol):
    """What TensorFlow Serving's clients speak."""

    prefixes = ("/v1/",)

    def routes(self) -> list[Route]:
        base = f"/v1/models/{self.model.model}"
        return [
            route
            for path in (base, f"{base}/versions/{self.model.version}")
            for route in (
                Route("POST", f"{path}:predict", self.predict, accepts=(JSON,), summary="Predict rows."),
                Route("GET", path, self.status, summary="Which version answers."),
            )
        ]

    def status(self, call: Call) -> Reply:
        """The state of the only version."""
        state = {
            "version": str(self.model.version),
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
        return Reply(to_json({"model_version_status": [state]}))

    def predict(self, call: Call) -> Ask:
        """Rows under `instances`."""
        request = json_object(call.body)
        named = request.get("signature_name", SIGNATURE_NAME)
        if named != SIGNATURE_NAME:
            raise RequestError(
                f"'signature_name' must be '{SIGNATURE_NAME}'; found {str(named)[:40]!r}", "leave it out"
            )
        if "instances" not in request:
            hint = "send rows, not columns: " if "inputs" in request else ""
            raise RequestError("the body must hold 'instances'", hint + example_of(self.signature))
        rows = request["instances"]
        return Ask(self.checker.rows(rows, booleans=may_hold_booleans(call.body)), len(rows), self.render)

    def render(self, predictions: Predictions) -> Reply:
        return Reply(to_json({"predictions": answer_rows(predictions)}))
