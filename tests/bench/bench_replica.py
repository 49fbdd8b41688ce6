"""Microseconds of one request inside a replica, by part: no Ray, no socket, one thread.

Cases: an image of 28x28 whole numbers, the same image as fractions where whole numbers are wanted (255.0), and a row of
15 numbers and 5 categories. `whole` is from the bytes that a connection brings to those it takes away, HTTP included
(older releases: a call of the ASGI application, HTTP not included); `rest` is whole less the parts. Rounds are
interleaved, figures are medians. JSON lines; the last is the headline.

    .venv/bin/python tests/bench/bench_replica.py [--rounds 7] [--calls 300] [--compile] [--beside PATH]
    .venv/bin/python tests/bench/bench_replica.py --lateness [--calls 20] [--only CASE] [--beside PATH]

--lateness: how late the event loop is while large requests are answered, instead (lateness.py).
--beside: a checkout of another release, whose whole is measured in turn with ours.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lateness

CHECK_BAR_US = 40
WHOLE_BAR_US = 200
HEADLINE = "image of integers"
HERE = Path(__file__).resolve()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--calls", type=int, help="300; with --lateness 20")
    options.add_argument("--lateness", action="store_true")
    options.add_argument("--only", help="with --lateness: cases whose name begins so", default="")
    options.add_argument("--compile", action="store_true", help="also torch.compile, which takes half a minute a case")
    options.add_argument("--beside", type=Path)
    options.add_argument("--side", action="store_true", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.side:
        answer_questions()
        return
    if chosen.lateness:
        compare_lateness(chosen.calls or 20, chosen.only, chosen.beside)
        return
    chosen.calls = chosen.calls or 300
    sides = {"ours": Side(HERE.parents[2], "parts-compile" if chosen.compile else "parts")}
    if chosen.beside:
        sides["beside"] = Side(chosen.beside.resolve(), "whole")
    say(**surroundings(), rounds=chosen.rounds, calls=chosen.calls)
    for name, side in sides.items():
        say(side=name, **side.ask("about", 0))
    rounds: dict[str, list[dict[str, float]]] = {}
    for _ in range(chosen.rounds):
        for case in ("image of integers", "image of floats", "table of 20 columns"):
            found = sides["ours"].ask(case, chosen.calls)
            if "beside" in sides:
                found["whole_beside"] = sides["beside"].ask(case, chosen.calls)["whole"]
            rounds.setdefault(case, []).append(found)
    for side in sides.values():
        side.end()
    summarize(rounds)


def compare_lateness(calls: int, only: str, beside: Path | None) -> None:
    """One line a case and side, then the headline."""
    sides = {"ours": Side(HERE.parents[2], "lateness")}
    if beside:
        sides["beside"] = Side(beside.resolve(), "lateness")
    say(**surroundings(), calls=calls, bar_ms=lateness.LATE_BAR_MS, slower_bar=lateness.SLOWER_BAR)
    worst, slower = 0.0, 0.0
    for case in (case for case in lateness.cases() if case.startswith(only)):
        found = {name: side.ask(case, calls) for name, side in sides.items()}
        for name, figures in found.items():
            say(case=case, side=name, unit="ms", **{part: round(value, 2) for part, value in figures.items()})
        worst = max(worst, found["ours"]["own_max"])
        if "beside" in found:
            slower = max(slower, found["ours"]["took"] / found["beside"]["took"])
    for side in sides.values():
        side.end()
    ratio = {"slower_at_most": round(slower, 2)} if beside else {}
    holds = worst <= lateness.LATE_BAR_MS and slower <= lateness.SLOWER_BAR
    say(
        headline="lateness of the event loop beside large requests",
        own_max_ms=round(worst, 2),
        **ratio,
        holds=holds,
    )


def summarize(rounds: dict[str, list[dict[str, float]]]) -> None:
    """Medians by case, then the headline."""
    medians: dict[str, dict[str, float]] = {}
    for case, found in rounds.items():
        median = {part: statistics.median(each[part] for each in found) for part in found[0]}
        used = median["whole"] - sum(median[part] for part in ("parse", "check", "transforms", "module", "render"))
        medians[case] = {**median, "rest": used}
        say(case=case, unit="us", **{part: round(value, 1) for part, value in medians[case].items()})
    one = medians[HEADLINE]
    ratio = {"times_faster_than_beside": round(one["whole_beside"] / one["whole"], 2)} if "whole_beside" in one else {}
    say(
        headline=f"one request, {HEADLINE}, in a replica",
        check_us=round(one["check"], 1),
        check_bar_us=CHECK_BAR_US,
        whole_us=round(one["whole"], 1),
        whole_bar_us=WHOLE_BAR_US,
        **ratio,
        holds=one["check"] <= CHECK_BAR_US and one["whole"] <= WHOLE_BAR_US,
    )


class Side:
    """A process that imports raypipe from one checkout, and is asked one case at a time."""

    def __init__(self, checkout: Path, what: str) -> None:
        env = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "REPLICA_BENCH": what}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE), "--side"], env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, case: str, calls: int) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        print(json.dumps({"case": case, "calls": calls}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a side ended before it answered; its words are above")
        return json.loads(line)

    def end(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)


# --- in the process of a side; what other releases lack is asked for before it is used ------------------------------


def answer_questions() -> None:
    """Read questions from stdin and write answers to stdout until it is closed."""
    answers, sys.stdout = sys.stdout, sys.stderr
    with tempfile.TemporaryDirectory(prefix="raypipe-bench-") as folder:
        cases = lateness.made(folder) if os.environ["REPLICA_BENCH"] == "lateness" else made_cases(folder)
        for line in sys.stdin:
            question = json.loads(line)
            print(json.dumps(answered(cases, question["case"], question["calls"])), file=answers, flush=True)


def answered(cases: dict[str, Any], case: str, calls: int) -> dict[str, Any]:
    """Medians in us; of lateness in ms."""
    import raypipe

    if case == "about":
        app = cases[HEADLINE][0]
        return {"raypipe": str(Path(raypipe.__file__).parents[1]), "engine": str(getattr(app.predictor, "engine", ""))}
    if importlib.util.find_spec("uvloop") is None:
        run = asyncio.run
    else:
        import uvloop  # what replicas of Serve run on

        run = uvloop.run
    what = os.environ["REPLICA_BENCH"]
    if what == "lateness":
        kind, size_mib = case.split()
        return run(lateness.measured(cases, kind, float(size_mib), calls))
    app, body = cases[case]
    found = parts(app, body, calls, with_compile=what == "parts-compile") if what != "whole" else {}
    return {**found, "whole": run(whole(app, body, calls))}


def made_cases(folder: str) -> dict[str, tuple[Any, bytes]]:
    """Case -> a replica and the body of a request."""
    import numpy as np

    from raypipe.spec.model import MlpModel
    from raypipe.spec.transforms import OneHotTransform, ScaleTransform, StandardizeTransform
    from raypipe.storage.local import LocalFolder
    from raypipe.testing.fakes import tiny_dataset
    from raypipe.testing.served import model_app, model_version

    random, store = np.random.default_rng(0), LocalFolder(folder)
    pixels = random.integers(0, 256, (50, 28, 28), np.uint8)
    scale = ScaleTransform(kind="scale", columns=["image"], factor=1 / 255)
    images = tiny_dataset(store, {"image": pixels}, np.arange(50) % 10, transforms=[scale], name="images")
    spec = MlpModel(kind="mlp", hidden=[128])
    classifier = model_app(store, model_version(store, images, name="images", spec=spec))
    numbers = {f"x{i}": random.normal(i, 3, 50) for i in range(15)}
    words = {f"t{i}": np.array(["red", "green", "blue", "black"], object)[np.arange(50) % 4] for i in range(5)}
    transforms = [
        StandardizeTransform(kind="standardize", columns=list(numbers)),
        OneHotTransform(kind="one_hot", columns=list(words)),
    ]
    target = random.normal(size=50)
    table = tiny_dataset(store, {**numbers, **words}, target, task="regression", transforms=transforms, name="table")
    regressor = model_app(store, model_version(store, table, name="table", spec=MlpModel(kind="mlp", hidden=[64])))
    row = {name: values[0].item() for name, values in numbers.items()} | {name: v[0] for name, v in words.items()}
    bodies = {
        "image of integers": (classifier, [{"image": pixels[0].tolist()}]),
        "image of floats": (classifier, [{"image": pixels[0].astype(float).tolist()}]),
        "table of 20 columns": (regressor, [row]),
    }
    return {case: (app, json.dumps({"instances": rows}).encode()) for case, (app, rows) in bodies.items()}


async def whole(app: Any, body: bytes, calls: int) -> float:
    """Median of whole requests."""
    if importlib.util.find_spec("raypipe.serve.connection") is None:
        return await whole_asgi(app, body, calls)
    import uvicorn
    from uvicorn.server import ServerState

    from raypipe.serve.connection import Connection
    from raypipe.serve.direct import Direct

    application, wire = Direct(app), Wire()
    config = uvicorn.Config(lambda: application, factory=True, interface="asgi3", proxy_headers=False, ws="none")
    connection = Connection(config, ServerState(), {}, asyncio.get_running_loop())
    connection.connection_made(wire)  # pyright: ignore[reportArgumentType]
    fields = f"host: localhost:8000\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    request = f"POST /predict HTTP/1.1\r\n{fields}\r\n".encode() + body
    took: list[float] = []
    for _ in range(calls + 20):
        wire.answer = b""
        start = time.perf_counter()
        connection.data_received(request)
        while not wire.answer:
            await asyncio.sleep(0)
        took.append(time.perf_counter() - start)
        assert wire.answer.startswith(b"HTTP/1.1 200"), wire.answer
        await asyncio.sleep(0)  # a turn of the event loop ends, as it does between two requests
    return statistics.median(took[20:]) * 1e6


class Wire:
    """A transport that keeps what was written last."""

    def __init__(self) -> None:
        self.answer = b""

    def write(self, data: bytes) -> None:
        self.answer = data

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str) -> None:
        return None


async def whole_asgi(app: Any, body: bytes, calls: int) -> float:
    """The same of releases that have no connection of their own, as an ASGI server asks them."""
    from starlette.requests import Request

    headers = {"host": "localhost:8000", "content-type": "application/json", "content-length": str(len(body))}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "root_path": "",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    took: list[float] = []
    for _ in range(calls + 20):
        sent.clear()
        start = time.perf_counter()
        if hasattr(app, "asgi"):
            await app.asgi(dict(scope), receive, send)
        else:
            response = await app(Request(dict(scope), receive))
            await response(scope, receive, send)
        took.append(time.perf_counter() - start)
        assert sent[0]["status"] == 200, sent
    return statistics.median(took[20:]) * 1e6


_engines: dict[tuple[int, str], Any] = {}


def parts(app: Any, body: bytes, calls: int, *, with_compile: bool) -> dict[str, float]:
    """Medians of the parts of a call; `module` is that of the engine the replica uses."""
    from raypipe.serve.protocols.base import Call, json_object

    protocol = app.routes._protocols["predict"]
    rows = json_object(body)["instances"]
    columns = protocol.checker.rows(rows)
    features = app.predictor.features(columns)
    predictions = app.predictor.answer(features)
    ask = protocol.predict(Call("POST", "/predict", {}, body))
    found = {
        "parse": median_us(lambda: json_object(body), calls),
        "check": median_us(lambda: protocol.checker.rows(rows, booleans=False), calls),
        "transforms": median_us(lambda: app.predictor.features(columns), calls),
        "module": median_us(lambda: app.predictor.answer(features), calls),
        "render": median_us(lambda: ask.render(predictions), calls),
    }
    for name in ("eager", "traced", "onnx", "compile"):
        if name == "compile" and not with_compile:
            continue
        if name == "onnx" and importlib.util.find_spec("onnxruntime") is None:
            continue
        engine = engine_of(app, name, features)
        found[f"module_{name}"] = median_us(lambda call=engine: call(features), calls)
    return found


def engine_of(app: Any, name: str, features: Any) -> Any:
    """The replica's network, called by this engine; made once."""
    import numpy as np

    from raypipe.model.engines import ENGINES

    if (id(app), name) not in _engines:
        samples = [np.repeat(features, num_rows, axis=0) for num_rows in (2, 1, 7)]
        _engines[id(app), name] = ENGINES[name](app.predictor._eager.network, samples)
    return _engines[id(app), name]


def median_us(call: Callable[[], object], calls: int) -> float:
    took: list[float] = []
    for _ in range(calls + 20):
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return statistics.median(took[20:]) * 1e6


def surroundings() -> dict[str, object]:
    """Hardware and versions."""
    cpu = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return {"cpu": cpu.group(1) if cpu else "?", "cores": os.cpu_count(), "python": platform.python_version()}


def say(**fields: object) -> None:
    """One JSON line."""
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main()
