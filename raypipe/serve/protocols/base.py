"""What a protocol is: paths, bytes -> columns, predictions -> bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import orjson

from raypipe.errors import RequestError
from raypipe.model.predictions import Predictions
from raypipe.records import ModelVersion, Signature
from raypipe.serve.schema import Columns


class Protocol(ABC):
    """One wire shape over the same model: all protocols give identical numbers.

    Args:
        model: the version that answers.
        max_rows: most rows one request may hold.
    """

    content_types: tuple[str, ...] = ("application/json",)
    """What a request body may be; the answer has the first."""

    def __init__(self, model: ModelVersion, max_rows: int) -> None:
        self.model = model
        self.max_rows = max_rows

    @abstractmethod
    def predict_paths(self) -> list[str]:
        """Paths, below the route prefix, that answer a POST with predictions."""

    @abstractmethod
    def parse(self, body: bytes, signature: Signature) -> Columns:
        """Request body -> columns. Raises RequestError."""

    @abstractmethod
    def render(self, predictions: Predictions) -> bytes:
        """Predictions -> answer body."""

    def documents(self) -> dict[str, dict[str, Any]]:
        """Paths that answer a GET with a fixed JSON document."""
        return {}


def json_object(body: bytes) -> dict[str, Any]:
    """Parse a body that must be one JSON object.

    Raises:
        RequestError: 400 with the position of the first mistake.
    """
    if not body:
        raise RequestError("the request has no body; expected a JSON object", 'send {"instances": [...]}')
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(
            f"the body is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            "NaN, Infinity and trailing commas are not JSON" if error.msg.startswith("unexpected char") else "",
        ) from None
    if not isinstance(found, dict):
        raise RequestError(
            f"the body is a JSON {'list' if isinstance(found, list) else type(found).__name__}; expected an object",
            'send {"instances": [...]}',
        )
    return found


def to_json(document: dict[str, Any]) -> bytes:
    """JSON of a document that may hold numpy numbers; float32 in the fewest digits that read back the same."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def answer_rows(predictions: Predictions) -> Any:
    """`Predictions.rows()` without leaving float32, for `to_json`."""
    if predictions.classes is None:
        return predictions.values
    return [
        {"label": predictions.classes[best], "probability": row_K[best], "probabilities": row_K}
        for best, row_K in zip(predictions.labels().tolist(), predictions.values, strict=True)
    ]
