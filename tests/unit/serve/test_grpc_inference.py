"""The calls of gRPC through a real server and channel on loopback, without Ray."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pool

from raypipe.errors import RequestError, ServeError
from raypipe.records import DatasetVersion
from raypipe.serve import grpc_inference
from raypipe.serve.app import ModelApp
from raypipe.serve.grpc_inference import CALLBACK, add_services, grpc_env, grpc_options
from raypipe.serve.protocols import tensors
from raypipe.serve.protocols.oip_grpc import HEALTH, INFERENCE, MESSAGES
from raypipe.serve.protocols.proto_file import read_proto
from raypipe.serve.statuses import CODES
from raypipe.spec.serve import ServeSpec
from raypipe.storage.local import LocalFolder
from raypipe.testing.served import ask as ask_http
from raypipe.testing.served import model_app, model_version

IMAGES = np.random.default_rng(2).integers(0, 256, (3, 4, 3)).astype(np.uint8)
SPEC = ServeSpec(grpc_port=9000, max_body_bytes=4096, max_request_rows=20, engine="eager")
TIMEOUT_S = 10.0
STATUSES = {
    "INVALID_ARGUMENT": [400, 405, 406, 413, 415, 422, 431],
    "UNAUTHENTICATED": [401],
    "PERMISSION_DENIED": [403],
    "NOT_FOUND": [404],
    "DEADLINE_EXCEEDED": [408, 504],
    "RESOURCE_EXHAUSTED": [429],
    "UNAVAILABLE": [503],
    "INTERNAL": [500],
}


@pytest.fixture
def app(store: LocalFolder, images: DatasetVersion) -> ModelApp:
    return model_app(store, model_version(store, images, name="shapes", version=7), SPEC)


def served(app: ModelApp, work: Callable[[grpc.aio.Channel], Awaitable[Any]]) -> Any:
    """What `work` returns, which is given a channel to a server of this app."""

    async def run() -> Any:
        server = grpc.aio.server()
        add_services(app, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                return await work(channel)
        finally:
            await server.stop(None)

    return asyncio.run(run())


def call(app: ModelApp, method: str, request: Any = b"", service: Any = INFERENCE, **fields: Any) -> Any:
    """One answer; `request` are bytes, or there are fields."""
    asked, answer = service.calls[method]
    body = asked(**fields).SerializeToString() if fields else request

    async def ask(channel: grpc.aio.Channel) -> Any:
        sent = channel.unary_unary(f"/{service.service}/{method}", response_deserializer=answer.FromString)
        return await sent(body, timeout=TIMEOUT_S)

    return served(app, ask)


def refusal(app: ModelApp, method: str, request: Any = b"", service: Any = INFERENCE, **fields: Any) -> tuple[Any, str]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        call(app, method, request, service, **fields)
    details = raised.value.details() or ""
    assert "/tmp" not in details and "Traceback" not in details
    return raised.value.code(), details


def raw(values: Any = IMAGES, **changes: Any) -> dict[str, Any]:
    described = {"name": "image", "datatype": tensors.datatype_of(values), "shape": values.shape}
    data = {"inputs": [described], "raw_input_contents": [tensors.to_bytes(values)]}
    return {"model_name": "shapes", **data, **changes}


def typed(values: Any = IMAGES, datatype: str = "UINT8", field: str = "uint_contents", **more: Any) -> dict[str, Any]:
    contents = {field: values.ravel().tolist(), **more}
    described = {"name": "image", "datatype": datatype, "shape": values.shape, "contents": contents}
    return {"model_name": "shapes", "inputs": [described]}


def arrays(answer: Any) -> dict[str, Any]:
    return {
        output.name: np.frombuffer(data, tensors.NUMBERS[output.datatype]).reshape(tuple(output.shape))
        for output, data in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


def test_raw_and_typed_contents_give_the_numbers_of_http(app: ModelApp):
    described = {"name": "image", "datatype": "UINT8", "shape": [3, 12], "data": IMAGES.ravel().tolist()}
    answer = ask_http(app, "POST", "/v2/models/shapes/infer", json.dumps({"inputs": [described]}).encode())
    expected = {each["name"]: each for each in json.loads(bytes(answer.body))["outputs"]}
    for fields in (
        raw(id="a"),
        raw(id="a", model_version="7"),
        {**typed(), "id": "a"},
        {**typed(IMAGES.reshape(3, 12), "FP32", "fp32_contents"), "id": "a"},
    ):
        answer = call(app, "ModelInfer", **fields)
        assert (answer.model_name, answer.model_version, answer.id) == ("shapes", "7", "a")
        found = arrays(answer)
        assert list(found) == list(expected) == ["probabilities", "label", "probability"]
        for name, values in found.items():
            np.testing.assert_array_equal(values, np.reshape(expected[name]["data"], values.shape).astype(values.dtype))
    answer = call(app, "ModelInfer", **raw(outputs=[{"name": "label"}]))
    assert [output.name for output in answer.outputs] == ["label"]


def test_server_model_repository_and_health_answer(app: ModelApp):
    assert call(app, "ServerLive").live and call(app, "ServerReady").ready
    assert call(app, "ModelReady", name="shapes", version="7").ready
    assert call(app, "ServerMetadata").name == "raypipe"
    metadata = call(app, "ModelMetadata", name="shapes")
    assert [(each.name, each.datatype, list(each.shape)) for each in metadata.inputs] == [
        ("image", "UINT8", [-1, 4, 3])
    ]
    assert [each.name for each in metadata.outputs] == ["probabilities", "label", "probability"]
    (row,) = call(app, "RepositoryIndex").models
    assert (row.name, row.version, row.state) == ("shapes", "7", "READY")
    for service in ("", INFERENCE.service):
        assert (
            call(
                app,
                "Check",
                service=HEALTH,
                request=MESSAGES["HealthCheckRequest"](service=service).SerializeToString(),
            ).status
            == 1
        )


def test_unknown_model_version_or_service_is_not_found(app: ModelApp):
    for method in ("ModelReady", "ModelMetadata"):
        assert refusal(app, method, name="other")[0] == grpc.StatusCode.NOT_FOUND
    code, details = refusal(app, "ModelInfer", **raw(model_version="8"))
    assert code == grpc.StatusCode.NOT_FOUND and "this endpoint serves version 7" in details
    asked = MESSAGES["HealthCheckRequest"](service="other").SerializeToString()
    assert refusal(app, "Check", asked, HEALTH)[0] == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_name": "shapes"}, "input 'image' is missing"),
        (raw(inputs=[{"name": "imgae", "datatype": "UINT8", "shape": [3, 4, 3]}]), "is 'imgae' meant?"),
        (raw(inputs=[{"name": "image", "datatype": "UINT8", "shape": [-1, 4, 3]}]), "'shape' holds -1"),
        (raw(inputs=[{"name": "image", "datatype": "UINT9", "shape": [3, 4, 3]}]), "unknown datatype"),
        (raw(inputs=[{"name": "image", "datatype": "UINT8", "shape": [1] * 65}]), "65 dimensions"),
        (raw(inputs=[{"name": "image", "datatype": "UINT8", "shape": [2**62] * 3}]), "more than any memory holds"),
        (raw(raw_input_contents=[b"abc"]), "found 3 bytes; UINT8"),
        (raw(raw_input_contents=[b"", b""]), "'raw_input_contents' holds 2 tensors; the request describes 1"),
        (raw(IMAGES[:, :2]), "expected [rows, 4, 3]"),
        (raw(np.zeros((21, 12), np.uint8)), "21 rows; at most 20"),
        (raw(np.full((1, 12), np.nan, np.float32)), "row 0, field 'image'"),
        (raw(outputs=[{"name": "labels"}]), "did you mean 'label'?"),
        (raw(parameters={"sequence_id": {"int64_param": 3}}), "keeps no state"),
        (typed() | {"raw_input_contents": [IMAGES.tobytes()]}, "found both 'contents' and 'raw_input_contents'"),
        (typed(field="int_contents"), "found 'int_contents'; the values of UINT8 go into 'uint_contents'"),
        (typed(fp32_contents=[1.0]), "found 'fp32_contents'"),
        (typed(IMAGES[:1], "INT8", "int_contents"), "INT8 is expected"),
        (typed(IMAGES, "FP16", "fp32_contents"), "FP16 has no 'contents'"),
        (typed(IMAGES[:, :, :2]) | {}, "expected [rows, 4, 3]"),
    ],
)
def test_wrong_request_is_an_invalid_argument_in_the_words_of_http(fields: dict[str, Any], words: str, app: ModelApp):
    code, details = refusal(app, "ModelInfer", **fields)
    assert code == grpc.StatusCode.INVALID_ARGUMENT and words in details


@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"\x3a\x7f", b"\x0a\x02\xff\xfe"])
def test_message_that_is_none_is_refused(body: bytes, app: ModelApp):
    assert refusal(app, "ModelInfer", body)[0] == grpc.StatusCode.INVALID_ARGUMENT


def test_message_over_the_limit_of_the_application_is_refused(app: ModelApp):
    code, details = refusal(app, "ModelInfer", **raw(np.zeros((400, 12), np.uint8)))
    assert code == grpc.StatusCode.INVALID_ARGUMENT and "at most 4096 are read" in details


def test_application_without_grpc_port_answers_none(classifier: ModelApp):
    code, details = refusal(classifier, "ServerLive")
    assert code == grpc.StatusCode.NOT_FOUND and "serve.grpc_port" in details


def test_refusals_carry_their_status_and_headers(app: ModelApp):
    assert {status for statuses in STATUSES.values() for status in statuses} == set(CODES)
    for code, status in ((code, status) for code, statuses in STATUSES.items() for status in statuses):
        app._batcher.predict = refusing(RequestError("no", "later", status=status, headers={"retry-after": "3"}))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            call(app, "ModelInfer", **raw())
        metadata: Any = raised.value.trailing_metadata()
        assert raised.value.code().name == code, status
        assert raised.value.details() == "no; later"
        assert {"retry-after": "3", "x-raypipe-model": "shapes@7"}.items() <= dict(metadata).items()


def refusing(error: RequestError) -> Any:
    async def predict(features: Any, **how: Any) -> Any:
        raise error

    return predict


def test_model_that_breaks_is_internal_without_its_inner_words(app: ModelApp):
    def broken(features: Any) -> Any:
        raise RuntimeError("/tmp/secret/path")

    app._batcher._model = broken
    code, details = refusal(app, "ModelInfer", **raw())
    assert code == grpc.StatusCode.INTERNAL and "secret" not in details


def test_every_call_of_the_files_is_a_method_and_a_route(app: ModelApp):
    calls = {f"/{each.service}/{name}" for each in grpc_inference.SERVICES for name in each.calls}
    assert {route.path for route in app.rpc_routes()} == calls
    assert {route.path.rsplit("/", 1)[1] for route in app.rpc_routes() if route.scope == "predict"} == {
        "ServerMetadata",
        "ModelMetadata",
        "ModelInfer",
    }
    assert all(callable(getattr(app, path.rsplit("/", 1)[1])) for path in calls)


def test_names_of_the_protocol_stay_free_in_the_pool_that_all_libraries_share():
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest")


@pytest.mark.parametrize(
    "text", ['import "other.proto";', "message A { optional int32 a = 1; }", "message A { int32 a 1; }"]
)
def test_proto_file_that_is_not_understood_is_refused(text: str, tmp_path: Path):
    (tmp_path / "a.proto").write_text(f'syntax = "proto3";\npackage a;\n{text}\n')
    with pytest.raises(ValueError, match=r"a\.proto: "):
        read_proto(tmp_path / "a.proto")


def test_ray_is_told_of_grpc_only_where_the_file_names_a_port(monkeypatch: pytest.MonkeyPatch):
    assert grpc_options(ServeSpec(), 5.0) is None and grpc_env(ServeSpec(), "127.0.0.1") == {}
    spec = ServeSpec(grpc_port=9000, host="::1")
    options = grpc_options(spec, 5.0)
    assert options is not None and (options["port"], options["request_timeout_s"]) == (9000, 5.0)
    assert grpc_env(spec, "::1")["RAYPIPE_GRPC_HOST"] == "::1"
    monkeypatch.setenv(CALLBACK, "mine.middlewares")
    with pytest.raises(ServeError, match=r"which is set to mine\.middlewares"):
        grpc_env(spec, "::1")
