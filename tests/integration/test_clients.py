"""One endpoint, every client that people have: the same tensor gets the same numbers, and an error is told in words.

Each client is a program of tests/clients, run by the Python of an environment of their own: .venv-clients, which
`make install-clients` makes, or the one that RAYPIPE_CLIENTS_PYTHON names.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from raypipe.model.predictor import Predictor
from raypipe.records import Endpoint
from raypipe.serve.stage import deploy, stop
from raypipe.spec.resources import ResourceSpec
from raypipe.spec.serve import ServeSpec
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import run_context, tiny_dataset
from raypipe.testing.served import model_version
from tests.conftest import pick_ports

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "tests" / "clients"
PYTHON = Path(os.environ.get("RAYPIPE_CLIENTS_PYTHON", ROOT / ".venv-clients" / "bin" / "python"))
IS_REQUIRED = os.environ.get("RAYPIPE_REQUIRE_CLIENTS") == "1" or "CI" in os.environ
"""A client that is missing fails its test then. Read here, as the fixtures of all tests take such settings away."""

NOT_INSTALLED = 77
TIMEOUT_S = 120.0
PROXIES = ("http_proxy", "https_proxy", "all_proxy")

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        not PYTHON.exists() and not IS_REQUIRED, reason=f"{PYTHON} is missing: make install-clients makes it"
    ),
]

TENSOR = np.random.default_rng(5).normal(size=(5, 4, 3)).astype(np.float32)

OF_ROWS = "row 0, field 'x'"
OF_TENSORS = "field 'x': found shape [5, 4, 2]; expected [rows, 4, 3]"

CLIENTS = [
    *(("triton_http.py", how, OF_TENSORS) for how in ("json", "binary", "gzip")),
    ("triton_grpc.py", "", OF_TENSORS),
    ("kserve_client.py", "v1", OF_ROWS),
    *(("kserve_client.py", how, OF_TENSORS) for how in ("v2-json", "v2-binary", "v2-grpc")),
    ("open_inference_client.py", "", OF_TENSORS),
    *(("sagemaker_runtime.py", how, OF_ROWS) for how in ("json", "csv")),
    *(("mlflow_scoring.py", how, OF_ROWS) for how in ("array", "dataframe")),
    *(
        ("plain_http.py", how, OF_ROWS)
        for how in ("predict", "tensorflow-rows", "tensorflow-columns", "vertex", "torchserve", "mlflow-records")
    ),
]
"""Program, the form it sends, and how the endpoint's refusal of a wrong tensor begins."""


Printed = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalFolder:
    return LocalFolder(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def served(store: LocalFolder, ray_cluster: SimpleNamespace) -> Iterator[tuple[Endpoint, str]]:
    """A classifier of a float tensor behind HAProxy, and in hex what its Predictor answers to TENSOR."""
    dataset = tiny_dataset(store, {"x": TENSOR}, np.array(["a", "b", "c", "a", "b"], object))
    model = model_version(store, dataset, name="tensors")
    expected = Predictor.load(store, model.artifact).predict({"x": TENSOR}).values
    port, grpc_port = pick_ports(2)
    spec = ServeSpec(
        port=port,
        grpc_port=grpc_port,
        max_replicas=1,
        start_timeout_s=90.0,
        resources=ResourceSpec(num_cpus=0.5),
    )
    yield deploy(spec, model, run_context(store)), expected.tobytes().hex()
    stop()


@pytest.fixture(scope="module")
def printed(served: tuple[Endpoint, str], tmp_path_factory: pytest.TempPathFactory) -> Printed:
    """Runs a client's program, once for all its forms: importing the client takes longer than all that it asks."""
    tensor = tmp_path_factory.mktemp("tensor") / "tensor.npy"
    np.save(tensor, TENSOR)

    @cache
    def run(program: str) -> subprocess.CompletedProcess[str]:
        endpoint, _ = served
        forms = [how for name, how, _ in CLIENTS if name == program]
        command = [PYTHON, PROGRAMS / program, endpoint.url, endpoint.grpc or "", endpoint.model, tensor, *forms]
        env = {name: value for name, value in os.environ.items() if name.lower() not in PROXIES}
        env.pop("PYTHONPATH", None)
        env |= {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)

    return run


@pytest.mark.parametrize(("program", "how", "refusal"), CLIENTS)
def test_client_gets_the_predictors_numbers_to_the_bit_and_shows_why_it_is_refused(
    program: str, how: str, refusal: str, served: tuple[Endpoint, str], printed: Printed
):
    assert PYTHON.exists(), f"{PYTHON} is missing: make install-clients makes it"
    ended = printed(program)
    if ended.returncode == NOT_INSTALLED and not IS_REQUIRED:
        pytest.skip(f"{program} is not installed for this Python")
    assert ended.returncode == 0, ended.stderr[-4000:]
    lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith('{"how": ')]
    (told,) = [line for line in lines if line["how"] == how]
    assert told["probabilities"] == served[1]
    assert refusal in told["error"]
