"""What a protocol is: routes whose handlers answer a call at once or ask the model, and how its clients read errors.

Call -> handler -> Ask(columns) -> model -> Ask.render(predictions) -> Reply
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import orjson

from raypipe.data.transforms.hints import Hint
from raypipe.errors import RequestError
from raypipe.model.predictions import Predictions
from raypipe.records import ModelVersion, Signature
from raypipe.serve.checker import Checker, Columns
from raypipe.serve.schemas import NO_NOTES, Notes
from raypipe.serve.statuses import CODES
from raypipe.spec.serve import ServeSpec

JSON = "application/json"

Scope = Literal["open", "predict", "admin"]
"""Who may call a route where keys are asked for: everybody, or holders of a key with that scope. Only a route that says
whether the endpoint is healthy is open."""


@dataclass(slots=True)
class Call:
    """One request, read whole.

    Attributes:
        headers: names in lower case.
        body: as it was before a content-encoding.
    """

    method: str
    path: str
    headers: dict[bytes, bytes]
    body: bytes
    query: bytes = b""

    def media_type(self) -> str:
        """Of the body, without parameters; empty where the client did not say."""
        return self.headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower().decode("latin-1")


@dataclass(slots=True)
class Reply:
    """One answer."""

    body: bytes
    status: int = 200
    media_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Ask:
    """Rows for the model, and how its predictions are written for who asked.

    Attributes:
        columns: each input of the signature, [num_rows, *shape].
    """

    columns: Columns
    num_rows: int
    render: Callable[[Predictions], Reply]


Handler = Callable[[Call], "Ask | Reply"]
"""Answers a call at once, or says what to ask the model. Raises RequestError, and nothing else for a client's fault."""


@dataclass(frozen=True)
class Route:
    """A path that is answered.

    Attributes:
        path: below the route prefix, whole: model and version are known when a replica starts.
        accepts: media types that a body may have; none: no body is read.
        needs_body: whether a request without one is refused, where one is read.
        answers: media types that an answer with status 200 may have; none: it has no body.
        summary: one line for the reference page.
        request: JSON Schema of a JSON body; None: there is none.
        response: JSON Schema of a JSON answer with status 200; None: it has no body, or is no JSON.
        example: a JSON body that is answered with 200.
        needs_body: whether a body may not be left out, where one is accepted.
    """

    method: str
    path: str
    handler: Handler
    accepts: tuple[str, ...] = ()
    scope: Scope = "predict"
    summary: str = ""
    request: dict[str, Any] | None = None
    response: dict[str, Any] | None = None
    example: Any = None
    answers: tuple[str, ...] = (JSON,)
    needs_body: bool = True


@dataclass(frozen=True)
class Served:
    """What a replica serves, as every protocol needs it.

    Attributes:
        answer_dtype: of a regression's answers, float32 or float64.
        notes: what the signature does not tell about the inputs, for schemas.
        example: a row that the model answers; None: none is known.
        hints: what a form may start from, by input.
    """

    model: ModelVersion
    signature: Signature
    spec: ServeSpec
    checker: Checker
    answer_dtype: str = "float32"
    notes: Notes = NO_NOTES
    example: dict[str, Any] | None = None
    hints: Mapping[str, Hint] = field(default_factory=dict)


class Protocol(ABC):
    """One wire shape over the same model: all protocols give identical numbers."""

    predicts: ClassVar[bool] = True
    """Whether it answers rows; the others tell about the model."""

    prefixes: tuple[str, ...] = ()
    """Paths that start with one of these are refused in this protocol's words, whether or not they exist."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.model, self.signature, self.checker = served.model, served.signature, served.checker

    @abstractmethod
    def routes(self) -> list[Route]:
        """What it answers."""

    def started(self, routes: Sequence[tuple[str, Protocol, Route]]) -> None:
        """Told once, before the first call, all that this replica answers: (name of the protocol, protocol, route)."""
        del routes

    def refuse(self, error: RequestError) -> Reply:
        """An error as clients of this protocol read it."""
        document = {"error": {"code": error.code or CODES[error.status], "message": error.message, "hint": error.hint}}
        # json, not orjson: a message may quote what no UTF-8 encoder takes
        return Reply(json.dumps(document).encode(), error.status)


def in_one_line(error: RequestError) -> str:
    """What is wrong and what to do, for clients that read one text."""
    return f"{error.message}; {error.hint}" if error.hint else error.message


def json_object(body: bytes, hint: str = 'send {"instances": [...]}') -> dict[str, Any]:
    """Parse a body that must be one JSON object.

    Raises:
        RequestError: 400 with the position of the first mistake.
    """
    found = json_value(body, hint)
    if not isinstance(found, dict):
        raise RequestError(
            f"the body is a JSON {'list' if isinstance(found, list) else type(found).__name__}; expected an object",
            hint,
        )
    return found


def json_value(body: bytes, hint: str = "") -> Any:
    """Parse a JSON body.

    Raises:
        RequestError: 400 with the position of the first mistake.
    """
    if not body:
        raise RequestError("the request has no body; expected a JSON object", hint)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(
            f"the body is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            "NaN, Infinity and trailing commas are not JSON" if error.msg.startswith("unexpected char") else "",
        ) from None


def may_hold_booleans(body: bytes) -> bool:
    """Whether `true` or `false` may stand in a JSON text; numpy and struct take them for 1 and 0."""
    return b"true" in body or b"false" in body


def to_json(document: Any) -> bytes:
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
