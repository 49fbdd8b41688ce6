"""Open Inference Protocol v2 over REST, as KServe, Triton and their clients speak it, with Triton's binary tensors.

    GET  /v2, /v2/health/live, /v2/health/ready
    GET  /v2/models/M[/versions/V], /v2/models/M[/versions/V]/ready
    POST /v2/models/M[/versions/V]/infer
    POST /v2/repository/index

With `Inference-Header-Content-Length` the body is so many bytes of JSON and then the bytes of those inputs that have
`binary_data_size`; the answer has the same form where an output is asked for as binary data. Which tensors there are
tells model_tensors.py. Errors are {"error": text}: clients of this protocol expect a text there.

Source: https://github.com/kserve/open-inference-protocol and
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from raypipe.errors import RequestError
from raypipe.model.predictions import Predictions
from raypipe.serve.protocols import oip_schemas, tensors
from raypipe.serve.protocols.base import (
    INLINE_MAX_BYTES,
    JSON,
    Ask,
    Call,
    Protocol,
    Reply,
    Route,
    Served,
    in_one_line,
    to_json,
)
from raypipe.serve.protocols.model_tensors import PLATFORM, VERSION, ModelTensors
from raypipe.serve.protocols.oip_requests import JSON_LENGTH, Requests, Wanted
from raypipe.serve.schema import kind_of

BINARY = "application/octet-stream"
"""What a body with binary tensors is; clients often do not say so."""

REMEMBERED_SIZES = 16
"""Numbers of rows for which the JSON of an answer that is all numbers as bytes is kept: nothing else in it varies."""

EXTENSIONS = ["binary_tensor_data", "model_repository"]


class OpenInference(Protocol):
    """What clients of KServe and Triton speak over HTTP."""

    prefixes = ("/v2",)

    def __init__(self, served: Served) -> None:
        super().__init__(served)
        self.tensors = ModelTensors(served)
        self._requests = Requests(self.tensors, self.json_object)

    def routes(self) -> list[Route]:
        name, version = self.model.model, self.model.version
        base, repository = f"/v2/models/{name}", "/v2/repository"
        return [
            Route(
                "GET",
                "/v2",
                self.server,
                summary="Name, version and extensions of the server.",
                response=oip_schemas.SERVER,
            ),
            _health("/v2/health/live", self.live, "Whether the server runs.", oip_schemas.LIVE),
            _health("/v2/health/ready", self.ready, "Whether the server answers.", oip_schemas.READY),
            *self._model_routes(base),
            *self._model_routes(f"{base}/versions/{version}"),
            Route(
                "POST",
                f"{repository}/index",
                self.index,
                accepts=(JSON,),
                scope="admin",
                summary="The models of the server: this one.",
                request=oip_schemas.INDEX_REQUEST,
                response=oip_schemas.index(name, version),
                example={"ready": True},
                needs_body=False,
            ),
            *(
                Route("POST", f"{repository}/models/{name}/{verb}", self.fixed, scope="admin", summary="Not done here.")
                for verb in ("load", "unload")
            ),
        ]

    def _model_routes(self, path: str) -> list[Route]:
        return [
            Route(
                "GET", path, self.metadata, summary="Inputs and outputs.", response=oip_schemas.metadata(self.tensors)
            ),
            _health(f"{path}/ready", self.model_ready, "Whether the model answers.", oip_schemas.MODEL_READY),
            Route(
                "POST",
                f"{path}/infer",
                self.infer,
                accepts=(JSON, BINARY),
                summary="Predict rows given as tensors.",
                request=oip_schemas.request(self.tensors),
                response=oip_schemas.response(self.tensors),
                example=oip_schemas.example(self.signature, self.served.example),
                answers=(JSON, BINARY),
            ),
        ]

    def refuse(self, error: RequestError) -> Reply:
        """{"error": text}, the hint in the text."""
        return Reply(json.dumps({"error": in_one_line(error)}).encode(), error.status)

    def is_bare(self, call: Call) -> bool:
        """Where the JSON is small; texts among the bytes are an object each."""
        declared = call.headers.get(JSON_LENGTH, b"")
        small = declared.isdigit() and len(declared) < 20 and int(declared) <= INLINE_MAX_BYTES
        return small and tensors.TEXT.encode() not in call.body[: int(declared)]

    def server(self, call: Call) -> Reply:
        """Who answers."""
        return Reply(to_json({"name": "raypipe", "version": VERSION, "extensions": EXTENSIONS}))

    def live(self, call: Call) -> Reply:
        """This replica runs."""
        return Reply(b'{"live":true}')

    def ready(self, call: Call) -> Reply:
        """A replica that answers has its model."""
        return Reply(b'{"ready":true}')

    def model_ready(self, call: Call) -> Reply:
        """The same of the only model."""
        return Reply(to_json({"name": self.model.model, "ready": True}))

    def metadata(self, call: Call) -> Reply:
        """Names, datatypes and shapes."""
        return Reply(
            to_json(
                {
                    "name": self.model.model,
                    "versions": [str(self.model.version)],
                    "platform": PLATFORM,
                    "inputs": self.tensors.inputs(),
                    "outputs": self.tensors.outputs(),
                }
            )
        )

    def index(self, call: Call) -> Reply:
        """The only model; a body is not needed."""
        asked = self.json_object(call.body) if call.body else {}
        ready = asked.get("ready", False)
        if not isinstance(ready, bool):
            raise RequestError(f"'ready' must be true or false; found {kind_of(ready)}", "leave it out for all models")
        row = {"name": self.model.model, "version": str(self.model.version), "state": "READY", "reason": ""}
        return Reply(to_json([row]))

    def fixed(self, call: Call) -> Reply:
        """Refuse to load or unload."""
        raise RequestError(
            f"this endpoint serves {self.model.model}@{self.model.version}; clients load and unload nothing",
            "deploy another version: raypipe serve",
        )

    def infer(self, call: Call) -> Ask:
        """Rows as tensors."""
        given, wanted = self._requests.read(call)
        columns, num_rows = self.tensors.columns(given)
        return Ask(columns, num_rows, partial(self.render, wanted))

    def render(self, wanted: Wanted, predictions: Predictions) -> Reply:
        """Outputs as JSON in row-major order, or as bytes after the JSON."""
        answers = self.tensors.answers(predictions, wanted.names)
        num_rows = len(predictions.values)
        header = wanted.headers.get(num_rows)
        if header is not None:
            return _with_bytes(header, [tensors.to_bytes(values) for _, values in answers])
        document: dict[str, Any] = {"model_name": self.model.model, "model_version": str(self.model.version)}
        if wanted.id is not None:
            document["id"] = wanted.id
        outputs, chunks, varies = [], [], False
        for name, values in answers:
            output = {"name": name, "datatype": tensors.datatype_of(values), "shape": list(values.shape)}
            if name in wanted.binary:
                chunks.append(tensors.to_bytes(values))
                output["parameters"] = {"binary_data_size": len(chunks[-1])}
                varies |= values.dtype == object
            else:
                output["data"] = values.tolist() if values.dtype == object else values.ravel()
                varies = True
            outputs.append(output)
        document["outputs"] = outputs
        header = to_json(document)
        if not chunks:
            return Reply(header)
        if not varies and len(wanted.headers) < REMEMBERED_SIZES:
            wanted.headers[num_rows] = header
        return _with_bytes(header, chunks)


def _with_bytes(header: bytes, chunks: list[bytes]) -> Reply:
    length = {JSON_LENGTH.decode(): str(len(header))}
    return Reply(b"".join([header, *chunks]), media_type=BINARY, headers=length)


def _health(path: str, handler: Any, summary: str, response: dict[str, Any]) -> Route:
    return Route("GET", path, handler, scope="open", summary=summary, response=response)
