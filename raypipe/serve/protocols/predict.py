"""POST /predict: {"instances": [row, ...]} -> {"predictions": [...], "model": name, "version": n}.

`instances` is the canonical word (as in TensorFlow Serving and Vertex AI); `rows` is accepted and means the same.
"""

from __future__ import annotations

from raypipe.errors import RequestError
from raypipe.model.predictions import Predictions
from raypipe.records import Signature
from raypipe.serve.protocols.base import Protocol, answer_rows, json_object, to_json
from raypipe.serve.schema import Columns, columns_of, example_of

NAMES = ("instances", "rows")


class Predict(Protocol):
    """raypipe's own shape."""

    def predict_paths(self) -> list[str]:
        return ["/predict"]

    def parse(self, body: bytes, signature: Signature) -> Columns:
        request = json_object(body)
        given = [name for name in NAMES if name in request]
        if len(given) != 1:
            found = "both 'instances' and 'rows'" if given else ", ".join(sorted(request))[:80] or "an empty object"
            raise RequestError(f"the body must hold 'instances'; found {found}", example_of(signature))
        return columns_of(request[given[0]], signature, max_rows=self.max_rows)

    def render(self, predictions: Predictions) -> bytes:
        return to_json(
            {"predictions": answer_rows(predictions), "model": self.model.model, "version": self.model.version}
        )
