"""The image's program, started as each platform starts it: variables in, HTTP out, SIGTERM at the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from raypipe.model.predictor import Predictor
from raypipe.records import ModelVersion
from raypipe.registry.export import export, export_archive
from raypipe.registry.stage import register
from raypipe.spec.model import ImportModel
from raypipe.spec.registry import RegistrySpec
from raypipe.storage import open_store
from raypipe.storage.local import LocalFolder
from raypipe.testing import tiny
from raypipe.testing.fakes import run_context
from tests.integration.containers import START_TIMEOUT_S, STOP_TIMEOUT_S, Running, container

ROWS = [{"a": 1.0, "b": -0.5}, {"a": -2.0, "b": 0.25}]
SLOW_S = 2.0

SLOW = """
import time
from torch import nn


class Slow(nn.Module):
    def __init__(self, num_features, num_outputs):
        super().__init__()
        self.layer = nn.Linear(num_features, num_outputs)

    def forward(self, rows):
        if float(rows[0, 0]) > 100:
            time.sleep({seconds})
        return self.layer(rows)


def build(input_shape, num_outputs):
    return Slow(input_shape[0], num_outputs)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalFolder:
    return LocalFolder(str(tmp_path_factory.mktemp("registry")))


@pytest.fixture(scope="module")
def version(store: LocalFolder) -> ModelVersion:
    """The champion of a registry."""
    dataset = tiny.dataset(store)
    trained = tiny.trained(store, dataset)
    return register(RegistrySpec(), "tiny", trained, dataset, tiny.report(trained), run_context(store))


