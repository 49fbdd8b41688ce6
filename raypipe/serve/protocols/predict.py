"""POST /predict: {"instances": [row, ...]} -> {"predictions": [...], "model": name, "version": n}; GET /healthz.

`instances` is the canonical word (as in TensorFlow Serving and Vertex AI); `rows` is accepted and means the same.
"""

from __future__ import annotations

import orjson

from raypipe.errors import RequestError
from raypipe.model.predictions import Predictions
from raypipe.serve.protocols.base import (
    JSON,
    Ask,
    Call,
    Protocol,
    Reply,
    Route,
    may_hold_booleans,
    to_json,
)
from raypipe.serve.schema import example_of
from raypipe.serve.schemas import answers_schema, closed_object, one_of_names, rows_schema

NAMES = ("instances", "rows")


class Predict(Protocol):
    """raypipe's own shape."""

    def routes(self) -> list[Route]:
        model, version = {"const": self.model.model}, {"const": self.model.version}
        return [
            Route(
                "POST",
                "/predict",
                self.predict,
                accepts=(JSON,),
                summary="Predict rows.",
                request=one_of_names(NAMES, rows_schema(self.signature, self.served.notes)),
                response=closed_object(predictions=answers_schema(self.signature), model=model, version=version),
                example=self.rows_example(),
            ),
            Route(
                "GET",
                "/healthz",
                self.health,
                scope="open",
                summary="Whether this replica answers.",
                response=closed_object(status={"const": "ok"}, model=model, version=version),
            ),
        ]

    def predict(self, call: Call) -> Ask:
        """Rows under `instances`."""
        request = self.json_object(call.body)
        given = [name for name in NAMES if name in request]
        if len(given) != 1:
            found = "both 'instances' and 'rows'" if given else ", ".join(sorted(request))[:80] or "an empty object"
            raise RequestError(f"the body must hold 'instances'; found {found}", example_of(self.signature))
        rows = request[given[0]]
        columns = self.checker.rows(rows, booleans=may_hold_booleans(call.body))
        return Ask(columns, len(rows), self.render)

    def health(self, call: Call) -> Reply:
        """Model and version."""
        return Reply(orjson.dumps({"status": "ok", "model": self.model.model, "version": self.model.version}))

    def render(self, predictions: Predictions) -> Reply:
        return Reply(
            to_json(
                {
                    "predictions": self.task.json_rows(predictions.values),
                    "model": self.model.model,
                    "version": self.model.version,
                }
            )
        )
