"""One replica, HTTP and model together: request -> columns -> shared model call -> answer; no 500 for a client's fault.

    path -> route -> door (key, origin) -> room -> body (capped) -> handler: parse, check -> batcher -> render

Nothing here imports Ray: serve/stage.py makes a deployment of this class, tests call it as it is.
"""

from __future__ import annotations

import asyncio
import difflib
import gc
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from raypipe.errors import DataError, RequestError, UserCodeError
from raypipe.records import ModelVersion, Signature
from raypipe.serve.batching import Batcher
from raypipe.serve.body import WHOLE, Receive, drained, may_be_unread, too_large, whole_body
from raypipe.serve.checker import Checker, Columns
from raypipe.serve.direct import HAS_ARRIVED, IN_FLIGHT, answer_directly
from raypipe.serve.door import Door
from raypipe.serve.encodings import decoded
from raypipe.serve.grpc_inference import GrpcCalls, limit_messages
from raypipe.serve.pictures import HoldsUpTheLoop, Pictures
from raypipe.serve.protocols import PROTOCOLS, Ask, Call, Protocol, Reply, Route, Served
from raypipe.serve.protocols.oip_grpc import OpenInferenceGrpc
from raypipe.serve.replica_port import keep_on_loopback
from raypipe.serve.room import Room
from raypipe.serve.schemas import Notes, example_row
from raypipe.spec.serve import ServeSpec
from raypipe.storage import open_store

if TYPE_CHECKING:
    from raypipe.model.predictor import Predictor

CURL_DEFAULT = "application/x-www-form-urlencoded"
"""What `curl -d '{...}'` declares unless told otherwise; read as JSON, as every other server of this kind does."""

JSON = "application/json"

MODEL_HEADER = "x-raypipe-model"
"""Which version answered."""

REQUEST_ID = b"x-request-id"
"""Goes back with the answer, where the client sends it."""

INLINE_MAX_BYTES = 64 * 2**10
"""A larger body is parsed and checked in a thread: the event loop is for everybody."""

BAD_ROWS = (400, 422)
"""What is refused of rows that have been read."""

logger = logging.getLogger("ray.serve")

Send = Callable[[Any], Awaitable[None]]


