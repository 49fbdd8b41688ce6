"""The servers that bench_serving compares: ours on real Ray Serve, and others with the same network (peers/)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
from loading import Server, child_server, free_port, wrk_script
from numpy.typing import NDArray
from served_models import CODE, digit, instances

from raypipe.records import ModelVersion
from raypipe.storage import Store

PEERS = Path(__file__).with_name("peers")
PEERS_PYTHON = "RAYPIPE_PEERS_PYTHON"
"""Names a Python that has what peers.txt lists; unset: .venv-peers, which `make install-peers` makes."""

JSON = {"content-type": "application/json"}


def probabilities(answer: Any) -> Any:
    """Of the answer that most sides give."""
    return answer["predictions"][0]["probabilities"]


def first(answer: Any) -> Any:
    """Of an answer that is a matrix."""
    return answer[0]


@dataclass(frozen=True)
class Side:
    """One way to ask one server.

    Attributes:
        family: what it is compared as; the best of a family counts.
        body: one image of whole numbers.
        read: parsed answer -> its probabilities.
        server: the process, where it can be stopped while others are asked.
    """

    name: str
    family: str
    url: str
    server: Server | None = None
    body: bytes = field(default_factory=lambda: instances({"image": digit()}))
    read: Callable[[Any], Any] = probabilities

    def script(self, folder: Path) -> Path:
        """For wrk."""
        return wrk_script(folder, "".join(c if c.isalnum() else "-" for c in self.name), [self.body], JSON)

    def ask(self) -> NDArray[np.float64]:
        """Its probabilities for the image."""
        answer = httpx.post(self.url, content=self.body, headers=JSON, trust_env=False, timeout=30)
        return np.array(self.read(answer.raise_for_status().json()))


@contextmanager
def deployed(store: Store, models: dict[str, ModelVersion], *, grpc: bool) -> Iterator[dict[str, Any]]:
    """One replica of each, through deploy() as a user would.

    Args:
        models: route prefix -> what is served there.
    Yields:
        Route prefix -> its Endpoint.
    """
    from raypipe.runtime.connect import connect
    from raypipe.runtime.resources import Bundle, Demand
    from raypipe.serve.stage import deploy, stop
    from raypipe.spec.resources import ResourceSpec
    from raypipe.spec.serve import ServeSpec
    from raypipe.testing.fakes import run_context

    resources = ResourceSpec(num_cpus=1)
    port, grpc_port = free_port(), free_port() if grpc else None
    with connect(Demand(groups=((Bundle("serve", len(models), resources),),))):
        try:
            endpoints = {}
            for prefix, model in models.items():
                spec = ServeSpec(
                    port=port, grpc_port=grpc_port, route_prefix=prefix, max_replicas=1, resources=resources
                )
                endpoints[prefix] = deploy(spec, model, run_context(store, code_dir=CODE))
            yield endpoints
        finally:
            stop()


def write_weights(store: Store, model: ModelVersion, path: Path) -> None:
    """The same weights as the other servers load them."""
    from safetensors.torch import save_file

    from raypipe.model.artifact import read_artifact

    _, module = read_artifact(store, model.artifact)
    save_file(dict(module.state_dict()), path)


def start_peers(folder: Path, stack: ExitStack, families: list[str]) -> tuple[list[Side], list[str]]:
    """Start the other servers.

    Returns:
        The ways to ask them, and what is missing here, in words.
    """
    sides: list[Side] = []
    missing: list[str] = []
    weights = {"RAYPIPE_BENCH_WEIGHTS": str(folder / "weights.safetensors"), "PYTHONPATH": str(PEERS)}

    def start(port: int, *words: str, python: str = sys.executable) -> Server:
        return stack.enter_context(child_server([python, *words], port, folder=folder, **weights))

    if "fastapi" in families:
        port = free_port()
        server = start(
            port, "-m", "uvicorn", "fastapi_app:app", f"--port={port}", "--no-access-log", "--log-level=error"
        )
        for path in ("traced", "eager", "threads"):
            sides.append(Side(f"fastapi+uvicorn {path}", "fastapi", f"{server.url}/{path}", server))
    if "flask" in families:
        for worker in ("sync", "gthread"):
            port = free_port()
            flags = [f"--bind=127.0.0.1:{port}", "--workers=1", f"--worker-class={worker}", "--log-level=error"]
            flags += ["--threads=16"] if worker == "gthread" else []
            server = start(port, "-m", "gunicorn", "flask_app:app", *flags)
            sides.append(Side(f"flask+gunicorn {worker}", "flask", f"{server.url}/predict", server))
    if "litserve" in families:
        if not _has(sys.executable, "litserve"):
            missing.append("litserve is not installed: LitServe is left out")
        else:
            for name, max_batch_size in {"alone": 1, "batched": 16}.items():
                port = free_port()
                server = start(port, str(PEERS / "litserve_app.py"), str(port), str(max_batch_size))
                sides.append(Side(f"litserve {name}", "litserve", f"{server.url}/predict", server))
    if "bentoml" in families:
        python = peers_python()
        if not _has(python, "bentoml"):
            missing.append(f"{python} has no bentoml: BentoML is left out; make install-peers, or set {PEERS_PYTHON}")
        else:
            port = free_port()
            flags = [f"--port={port}", "--host=127.0.0.1", f"--working-dir={PEERS}"]
            server = start(port, "-m", "bentoml", "serve", "bentoml_app:Digits", *flags, python=python)
            body = orjson.dumps({"image": digit()[None]}, option=orjson.OPT_SERIALIZE_NUMPY)
            for path in ("predict", "batched"):
                sides.append(Side(f"bentoml {path}", "bentoml", f"{server.url}/{path}", server, body, first))
    return sides, missing


def peers_python() -> str:
    """Of the environment for what cannot be installed beside raypipe."""
    return os.environ.get(PEERS_PYTHON) or str(Path(__file__).parents[2] / ".venv-peers" / "bin" / "python")


def _has(python: str, package: str) -> bool:
    try:
        found = subprocess.run([python, "-c", f"import {package}"], capture_output=True, timeout=120)
    except FileNotFoundError:
        return False
    return found.returncode == 0
