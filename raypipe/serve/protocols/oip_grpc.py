"""Open Inference Protocol v2 over gRPC (inference.proto) and gRPC's health check (health.proto).

The same tensors, checks and words as over HTTP (oip.py); a path here is `/SERVICE/METHOD`, a body one message. Answers
are always in `raw_output_contents`, as Triton's and KServe's are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from raypipe.errors import RequestError
from raypipe.model.predictions import Predictions
from raypipe.serve.protocols import tensors
from raypipe.serve.protocols.base import (
    INLINE_MAX_BYTES,
    Ask,
    Call,
    Handler,
    Protocol,
    Reply,
    Route,
    Scope,
    Served,
    in_one_line,
)
from raypipe.serve.protocols.message_size import Torn, held_by, kind_of_message
from raypipe.serve.protocols.model_tensors import PLATFORM, VERSION, ModelTensors, check_parameters
from raypipe.serve.protocols.oip import EXTENSIONS
from raypipe.serve.protocols.proto_file import read_proto
from raypipe.serve.protocols.proto_wire import bytes_beside
from raypipe.serve.schema import shown

GRPC = "application/grpc"

INFERENCE = read_proto(Path(__file__).with_name("inference.proto"))
HEALTH = read_proto(Path(__file__).with_name("health.proto"))

RAW_FIELD = INFERENCE.messages["ModelInferRequest"].DESCRIPTOR.fields_by_name["raw_input_contents"].number

MESSAGES = INFERENCE.messages | HEALTH.messages

ASKED = kind_of_message(MESSAGES["ModelInferRequest"].DESCRIPTOR)

FIELDS = 10_000
"""Beside the texts of rows: some hundred inputs, told in detail, have a tenth of that."""

INTEGERS = 10_000
"""Beside the values of rows: shapes."""

CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Datatype -> the field of InferTensorContents that holds it; FP16 and BF16 have none."""


