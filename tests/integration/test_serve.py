"""Ray Serve behind HAProxy and behind Ray's Python proxy: real replicas, real HTTP, real mistakes."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from raypipe.errors import DigestMismatch, ObjectMissing, PortInUseError, ServeError
from raypipe.model.predictor import Predictor
from raypipe.records import DatasetVersion, Endpoint
from raypipe.runtime.context import RunContext
from raypipe.serve.schema import columns_of
from raypipe.serve.stage import deploy, status, stop
from raypipe.spec.model import ImportModel
from raypipe.spec.resources import ResourceSpec
from raypipe.spec.serve import ServeSpec
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import run_context, tiny_dataset
from raypipe.testing.served import model_version

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

ROWS = [{"image": np.random.default_rng(i).integers(0, 256, (8, 8)).tolist()} for i in range(5)]
START_TIMEOUT_S = 90.0

SLOW_MODEL = """
import time
from torch import nn

class Slow(nn.Module):
    def __init__(self, num_outputs):
        super().__init__()
        self.layer = nn.LazyLinear(num_outputs)

    def forward(self, x):
        time.sleep(0.05)
        return self.layer(x.flatten(1))

def build(input_shape, num_outputs):
    import torch
    model = Slow(num_outputs)
    model(torch.zeros(1, *input_shape))
    return model
"""

ONLY_IN_THE_DRIVER = """
import os
from torch import nn

if os.getpid() != {pid}:
    raise ImportError("no module named 'left_at_home'")

