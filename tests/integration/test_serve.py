"""Ray Serve behind HAProxy and behind Ray's Python proxy: real replicas, real HTTP, real mistakes.

One module, although it is long: a cluster has one Serve, which the tests share in the order they stand here, from none
that runs to what is beside the first application.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from raypipe.errors import DigestMismatch, ModelError, ObjectMissing, PortInUseError, ServeError
from raypipe.model.predictor import Predictor
from raypipe.pipeline.stages import probe_rows
from raypipe.records import DatasetVersion, Endpoint
from raypipe.runtime.context import RunContext
from raypipe.serve import awaited, deployment, running
from raypipe.serve.checker import columns_of
from raypipe.serve.stage import deploy, status, stop
from raypipe.spec.model import ImportModel
from raypipe.spec.resources import ResourceSpec
from raypipe.spec.serve import ServeSpec
from raypipe.storage import layout
from raypipe.storage.documents import write_document
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import run_context, tiny_dataset, tiny_nested
from raypipe.testing.served import model_version
from tests.conftest import pick_ports

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

ROWS = [{"image": np.random.default_rng(i).integers(0, 256, (8, 8)).tolist()} for i in range(5)]
START_TIMEOUT_S = 90.0

ONLY_IN_THE_DRIVER = """
import os
from torch import nn

if os.getpid() != {pid}:
    raise ImportError("no module named 'left_at_home'")

def build(input_shape, num_outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_outputs))
"""


NOT_IN_A_REPLICA = """
import ray
from torch import nn

if ray.get_runtime_context().get_actor_id():
    raise ImportError("no module named 'left_at_home'")

def build(input_shape, num_outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_outputs))
"""


ANSWERS_OTHERWISE_IN_A_REPLICA = """
import ray
from torch import nn


class Network(nn.Module):
    def __init__(self, num_outputs):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, num_outputs))
        self.factor = -1.0 if ray.get_runtime_context().get_actor_id() else 1.0

    def forward(self, x):
        return self.layers(x) * self.factor


