"""An endpoint on real Ray Serve with keys and TLS: who is let in, what listens where, no secret left behind."""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import re
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import httpx
import numpy as np
import psutil
import pytest
import trustme

from raypipe.errors import ServeError
from raypipe.records import DatasetVersion, Endpoint
from raypipe.serve import deployment, stage
from raypipe.serve.certificate import trusting
from raypipe.serve.keys import line_of, new_key, own_key
from raypipe.serve.stage import deploy, status, stop
from raypipe.spec.access import AuthSpec, TlsSpec
from raypipe.spec.resources import ResourceSpec
from raypipe.spec.serve import ServeSpec
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import run_context, tiny_dataset
from raypipe.testing.served import model_version
from tests.conftest import pick_ports
from tests.integration.sniffing import listening_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

HOST = "127.0.0.2"
"""An address of this machine that is not the one everything else of Serve listens on."""

ROWS = [{"x": 1.0}, {"x": 2.0}]
PREDICT, ADMIN, CANARY = new_key(), new_key(), "canary-" + os.urandom(12).hex()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalFolder:
    return LocalFolder(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def dataset(store: LocalFolder) -> DatasetVersion:
    return tiny_dataset(store, {"x": np.arange(8.0)}, np.arange(8) % 2)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("closed")
    authority = trustme.CA()
    issued = authority.issue_cert(HOST)
    (folder / "authority.pem").write_bytes(authority.cert_pem.bytes())
    (folder / "cert.pem").write_bytes(issued.cert_chain_pems[0].bytes())
    (folder / "key.pem").write_bytes(issued.private_key_pem.bytes())
    (folder / "keys.jsonl").write_text(line_of(PREDICT, "ann", ["predict"]) + "\n" + line_of(ADMIN, "ada", ["admin"]))
    return folder


@pytest.fixture(scope="module")
def spec(ray_cluster: SimpleNamespace, files: Path) -> Iterator[ServeSpec]:
    port, grpc_port = pick_ports(2)
    yield ServeSpec(
        host=HOST,
        port=port,
        grpc_port=grpc_port,
        ingress="haproxy",
        start_timeout_s=90,
        max_replicas=1,
        resources=ResourceSpec(num_cpus=0.5),
        auth=AuthSpec(keys_file=str(files / "keys.jsonl")),
        tls=TlsSpec(cert_file=str(files / "cert.pem"), key_file=str(files / "key.pem")),
    )
    stop()


@pytest.fixture(scope="module")
def served(spec: ServeSpec, store: LocalFolder, dataset: DatasetVersion) -> Endpoint:
    return deploy(spec, model_version(store, dataset, name="tiny"), run_context(store), probe_rows=ROWS)


@pytest.fixture
def client(served: Endpoint) -> Iterator[httpx.Client]:
    assert served.cert_file is not None
    with httpx.Client(base_url=served.url, verify=trusting(served.cert_file), trust_env=False, timeout=30) as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_deployment_asks_its_endpoint_by_tls_with_a_key_of_its_own(served: Endpoint, client: httpx.Client):
    assert served.url.startswith(f"https://{HOST}:") and served.needs_key
    assert len(served.probe["answer"]["predictions"]) == 2
    (row,) = status()
    assert (row["state"], row["url"]) == ("RUNNING", served.url)
    assert client.post("/predict", json={"instances": ROWS}, headers=bearer(own_key())).status_code == 200


def test_nobody_is_let_in_without_a_key_and_health_is_open(client: httpx.Client):
    assert client.post("/predict", json={"instances": ROWS}, headers=bearer(PREDICT)).status_code == 200
    assert client.get("/healthz").status_code == 200 and client.get("/-/healthz").status_code == 200
    for headers, wanted in (({}, 401), (bearer(new_key()), 401), (bearer(ADMIN), 403)):
        answer = client.post("/predict", json={"instances": ROWS}, headers=headers)
        assert answer.status_code == wanted and set(answer.json()["error"]) == {"code", "message", "hint"}
    for path in (
        "/metadata",
        "/openapi.json",
        "/absent",
        "/-/routes",
        "/%2d/routes",
        "/-/%72outes",
        "//-/routes",
        "/healthz/../-/routes",
    ):
        answer = client.get(path)
        assert answer.status_code == 401 and b"tiny" not in answer.content, path
    page = client.get("/")
    assert page.status_code == 200 and b"tiny" not in page.content, "it tells nothing until a key is typed"


def test_grpc_asks_for_tls_and_for_the_same_keys(served: Endpoint, spec: ServeSpec, files: Path):
    def code(channel: grpc.Channel, path: str, *metadata: tuple[str, str]) -> grpc.StatusCode:
        try:
            channel.unary_unary(path)(b"", metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            return error.code()  # pyright: ignore[reportAttributeAccessIssue]
        return grpc.StatusCode.OK

    check, metadata = "/grpc.health.v1.Health/Check", "/inference.GRPCInferenceService/ServerMetadata"
    trusted = grpc.ssl_channel_credentials((files / "authority.pem").read_bytes())
    with grpc.secure_channel(f"{HOST}:{spec.grpc_port}", trusted) as channel:
        assert code(channel, check) == grpc.StatusCode.OK
        assert code(channel, metadata, ("authorization", f"Bearer {PREDICT}")) == grpc.StatusCode.OK
        assert code(channel, metadata, ("x-api-key", PREDICT)) == grpc.StatusCode.OK
        assert code(channel, metadata) == grpc.StatusCode.UNAUTHENTICATED
        assert code(channel, metadata, ("x-api-key", ADMIN)) == grpc.StatusCode.PERMISSION_DENIED
    with grpc.insecure_channel(f"{HOST}:{spec.grpc_port}") as channel:
        assert code(channel, check) == grpc.StatusCode.UNAVAILABLE


def test_only_haproxy_listens_where_the_file_says_and_all_else_on_loopback(served: Endpoint, spec: ServeSpec):
    mine = [psutil.Process(), *psutil.Process().children(recursive=True)]
    serve: dict[int, str] = {}
    for process in mine:
        command = " ".join(process.cmdline())
        if any(word in command for word in ("ServeReplica", "ServeController", "Proxy", "haproxy")):
            serve[process.pid] = command
    listening = [
        (str(found.laddr[0]), int(found.laddr[1]), serve[found.pid])
        for found in cast(Any, psutil.net_connections("tcp"))
        if found.status == psutil.CONN_LISTEN and found.pid in serve
    ]
    assert {entry[:2] for entry in listening if entry[0] == HOST} == {(HOST, spec.port), (HOST, spec.grpc_port)}
    elsewhere = [entry for entry in listening if not ipaddress.ip_address(entry[0]).is_loopback]
    assert not [entry for entry in elsewhere if "haproxy" in entry[2] or speaks_http(entry[1])]
    assert any("ServeReplica" in entry[2] and entry[0] == "127.0.0.1" for entry in listening), "what HAProxy reaches"


def speaks_http(port: int) -> bool:
    """Whether a web server listens there, or one of Ray's own, which speak nothing of the kind."""
    try:
        httpx.get(f"http://127.0.0.1:{port}/", trust_env=False, timeout=2)
    except httpx.TransportError:
        return False
    return True


def test_another_endpoint_without_tls_is_not_mixed_with_it(
    served: Endpoint, spec: ServeSpec, store: LocalFolder, dataset: DatasetVersion
):
    other = spec.model_copy(update={"tls": None, "route_prefix": "/other"})
    with pytest.raises(ServeError, match="on this cluster already, with the certificate"):
        deploy(other, model_version(store, dataset, name="other"), run_context(store))


def test_second_version_takes_over_and_is_asked_with_the_same_own_key(
    served: Endpoint, spec: ServeSpec, store: LocalFolder, dataset: DatasetVersion, client: httpx.Client
):
    second = deploy(spec, model_version(store, dataset, name="tiny", version=2), run_context(store), probe_rows=ROWS)
    assert second.probe["answer"]["version"] == 2
    assert client.post("/predict", json={"instances": ROWS}, headers=bearer(PREDICT)).status_code == 200


def test_keys_that_cannot_be_read_are_told_and_nothing_stays(
    served: Endpoint,
    spec: ServeSpec,
    store: LocalFolder,
    dataset: DatasetVersion,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delattr(stage, "_wait_running")  # it is known before a replica could tell
    for auth, told in (
        (AuthSpec(keys_env="NOBODY_SET_THIS"), "keys_env: NOBODY_SET_THIS is not set"),
        (AuthSpec(keys_file="/nowhere/keys"), "cannot be read: No such file"),
    ):
        apart = spec.model_copy(update={"auth": auth, "route_prefix": "/apart"})
        with pytest.raises(ServeError, match=told):
            deploy(apart, model_version(store, dataset, name="apart"), run_context(store))
        assert [row["name"] for row in status()] == ["tiny"]


def test_no_secret_is_left_in_a_file_or_a_command_line(
    served: Endpoint, client: httpx.Client, private_dir: Path, files: Path, store: LocalFolder
):
    send_secrets(client)
    forms = {form for secret in (PREDICT, ADMIN, own_key(), CANARY) for form in forms_of(secret)}
    time.sleep(1.0)  # logs are written by others, who tell nobody when
    found: set[str] = set()
    for file in private_dir.rglob("*"):
        if file.is_file() and not file.is_relative_to(files):
            content = file.read_bytes()
            found |= {f"{file} {form!r}" for form in forms if form in content}
    for process in psutil.Process().children(recursive=True):
        line = " ".join(process.cmdline()).encode()
        found |= {f"{process.pid} {form!r}" for form in forms if form in line}
    assert not found


def test_no_secret_crosses_a_socket_but_between_haproxy_and_replicas(
    served: Endpoint,
    spec: ServeSpec,
    store: LocalFolder,
    dataset: DatasetVersion,
    client: httpx.Client,
    files: Path,
    ray_cluster: SimpleNamespace,
):
    """Serve, dashboard, metrics, GCS and workers all talk over loopback here. HAProxy takes the TLS off, and a replica
    must see the key: whoever may listen to that may read its memory too. While replicas change, HAProxy asks Ray's own
    proxy, which asks a replica."""
    trusted = grpc.ssl_channel_credentials((files / "authority.pem").read_bytes())
    ports = ports_before_replicas()
    keys = [form for secret in (PREDICT, ADMIN, own_key()) for form in forms_of(secret)]
    try:
        with listening_for([*keys, *forms_of(CANARY)]) as heard:
            send_secrets(client)
            with grpc.secure_channel(f"{HOST}:{spec.grpc_port}", trusted) as channel:
                call = channel.unary_unary("/inference.GRPCInferenceService/ServerMetadata")
                call(b"", metadata=(("x-api-key", PREDICT), ("x-canary", CANARY)), timeout=10)
            third = model_version(store, dataset, name="tiny", version=3)
            deploy(spec, third, run_context(store), probe_rows=ROWS)  # asks with its own key
            status()
            for path in ("api/serve/applications/", "logical/actors", "nodes?view=summary", "api/jobs/"):
                httpx.get(f"{ray_cluster.dashboard_url}/{path}", trust_env=False, timeout=10)
            ports |= ports_before_replicas()
    except PermissionError:
        pytest.skip("listening on loopback needs CAP_NET_RAW")
    ways = heard.ways_of(keys)
    assert ways, "what is heard here would be heard elsewhere"
    assert {receiver[1] for _, receiver in ways} <= ports
    told = heard.ways_of(forms_of(CANARY))
    assert not {way for way in told if {way[0][1], way[1][1]}.isdisjoint(ports)}
    assert len(heard.words) > 2 * len(ways | told), "others talked meanwhile"


def ports_before_replicas() -> set[int]:
    """Where replicas listen, and Ray's proxy, which asks them."""
    return {
        connection.laddr[1]
        for process in psutil.Process().children(recursive=True)
        if {"ServeReplica", "ProxyActor"} & set(re.findall(r"\w+", " ".join(process.cmdline())))
        for connection in cast(Any, process.net_connections("tcp"))
        if connection.status == psutil.CONN_LISTEN
    }


def send_secrets(client: httpx.Client) -> None:
    """Requests that hold them wherever a client may put one, right or by mistake."""
    body = {"instances": [{"x": CANARY}]}
    for path, sent, headers in (
        ("/predict", {"instances": ROWS}, bearer(PREDICT)),
        ("/predict", body, {"x-api-key": PREDICT, "cookie": CANARY, "user-agent": CANARY}),
        ("/predict", body, bearer(CANARY)),
        (f"/{CANARY}?key={CANARY}", body, bearer(ADMIN)),
        ("/predict", {CANARY: ROWS}, bearer(PREDICT)),
    ):
        client.post(path, json=sent, headers=headers)


def forms_of(secret: str) -> list[bytes]:
    raw = secret.encode()
    inside = base64.b64encode(raw)[:-4]  # whatever stands after it
    return [raw, inside, urllib.parse.quote(secret).encode(), json.dumps(secret)[1:-1].encode()]


def test_variable_of_keys_reaches_replicas_of_a_ray_that_started_with_it(
    served: Endpoint, spec: ServeSpec, store: LocalFolder, dataset: DatasetVersion, monkeypatch: pytest.MonkeyPatch
):
    """This session's Ray was started with the variables of its environment; PATH is one of them, and holds no keys."""
    monkeypatch.setattr(stage, "is_on_this_machine_alone", lambda: False)  # as on a cluster: replicas alone read them
    monkeypatch.setattr(deployment, "START_ATTEMPTS", 1)  # another one fails alike
    apart = spec.model_copy(update={"auth": AuthSpec(keys_env="PATH"), "route_prefix": "/apart"})
    with pytest.raises(ServeError, match="keys_env: PATH is not one JSON object a line") as raised:
        deploy(apart, model_version(store, dataset, name="apart"), run_context(store))
    assert os.environ["PATH"] not in str(raised.value)
