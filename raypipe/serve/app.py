"""One replica, HTTP and model together: request -> columns -> shared model call -> answer; no 500 for a client's fault.

    path -> protocol -> body (capped) -> parse -> check against the signature -> predict -> render

Nothing here imports Ray: serve/stage.py makes a deployment of this class, tests call it as it is.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from raypipe.errors import DataError, RequestError
from raypipe.records import ModelVersion, Signature
from raypipe.serve.batching import Batcher
from raypipe.serve.protocols import PROTOCOLS, Protocol
from raypipe.serve.replica_port import keep_on_loopback
from raypipe.serve.schema import Columns
from raypipe.spec.serve import ServeSpec
from raypipe.storage import open_store

if TYPE_CHECKING:
    from raypipe.model.predictor import Predictor

JSON = "application/json"

CURL_DEFAULT = "application/x-www-form-urlencoded"
"""What `curl -d '{...}'` declares unless told otherwise; read as JSON, as every other server of this kind does."""

CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "too_large",
    415: "unsupported_media_type",
    500: "internal",
}

logger = logging.getLogger("ray.serve")


class ModelApp:
    """Answers HTTP for one model version.

    Args:
        store_uri: where the artifact is.
        model: a ModelVersion as JSON.
        code_dir: folder that the user's own modules are imported from, where there are any.
        spec: a ServeSpec as JSON.
    Raises:
        DigestMismatch, ArtifactError, ModelError: the model cannot be loaded here.
    """

    def __init__(self, store_uri: str, model: str, code_dir: str | None, spec: str) -> None:
        import torch  # not above: who deploys this class needs no torch

        from raypipe.model.predictor import Predictor

        keep_on_loopback()
        self.spec = ServeSpec.model_validate_json(spec)
        self.model = ModelVersion.model_validate_json(model)
        torch.set_num_threads(max(1, int(self.spec.resources.num_cpus)))
        device = "cuda" if self.spec.resources.num_gpus else "cpu"
        self.predictor = Predictor.load(
            open_store(store_uri), self.model.artifact, code_dir=Path(code_dir) if code_dir else None, device=device
        )
        self.signature = self.predictor.signature
        self._batcher = Batcher(self.predictor.predict, self.spec.batching, self.spec.request_timeout_s)
        self._headers = {"x-raypipe-model": f"{self.model.model}@{self.model.version}"}
        self._posts: dict[str, Protocol] = {}
        self._gets: dict[str, bytes] = {"/healthz": self._health()}
        for kind in PROTOCOLS.values():
            protocol = kind(self.model, self.spec.max_request_rows)
            self._posts.update(dict.fromkeys(protocol.predict_paths(), protocol))
            self._gets.update({path: orjson.dumps(document) for path, document in protocol.documents().items()})
        warm_up(self.predictor)

    async def __call__(self, request: Request) -> Response:
        """Answer one request; every refusal is JSON with a code, a message and a hint."""
        try:
            return await self._respond(request)
        except RequestError as error:
            return self._refuse(error.status, error.message, error.hint)
        except DataError as error:  # e.g. a category the model has never seen
            return self._refuse(400, error.message, error.hint)
        except ClientDisconnect:
            return self._refuse(400, "the request body ended early", "")
        except Exception:  # the model is the user's code: anything may come
            logger.exception("a request failed in %s", self._headers["x-raypipe-model"])
            return self._refuse(500, "the model failed on this request", "the replica's log has the reason")

    async def _respond(self, request: Request) -> Response:
        path = _below(request.scope)
        method = request.scope["method"]
        protocol = self._posts.get(path)
        if protocol is not None and method == "POST":
            return await self._predict(request, protocol)
        if path in self._gets and method in ("GET", "HEAD"):
            return Response(self._gets[path], media_type=JSON, headers=self._headers)
        if protocol is None and path not in self._gets:
            raise RequestError(f"no such path: {path[:80]}", self._suggest(path), status=404)
        allowed = "POST" if protocol is not None else "GET"
        raise RequestError(f"{method[:16]} is not answered at {path}", f"use {allowed}", status=405)

    async def _predict(self, request: Request, protocol: Protocol) -> Response:
        arrived = asyncio.get_running_loop().time()
        headers = dict(request.scope["headers"])
        _check_type(headers, protocol)
        body = await self._body(request, headers)
        columns = protocol.parse(body, self.signature)
        num_rows = len(columns[self.signature.inputs[0].name])
        predictions = await self._batcher.predict(columns, num_rows, since=arrived)
        return Response(protocol.render(predictions), media_type=protocol.content_types[0], headers=self._headers)

    async def _body(self, request: Request, headers: dict[bytes, bytes]) -> bytes:
        """The whole body, refused unread where it declares too much, else as soon as it is too much."""
        limit = self.spec.max_body_bytes
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            raise _too_large(f"{int(declared)} bytes", limit)
        message = await request.receive()
        body = message.get("body", b"")
        if not message.get("more_body"):
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            if len(body) > limit:
                raise _too_large(f"{len(body)} bytes", limit)
            return body
        try:
            return await asyncio.wait_for(_rest(request, body, limit), self.spec.request_timeout_s)
        except asyncio.TimeoutError:
            raise RequestError(
                f"the request body did not arrive within {self.spec.request_timeout_s:g} s", "send it faster", 408
            ) from None

    def _health(self) -> bytes:
        document = {"status": "ok", "model": self.model.model, "version": self.model.version}
        return orjson.dumps(document)

    def _suggest(self, path: str) -> str:
        known = [*self._posts, *self._gets]
        close = difflib.get_close_matches(path[:80], known, n=1)
        return f"did you mean {close[0]}?" if close else f"this endpoint answers {', '.join(known)}"

    def _refuse(self, status: int, message: str, hint: str) -> Response:
        body = {"error": {"code": CODES.get(status, "bad_request"), "message": message, "hint": hint}}
        # json, not orjson: a message may quote what no UTF-8 encoder takes
        return Response(json.dumps(body).encode(), status, media_type=JSON, headers=self._headers)


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


async def _rest(request: Request, start: bytes, limit: int) -> bytes:
    body = bytearray(start)
    more = True
    while more:
        if len(body) > limit:
            raise _too_large(f"more than {limit} bytes", limit)
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if len(body) > limit:
        raise _too_large(f"{len(body)} bytes", limit)
    return bytes(body)


def _too_large(found: str, limit: int) -> RequestError:
    return RequestError(
        f"the request body has {found}; at most {limit} are read",
        "send fewer rows per request, or raise serve.max_body_bytes",
        status=413,
    )


def _check_type(headers: dict[bytes, bytes], protocol: Protocol) -> None:
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding != b"identity":
        raise RequestError(
            f"content-encoding {_text(encoding)} is not read here", "send the body uncompressed", status=415
        )
    declared = headers.get(b"content-type")
    if declared is None:
        return
    kind = _text(declared).split(";", 1)[0].strip().lower()
    if kind not in protocol.content_types and kind != CURL_DEFAULT and not kind.endswith("+json"):
        raise RequestError(
            f"content-type {kind or 'is empty'} is not read here; expected {protocol.content_types[0]}",
            f"send the header content-type: {protocol.content_types[0]}",
            status=415,
        )


def _text(header: bytes) -> str:
    return header[:80].decode("latin-1")


def _below(scope: Any) -> str:
    """The path below the application's route prefix."""
    path, prefix = scope["path"], scope.get("root_path", "")
    return path[len(prefix) :] or "/" if prefix and path.startswith(prefix) else path