def build(input_shape, num_outputs):
    return Network(num_outputs)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalFolder:
    return LocalFolder(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def digits(store: LocalFolder) -> DatasetVersion:
    images = np.stack([np.array(row["image"], np.uint8) for row in ROWS])
    return tiny_dataset(store, {"image": images}, np.array(["a", "b", "c", "a", "b"], object))


@pytest.fixture(scope="module")
def users(store: LocalFolder) -> DatasetVersion:
    """Rows of JSON lines with fields in objects and a list of texts; kept with the run that made them."""
    dataset = tiny_nested(store, name="users")
    write_document(store, layout.dataset_record("users", dataset.version), dataset)
    write_document(store, layout.run_spec("rtest"), {"spec": {"name": "users"}})
    return dataset


@pytest.fixture
def ctx(store: LocalFolder, ray_cluster: SimpleNamespace) -> RunContext:
    return run_context(store)


@pytest.fixture(scope="module")
def spec(ray_cluster: SimpleNamespace) -> Iterator[ServeSpec]:
    """One port for the module, since a cluster has one Serve; whatever runs in the end is stopped."""
    (port,) = pick_ports(1)
    yield ServeSpec(port=port, start_timeout_s=START_TIMEOUT_S, max_replicas=1, resources=ResourceSpec(num_cpus=0.5))
    stop()


@pytest.fixture(scope="module")
def served_by_python(spec: ServeSpec, store: LocalFolder, digits: DatasetVersion) -> Endpoint:
    """Version 1 of digits behind Ray's Python proxy, until the test that stops it."""
    model = model_version(store, digits, name="digits")
    return deploy(spec.model_copy(update={"ingress": "python"}), model, run_context(store), probe_rows=ROWS[:2])


@pytest.fixture(scope="module")
def served(spec: ServeSpec, store: LocalFolder, digits: DatasetVersion) -> Endpoint:
    """Version 1 of digits behind HAProxy; the tests before the first that asks for it find nothing served."""
    model = model_version(store, digits, name="digits")
    return deploy(spec.model_copy(update={"ingress": "haproxy"}), model, run_context(store), probe_rows=ROWS[:2])


def write_code(folder: Path, source: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model.py").write_text(source)
    return folder


@pytest.fixture
def clean_modules() -> Iterator[None]:
    import sys

    path = list(sys.path)
    yield
    sys.path[:] = path
    sys.modules.pop("model", None)


def assert_answers_as_the_predictor_and_survives_bad_requests(
    endpoint: Endpoint, store: LocalFolder, digits: DatasetVersion
) -> None:
    model = model_version(store, digits, name="digits")
    expected = Predictor.load(store, model.artifact).predict(columns_of(ROWS, digits.signature, max_rows=10)).values
    assert endpoint.probe["request"] == {"instances": ROWS[:2]}
    assert len(endpoint.probe["answer"]["predictions"]) == 2
    with httpx.Client(base_url=endpoint.url, trust_env=False, timeout=30) as client:
        for path in ("/predict", "/v1/models/digits:predict"):
            answer = client.post(path, json={"instances": ROWS})
            found = [row["probabilities"] for row in answer.raise_for_status().json()["predictions"]]
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
            assert answer.headers["x-raypipe-model"] == "digits@1"
        assert client.get("/healthz").json() == {"status": "ok", "model": "digits", "version": 1}
        assert client.get("/-/healthz").status_code == 200
        replica = replica_pid()
        for what, (wanted, send) in bad_requests().items():
            answer = send(client)
            assert answer.status_code == wanted, f"{what}: {answer.text[:200]}"
            error = answer.json()["error"]  # the words of TensorFlow Serving below /v1/, raypipe's elsewhere
            assert error if what == "wrong model" else set(error) == {"code", "message", "hint"}, what
        assert client.post("/predict", json={"instances": ROWS}).status_code == 200
    assert replica_pid() == replica, "a bad request took the replica down"
    (row,) = status()
    assert (row["name"], row["model"], row["version"], row["state"]) == ("digits", "digits", 1, "RUNNING")
    assert (row["replicas"], row["url"]) == (1, endpoint.url)


def bad_requests() -> dict[str, tuple[int, Callable[[httpx.Client], httpx.Response]]]:
    def post(**body: Any) -> Callable[[httpx.Client], httpx.Response]:
        return lambda client: client.post("/predict", **body)

    def chunks() -> Iterator[bytes]:
        yield b'{"instances": ['
        for _ in range(20):
            yield b"1," * 500_000

    big = b'{"instances": [' + b"1," * 10_000_000 + b"1]}"
    return {
        "wrong shape": (400, post(json={"instances": [{"image": [[1, 2], [3, 4]]}]})),
        "wrong dtype": (400, post(json={"instances": [{"image": [["a"] * 8] * 8}]})),
        "missing field": (400, post(json={"instances": [{}]})),
        "unknown field": (400, post(json={"instances": [{"imagee": 1}]})),
        "no rows": (400, post(json={"instances": []})),
        "broken JSON": (400, post(content=b'{"instances": [1,}', headers={"content-type": "application/json"})),
        "deep JSON": (400, post(content=b"[" * 100_000, headers={"content-type": "application/json"})),
        "20 MB": (413, post(content=big, headers={"content-type": "application/json"})),
        "20 MB in chunks": (413, post(content=chunks(), headers={"content-type": "application/json"})),
        "too many rows": (413, post(json={"instances": [1] * 10_001})),
        "wrong type": (415, post(content=b"1,2", headers={"content-type": "text/csv"})),
        "wrong method": (405, lambda client: client.get("/predict")),
        "wrong path": (404, lambda client: client.post("/predictions", json={})),
        "wrong model": (404, lambda client: client.post("/v1/models/other:predict", json={"instances": ROWS})),
    }


def replica_pid() -> int:
    (pid,) = replica_pids("digits")
    return pid


def replica_pids(name: str) -> list[int]:
    pids: list[int] = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ends meanwhile; one that nobody waited for yet is none
            if " ".join(child.cmdline()).startswith(f"ray::ServeReplica:{name}"):
                pids.append(child.pid)
    return pids


def test_port_in_use_is_refused_before_anything_starts(
    spec: ServeSpec, store: LocalFolder, digits: DatasetVersion, ctx: RunContext
):
    with socket.socket() as other:
        other.bind(("127.0.0.1", spec.port))
        other.listen()
        with pytest.raises(PortInUseError, match=str(spec.port)):
            deploy(spec, model_version(store, digits, name="digits"), ctx)
    assert status() == []


def test_damaged_artifact_is_refused_before_anything_starts(
    spec: ServeSpec, store: LocalFolder, digits: DatasetVersion, ctx: RunContext
):
    model = model_version(store, digits, name="damaged")
    store.write(f"{model.artifact.key}/weights.safetensors", b"something else")
    with pytest.raises((DigestMismatch, ObjectMissing)):
        deploy(spec, model, ctx)
    assert status() == []


def test_replica_that_fits_nowhere_is_a_timeout_that_says_what_it_needs(
    served_by_python: Endpoint, spec: ServeSpec, store: LocalFolder, digits: DatasetVersion, ctx: RunContext
):
    few_s = {"start_timeout_s": 2.0, "request_timeout_s": 1.0}  # Serve waits as long for a replica that never came
    hungry = spec.model_copy(update={"route_prefix": "/hungry", "resources": ResourceSpec(num_cpus=64), **few_s})
    with pytest.raises(ServeError, match=r"within 2 s: one replica needs CPU 64, free"):
        deploy(hungry, model_version(store, digits, name="hungry"), ctx)
    assert [row["name"] for row in status()] == ["digits"]


def test_endpoint_behind_the_python_proxy_answers_as_the_predictor_until_it_is_stopped(
    served_by_python: Endpoint, spec: ServeSpec, store: LocalFolder, digits: DatasetVersion
):
    endpoint = served_by_python
    assert (endpoint.ingress, endpoint.url) == ("python", f"http://127.0.0.1:{spec.port}")
    assert_answers_as_the_predictor_and_survives_bad_requests(endpoint, store, digits)
    assert stop() == ["digits"]
    assert status() == []
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{endpoint.url}/healthz", trust_env=False)


def test_endpoint_behind_haproxy_answers_as_the_predictor(
    served: Endpoint, spec: ServeSpec, store: LocalFolder, digits: DatasetVersion
):
    assert (served.ingress, served.url) == ("haproxy", f"http://127.0.0.1:{spec.port}")
    assert_answers_as_the_predictor_and_survives_bad_requests(served, store, digits)


@pytest.mark.parametrize(
    ("source", "kind", "told"),
    [
        (NOT_IN_A_REPLICA, ServeError, "homesick did not start: .*left_at_home"),
        (ONLY_IN_THE_DRIVER, ModelError, "model.py:build failed while being imported: .*left_at_home"),
    ],
    ids=["a replica", "the cluster"],
)
def test_code_that_cannot_be_imported_there_is_told_and_undone(
    served: Endpoint,
    spec: ServeSpec,
    store: LocalFolder,
    digits: DatasetVersion,
    tmp_path: Path,
    clean_modules: None,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    kind: type[Exception],
    told: str,
):
    monkeypatch.setattr(deployment, "START_ATTEMPTS", 1)  # another one fails alike; the next test sees all of them
    code = write_code(tmp_path / "code", source.replace("{pid}", str(os.getpid())))
    model = model_version(
        store, digits, name="homesick", spec=ImportModel(kind="import", path="model.py:build"), code_dir=code
    )
    with pytest.raises(kind, match=told):
        deploy(spec.model_copy(update={"route_prefix": "/homesick"}), model, run_context(store, code_dir=code))
    assert [row["name"] for row in status()] == ["digits"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [(ANSWERS_OTHERWISE_IN_A_REPLICA, "answers differently"), (NOT_IN_A_REPLICA, "left_at_home")],
    ids=["wrong answers", "does not start"],
)
def test_swap_that_fails_puts_back_the_version_before_and_status_tells_it(
    served: Endpoint,
    spec: ServeSpec,
    store: LocalFolder,
    digits: DatasetVersion,
    tmp_path: Path,
    clean_modules: None,
    source: str,
    reason: str,
):
    code = write_code(tmp_path / "code", source)
    network = ImportModel(kind="import", path="model.py:build")
    model = model_version(store, digits, name="digits", version=3, spec=network, code_dir=code)
    with pytest.raises(ServeError, match=rf"{reason}.*; digits@1, which was served before, answers again"):
        deploy(spec, model, run_context(store, code_dir=code), probe_rows=ROWS[:2])
    with httpx.Client(base_url=served.url, trust_env=False, timeout=30) as client:
        assert client.get("/healthz").json()["version"] == 1
        answer = client.post("/predict", json={"instances": ROWS[:2]}).json()
        assert answer["predictions"] == served.probe["answer"]["predictions"]
    (row,) = status()
    assert (row["version"], row["state"], row["message"]) == (1, "RUNNING", "")


def test_second_version_second_model_of_fields_in_objects_and_route_prefix(
    served: Endpoint,
    spec: ServeSpec,
    store: LocalFolder,
    digits: DatasetVersion,
    users: DatasetVersion,
    ctx: RunContext,
    monkeypatch: pytest.MonkeyPatch,
):
    with monkeypatch.context() as patch:
        patch.delattr(running, "applications")  # asked ten times a second it takes a third of a core from the replicas
        second = deploy(spec, model_version(store, digits, name="digits", version=2), ctx, probe_rows=ROWS[:1])
    assert second.url == served.url and second.probe["answer"]["version"] == 2

    other = model_version(store, users, name="other")
    with pytest.raises(ServeError, match=r"refuses other: .*used by application") as raised:
        deploy(spec, other, ctx)
    assert "serve.route_prefix" in raised.value.hint
    rows = probe_rows(store, other)
    endpoint = deploy(spec.model_copy(update={"route_prefix": "/other/"}), other, ctx, probe_rows=rows)
    assert endpoint.url == f"{served.url}/other"
    assert endpoint.probe["answer"]["model"] == "other"
    assert_reads_fields_in_objects_and_lists(endpoint)
    assert httpx.get(f"{endpoint.url}/healthz", trust_env=False).json()["model"] == "other"
    assert httpx.get(f"{served.url}/healthz", trust_env=False).json()["model"] == "digits"

    with pytest.raises(ServeError, match=f"listens on 127.0.0.1:{spec.port} .* already"):
        deploy(spec.model_copy(update={"port": spec.port + 1}), other, ctx)
    with pytest.raises(ServeError, match=r"no application 'nobody'.*digits, other"):
        stop("nobody")
    assert stop("other") == ["other"]
    assert [row["name"] for row in status()] == ["digits"]


def assert_reads_fields_in_objects_and_lists(endpoint: Endpoint) -> None:
    assert endpoint.probe["request"]["instances"][0] == {"user.age": 9.0, "user.home.city": "Rome", "tags": ["a"]}
    expected = endpoint.probe["answer"]["predictions"][0]
    row = {"user": {"age": 9.0, "home": {"city": "Rome"}}, "tags": ["a"]}
    tensors = [
        {"name": "user.age", "datatype": "FP64", "shape": [1], "data": [9.0]},
        {"name": "user.home.city", "datatype": "BYTES", "shape": [1], "data": ["Rome"]},
        {"name": "tags", "datatype": "BYTES", "shape": [1], "data": ['["a"]']},
    ]
    with httpx.Client(base_url=endpoint.url, trust_env=False, timeout=30) as client:
        for path in ("/predict", "/v1/models/other:predict", "/invocations", "/predictions/other"):
            assert client.post(path, json={"instances": [row]}).json()["predictions"] == [expected], path
        (output,) = client.post("/v2/models/other/infer", json={"inputs": tensors}).json()["outputs"]
        assert output["data"] == [expected]
        many = client.post(
            "/predict", json={"instances": [{**row, "tags": ["a", "x" * 100]}] * 2000}
        )  # beside the loop
        assert many.json()["predictions"] == pytest.approx([expected] * 2000, rel=1e-5)
        example = client.get("/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]["content"]
        example = example["application/json"]["example"]
        assert set(example["instances"][0]["user"]) == {"age", "home"}
        assert client.post("/predict", json=example).status_code == 200
        for wrong, told in (
            ({**row, "user": {**row["user"], "name": "x"}}, "unknown field 'user.name'"),
            ({**row, "tags": "a"}, "field 'tags': found 'a' (string); expected a list of strings"),
        ):
            refused = client.post("/predict", json={"instances": [wrong]})
            assert refused.status_code == 400 and told in refused.json()["error"]["message"]


def test_replicas_that_began_before_their_model_load_the_one_they_are_told_or_end(
    served: Endpoint, spec: ServeSpec, store: LocalFolder, digits: DatasetVersion, ctx: RunContext
):
    apart = spec.model_copy(update={"route_prefix": "/awaited"})
    model = model_version(store, digits, name="awaited")
    awaited.begin(apart, "awaited", store.uri, None)
    (began,) = wait_for(lambda: replica_pids("awaited"))
    assert state_of("awaited") == "DEPLOYING"
    endpoint = deploy(apart, model, ctx, probe_rows=ROWS[:2])
    assert endpoint.probe["answer"]["model"] == "awaited"
    assert replica_pids("awaited") == [began]
    assert not awaited.is_awaited("awaited"), "the next version is a swap"
    assert stop("awaited") == ["awaited"]

    awaited.begin(apart, "awaited", store.uri, None)
    wait_for(lambda: replica_pids("awaited"))
    assert stop("awaited") == ["awaited"]
    wait_for(lambda: not replica_pids("awaited"))


def state_of(name: str) -> str:
    return next(row["state"] for row in status() if row["name"] == name)


def wait_for(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)  # Serve tells nobody when a state changes
    return value
