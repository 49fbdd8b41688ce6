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
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.typing import NDArray

from raypipe.errors import RequestError
from raypipe.model.predictions import Predictions
from raypipe.serve.protocols import oip_schemas, tensors
from raypipe.serve.protocols.base import (
    JSON,
    Ask,
    Call,
    Protocol,
    Reply,
    Route,
    Served,
    in_one_line,
    json_object,
    may_hold_booleans,
    to_json,
)
from raypipe.serve.protocols.model_tensors import PLATFORM, VERSION, ModelTensors, check_parameters
from raypipe.serve.protocols.tensors_json import from_json
from raypipe.serve.schema import kind_of, shown

BINARY = "application/octet-stream"
"""What a body with binary tensors is; clients often do not say so."""

JSON_LENGTH = b"inference-header-content-length"

EXTENSIONS = ["binary_tensor_data", "model_repository"]

HINT = 'send {"inputs": [{"name": ..., "shape": [...], "datatype": ..., "data": [...]}]}'


@dataclass(frozen=True, slots=True)
class Wanted:
    """How the answer to one request is written.

    Attributes:
        names: of outputs, in order.
        binary: those to be sent as bytes.
        id: goes back as it came; None: none came.
    """

    names: list[str]
    binary: frozenset[str]
    id: str | None


class OpenInference(Protocol):
    """What clients of KServe and Triton speak over HTTP."""

    prefixes = ("/v2",)

    def __init__(self, served: Served) -> None:
        super().__init__(served)
        self.tensors = ModelTensors(served)

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
        asked = json_object(call.body) if call.body else {}
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
        header, binary = _parts(call)
        request = json_object(header, HINT)
        parameters = _parameters(request, "the request")
        check_parameters(parameters, "the request")
        number = request.get("id")
        if number is not None and not isinstance(number, str):
            raise RequestError(f"'id' must be a text; found {kind_of(number)}", "put it in quotes, or leave it out")
        wanted = self._wanted(request.get("outputs"), parameters.get("binary_data_output"), number)
        given = self._read(_objects(request, "inputs"), binary, may_hold_booleans(header))
        columns, num_rows = self.tensors.columns(given)
        return Ask(columns, num_rows, partial(self.render, wanted))

    def _wanted(self, outputs: Any, default: Any, number: str | None) -> Wanted:
        asked = _objects({"outputs": [] if outputs is None else outputs}, "outputs")
        names = self.tensors.check_outputs([each.get("name") for each in asked])
        binary = set(names) if _flag(default, "binary_data_output") and not asked else set()
        for each in asked:
            where = f"output {shown(each['name'])}"
            parameters = _parameters(each, where)
            check_parameters(parameters, where)
            if _flag(parameters.get("binary_data", default), "binary_data"):
                binary.add(each["name"])
        return Wanted(names, frozenset(binary), number)

    def _read(self, inputs: Sequence[dict[str, Any]], binary: memoryview, booleans: bool) -> dict[str, NDArray[Any]]:
        described = [tensors.said(each.get("name"), each.get("datatype"), each.get("shape")) for each in inputs]
        self.tensors.check_inputs([tensor.name for tensor in described])
        found: dict[str, NDArray[Any]] = {}
        start = 0
        for each, tensor in zip(inputs, described, strict=True):
            parameters = _parameters(each, tensor.where)
            check_parameters(parameters, tensor.where)
            size = parameters.get("binary_data_size")
            if ("data" in each) == (size is not None):
                found_what = "both 'data' and" if "data" in each else "neither 'data' nor"
                raise RequestError(
                    f"{tensor.where}: found {found_what} 'binary_data_size'; one of them is needed", HINT
                )
            if size is None:
                found[tensor.name] = from_json(tensor, each["data"], booleans=booleans)
                continue
            if type(size) is not int or not 0 <= size <= len(binary) - start:
                raise RequestError(
                    f"{tensor.where}: 'binary_data_size' is {shown(size)}; {len(binary) - start} bytes are left after "
                    "the JSON and the inputs before",
                    "send the JSON's length in the header Inference-Header-Content-Length, then the inputs' bytes",
                )
            found[tensor.name] = tensors.from_bytes(tensor, binary[start : start + size])
            start += size
        if start < len(binary):
            raise RequestError(
                f"{len(binary) - start} bytes are left after the last input",
                "'binary_data_size' of all inputs must add up to what follows the JSON",
            )
        return found

    def render(self, wanted: Wanted, predictions: Predictions) -> Reply:
        """Outputs as JSON in row-major order, or as bytes after the JSON."""
        document: dict[str, Any] = {"model_name": self.model.model, "model_version": str(self.model.version)}
        if wanted.id is not None:
            document["id"] = wanted.id
        outputs, chunks = [], []
        for name, values in self.tensors.answers(predictions, wanted.names):
            output = {"name": name, "datatype": tensors.datatype_of(values), "shape": list(values.shape)}
            if name in wanted.binary:
                chunks.append(tensors.to_bytes(values))
                output["parameters"] = {"binary_data_size": len(chunks[-1])}
            else:
                output["data"] = values.tolist() if values.dtype == object else values.ravel()
            outputs.append(output)
        document["outputs"] = outputs
        header = to_json(document)
        if not chunks:
            return Reply(header)
        length = {JSON_LENGTH.decode(): str(len(header))}
        return Reply(b"".join([header, *chunks]), media_type=BINARY, headers=length)


def _health(path: str, handler: Any, summary: str, response: dict[str, Any]) -> Route:
    return Route("GET", path, handler, scope="open", summary=summary, response=response)


def _parts(call: Call) -> tuple[bytes, memoryview]:
    """The JSON and what follows it."""
    declared = call.headers.get(JSON_LENGTH)
    if declared is None:
        return call.body, memoryview(b"")
    length = int(declared) if declared.isdigit() and len(declared) < 20 else -1
    if not 0 <= length <= len(call.body):
        raise RequestError(
            f"the header Inference-Header-Content-Length is {shown(declared.decode('latin-1'))}; the body has "
            f"{len(call.body)} bytes",
            "say how many bytes of the body, as it is before compression, are JSON",
        )
    return call.body[:length], memoryview(call.body)[length:]


def _objects(request: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = request.get(name)
    if found is None:
        raise RequestError(f"the body must hold {name!r}", HINT)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        what = kind_of(found) if not isinstance(found, list) else "a list that holds something else"
        raise RequestError(f"{name!r} must be a list of objects; found {what}", HINT)
    return found


def _parameters(holder: dict[str, Any], where: str) -> dict[str, Any]:
    found = holder.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise RequestError(f"{where}: 'parameters' must be an object; found {kind_of(found)}", "leave them out")
    for name, value in found.items():
        if isinstance(value, dict | list):
            raise RequestError(
                f"{where}: parameter {shown(name)} must be text, a number, true or false; found {kind_of(value)}",
                "leave it out",
            )
    return found


def _flag(value: Any, name: str) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    raise RequestError(f"{name!r} must be true or false; found {kind_of(value)}", "leave it out for JSON")