def build(input_shape, num_outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_outputs))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalFolder:
    return LocalFolder(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def digits(store: LocalFolder) -> DatasetVersion:
    images = np.stack([np.array(row["image"], np.uint8) for row in ROWS])
    return tiny_dataset(store, {"image": images}, np.array(["a", "b", "c", "a", "b"], object))


@pytest.fixture
def ctx(store: LocalFolder, ray_cluster: SimpleNamespace) -> RunContext:
    return run_context(store)


@pytest.fixture
def spec(free_port: int) -> Iterator[ServeSpec]:
    """One port per test; whatever runs afterwards is stopped."""
    yield ServeSpec(
        port=free_port, start_timeout_s=START_TIMEOUT_S, max_replicas=1, resources=ResourceSpec(num_cpus=0.5)
    )
    stop()


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


@pytest.mark.parametrize("ingress", ["haproxy", "python"])
def test_endpoint_answers_what_the_predictor_answers_and_survives_bad_requests(
    ingress: Any, spec: ServeSpec, store: LocalFolder, digits: DatasetVersion, ctx: RunContext
):
    model = model_version(store, digits, name="digits")
    expected = Predictor.load(store, model.artifact).predict(columns_of(ROWS, digits.signature, max_rows=10)).values

    endpoint = deploy(spec.model_copy(update={"ingress": ingress}), model, ctx, probe_rows=ROWS[:2])

    assert (endpoint.ingress, endpoint.url) == (ingress, f"http://127.0.0.1:{spec.port}")
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
            assert set(answer.json()["error"]) == {"code", "message", "hint"}, what
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
    import psutil  # the one that Ray carries along

    children = psutil.Process().children(recursive=True)
    (pid,) = [child.pid for child in children if " ".join(child.cmdline()).startswith("ray::ServeReplica:digits")]
    return pid


def test_second_version_second_model_route_prefix_and_stop(
    spec: ServeSpec, store: LocalFolder, digits: DatasetVersion, ctx: RunContext
):
    first = deploy(spec, model_version(store, digits, name="digits"), ctx)
    second = deploy(spec, model_version(store, digits, name="digits", version=2), ctx, probe_rows=ROWS[:1])
    assert second.url == first.url and second.probe["answer"]["version"] == 2

    other = model_version(store, digits, name="other")
    with pytest.raises(ServeError, match=r"refuses other: .*used by application") as raised:
        deploy(spec, other, ctx)
    assert "serve.route_prefix" in raised.value.hint
    endpoint = deploy(spec.model_copy(update={"route_prefix": "/other/"}), other, ctx, probe_rows=ROWS[:1])
    assert endpoint.url == f"{first.url}/other"
    assert endpoint.probe["answer"]["model"] == "other"
    assert httpx.get(f"{endpoint.url}/healthz", trust_env=False).json()["model"] == "other"
    assert httpx.get(f"{first.url}/healthz", trust_env=False).json()["model"] == "digits"

    with pytest.raises(ServeError, match=f"listens on 127.0.0.1:{spec.port} .* already"):
        deploy(spec.model_copy(update={"port": spec.port + 1}), other, ctx)
    with pytest.raises(ServeError, match=r"no application 'nobody'.*digits, other"):
        stop("nobody")
    assert stop("other") == ["other"]
    assert [row["name"] for row in status()] == ["digits"]
    assert stop() == ["digits"]
    assert status() == []
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{first.url}/healthz", trust_env=False)


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


def test_code_that_the_replica_cannot_import_is_told_and_undone(
    spec: ServeSpec,
    store: LocalFolder,
    digits: DatasetVersion,
    ray_cluster: SimpleNamespace,
    tmp_path: Path,
    clean_modules: None,
):
    code = write_code(tmp_path / "code", ONLY_IN_THE_DRIVER.format(pid=os.getpid()))
    model = model_version(
        store, digits, name="homesick", spec=ImportModel(kind="import", path="model.py:build"), code_dir=code
    )
    with pytest.raises(ServeError, match=r"homesick did not start: .*left_at_home"):
        deploy(spec, model, run_context(store, code_dir=code))
    assert status() == []


def test_replica_that_fits_nowhere_is_a_timeout_that_says_what_it_needs(
    spec: ServeSpec, store: LocalFolder, digits: DatasetVersion, ctx: RunContext
):
    few_s = {"start_timeout_s": 2.0, "request_timeout_s": 1.0}  # Serve waits as long for a replica that never came
    hungry = spec.model_copy(update={"resources": ResourceSpec(num_cpus=64), **few_s})
    with pytest.raises(ServeError, match=r"within 2 s: one replica needs CPU 64, free"):
        deploy(hungry, model_version(store, digits, name="hungry"), ctx)
    assert status() == []


def test_replicas_follow_the_load_up_and_down_without_a_failed_request(
    spec: ServeSpec,
    store: LocalFolder,
    digits: DatasetVersion,
    ray_cluster: SimpleNamespace,
    tmp_path: Path,
    clean_modules: None,
):
    code = write_code(tmp_path / "code", SLOW_MODEL)
    model = model_version(
        store, digits, name="slow", spec=ImportModel(kind="import", path="model.py:build"), code_dir=code
    )
    scaling = {"max_replicas": 2, "target_ongoing_requests": 2, "upscale_delay_s": 1, "downscale_delay_s": 1}
    endpoint = deploy(spec.model_copy(update=scaling), model, run_context(store, code_dir=code))
    with load(endpoint, connections=12) as answers:
        wait_for_replicas(2, timeout_s=60)
    wait_for_replicas(1, timeout_s=60)
    assert set(answers) == {200} and len(answers) > 100


class load:
    """Ask from several connections while the block runs; the value collects a status code per answer."""

    def __init__(self, endpoint: Endpoint, connections: int) -> None:
        self._url = f"{endpoint.url}/predict"
        self._body = json.dumps({"instances": ROWS[:1]}).encode()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(connections)]
        self._answers: list[Any] = []

    def __enter__(self) -> list[Any]:
        for thread in self._threads:
            thread.start()
        return self._answers

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with httpx.Client(trust_env=False, timeout=30, headers={"content-type": "application/json"}) as client:
            while not self._stop.is_set():
                try:
                    self._answers.append(client.post(self._url, content=self._body).status_code)
                except httpx.TransportError as error:
                    self._answers.append(repr(error))


def wait_for_replicas(count: int, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while (found := status()[0]["replicas"]) != count:
        assert time.monotonic() < deadline, f"{found} replicas after {timeout_s} s, wanted {count}"
        threading.Event().wait(0.2)
