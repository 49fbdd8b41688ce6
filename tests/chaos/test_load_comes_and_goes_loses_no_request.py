"""Load that comes and goes: replicas follow it up and down, and every request has its answer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from raypipe.records import Endpoint
from raypipe.serve.stage import deploy, status, stop
from raypipe.spec.model import ImportModel
from raypipe.spec.resources import ResourceSpec
from raypipe.spec.serve import ServeSpec
from raypipe.storage import open_store
from raypipe.testing.fakes import run_context, tiny_dataset
from raypipe.testing.served import model_version

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.timeout(240)]

START_TIMEOUT_S = 90.0

SLOW_MODEL = """
import time
from torch import nn

class Slow(nn.Module):
    def __init__(self, num_inputs, num_outputs):
        super().__init__()
        self.layer = nn.Linear(num_inputs, num_outputs)

    def forward(self, x):
        time.sleep(0.05)  # what the model takes
        return self.layer(x)

def build(input_shape, num_outputs):
    return Slow(input_shape[0], num_outputs)
"""


@pytest.fixture
def spec(free_port: int) -> Iterator[ServeSpec]:
    """Up to two replicas, which come and go within seconds; stopped afterwards."""
    yield ServeSpec(
        port=free_port,
        start_timeout_s=START_TIMEOUT_S,
        max_replicas=2,
        engine="eager",  # a trace of the model would not wait
        target_ongoing_requests=2,
        upscale_delay_s=1,
        downscale_delay_s=1,
        resources=ResourceSpec(num_cpus=0.5),
    )
    stop()


def test_replicas_follow_the_load_up_and_down_without_a_failed_request(
    spec: ServeSpec, ray_cluster: SimpleNamespace, tmp_path: Path
) -> None:
    store = open_store(str(tmp_path / "store"))
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    dataset = tiny_dataset(store, {"x": x}, np.arange(8) % 2)
    code = tmp_path / "code"
    code.mkdir()
    (code / "slow_model.py").write_text(SLOW_MODEL)
    own = ImportModel(kind="import", path="slow_model.py:build")
    model = model_version(store, dataset, name="slow", spec=own, code_dir=code)

    endpoint = deploy(spec, model, run_context(store, code_dir=code))
    with load(endpoint, {"x": x[0].tolist()}, connections=12) as answers:
        wait_for_replicas(2, timeout_s=60)
    wait_for_replicas(1, timeout_s=60)

    assert set(answers) == {200} and len(answers) > 100


class load:
    """Ask from several connections while the block runs; the value collects a status code per answer."""

    def __init__(self, endpoint: Endpoint, row: dict[str, Any], connections: int) -> None:
        self._url = f"{endpoint.url}/predict"
        self._body = json.dumps({"instances": [row]}).encode()
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
