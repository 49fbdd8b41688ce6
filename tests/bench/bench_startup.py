"""Seconds of a whole small run, `raypipe run` on digits, beside a bare Ray script of the same work; JSON lines.

    .venv/bin/python tests/bench/bench_startup.py [ROUNDS [CHECKOUT_OF_A_RELEASE_BEFORE]]

Both sides, each in a process of its own that starts Ray and ends it: read the 1,797 digits with Ray Data, split
70/10/20, scale pixels, train a 64-256-128-10 network with AdamW on two Ray Train workers (DDP) for 30 epochs of 64
rows a step, validate and keep a checkpoint every epoch, measure test accuracy, save the model. Ours also hashes and
checks every byte, writes shards and records, and registers a version (`--until register`). The bare script
(bare_ray.py) is what Ray's documentation leads to, with Ray's defaults; `bare, tuned` is the same script by someone
who knows that Ray Train takes one report every 2 s by default, and sets RAY_TRAIN_HEALTH_CHECK_INTERVAL_S=0.1. They
take turns; the medians of whole-process seconds are compared.
Then, from the command to an answering endpoint (`--no-wait`), taking turns: ours with one and two workers, the same
with `train.trainer: ray_train`, the release before (where a checkout of it is named), and plain_digits.py, the same
work in one process without a framework. For ours also seconds by phase, CPU seconds of the whole machine by phase (it
should be idle otherwise), and seconds until the workers were ready.
Then with a Ray that `raypipe up` keeps, beside the same commands without one: from `raypipe run` to the first step, and
from `raypipe serve` to the first answer.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil

from raypipe.runtime.progress import read_events
from raypipe.storage.local import LocalFolder

ROOT = Path(__file__).parents[2]
PIPELINE = ROOT / "examples" / "01_digits" / "pipeline.yaml"
TIMEOUT_S = 600


def main(rounds: int, before: Path | None) -> None:
    turns = {"ours": ours, "bare": bare, "bare, tuned": lambda: bare(RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.1")}
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds):
        for name, turn in turns.items():
            line = turn()
            seconds[name].append(line["wall_s"])
            print(json.dumps({"round": number, "run": name, **line}), flush=True)
    sides = answering(before)
    answered: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, turn in sides.items():
            line = turn()
            answered[name].append(line)
            print(json.dumps({"round": number, "run": f"{name}, until answered", **line}), flush=True)
    joined_s: dict[str, list[float]] = {}
    for number in range(rounds):
        for name, value in joined().items():
            joined_s.setdefault(name, []).append(value)
            print(json.dumps({"round": number, "run": name, "wall_s": value}), flush=True)
    median = {name: round(statistics.median(values), 2) for name, values in seconds.items()}
    until = {name: statistics.median(line["answered_s"] for line in lines) for name, lines in answered.items()}
    headline: dict[str, Any] = {
        "bench": "startup",
        "rounds": rounds,
        "wall_s": median,
        "ours_over_bare": round(median["ours"] / median["bare"], 3),
        "ours_over_bare_tuned": round(median["ours"] / median["bare, tuned"], 3),
        "answered_s": {name: round(value, 2) for name, value in until.items()},
        "one_worker_over_plain": round(until["ours 1"] / until["plain"], 3),
        "over_before": {n: round(until[f"ours {n}"] / until[f"before {n}"], 3) for n in (1, 2)} if before else None,
        "joined_s": {name: round(statistics.median(values), 2) for name, values in joined_s.items()},
        "cpu_cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    print(json.dumps(headline), flush=True)


def answering(before: Path | None) -> dict[str, Callable[[], dict[str, Any]]]:
    """Who is timed until it answers: name -> one turn."""
    sides: dict[str, Callable[[], dict[str, Any]]] = {"plain": plain}
    for workers in (1, 2):
        count = f"train.num_workers={workers}"
        sides[f"ours {workers}"] = partial(ours, "--no-wait", count)
        sides[f"ours {workers} ray_train"] = partial(ours, "--no-wait", count, "train.trainer=ray_train")
        if before is not None:
            sides[f"before {workers}"] = partial(ours, "--no-wait", count, root=before)
    return sides


def ours(until: str = "--until=register", *values: str, root: Path = ROOT) -> dict[str, Any]:
    """Wall seconds of `raypipe run` into a fresh store, and of each phase.

    Args:
        values: of fields, FIELD=VALUE.
        root: the checkout of raypipe that runs.
    """
    with private_folder(root) as (folder, env), Busy() as busy:
        imported_s = timed([sys.executable, "-c", "import raypipe.cli.main"], folder, env)[0]
        store = LocalFolder(str(folder / "store"))
        command = [sys.executable, "-m", "raypipe", "run", str(PIPELINE), "--store", str(folder / "store"), until]
        started = time.time()
        wall_s, _ = timed([*command, *(word for value in values for word in ("--set", value))], folder, env)
        (run_id,) = {info.key.split("/")[1] for info in store.list("runs")}
        events = read_events(store, run_id)
        accuracy = json.loads(store.read(f"runs/{run_id}/evaluate/record.json"))["metrics"]["accuracy"]
    ends = [(event["stage"], event["time"], event["wall_s"]) for event in events if "wall_s" in event]
    line: dict[str, Any] = {
        "wall_s": round(wall_s, 2),
        "import_s": round(imported_s, 2),
        "until_first_stage_s": round(next(e["time"] for e in events if e["stage"] == "data") - started, 2),
        "phases_s": {stage: round(seconds, 2) for stage, _, seconds in ends},
        "phases_cpu_s": {stage: busy.between(end - seconds, end) for stage, end, seconds in ends},
        "cpu_s": busy.between(started, started + wall_s),
        "test_accuracy": round(accuracy, 4),
    }
    for event in events:
        if _is_ready(event) or _is_answer(event):
            line["workers_ready_s" if _is_ready(event) else "answered_s"] = round(event["time"] - started, 2)
    return line


def _is_ready(event: dict[str, Any]) -> bool:
    return event.get("event") == "start"


def _is_answer(event: dict[str, Any]) -> bool:
    return event["stage"] == "serve" and "url" in event


def joined() -> dict[str, float]:
    """Seconds of two commands, each on a Ray of its own and on one that was up."""
    with private_folder() as (folder, env):
        raypipe, store = [sys.executable, "-m", "raypipe"], ["--store", str(folder / "store")]
        train = [*raypipe, "run", str(PIPELINE), *store, "--fresh", "--until=register", "--set=train.num_workers=1"]
        serve = [*raypipe, "serve", "digits", *store, "--no-wait"]
        seconds = {"first step, cold": until_said(train, "worker(s) ready", folder, env)}
        seconds["answer, cold"] = until_said(serve, " answers at ", folder, env)
        timed([*raypipe, "up"], folder, env)
        try:
            seconds["first step, joined"] = until_said(train, "worker(s) ready", folder, env)
            seconds["answer, joined"] = until_said(serve, " answers at ", folder, env)
        finally:
            timed([*raypipe, "down"], folder, env)
    return seconds


def until_said(command: list[str], words: str, folder: Path, env: dict[str, str]) -> float:
    """Seconds until a line of stderr holds the words; waits until the process has ended.

    Raises:
        RuntimeError: none does.
    """
    start, said = time.perf_counter(), 0.0
    with subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as p:
        assert p.stderr is not None
        for line in p.stderr:
            said = said or (time.perf_counter() - start if words in line else 0.0)
    if not said:
        raise RuntimeError(f"{command} never said {words!r}")
    return round(said, 2)


class Busy(threading.Thread):
    """CPU seconds of the machine, looked at while the block runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._over = threading.Event()
        self._seen: list[tuple[float, float]] = []

    def __enter__(self) -> Busy:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(0.1):
            times = psutil.cpu_times()
            self._seen.append((time.time(), times.user + times.nice + times.system))

    def between(self, start: float, end: float) -> float:
        first, last = (min(self._seen, key=lambda seen: abs(seen[0] - when))[1] for when in (start, end))
        return round(last - first, 2)


