"""What a protocol is: routes whose handlers answer a call at once or ask the model, and how its clients read errors.

Call -> handler -> Ask(columns) -> model -> Ask.render(predictions) -> Reply
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import orjson

from raypipe.data.transforms.hints import Hint
from raypipe.errors import RequestError
from raypipe.model.predictions import Predictions
from raypipe.model.tasks import task_of
from raypipe.records import ModelVersion, Signature
from raypipe.serve.checker import Checker, Columns
from raypipe.serve.protocols.json_names import check_names_once
from raypipe.serve.protocols.json_size import JsonSize
from raypipe.serve.schemas import NO_NOTES, Notes, as_in_files
from raypipe.serve.statuses import CODES
from raypipe.spec.serve import ServeSpec

if TYPE_CHECKING:
    from raypipe.model.text_writer import TextWriter

JSON = "application/json"

INLINE_MAX_BYTES = 64 * 2**10
"""More than this is not parsed in the process of the event loop: it takes a millisecond, and all wait for the loop."""

Scope = Literal["open", "predict", "admin"]
"""Who may call a route where keys are asked for: everybody, or holders of a key with that scope. Only a route that says
whether the endpoint is healthy is open."""


@dataclass(slots=True)
class Call:
    """One request, read whole.

    Attributes:
        headers: names in lower case.
        body: as it was before a content-encoding; a bytearray where it is large and came in pieces.
        is_encoded: whether the body still has its content-encoding. No handler gets such a call.
    """

    method: str
    path: str
    headers: dict[bytes, bytes]
    body: bytes | bytearray
    query: bytes = b""
    is_encoded: bool = False

    def media_type(self) -> str:
        """Of the body, without parameters; empty where the client did not say."""
        return self.headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower().decode("latin-1")


@dataclass(slots=True)
class Reply:
    """One answer.

    Attributes:
        pieces: what follows `body`, each sent as soon as it is there, and made once the one before is on its way; of
            routes that stream. Whoever sends it closes it, and calls `at_end`.
        at_end: gives back what the request holds.
    """

    body: bytes
    status: int = 200
    media_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    pieces: AsyncGenerator[bytes, None] | None = None
    at_end: Callable[[], None] | None = None


@dataclass(slots=True)
class Later:
    """A text that takes many calls of the model, and how it is written for who asked.

    Attributes:
        begin: makes its tokens, each when it is asked for.
        num_read: tokens that the network reads before the first.
    """

    begin: Callable[[], Iterator[str]]
    render: Callable[[AsyncGenerator[str, None]], Awaitable[Reply]]
    num_read: int = 1


Renderer = Callable[[Predictions], Reply]
"""Writes the answers of the model. A method of a protocol, or a partial of one: some are called in another process."""


@dataclass(slots=True)
class Ask:
    """Rows for the model, and how its predictions are written for who asked.

    Attributes:
        columns: each input of the signature, [num_rows, *shape].
    """

    columns: Columns
    num_rows: int
    render: Renderer


Handler = Callable[[Call], "Ask | Later | Reply"]
"""Answers a call at once, or says what to ask the model. Raises RequestError, and nothing else for a client's fault.
A method of its protocol: large bodies are read in another process (side_process.py), which has the same protocols, but
for those of routes that stream."""


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
        streams: whether an answer may come in pieces.
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
    streams: bool = False

    @property
    def protocol(self) -> Protocol:
        """Whose method the handler is."""
        return getattr(self.handler, "__self__")  # noqa: B009


@dataclass(frozen=True)
class Served:
    """What a replica serves, as every protocol needs it.

    Attributes:
        answer_dtype: of a regression's answers, float32 or float64.
        notes: what the signature does not tell about the inputs, for schemas.
        example: a row that the model answers, column -> value; None: none is known.
        hints: what a form may start from, by input.
        writer: of a model that writes texts.
    """

    model: ModelVersion
    signature: Signature
    spec: ServeSpec
    checker: Checker
    answer_dtype: str = "float32"
    notes: Notes = NO_NOTES
    example: dict[str, Any] | None = None
    hints: Mapping[str, Hint] = field(default_factory=dict)
    writer: TextWriter | None = None


class Protocol(ABC):
    """One wire shape over the same model: all protocols give identical numbers."""

    predicts: ClassVar[bool] = True
    """Whether it answers rows; the others tell about the model."""

    prefixes: tuple[str, ...] = ()
    """Paths that start with one of these are refused in this protocol's words, whether or not they exist."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.model, self.signature, self.checker = served.model, served.signature, served.checker
        self.task = task_of(served.signature)
        self._json_size = JsonSize(served.signature, served.spec.max_request_rows)

    @abstractmethod
    def routes(self) -> list[Route]:
        """What it answers."""

    def started(self, routes: Sequence[tuple[str, Protocol, Route]]) -> None:
        """Told once, before the first call, all that this replica answers: (name of the protocol, protocol, route)."""
        del routes

    def json_object(self, body: bytes | bytearray, hint: str = 'send {"instances": [...]}') -> dict[str, Any]:
        """Parse a body that must be one JSON object, where each name is there once and which holds no more than rows of
        this model need.

        Raises:
            RequestError: 400 with the position of the first mistake, 413.
        """
        self._json_size.check(body)
        found = json_object(body, hint)
        check_names_once(body, found)
        return found

    def json_value(self, body: bytes | bytearray, hint: str = "") -> Any:
        """The same of any JSON body."""
        self._json_size.check(body)
        found = json_value(body, hint)
        check_names_once(body, found)
        return found

    def rows_example(self) -> dict[str, Any] | None:
        """A body of one row that the model answers, as its files hold it, where one is known."""
        row = self.served.example
        return None if row is None else {"instances": [as_in_files(row, self.signature)]}

    def is_bare(self, call: Call) -> bool:
        """Whether all of a large body but little is the bytes of arrays: to read them is no work for Python."""
        del call
        return False

    def refuse(self, error: RequestError) -> Reply:
        """An error as clients of this protocol read it."""
        # json, not orjson: a message may quote what no UTF-8 encoder takes
        return Reply(json.dumps(error_document(error)).encode(), error.status)


def error_document(error: RequestError) -> dict[str, Any]:
    """A refusal in raypipe's own shape."""
    return {"error": {"code": error.code or CODES[error.status], "message": error.message, "hint": error.hint}}


def in_one_line(error: RequestError) -> str:
    """What is wrong and what to do, for clients that read one text."""
    return f"{error.message}; {error.hint}" if error.hint else error.message


def json_object(body: bytes | bytearray, hint: str = 'send {"instances": [...]}') -> dict[str, Any]:
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


def json_value(body: bytes | bytearray, hint: str = "") -> Any:
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


def may_hold_booleans(body: bytes | bytearray) -> bool:
    """Whether `true` or `false` may stand in a JSON text; numpy and struct take them for 1 and 0."""
    start = body[: body.rfind(b"e") + 1]  # behind the last e there is neither: most bodies end with many digits
    return b"true" in start or b"false" in start


def to_json(document: Any) -> bytes:
    """JSON of a document that may hold numpy numbers; float32 in the fewest digits that read back the same."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
