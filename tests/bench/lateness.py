"""How late a replica's event loop is while a large request is answered: the wait of every other request.

A timer beside the requests wakes each millisecond and notes how late it is. `bench_replica.py --lateness` asks for it.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

SIZES_MIB = (0.25, 1.0, 4.0, 16.0)
TICK_S = 0.001
LATE_BAR_MS = 5.0
SLOWER_BAR = 1.3
V2 = "/v2/models/images/infer"


def cases() -> list[str]:
    """All that is measured: a kind of request, and MiB of its body (or of its answer)."""
    sized = [f"{kind} {size}" for kind in ("flat", "rows", "fields") for size in SIZES_MIB]
    return [*sized, "picture 1", "malformed 16.0", "answer 1"]


def made(folder: str) -> dict[str, Any]:
    """Replicas to ask: of images of 28x28, of a table of 20 columns, and of one image of 3x224x224."""
    import numpy as np

    from raypipe.spec.model import MlpModel
    from raypipe.spec.serve import ServeSpec
    from raypipe.spec.transforms import OneHotTransform, StandardizeTransform
    from raypipe.storage.local import LocalFolder
    from raypipe.testing.fakes import tiny_dataset
    from raypipe.testing.served import model_app, model_version

    random, store = np.random.default_rng(0), LocalFolder(folder)
    limits = ServeSpec(max_body_bytes=17 * 2**20, max_request_rows=200_000, request_timeout_s=120)
    numbers = {f"x{i}": random.normal(i, 3, 50) for i in range(15)}
    words = {f"t{i}": np.array(["red", "green", "blue", "black"], object)[np.arange(50) % 4] for i in range(5)}
    transforms = [
        StandardizeTransform(kind="standardize", columns=list(numbers)),
        OneHotTransform(kind="one_hot", columns=list(words)),
    ]
    datasets = {
        "images": tiny_dataset(store, {"image": random.random((20, 28, 28))}, np.arange(20) % 10, name="images"),
        "table": tiny_dataset(
            store, {**numbers, **words}, random.normal(size=50), task="regression", transforms=transforms, name="table"
        ),
        "picture": tiny_dataset(
            store, {"image": random.random((2, 3, 224, 224), np.float32)}, np.arange(2), name="picture"
        ),
    }
    spec = MlpModel(kind="mlp", hidden=[4])
    apps = {n: model_app(store, model_version(store, d, name=n, spec=spec), limits) for n, d in datasets.items()}
    row = {name: values[0].item() for name, values in numbers.items()} | {name: v[0] for name, v in words.items()}
    return {**apps, "row": row}


def request_of(replicas: dict[str, Any], kind: str, size_mib: float) -> tuple[Any, str, bytes]:
    """Replica, path and body of a request."""
    import numpy as np

    def repeated(row: bytes) -> bytes:
        return b",".join([row] * max(1, int(size_mib * 2**20 / (len(row) + 1))))

    if kind == "picture":
        picture = np.random.default_rng(2).random((3, 224, 224), np.float32).tolist()
        return replicas["picture"], "/predict", json.dumps({"instances": [{"image": picture}]}).encode()
    if kind == "answer":  # few bytes a row, and an answer for each
        rows = b",".join([json.dumps(replicas["row"], separators=(",", ":")).encode()] * 20_000)
        return replicas["table"], "/predict", b'{"instances":[%s]}' % rows
    image = json.dumps(np.random.default_rng(1).random((28, 28)).round(6).tolist()).encode()
    if kind == "flat":
        flat = repeated(image.replace(b"[", b"").replace(b"]", b""))
        num_rows = (flat.count(b",") + 1) // 784
        head = f'{{"inputs":[{{"name":"image","shape":[{num_rows},28,28],"datatype":"FP64","data":['
        return replicas["images"], V2, head.encode() + flat + b"]}]}"
    if kind == "fields":
        return replicas["table"], "/predict", b'{"instances":[%s]}' % repeated(json.dumps(replicas["row"]).encode())
    end = b",]" if kind == "malformed" else b"]"
    return replicas["images"], "/predict", b'{"instances":[%s%s}' % (repeated(image), end)


async def measured(replicas: dict[str, Any], kind: str, size_mib: float, calls: int) -> dict[str, float]:
    """Milliseconds over so many requests, one after another; the first, which starts what starts late, is not counted.

    Returns:
        `late_*`: of all ticks, and of the worst tick of each request: its median and maximum.
        `own_*`: the same without the time in which no thread of the replica had a processor: that is other programs'.
            Still too much: a thread that sends a body has a processor, and holds up nobody.
        `idle_*`: as `late_*` in waits as long, in turn with the requests: how busy the machine is with others.
        `took`: median of a request.
    """
    app, path, body = request_of(replicas, kind, size_mib)
    await _asked(app, path, body, kind)
    took: list[float] = []
    late: list[list[Tick]] = []
    idle: list[list[Tick]] = []
    for _ in range(calls):
        start = time.perf_counter()
        late.append(await _ticked(_asked(app, path, body, kind)))
        took.append(time.perf_counter() - start)
        idle.append(await _ticked(asyncio.sleep(took[-1])))
    return {
        **_told("late", [[tick.late_s for tick in ticks] for ticks in late]),
        **_told("own", [[min(tick.late_s, tick.busy_s) for tick in ticks] for ticks in late]),
        **_told("idle", [[tick.late_s for tick in ticks] for ticks in idle]),
        "took": statistics.median(took) * 1e3,
        "mib": len(body) / 2**20,
    }


def _told(name: str, by_request: list[list[float]]) -> dict[str, float]:
    ticks = sorted(each for late in by_request for each in late)
    worst = [max(late, default=0.0) for late in by_request]
    at = {"p50": 0.5, "p99": 0.99}
    told = {f"{name}_{word}": ticks[int(share * (len(ticks) - 1))] * 1e3 for word, share in at.items()}
    over = sum(each > LATE_BAR_MS / 1e3 for each in ticks)
    told |= {f"{name}_worst_p50": statistics.median(worst) * 1e3, f"{name}_max": max(worst) * 1e3}
    return {**told, f"{name}_ticks": len(ticks), f"{name}_over_bar": over}


class Tick(NamedTuple):
    """How late a tick was, and how long this process's threads had a processor since the tick before."""

    late_s: float
    busy_s: float


async def _ticked(work: Any) -> list[Tick]:
    """The ticks while the work was done."""
    ticks: list[Tick] = []

    async def tick() -> None:
        while True:
            due, busy_s = time.perf_counter() + TICK_S, time.process_time()
            await asyncio.sleep(TICK_S)
            ticks.append(Tick(max(0.0, time.perf_counter() - due), time.process_time() - busy_s))

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(3 * TICK_S)
    ticks.clear()
    await work
    await asyncio.sleep(2 * TICK_S)
    ticker.cancel()
    return ticks


async def _asked(app: Any, path: str, body: bytes, kind: str) -> None:
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
    }
    statuses: list[int] = []
    arriving = _pieces(body)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)  # as a socket has it: others come between
        return next(arriving)

    async def send(message: Any) -> None:
        if "status" in message:
            statuses.append(message["status"])

    await app.asgi(scope, receive, send)
    assert statuses == [400 if kind == "malformed" else 200], (kind, statuses)


def _pieces(body: bytes) -> Iterator[dict[str, Any]]:
    """A body as uvicorn hands it over."""
    size = 64 * 2**10
    for start in range(0, len(body), size):
        yield {"type": "http.request", "body": body[start : start + size], "more_body": start + size < len(body)}
    while True:
        yield {"type": "http.disconnect"}
