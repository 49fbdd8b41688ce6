"""What trials that end badly cost a search; JSON lines, the last one is the headline. FAULTS U2.

    .venv/bin/python tests/bench/bench_trials.py [TRIALS [TRIAL_S]]

raypipe.tune.stage.tune on a Ray of this machine: TRIALS trials (default 40), two at a time, of about TRIAL_S seconds
each (default 3). First all of them end well (`clean`); then one ends its process, one runs out of memory, one has
metrics that are no numbers, and one never ends and is stopped after LONGEST trials' time. Wall seconds of both
searches, in a process of its own each, from the first trial drawn to the last told; Ray's own start is no part of it.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs as a file

from raypipe.runtime.connect import connect
from raypipe.runtime.progress import Progress
from raypipe.runtime.resources import Bundle, Demand
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import open_store
from raypipe.testing.fakes import run_context, tiny_dataset
from raypipe.testing.faults import FAULTY_TRIAL, TRIAL_FAULTS
from raypipe.tune.stage import tune
from tests.bench.loading import surroundings

STEPS, LONGEST = 8, 5
MAX_RATIO = 1.3


def main(trials: int, trial_s: float) -> None:
    found = {name: _apart(name, trials, trial_s) for name in ("clean", "faulty")}
    ratio = found["faulty"] / found["clean"]
    headline = {
        "bench": "trials",
        **surroundings(["torch", "ray"]),
        "trials": trials,
        "trial_s": trial_s,
        **{f"{name}_s": round(seconds, 1) for name, seconds in found.items()},
        "ratio": round(ratio, 3),
        "bar": MAX_RATIO,
        "holds": ratio <= MAX_RATIO,
    }
    print(json.dumps(headline), flush=True)


def _apart(name: str, trials: int, trial_s: float) -> float:
    words = [sys.executable, __file__, str(trials), str(trial_s), name]
    lines = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    print(lines[-1], flush=True)
    return float(json.loads(lines[-1])["wall_s"])


def search(name: str, trials: int, trial_s: float) -> None:
    """One search; its last line tells what it took."""
    faults = [f"none {trial}" for trial in range(trials)]
    if name == "faulty":
        for place, fault in enumerate(TRIAL_FAULTS):
            faults[trials // 5 * (place + 1) - 1] = fault
    with tempfile.TemporaryDirectory(prefix="raypipe-bench-") as folder:
        code = Path(folder) / "code"
        code.mkdir()
        (code / "faulty_network.py").write_text(FAULTY_TRIAL)
        store = open_store(f"{folder}/store")
        x = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
        dataset = tiny_dataset(store, {"x": x}, (x @ [1.0, -2.0, 0.5] > 0).astype(np.int64), num_val=20)
        spec = PipelineSpec.model_validate(
            {
                "name": "search",
                "data": {"source": {"format": "sklearn", "dataset": "iris"}, "target": "y"},
                "model": {
                    "kind": "import",
                    "path": "faulty_network.py:build",
                    "args": {"fault": "none", "step_s": trial_s / STEPS},
                },
                "train": {"epochs": 2, "global_batch_size": 20, "resources": {"num_cpus": 0.5}},
                "tune": {
                    "space": {"model.args.fault": {"choice": faults}},
                    "search": {"kind": "grid"},
                    "max_trial_minutes": LONGEST * trial_s / 60,
                    "max_concurrent_trials": 2,
                    "num_trials": trials,
                },
            }
        )
        demand = Demand(groups=((Bundle("tune", 2, spec.train.resources),),))
        with connect(demand, code_dir=code):
            context = replace(run_context(store, code_dir=code), progress=Progress("rbench", io.StringIO()))
            start = time.perf_counter()
            result = tune(spec, dataset, context)
            wall_s = time.perf_counter() - start
    ended = Counter(trial.status for trial in result.trials)
    expected = Counter(TRIAL_FAULTS.get(fault, "completed") for fault in faults)
    assert ended == expected, ended
    print(json.dumps({"search": name, "wall_s": round(wall_s, 2), **ended}), flush=True)


if __name__ == "__main__":
    words = sys.argv[1:]
    sized = (int(words[0]) if words else 40, float(words[1]) if len(words) > 1 else 3.0)
    main(*sized) if len(words) < 3 else search(words[2], *sized)
