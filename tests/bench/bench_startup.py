"""Seconds of a whole small run, `raypipe run` on digits, beside a bare Ray script of the same work; JSON lines.

    .venv/bin/python tests/bench/bench_startup.py [ROUNDS]

Both sides, each in a process of its own that starts Ray and ends it: read the 1,797 digits with Ray Data, split
70/10/20, scale pixels, train a 64-256-128-10 network with AdamW on two Ray Train workers (DDP) for 30 epochs of 64
rows a step, validate and keep a checkpoint every epoch, measure test accuracy, save the model. Ours also hashes and
checks every byte, writes shards and records, and registers a version (`--until register`). The bare script
(bare_ray.py) is what Ray's documentation leads to, with Ray's defaults; `bare, tuned` is the same script by someone
who knows that Ray Train takes one report every 2 s by default, and sets RAY_TRAIN_HEALTH_CHECK_INTERVAL_S=0.1. They
take turns; the medians of whole-process seconds are compared.
Then runs of ours that go on to an answering endpoint (`--no-wait`), with one and two workers, each beside the same
run with `train.trainer: ray_train`, taking turns: seconds by phase, and from the choice of who starts the workers to
the first step they are ready for.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raypipe.runtime.progress import read_events
from raypipe.storage.local import LocalFolder

ROOT = Path(__file__).parents[2]
PIPELINE = ROOT / "examples" / "01_digits" / "pipeline.yaml"
TIMEOUT_S = 600


def main(rounds: int) -> None:
    turns = {"ours": ours, "bare": bare, "bare, tuned": lambda: bare(RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.1")}
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds):
        for name, turn in turns.items():
            line = turn()
            seconds[name].append(line["wall_s"])
            print(json.dumps({"round": number, "run": name, **line}), flush=True)
    ways = [(workers, trainer) for workers in (1, 2) for trainer in ("auto", "ray_train")]
    answered: dict[tuple[int, str], list[dict[str, Any]]] = {way: [] for way in ways}
    for number in range(rounds):
        for workers, trainer in ways:
            line = ours("--no-wait", f"train.num_workers={workers}", f"train.trainer={trainer}")
            answered[workers, trainer].append(line)
            told = {"round": number, "run": "ours, until answered", "workers": workers, "trainer": trainer}
            print(json.dumps({**told, **line}), flush=True)
    median = {name: round(statistics.median(values), 2) for name, values in seconds.items()}
    headline: dict[str, Any] = {
        "bench": "startup",
        "rounds": rounds,
        "wall_s": median,
        "ours_over_bare": round(median["ours"] / median["bare"], 3),
        "ours_over_bare_tuned": round(median["ours"] / median["bare, tuned"], 3),
        "answered_s": {
            f"{workers} {trainer}": {
                name: round(statistics.median(line[name] for line in lines), 2)
                for name in ("wall_s", "workers_ready_s")
            }
            for (workers, trainer), lines in answered.items()
        },
        "cpu_cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    print(json.dumps(headline), flush=True)


def ours(until: str = "--until=register", *values: str) -> dict[str, Any]:
    """Wall seconds of `raypipe run` into a fresh store, and of each phase.

    Args:
        values: of fields, FIELD=VALUE.
    """
    with private_folder() as (folder, env):
        imported_s = timed([sys.executable, "-c", "import raypipe.cli.main"], folder, env)[0]
        store = LocalFolder(str(folder / "store"))
        command = [sys.executable, "-m", "raypipe", "run", str(PIPELINE), "--store", str(folder / "store"), until]
        started = time.time()
        wall_s, _ = timed([*command, *(word for value in values for word in ("--set", value))], folder, env)
        (run_id,) = {info.key.split("/")[1] for info in store.list("runs")}
        events = read_events(store, run_id)
        accuracy = json.loads(store.read(f"runs/{run_id}/evaluate/record.json"))["metrics"]["accuracy"]
    phases = {event["stage"]: event["wall_s"] for event in events if "wall_s" in event}
    chosen, ready = (next(event["time"] for event in events if has(event)) for has in (_is_choice, _is_start))
    return {
        "wall_s": round(wall_s, 2),
        "import_s": round(imported_s, 2),
        "until_first_stage_s": round(next(e["time"] for e in events if e["stage"] == "data") - started, 2),
        "workers_ready_s": round(ready - chosen, 2),
        "phases_s": {name: round(value, 2) for name, value in phases.items()},
        "test_accuracy": round(accuracy, 4),
    }


def _is_choice(event: dict[str, Any]) -> bool:
    return "trainer" in event


def _is_start(event: dict[str, Any]) -> bool:
    return event.get("event") == "start"


def bare(**settings: str) -> dict[str, Any]:
    """Wall seconds of the bare script."""
    script = [sys.executable, str(Path(__file__).parent / "bare_ray.py")]
    with private_folder() as (folder, env):
        wall_s, said = timed([*script, str(folder)], folder, {**env, **settings})
        assert (folder / "model.pt").exists()
    return {"wall_s": round(wall_s, 2), **json.loads(said.splitlines()[-1])}


@contextmanager
def private_folder() -> Iterator[tuple[Path, dict[str, str]]]:
    """A short folder that is HOME and Ray's temporary folder; no other Ray setting gets through."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "RAYPIPE_"))}
    with tempfile.TemporaryDirectory(prefix="rb-", dir="/tmp", ignore_cleanup_errors=True) as name:
        env = {"HOME": name, "RAY_TMPDIR": name, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
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
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
