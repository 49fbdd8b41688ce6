"""TensorFlow Serving's REST API, row format: POST /v1/models/NAME[/versions/N]:predict, GET /v1/models/NAME.

Source: https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

from typing import Any

from raypipe.errors import RequestError
from raypipe.model.predictions import Predictions
from raypipe.records import Signature
from raypipe.serve.protocols.base import Protocol, answer_rows, json_object, to_json
from raypipe.serve.schema import Columns, columns_of, example_of

SIGNATURE_NAME = "serving_default"
"""The only signature a model has here; clients may name it."""


class TensorFlowServing(Protocol):
    """What TensorFlow Serving's clients speak."""

    def predict_paths(self) -> list[str]:
        base = f"/v1/models/{self.model.model}"
        return [f"{base}:predict", f"{base}/versions/{self.model.version}:predict"]

    def documents(self) -> dict[str, dict[str, Any]]:
        base = f"/v1/models/{self.model.model}"
        state = {
            "version": str(self.model.version),
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
        status = {"model_version_status": [state]}
        return {base: status, f"{base}/versions/{self.model.version}": status}

    def parse(self, body: bytes, signature: Signature) -> Columns:
        request = json_object(body)
        named = request.get("signature_name", SIGNATURE_NAME)
        if named != SIGNATURE_NAME:
            raise RequestError(
                f"'signature_name' must be '{SIGNATURE_NAME}'; found {str(named)[:40]!r}", "leave it out"
            )
        if "instances" not in request:
            hint = "send rows, not columns: " if "inputs" in request else ""
            raise RequestError("the body must hold 'instances'", hint + example_of(signature))
        return columns_of(request["instances"], signature, max_rows=self.max_rows)

    def render(self, predictions: Predictions) -> bytes:
        return to_json({"predictions": answer_rows(predictions)})