def plain() -> dict[str, Any]:
    """Seconds from the start of the plain script until it has answered a row."""
    row = {"instances": [{"image": [[0] * 8] * 8}]}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = [sys.executable, str(Path(__file__).parent / "plain_digits.py"), str(port)]
    with private_folder() as (folder, env):
        start = time.perf_counter()
        process = subprocess.Popen(script, cwd=folder, env=env)
        try:
            while process.poll() is None and time.perf_counter() - start < TIMEOUT_S:
                with suppress(httpx.TransportError):
                    httpx.post(f"http://127.0.0.1:{port}/predict", json=row, trust_env=False).raise_for_status()
                    return {"answered_s": round(time.perf_counter() - start, 2)}
                time.sleep(0.05)
            raise RuntimeError(f"{script} did not answer")
        finally:
            process.terminate()
            process.wait()


def bare(**settings: str) -> dict[str, Any]:
    """Wall seconds of the bare script."""
    script = [sys.executable, str(Path(__file__).parent / "bare_ray.py")]
    with private_folder() as (folder, env):
        wall_s, said = timed([*script, str(folder)], folder, {**env, **settings})
        assert (folder / "model.pt").exists()
    return {"wall_s": round(wall_s, 2), **json.loads(said.splitlines()[-1])}


@contextmanager
def private_folder(root: Path = ROOT) -> Iterator[tuple[Path, dict[str, str]]]:
    """A short folder that is HOME and Ray's temporary folder; no other Ray setting gets through."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "RAYPIPE_"))}
    with tempfile.TemporaryDirectory(prefix="rb-", dir="/tmp", ignore_cleanup_errors=True) as name:
        env = {"HOME": name, "RAY_TMPDIR": name, "PYTHONPATH": str(root), "RAY_USAGE_STATS_ENABLED": "0"}
        yield Path(name), {**kept, **env}


def timed(command: list[str], folder: Path, env: dict[str, str]) -> tuple[float, str]:
    """Seconds until the process has ended, and its stdout.

    Raises:
        RuntimeError: it failed; with what it said last.
    """
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=TIMEOUT_S)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{command} exited with {done.returncode}:\n{done.stderr[-3000:]}")
    return seconds, done.stdout


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, Path(sys.argv[2]) if len(sys.argv) > 2 else None)