class ModelApp(GrpcCalls):
    """Answers HTTP and gRPC for one model version.

    Args:
        store_uri: where the artifact is.
        model: a ModelVersion as JSON.
        code_dir: folder that the user's own modules are imported from, where there are any.
        spec: a ServeSpec as JSON.
        own_digest: SHA-256 of the key that the deployment asks with, where keys are asked for.
    Raises:
        DigestMismatch, ArtifactError, ModelError: the model cannot be loaded here.
        ServeError: its keys cannot be read here.
    """

    def __init__(self, store_uri: str, model: str, code_dir: str | None, spec: str, own_digest: str = "") -> None:
        import torch  # not above: who deploys this class needs no torch

        from raypipe.model.predictor import Predictor

        keep_on_loopback()
        self.spec = ServeSpec.model_validate_json(spec)
        limit_messages(self.spec.max_body_bytes)
        self.model = ModelVersion.model_validate_json(model)
        self.door = Door(self.spec, own_digest)
        self.room = Room(self.spec)
        torch.set_num_threads(max(1, int(self.spec.resources.num_cpus)))
        device = "cuda" if self.spec.resources.num_gpus else "cpu"
        self.predictor = Predictor.load(
            open_store(store_uri),
            self.model.artifact,
            code_dir=Path(code_dir) if code_dir else None,
            device=device,
            engine=self.spec.engine,
        )
        self.signature = self.predictor.signature
        pictures = Pictures(self.signature)
        checker = Checker(self.signature, self.spec.max_request_rows, pictures.read)
        notes = Notes(self.spec.max_request_rows, pictures.columns, self.predictor.taken_values())
        example = answered_row(self.predictor, checker, notes)
        self.served = Served(
            self.model,
            self.signature,
            self.spec,
            checker,
            self.predictor.answer_dtype,
            notes,
            example,
            self.predictor.input_hints(),
        )
        self._protocols = {name: kind(self.served) for name, kind in PROTOCOLS.items()}
        self._routes: dict[tuple[str, str], tuple[Protocol, Route]] = {}
        for protocol in self._protocols.values():
            for route in protocol.routes():  # where two protocols have one path, the first in the table answers
                self._routes.setdefault((route.method, route.path), (protocol, route))
        names = {protocol: name for name, protocol in self._protocols.items()}
        for protocol in self._protocols.values():
            protocol.started([(names[owner], owner, route) for owner, route in self._routes.values()])
        self._grpc = OpenInferenceGrpc(self.served)
        self._rpcs = {route.path: route for route in self._grpc.routes()}
        self._batcher = Batcher(self.predictor.answer, self.spec.batching, self.spec.request_timeout_s)
        self._name = f"{self.model.model}@{self.model.version}"
        self._headers = [(MODEL_HEADER.encode(), self._name.encode())]
        self._aside = ThreadPoolExecutor(1, "raypipe-parse")
        warm_up(self.predictor)
        logger.info("%s is called by %s: %s", self._name, *astuple(self.predictor.engine))
        gc.collect()
        gc.freeze()  # what stays for good is not looked at again: a full collection takes many milliseconds
        answer_directly(self.asgi)

    async def __call__(self, request: Request) -> Response:
        """One request that comes through Ray's own path."""
        scope = request.scope
        reply = await self.answer(scope["method"], below_prefix(scope), scope, request.receive)
        return Response(reply.body, reply.status, {MODEL_HEADER: self._name, **reply.headers}, reply.media_type)

    async def asgi(self, scope: Any, receive: Receive, send: Send) -> None:
        """The same, as an ASGI application."""
        reply = await self.answer(scope["method"], below_prefix(scope), scope, receive)
        headers = [
            (b"content-type", reply.media_type.encode()),
            (b"content-length", b"%d" % len(reply.body)),
            *self._headers,
            *((name.encode(), value.encode("latin-1", "replace")) for name, value in reply.headers.items()),
            *((name, value) for name, value in scope["headers"] if name == REQUEST_ID),
        ]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else reply.body
        unread = "connection" in reply.headers
        await send({"type": "http.response.body", "body": body, "more_body": unread})
        if unread:
            await drained(receive)
            await send({"type": "http.response.body", "body": b""})

    async def answer(self, method: str, path: str, scope: Any, receive: Receive) -> Reply:
        """Answer one request; every refusal is in the words of its protocol, with what was found and what to do.

        Args:
            path: below the route prefix.
            scope: its `headers` and `query_string`, as ASGI has them.
        """
        headers = dict(scope["headers"])
        reply = self.door.preflight(method, headers)
        if reply is None:
            found = self._routes.get(("GET" if method == "HEAD" else method, path))
            protocol = found[0] if found else self._protocol_of(path)
            call = Call(method, path, headers, b"", scope["query_string"])
            reply = await self._told(protocol, self._routed(found and found[1], call, scope, receive))
        more = self.door.shared_with(headers.get(b"origin"))
        if may_be_unread(scope, headers):
            more = {**more, "connection": "close"}
        # a new one: documents are handed out again and again
        return replace(reply, headers={**reply.headers, **more}) if more else reply

    async def answer_rpc(self, path: str, headers: dict[bytes, bytes], body: bytes) -> Reply:
        """Answer one call of gRPC, with the checks and refusals of HTTP.

        Args:
            path: `/SERVICE/METHOD`, one of `rpc_routes`.
            headers: metadata, names in lower case.
            body: one message.
        """
        reply = await self._told(self._grpc, self._rpc(path, headers, body))
        reply.headers[MODEL_HEADER] = self._name
        return reply

    async def _told(self, protocol: Protocol, answer: Awaitable[Reply]) -> Reply:
        """The answer, or why there is none, in the protocol's words."""
        arrived = asyncio.get_running_loop().time()
        try:
            return await answer
        except RequestError as error:
            refused = error
        except DataError as error:  # e.g. a category the model has never seen
            refused = RequestError(error.message, error.hint)
        except ClientDisconnect:
            refused = RequestError("the request body ended early")
        except Exception as error:  # the model is the user's code: anything may come
            # Where the user's network raised, its words say all; a traceback a request takes longer than an answer.
            known = isinstance(error, UserCodeError)
            logger.error("a request failed in %s: %s", self._name, error, exc_info=None if known else error)
            refused = RequestError("the model failed on this request", "the replica's log has the reason", status=500)
        if refused.status in BAD_ROWS:  # who is turned away before takes nobody's time
            await self._batcher.hold_back(arrived)
        reply = protocol.refuse(refused)
        reply.headers.update(refused.headers)
        return reply

    async def _routed(self, route: Route | None, call: Call, scope: Any, receive: Receive) -> Reply:
        arrived = asyncio.get_running_loop().time()
        self.door.check(call.headers, "predict" if route is None else route.scope)
        if route is None:
            raise self._no_route(call.method, call.path)
        if not route.accepts:
            return await self._handled(route, call, arrived)
        self._batcher.admit(1)
        with self.room.enter() as stay:
            _check_type(call.headers, route)
            has_arrived = scope.get(HAS_ARRIVED, False)
            sent = await whole_body(call.headers, receive, self.spec, stay, has_arrived=has_arrived)
            scope[WHOLE] = True
            call.body = decoded(sent, call.headers, self.spec.max_body_bytes)
            if call.body is not sent:
                stay.hold(len(call.body))
            return await self._handled(route, call, arrived, alone=len(scope.get(IN_FLIGHT, ())) == 1)

    async def _rpc(self, path: str, headers: dict[bytes, bytes], body: bytes) -> Reply:
        if self.spec.grpc_port is None:
            raise RequestError("this model is not served over gRPC", "set serve.grpc_port, or ask by HTTP", status=404)
        arrived = asyncio.get_running_loop().time()
        route = self._rpcs[path]
        self.door.check(headers, route.scope)
        if len(body) > self.spec.max_body_bytes:
            raise too_large(f"{len(body)} bytes", self.spec.max_body_bytes)
        if route.scope == "open":
            return await self._handled(route, Call("POST", path, headers, body), arrived)
        self._batcher.admit(1)
        with self.room.enter() as stay:
            stay.hold(len(body))
            return await self._handled(route, Call("POST", path, headers, body), arrived)

    async def _handled(self, route: Route, call: Call, arrived: float, *, alone: bool = False) -> Reply:
        """Ask the route's handler, and the model for what it asks for.

        Args:
            arrived: by the event loop's clock.
            alone: whether no other request is on its way to the model.
        """
        try:
            if len(call.body) > INLINE_MAX_BYTES:
                raise HoldsUpTheLoop
            asked, features = self._features(route, call)
        except HoldsUpTheLoop:
            loop = asyncio.get_running_loop()
            asked, features = await loop.run_in_executor(self._aside, self._features, route, call)
        if isinstance(asked, Reply):
            return asked
        predictions = await self._batcher.predict(features, since=arrived, alone=alone)
        if not np.isfinite(predictions.values).all():
            raise RequestError(
                "the model's answer is not a finite number",
                "the model or this input is at fault; the same input fails in evaluation",
                status=500,
                code="not_finite",
            )
        return asked.render(predictions)

    def _features(self, route: Route, call: Call) -> tuple[Ask | Reply, Any]:
        """Parse, check and transform; refusals come before the rows of several clients are put together."""
        asked = route.handler(call)
        if isinstance(asked, Reply):
            return asked, None
        return asked, self.predictor.features(asked.columns)

    def _no_route(self, method: str, path: str) -> RequestError:
        allowed = sorted({known for known, where in self._routes if where == path})
        if allowed:
            methods = ", ".join([*allowed, "HEAD"] if "GET" in allowed else allowed)
            return RequestError(
                f"{method[:16]} is not answered at {path}", f"use {methods}", status=405, headers={"allow": methods}
            )
        known = list(dict.fromkeys(where for _, where in self._routes))
        close = difflib.get_close_matches(path[:80], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"this endpoint answers {', '.join(known)}"
        return RequestError(f"no such path: {path[:80]}", hint, status=404)

    def _protocol_of(self, path: str) -> Protocol:
        """Whose clients ask at a path that is not answered."""
        protocols = list(self._protocols.values())
        named = (each for each in protocols if each.prefixes and path.startswith(each.prefixes))
        return next(named, protocols[0])

    def answer_also_at(self, path: str, method: str, known_path: str) -> None:
        """Answer requests to `path` as those to `known_path`; what was answered there before no longer is.

        Args:
            path: below the route prefix; chosen by who runs this replica, never by a client.
            known_path: of a route that is there, with the same method.
        """
        protocol, route = self._routes[method, known_path]
        self._routes[method, path] = protocol, replace(route, path=path)

    def routes(self) -> list[Route]:
        """All that is answered."""
        return [route for _, route in self._routes.values()]

    def rpc_routes(self) -> list[Route]:
        """All that is answered over gRPC; a path is `/SERVICE/METHOD`."""
        return list(self._rpcs.values())

    def routes_of(self, protocol: str) -> list[Route]:
        """What a protocol answers here."""
        mine = self._protocols[protocol]
        return [route for owner, route in self._routes.values() if owner is mine]

    def predict_paths(self, protocol: str) -> list[str]:
        """Where a protocol answers with predictions."""
        posts = [route for route in self.routes_of(protocol) if route.method == "POST"]
        return [route.path for route in posts if route.scope == "predict"]


def warm_up(predictor: Predictor) -> None:
    """Run one row through the model, so that the first request does not pay for lazy set-up."""
    try:
        for _ in range(2):
            predictor.predict(blank_row(predictor.signature))
    except DataError:
        return  # an empty text is no known category; the model itself was tried when it was built


def blank_row(signature: Signature) -> Columns:
    """One row of zeros and empty texts."""
    row: Columns = {}
    for column in signature.inputs:
        if column.dtype == "string":
            row[column.name] = np.full((1, *column.shape), "", dtype=object)
        else:
            row[column.name] = np.zeros((1, *column.shape), np.float64 if column.nullable else column.dtype)
    return row


def answered_row(predictor: Predictor, checker: Checker, notes: Notes) -> dict[str, Any] | None:
    """A row of a request that the model answers, for examples; None where none is known."""
    row = example_row(predictor.signature, notes)
    try:
        predictions = predictor.predict(checker.rows([row]))
    except (DataError, RequestError):
        return None
    return row if np.isfinite(predictions.values).all() else None


def below_prefix(scope: Any) -> str:
    """The path below the application's route prefix."""
    path, prefix = scope["path"], scope.get("root_path", "")
    return path[len(prefix) :] or "/" if prefix and path.startswith(prefix) else path


def _check_type(headers: dict[bytes, bytes], route: Route) -> None:
    declared = headers.get(b"content-type")
    if declared is None or declared == b"application/json":
        return
    kind = declared[:80].decode("latin-1").split(";", 1)[0].strip().lower()
    if kind in route.accepts or (JSON in route.accepts and (kind == CURL_DEFAULT or kind.endswith("+json"))):
        return
    raise RequestError(
        f"content-type {kind or 'is empty'} is not read here; expected {' or '.join(route.accepts)}",
        f"send the header content-type: {route.accepts[0]}",
        status=415,
    )
