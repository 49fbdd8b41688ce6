"""One replica, HTTP and model together: request -> columns -> shared model call -> answer; no 500 for a client's fault.

    path -> route -> door (key, origin) -> room -> body (capped) -> handler: parse, check -> batcher -> render

Nothing here imports Ray: serve/stage.py makes a deployment of this class, tests call it as it is.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from dataclasses import astuple
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from raypipe.errors import RequestError
from raypipe.records import ModelVersion
from raypipe.serve import streaming
from raypipe.serve.apart import caller_of
from raypipe.serve.batching import Batcher
from raypipe.serve.body import Arriving, Receive, drained, too_large, whole_body
from raypipe.serve.checker import Checker
from raypipe.serve.direct import answer_directly
from raypipe.serve.door import Door
from raypipe.serve.failures import not_finite, refusal_of
from raypipe.serve.first_rows import answered_row, warm_up
from raypipe.serve.grpc_inference import GrpcCalls, limit_messages
from raypipe.serve.protocols import PROTOCOLS, Call, Later, Protocol, Reply, Route, Served
from raypipe.serve.protocols.oip_grpc import OpenInferenceGrpc
from raypipe.serve.replica_port import keep_on_loopback
from raypipe.serve.request_reading import RequestReader, check_type
from raypipe.serve.room import Room, with_rows_that_fit
from raypipe.serve.route_table import RouteTable
from raypipe.serve.schemas import Notes
from raypipe.serve.sent_files import SentFiles
from raypipe.serve.side_process import SideProcess
from raypipe.serve.writing import Writing
from raypipe.spec.serve import ServeSpec
from raypipe.storage import open_store

MODEL_HEADER = "x-raypipe-model"
"""Which version answered."""

REQUEST_ID = b"x-request-id"
"""Goes back with the answer, where the client sends it."""

BAD_ROWS = (400, 422)
"""What is refused of rows that have been read."""

logger = logging.getLogger("ray.serve")

Send = Callable[[Any], Coroutine[Any, Any, None]]


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
        self.spec = with_rows_that_fit(self.spec, self.predictor.feature_shape)
        files = SentFiles(self.signature)
        checker = Checker(self.signature, self.spec.max_request_rows, files.read)
        notes = Notes(self.spec.max_request_rows, files.pictures, files.recordings, self.predictor.taken_values())
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
            self.predictor.writer,
        )
        protocols = {name: kind(self.served) for name, kind in PROTOCOLS.items()}
        self.routes = RouteTable(protocols)
        self._grpc = OpenInferenceGrpc(self.served)
        self._rpcs = {route.path: route for route in self._grpc.routes()}
        self._batcher = Batcher(self.predictor.answer, self.spec.batching, self.spec.request_timeout_s)
        self._writing = Writing(self.spec.request_timeout_s)
        self._name = f"{self.model.model}@{self.model.version}"
        self._fields = {MODEL_HEADER: self._name}
        side = SideProcess(self.served, self.predictor.transforms(), [*protocols.values(), self._grpc])
        self._reader = RequestReader(self.predictor, side, self.spec.max_body_bytes)
        warm_up(self.predictor)
        logger.info("%s is called by %s: %s", self._name, *astuple(self.predictor.engine))
        gc.collect()
        gc.freeze()  # what stays for good is not looked at again: a full collection takes many milliseconds
        answer_directly(self)

    async def __call__(self, request: Request) -> Response:
        """One request that comes through Ray's own path."""
        reply = await self.answer(_call_of(request.scope), Arriving(request.receive))
        if reply.pieces is not None:
            return streaming.StreamedResponse(reply)
        return Response(reply.body, reply.status, reply.headers, reply.media_type)

    async def asgi(self, scope: Any, receive: Receive, send: Send) -> None:
        """The same, as an ASGI application."""
        await self.answer_asgi(scope, receive, send)

    async def answer_asgi(self, scope: Any, receive: Receive, send: Send) -> int:
        """`asgi`, and which status it was."""
        call = _call_of(scope)
        reply = await self.answer(call, Arriving(receive))
        sized = {} if reply.pieces is not None else {"content-length": str(len(reply.body))}
        fields = {"content-type": reply.media_type, **sized, **reply.headers}
        headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in fields.items()]
        try:
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            if reply.pieces is not None:
                await streaming.send_pieces(reply, receive, send, self.spec.limits.stalled_timeout_s)
                return reply.status
        finally:
            streaming.end(reply)
        body = b"" if call.method == "HEAD" else reply.body
        unread = "connection" in reply.headers
        await send({"type": "http.response.body", "body": body, "more_body": unread})
        if unread:
            await drained(receive)
            await send({"type": "http.response.body", "body": b""})
        return reply.status

    async def answer(self, call: Call, arriving: Arriving | None = None, *, alone: bool = False) -> Reply:
        """Answer one request; every refusal is in the words of its protocol, with what was found and what to do.

        Args:
            call: its path is below the route prefix.
            arriving: its body, which the call gets once it is here; None: the call has it.
            alone: whether no other request is likely to share its model call.
        """
        headers = call.headers
        reply = self.door.preflight(call.method, headers)
        if reply is None:
            route = self.routes.find(call.method, call.path)
            protocol = self.routes.protocol_at(call.path) if route is None else route.protocol
            arrived = asyncio.get_running_loop().time()
            reply = await self._told(protocol, arrived, self._routed(route, call, arriving, arrived, alone=alone))
        fields = {**self._fields, **reply.headers, **self.door.shared_with(headers.get(b"origin"))}
        number = headers.get(REQUEST_ID)
        if number is not None:
            fields["x-request-id"] = number.decode("latin-1")
        if arriving is not None and arriving.may_be_unread(headers):
            fields["connection"] = "close"
        # a new one: documents are handed out again and again
        return Reply(reply.body, reply.status, reply.media_type, fields, reply.pieces, reply.at_end)

    async def answer_rpc(self, path: str, headers: dict[bytes, bytes], body: bytes) -> Reply:
        """Answer one call of gRPC, with the checks and refusals of HTTP.

        Args:
            path: `/SERVICE/METHOD`, one of `rpc_routes`.
            headers: metadata, names in lower case.
            body: one message.
        """
        arrived = asyncio.get_running_loop().time()
        reply = await self._told(self._grpc, arrived, self._rpc(path, headers, body, arrived))
        reply.headers.update(self._fields)
        return reply

    async def _told(self, protocol: Protocol, arrived: float, answer: Awaitable[Reply]) -> Reply:
        """The answer, or why there is none, in the protocol's words.

        Args:
            arrived: when the request did, by the event loop's clock.
        """
        try:
            return await answer
        except ClientDisconnect:
            refused = RequestError("the request body ended early")
        except Exception as error:  # the model is the user's code: anything may come
            refused = refusal_of(error, self._name)
        if refused.status in BAD_ROWS:  # who is turned away before takes nobody's time
            await self._batcher.hold_back(arrived)
        reply = protocol.refuse(refused)
        reply.headers.update(refused.headers)
        return reply

    async def _routed(
        self, route: Route | None, call: Call, arriving: Arriving | None, arrived: float, *, alone: bool
    ) -> Reply:
        key = self.door.check(call.headers, "predict" if route is None else route.scope)
        if route is None:
            raise self.routes.not_found(call.method, call.path)
        if not route.accepts:
            return await self._handled(route, call, arrived)
        self._batcher.admit(1)
        with self.room.enter() as stay:
            check_type(call.headers, route)
            limit = self.spec.max_body_bytes
            if arriving is not None:
                call.body = await whole_body(call.headers, arriving, self.spec, stay)
            elif len(call.body) > limit:
                raise too_large(f"{len(call.body)} bytes", limit)
            else:
                stay.hold(len(call.body))
            sent = call.body
            self._reader.open(route, call)
            if call.body is not sent:
                stay.hold(len(call.body))
            of = caller_of(call.headers, key)
            reply = await self._handled(route, call, arrived, alone=alone, of=of, arriving=arriving)
            if reply.pieces is not None:
                reply.at_end = stay.go_on()
            return reply

    async def _rpc(self, path: str, headers: dict[bytes, bytes], body: bytes, arrived: float) -> Reply:
        if self.spec.grpc_port is None:
            raise RequestError("this model is not served over gRPC", "set serve.grpc_port, or ask by HTTP", status=404)
        route = self._rpcs[path]
        key = self.door.check(headers, route.scope)
        if len(body) > self.spec.max_body_bytes:
            raise too_large(f"{len(body)} bytes", self.spec.max_body_bytes)
        if route.scope == "open":
            return await self._handled(route, Call("POST", path, headers, body), arrived)
        self._batcher.admit(1)
        with self.room.enter() as stay:
            stay.hold(len(body))
            return await self._handled(route, Call("POST", path, headers, body), arrived, of=caller_of(headers, key))

    async def _handled(
        self,
        route: Route,
        call: Call,
        arrived: float,
        *,
        alone: bool = False,
        of: Hashable = None,
        arriving: Arriving | None = None,
    ) -> Reply:
        """Ask the route's handler, and the model for what it asks for.

        Args:
            arrived: by the event loop's clock.
            alone: whether no other request is likely to share its model call.
            of: who asks.
            arriving: see `answer`.
        """
        asked, features = await self._reader.read(route, call)
        if isinstance(asked, Reply):
            return asked
        if isinstance(asked, Later):
            written = asked.render(self._writing.tokens(asked.begin, arrived, asked.num_read))
            return await (written if arriving is None else streaming.unless_gone(written, arriving.receive))
        predictions = await self._batcher.predict(features, since=arrived, alone=alone, of=of)
        if not predictions.are_finite():
            raise not_finite()
        return await self._reader.write(asked, predictions)

    def rpc_routes(self) -> list[Route]:
        """All that is answered over gRPC; a path is `/SERVICE/METHOD`."""
        return list(self._rpcs.values())


def below_prefix(scope: Any) -> str:
    """The path below the application's route prefix."""
    path, prefix = scope["path"], scope.get("root_path", "")
    return path[len(prefix) :] or "/" if prefix and path.startswith(prefix) else path


def _call_of(scope: Any) -> Call:
    """A request without its body."""
    return Call(scope["method"], below_prefix(scope), dict(scope["headers"]), b"", scope["query_string"])
