"""The Open Inference Protocol over gRPC, through HAProxy and through Ray's Python proxy, to real replicas."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import httpx
import numpy as np
import psutil
import pytest

from raypipe.errors import PortInUseError, ServeError
from raypipe.records import DatasetVersion, Endpoint
from raypipe.serve.protocols.oip_grpc import HEALTH, INFERENCE
from raypipe.serve.stage import deploy, stop
from raypipe.spec.resources import ResourceSpec
from raypipe.spec.serve import ServeSpec
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import run_context, tiny_dataset
from raypipe.testing.served import model_version
from tests.conftest import pick_ports

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8)).astype(np.uint8)
MAX_BODY_BYTES = 2**20
TIMEOUT_S = 30.0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalFolder:
    return LocalFolder(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def digits(store: LocalFolder) -> DatasetVersion:
    return tiny_dataset(store, {"image": IMAGES}, np.array(["a", "b", "c", "a", "b"], object))


@pytest.fixture(scope="module", params=["haproxy", "python"])
def endpoint(
    request: pytest.FixtureRequest, store: LocalFolder, digits: DatasetVersion, ray_cluster: SimpleNamespace
) -> Iterator[Endpoint]:
    port, grpc_port = pick_ports(2)
    spec = ServeSpec(
        port=port,
        grpc_port=grpc_port,
        ingress=request.param,
        max_body_bytes=MAX_BODY_BYTES,
        max_replicas=1,
        start_timeout_s=90.0,
        resources=ResourceSpec(num_cpus=0.5),
    )
    with pytest.MonkeyPatch.context() as patch:
        # Longer than `stop` waits: with Serve HAProxy ends, and no replica waits until it is forgotten there.
        patch.setenv("RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S", "90")
        yield deploy(spec, model_version(store, digits, name="digits"), run_context(store))
        stop()


@pytest.fixture
def call(endpoint: Endpoint) -> Iterator[Callable[..., Any]]:
    """Ask by the name of a call and the fields of its request."""
    with grpc.insecure_channel(endpoint.grpc or "") as channel:

        def ask(method: str, *, service: Any = INFERENCE, **fields: Any) -> Any:
            asked, answer = service.calls[method]
            sent = channel.unary_unary(f"/{service.service}/{method}", asked.SerializeToString, answer.FromString)
            return sent(asked(**fields), timeout=TIMEOUT_S, wait_for_ready=True)

        yield ask


def infer_fields(images: Any) -> dict[str, Any]:
    described = {"name": "image", "datatype": "UINT8", "shape": images.shape}
    return {"model_name": "digits", "id": "7", "inputs": [described], "raw_input_contents": [images.tobytes()]}


def test_grpc_answers_what_http_answers_and_refuses_in_the_same_words(endpoint: Endpoint, call: Callable[..., Any]):
    answer = call("ModelInfer", **infer_fields(IMAGES))
    found = dict(zip([output.name for output in answer.outputs], answer.raw_output_contents, strict=True))
    wrong = {"inputs": [{"name": "imgae", "datatype": "UINT8", "shape": [1], "data": [1]}]}
    with httpx.Client(base_url=endpoint.url, trust_env=False, timeout=TIMEOUT_S) as client:
        rows = client.post("/predict", json={"instances": IMAGES.tolist()}).raise_for_status().json()["predictions"]
        refused = client.post("/v2/models/digits/infer", json=wrong)
    expected = np.array([row["probabilities"] for row in rows], np.float32)
    assert found["probabilities"] == expected.tobytes()
    assert found["label"] == b"".join(b"\x01\x00\x00\x00" + row["label"].encode() for row in rows)
    assert (answer.id, answer.model_name, answer.model_version) == ("7", "digits", "1")
    with pytest.raises(grpc.RpcError) as raised:
        call("ModelInfer", model_name="digits", inputs=[{"name": "imgae", "datatype": "UINT8", "shape": [1]}])
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert (
        raised.value.details() == refused.json()["error"] == "input 'image' is missing; expected UINT8 [rows, 8, 8];"
        " is 'imgae' meant? name it 'image'"
    )
    metadata: Any = raised.value.trailing_metadata()
    assert dict(metadata)["x-raypipe-model"] == "digits@1"


def test_health_and_metadata_are_answered(call: Callable[..., Any]):
    assert call("ServerLive").live and call("ServerReady").ready
    assert call("ModelReady", name="digits").ready
    assert call("Check", service=HEALTH).status == 1
    assert [tensor.name for tensor in call("ModelMetadata", name="digits").inputs] == ["image"]
    with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
        call("ModelReady", name="letters")


def test_message_over_the_limit_is_refused_unread_and_the_replica_goes_on(call: Callable[..., Any]):
    with pytest.raises(grpc.RpcError, match="RESOURCE_EXHAUSTED"):
        call("ModelInfer", **infer_fields(np.zeros((20_000, 8, 8), np.uint8)))
    assert len(call("ModelInfer", **infer_fields(IMAGES)).outputs) == 3


def test_no_port_that_other_machines_reach_answers_the_calls(endpoint: Endpoint, call: Callable[..., Any]):
    assert call("ServerLive").live
    listening = {
        (socket.laddr.port, ipaddress.ip_address(socket.laddr.ip))
        for process in psutil.Process().children(recursive=True)
        for socket in process.net_connections("inet")
        if socket.status == psutil.CONN_LISTEN
    }
    closed = {port for port, ip in listening if (getattr(ip, "ipv4_mapped", None) or ip).is_loopback}
    assert int((endpoint.grpc or "").rsplit(":", 1)[1]) in closed
    for port in {port for port, _ in listening} - closed:  # Ray's own, of which the cluster of these tests has some
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary(f"/{INFERENCE.service}/ServerLive")(b"", timeout=2)


def test_second_application_cannot_bring_another_port_for_grpc(
    endpoint: Endpoint, store: LocalFolder, digits: DatasetVersion
):
    port = int(endpoint.url.rsplit(":", 1)[1])
    taken = int((endpoint.grpc or "").rsplit(":", 1)[1])
    spec = ServeSpec(port=port, grpc_port=taken + 1, route_prefix="/other")
    with pytest.raises((ServeError, PortInUseError), match=f"with gRPC on port {taken}"):
        deploy(spec, model_version(store, digits, name="other"), run_context(store))