class OpenInferenceGrpc(Protocol):
    """What clients of KServe and Triton speak over gRPC."""

    def __init__(self, served: Served) -> None:
        super().__init__(served)
        self.tensors = ModelTensors(served)
        inputs, most_rows = served.signature.inputs, served.spec.max_request_rows
        self._most_fields = FIELDS + most_rows * sum(math.prod(each.shape) for each in inputs if each.dtype == "string")
        self._most_integers = INTEGERS + most_rows * sum(math.prod(each.shape) for each in inputs)

    def routes(self) -> list[Route]:
        inference, health = INFERENCE.service, HEALTH.service
        return [
            _route(inference, "ServerLive", self.live, "Whether the server runs.", "open"),
            _route(inference, "ServerReady", self.ready, "Whether the server answers.", "open"),
            _route(inference, "ModelReady", self.model_ready, "Whether the model answers.", "open"),
            _route(inference, "ServerMetadata", self.server, "Name, version and extensions of the server."),
            _route(inference, "ModelMetadata", self.metadata, "Inputs and outputs."),
            _route(inference, "ModelInfer", self.infer, "Predict rows given as tensors."),
            _route(inference, "RepositoryIndex", self.index, "The models of the server: this one.", "admin"),
            _route(health, "Check", self.health, "Whether a service answers.", "open"),
        ]

    def refuse(self, error: RequestError) -> Reply:
        """The text that goes with the status."""
        return Reply(in_one_line(error).encode(errors="replace"), error.status, GRPC)

    def is_bare(self, call: Call) -> bool:
        """Where all but little is in `raw_input_contents`, and no texts."""
        beside = bytes_beside(call.body, RAW_FIELD, INLINE_MAX_BYTES)
        return beside is not None and tensors.TEXT.encode() not in beside

    def live(self, call: Call) -> Reply:
        """This replica runs."""
        return _reply(MESSAGES["ServerLiveResponse"](live=True))

    def ready(self, call: Call) -> Reply:
        """A replica that answers has its model."""
        return _reply(MESSAGES["ServerReadyResponse"](ready=True))

    def model_ready(self, call: Call) -> Reply:
        """The same of the only model."""
        asked = _parsed("ModelReadyRequest", call)
        self._check_model(asked.name, asked.version)
        return _reply(MESSAGES["ModelReadyResponse"](ready=True))

    def server(self, call: Call) -> Reply:
        """Who answers."""
        answer = MESSAGES["ServerMetadataResponse"]
        return _reply(answer(name="raypipe", version=VERSION, extensions=EXTENSIONS[1:]))

    def metadata(self, call: Call) -> Reply:
        """Names, datatypes and shapes."""
        asked = _parsed("ModelMetadataRequest", call)
        self._check_model(asked.name, asked.version)
        answer = MESSAGES["ModelMetadataResponse"](
            name=self.model.model,
            versions=[str(self.model.version)],
            platform=PLATFORM,
            inputs=self.tensors.inputs(),
            outputs=self.tensors.outputs(),
        )
        return _reply(answer)

    def index(self, call: Call) -> Reply:
        """The only model."""
        row = {"name": self.model.model, "version": str(self.model.version), "state": "READY"}
        return _reply(MESSAGES["RepositoryIndexResponse"](models=[row]))

    def health(self, call: Call) -> Reply:
        """Of the whole server, or of one of its services."""
        asked = _parsed("HealthCheckRequest", call)
        if asked.service not in ("", INFERENCE.service, HEALTH.service):
            raise RequestError(f"unknown service {shown(asked.service)}", f"ask for {INFERENCE.service}", status=404)
        return _reply(MESSAGES["HealthCheckResponse"](status="SERVING"))

    def infer(self, call: Call) -> Ask:
        """Rows as tensors."""
        self._check_size(call.body)
        asked = _parsed("ModelInferRequest", call)
        self._check_model(asked.model_name, asked.model_version)
        check_parameters(_parameters(asked), "the request")
        names = self.tensors.check_outputs([each.name for each in asked.outputs])
        for each in asked.outputs:
            check_parameters(_parameters(each), f"output {shown(each.name)}")
        columns, num_rows = self.tensors.columns(self._read(asked))
        return Ask(columns, num_rows, partial(self.render, asked.id, names))

    def render(self, number: str, names: list[str], predictions: Predictions) -> Reply:
        """Each output described, and its bytes."""
        answer = MESSAGES["ModelInferResponse"](
            model_name=self.model.model, model_version=str(self.model.version), id=number
        )
        for name, values in self.tensors.answers(predictions, names):
            answer.outputs.add(name=name, datatype=tensors.datatype_of(values), shape=values.shape)
            answer.raw_output_contents.append(tensors.to_bytes(values))
        return _reply(answer)

    def _check_size(self, body: bytes | bytearray) -> None:
        if len(body) <= FIELDS:
            return
        try:
            fields, integers = held_by(body, ASKED, self._most_fields)
        except Torn:
            raise _no_message("ModelInferRequest") from None
        if fields > self._most_fields or integers > self._most_integers:
            found = (
                f"{integers} integers" if integers > self._most_integers else f"more than {self._most_fields} fields"
            )
            raise RequestError(
                f"the message holds {found}, which no {self.served.spec.max_request_rows} rows of this model need",
                "send each input once, its numbers packed or in 'raw_input_contents', and fewer rows",
                status=413,
            )

    def _read(self, asked: Any) -> dict[str, NDArray[Any]]:
        raw = asked.raw_input_contents
        if raw and len(raw) != len(asked.inputs):
            raise RequestError(
                f"'raw_input_contents' holds {len(raw)} tensors; the request describes {len(asked.inputs)} inputs",
                "send all inputs there, in their order, or all in 'contents'",
            )
        described = [tensors.said(each.name, each.datatype, list(each.shape)) for each in asked.inputs]
        self.tensors.check_inputs([tensor.name for tensor in described])
        found: dict[str, NDArray[Any]] = {}
        for place, (each, tensor) in enumerate(zip(asked.inputs, described, strict=True)):
            check_parameters(_parameters(each), tensor.where)
            if raw and each.HasField("contents"):
                raise RequestError(
                    f"{tensor.where}: found both 'contents' and 'raw_input_contents'", "send all inputs one way"
                )
            if raw:
                found[tensor.name] = tensors.from_bytes(tensor, memoryview(raw[place]))
            else:
                found[tensor.name] = _typed(tensor, each.contents)
        return found

    def _check_model(self, name: str, version: str) -> None:
        model = self.model
        if name != model.model:
            raise RequestError(f"no model {shown(name)} here", f"this endpoint serves '{model.model}'", status=404)
        if version not in ("", str(model.version)):
            raise RequestError(
                f"no version {shown(version)} of '{name}' here",
                f"this endpoint serves version {model.version}; leave the version out for the one that is served",
                status=404,
            )


def _typed(tensor: tensors.Said, contents: Any) -> NDArray[Any]:
    field = CONTENTS.get(tensor.datatype)
    if field is None:
        raise RequestError(f"{tensor.where}: {tensor.datatype} has no 'contents'", "send it in 'raw_input_contents'")
    filled = [other.name for other, _ in contents.ListFields() if other.name != field]
    if filled:
        raise RequestError(
            f"{tensor.where}: found '{filled[0]}'; the values of {tensor.datatype} go into '{field}'",
            "send 'datatype' and 'contents' that agree",
        )
    values = getattr(contents, field)
    if tensor.datatype == tensors.TEXT:
        return tensors.from_texts(tensor, values)
    return tensors.from_numbers(tensor, values)


def _parameters(holder: Any) -> Mapping[str, Any]:
    if not holder.parameters:
        return {}
    chosen = {name: (value, value.WhichOneof("parameter_choice")) for name, value in holder.parameters.items()}
    return {name: getattr(value, choice) for name, (value, choice) in chosen.items() if choice}


def _parsed(name: str, call: Call) -> Any:
    try:
        return MESSAGES[name].FromString(call.body)
    except DecodeError:
        raise _no_message(name) from None


def _no_message(name: str) -> RequestError:
    return RequestError(f"the message is no {name}", "see inference.proto of raypipe, KServe or Triton")


def _reply(message: Any) -> Reply:
    return Reply(message.SerializeToString(), media_type=GRPC)


def _route(service: str, method: str, handler: Handler, summary: str, scope: Scope = "predict") -> Route:
    return Route("POST", f"/{service}/{method}", handler, accepts=(GRPC,), scope=scope, summary=summary)