@pytest.fixture(scope="module")
def exported(store: LocalFolder, version: ModelVersion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `raypipe export` leaves in a folder."""
    folder = tmp_path_factory.mktemp("exported") / "tiny"
    export(store, version, open_store(str(folder)))
    return folder


@pytest.fixture(scope="module")
def expected(store: LocalFolder, version: ModelVersion) -> list[list[float]]:
    """Probabilities of ROWS, from the Predictor."""
    columns = {name: np.array([row[name] for row in ROWS]) for name in ROWS[0]}
    return Predictor.load(store, version.artifact).predict(columns).values.tolist()


def probabilities(answer: httpx.Response) -> list[list[float]]:
    assert answer.status_code == 200, answer.text
    return [row["probabilities"] for row in answer.json()["predictions"]]


# --- the platforms ---------------------------------------------------------------------------------------------------


def test_vertex_ai_asks_health_and_predictions_at_its_own_paths(exported: Path, expected: list[list[float]]):
    """https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements"""
    base = "/v1/endpoints/123/deployedModels/456"
    environ = {"AIP_HEALTH_ROUTE": base, "AIP_PREDICT_ROUTE": f"{base}:predict", "AIP_STORAGE_URI": str(exported)}
    with container(environ, port_variable="AIP_HTTP_PORT") as running:
        assert running.wait_healthy(base).json()["model"] == "tiny"
        answer = running.post(f"{base}:predict", json={"instances": ROWS, "parameters": {}})
        assert set(answer.json()) == {"predictions"}
        np.testing.assert_allclose(probabilities(answer), expected, rtol=1e-6)
        answer = running.post(f"{base}:predict", json={"instances": [{"a": "much"}]})
        assert answer.status_code == 400 and "row 0" in answer.json()["error"]
        assert running.stop() == 0


def test_sagemaker_unpacks_the_archive_and_asks_ping_and_invocations(
    store: LocalFolder, version: ModelVersion, expected: list[list[float]], tmp_path: Path
):
    """https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html"""
    export_archive(store, version, tmp_path / "model.tar.gz")
    with tarfile.open(tmp_path / "model.tar.gz") as archive:
        archive.extractall(tmp_path / "model", filter="data")
    with container({"RAYPIPE_STORE": str(tmp_path / "model")}, port_variable="SAGEMAKER_BIND_TO_PORT") as running:
        running.wait_healthy("/ping")
        answer = running.post("/invocations", json={"instances": ROWS})
        np.testing.assert_allclose(probabilities(answer), expected, rtol=1e-6)
        answer = running.post("/invocations", content="a,b\n1.0,-0.5\n", headers={"content-type": "text/csv"})
        assert answer.status_code == 200, answer.text
        assert running.post("/invocations", content=b"{").status_code == 400
        assert running.stop() == 0


def test_azure_ml_asks_where_it_was_told_to(exported: Path, expected: list[list[float]]):
    """https://learn.microsoft.com/azure/machine-learning/how-to-deploy-custom-container"""
    with container({"AZUREML_MODEL_DIR": str(exported.parent)}) as running:
        running.wait_healthy("/healthz")
        np.testing.assert_allclose(probabilities(running.post("/score", json={"instances": ROWS})), expected, rtol=1e-6)
        split = {"columns": list(ROWS[0]), "data": [list(row.values()) for row in ROWS]}
        answer = running.post("/score", json={"dataframe_split": split})
        np.testing.assert_allclose(probabilities(answer), expected, rtol=1e-6)
        answer = running.post("/score", json={})
        assert answer.status_code == 400 and "instances" in answer.json()["message"]
        assert running.stop() == 0


def test_named_version_of_a_registry_is_served_by_two_processes(store: LocalFolder, expected: list[list[float]]):
    environ = {"RAYPIPE_STORE": store.uri, "RAYPIPE_MODEL": "tiny@champion", "RAYPIPE_WORKERS": "2"}
    with container(environ) as running:
        running.wait_healthy("/healthz")
        assert len([each for each in running.processes() if "raypipe.serve.container.worker" in each.cmdline()]) == 2
        for _ in range(4):
            answer = running.post("/v1/models/tiny:predict", json={"instances": ROWS})
            np.testing.assert_allclose(probabilities(answer), expected, rtol=1e-6)
            assert answer.headers["x-raypipe-model"] == "tiny@1"
        assert running.stop() == 0


# --- what must hold on each of them ----------------------------------------------------------------------------------


def test_only_the_port_is_listened_on_and_nobody_outlives_the_first_process(exported: Path):
    with container({"RAYPIPE_STORE": str(exported)}) as running:
        assert asked_health(running) == 1  # nothing listens yet
        running.wait_healthy("/healthz")
        assert asked_health(running) == 0
        processes = running.processes()
        listening = [
            (found.laddr.ip, found.laddr.port)
            for each in processes
            for found in each.net_connections(kind="inet")
            if found.status == psutil.CONN_LISTEN
        ]
        assert listening == [("127.0.0.1", running.port)]
        running.process.kill()
        assert psutil.wait_procs(processes, timeout=STOP_TIMEOUT_S)[1] == []


def asked_health(running: Running) -> int:
    """Exit status of what Docker's HEALTHCHECK runs beside it."""
    words = [sys.executable, "-m", "raypipe.serve.container", "health"]
    environ = {**os.environ, "RAYPIPE_HOST": "127.0.0.1", "RAYPIPE_PORT": str(running.port)}
    return subprocess.run(words, env=environ, stderr=subprocess.DEVNULL, timeout=60, check=False).returncode


def test_slow_client_is_cut_while_others_are_answered(exported: Path):
    with container({"RAYPIPE_STORE": str(exported), "RAYPIPE_SERVE": '{"request_timeout_s": 3}'}) as running:
        running.wait_healthy("/healthz")
        began = time.monotonic()
        half_a_header = socket.create_connection(("127.0.0.1", running.port), timeout=20)
        half_a_header.sendall(b"POST /score HTTP/1.1\r\nhost: x\r\n")
        half_a_body = socket.create_connection(("127.0.0.1", running.port), timeout=20)
        half_a_body.sendall(b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        with half_a_header, half_a_body:
            assert running.post("/score", json={"instances": ROWS}).status_code == 200
            told = [b"".join(iter(lambda slow=slow: slow.recv(65536), b"")) for slow in (half_a_header, half_a_body)]
            assert [text.partition(b"\r\n")[0].split()[1] for text in told] == [b"408", b"408"]
            # Half a header HAProxy refuses in HTML of its own, which cannot be changed.
            assert b'"message": "the request did not arrive in time' in told[1]
        assert time.monotonic() - began < 15
        assert running.stop() == 0


def test_sigterm_finishes_the_request_that_is_under_way_and_takes_no_new_one(
    store: LocalFolder, tmp_path: Path, expected: list[list[float]]
):
    (tmp_path / "slow_net.py").write_text(SLOW.format(seconds=SLOW_S))
    environ = own_model(store, tmp_path, "slow_net")
    with container(environ) as running:
        running.wait_healthy("/healthz")
        answers: list[httpx.Response] = []
        asks = threading.Thread(
            target=lambda: answers.append(running.post("/score", json={"instances": [{"a": 1000.0, "b": 0.0}]}))
        )
        began = time.monotonic()
        asks.start()
        time.sleep(SLOW_S / 4)  # the model is at it: it sleeps for longer
        running.process.send_signal(signal.SIGTERM)
        time.sleep(SLOW_S / 4)
        with pytest.raises(httpx.TransportError):
            running.post("/score", json={"instances": ROWS})
        assert running.process.wait(STOP_TIMEOUT_S) == 0
        assert time.monotonic() - began < SLOW_S + 10
        asks.join()
        assert answers[0].status_code == 200, answers[0].text


def own_model(store: LocalFolder, folder: Path, module: str) -> dict[str, str]:
    """A registered version whose code lies in a folder; the variables that serve it."""
    from raypipe.model.artifact import write_artifact
    from raypipe.model.build import build_model
    from raypipe.storage import layout

    dataset = tiny.dataset(store)
    spec = ImportModel(kind="import", path=f"{module}:build")
    network = build_model(spec, dataset.signature, dataset.feature_shape, folder)
    ref = write_artifact(store, layout.artifact("rown", "train"), network, spec, dataset, code_dir=folder)
    trained = tiny.trained(store, dataset).model_copy(update={"artifact": ref, "run_id": "rown"})
    ctx = run_context(store, run_id="rown")
    register(RegistrySpec(), module.replace("_", "-"), trained, dataset, tiny.report(trained), ctx)
    return {"RAYPIPE_STORE": store.uri, "RAYPIPE_MODEL": module.replace("_", "-"), "RAYPIPE_CODE": str(folder)}


def test_model_process_that_dies_ends_the_container_with_an_error(exported: Path):
    with container({"RAYPIPE_STORE": str(exported)}) as running:
        running.wait_healthy("/healthz")
        everyone = running.processes()
        (worker,) = (each for each in everyone if "raypipe.serve.container.worker" in each.cmdline())
        worker.kill()
        assert running.process.wait(STOP_TIMEOUT_S) == 1
        assert psutil.wait_procs(everyone, timeout=STOP_TIMEOUT_S)[1] == []
    assert "error: model process 0 ended by itself, status -9\n" in running.said


@pytest.mark.parametrize("damage", ["weights", "nothing there", "words"])
def test_what_cannot_be_served_is_told_and_never_healthy(
    store: LocalFolder, version: ModelVersion, tmp_path: Path, damage: str
):
    folder = tmp_path / "model"
    if damage == "weights":
        export(store, version, open_store(str(folder)))
        weights = folder / version.artifact.key / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    environ = {"RAYPIPE_STORE": str(folder)}
    if damage == "words":
        environ["RAYPIPE_SERVE"] = '{"min_replicas": 2}'
    with container(environ) as running:
        status = running.process.wait(START_TIMEOUT_S)
    said = "".join(running.said)
    assert status in (1, 2) and "Traceback" not in said
    told = {"weights": "is damaged", "nothing there": "there is no folder", "words": "min_replicas means nothing"}
    assert told[damage] in said
