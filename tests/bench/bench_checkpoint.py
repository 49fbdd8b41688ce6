"""What checkpoints cost a training; JSON lines, the last one is the headline.

    .venv/bin/python tests/bench/bench_checkpoint.py [ROUNDS [STEPS]]

raypipe.train.loop.run in this process: a network of 8.4 million parameters, so 100 MB of weights and Adam's state, one
thread, batches of 128 rows. STEPS steps (default 201: four checkpoints and a step after them), a checkpoint every 50
to a real S3 server on this machine (SeaweedFS), which takes the other core; and the same without any. They take turns,
ROUNDS times (default 3).

`stalled_frac`: of the time of all steps, how much they waited for checkpoints, as the loop counts it. `lost_frac`:
by how much the mean step is longer than without, sharing memory and cores with hashing, sending and the server, too; on
a machine that others use too it is as good as its spread. `peak_over_state`: by how much the most
anonymous memory from the first checkpoint on is above that in the steps before it, in a process of its own, over the
state's bytes.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs as a file

import numpy as np
import torch

from raypipe.records import DatasetVersion
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import layout, open_store
from raypipe.testing.fakes import tiny_dataset
from raypipe.train import loop
from raypipe.train.order import TrainOrder
from raypipe.train.rows import World
from tests.conftest import pick_ports
from tests.integration.s3_server import S3Address, running_s3

BATCH, EVERY_STEPS = 128, 50
HIDDEN = [2048, 2048, 1280]
MEMORY_STEPS = 2 * EVERY_STEPS + 11
SAMPLE_S = 0.005


def main(rounds: int, num_steps: int) -> None:
    with tempfile.TemporaryDirectory(prefix="raypipe-bench-") as name:
        folder = Path(name)
        address = S3Address(port=pick_ports(1, twin_offset=10_000)[0])
        os.environ.update(address.env)
        with running_s3(address, folder / "s3") as server:
            store_uri = f"s3://{server.bucket()}/bench"
            compare(rounds, num_steps, folder, store_uri)
            HEADLINE["peak_over_state"] = memory(folder, store_uri)
    print(json.dumps(HEADLINE), flush=True)


HEADLINE: dict[str, Any] = {
    "bench": "checkpoint",
    "every_steps": EVERY_STEPS,
    "store": "S3 on this machine",
    "cpu_cores": os.cpu_count(),
    "torch": torch.__version__,
    "python": platform.python_version(),
}


def compare(rounds: int, num_steps: int, folder: Path, store_uri: str) -> None:
    took: dict[bool, list[float]] = {False: [], True: []}
    stalls: list[float] = []
    train(folder, store_uri, "warm", EVERY_STEPS, checkpoints=False)
    for number in range(rounds):
        for checkpoints in (False, True):
            run = train(folder, store_uri, f"r{number}", num_steps, checkpoints=checkpoints)
            took[checkpoints].append(run["step_s"])
            if checkpoints:
                stalls.append(run["stalled_frac"])
            print(json.dumps({"round": number, **{k: v for k, v in run.items() if k != "moments"}}), flush=True)
    without, with_them = (statistics.median(took[checkpoints]) for checkpoints in (False, True))
    HEADLINE.update(
        rounds=rounds,
        steps=num_steps,
        state_mb=round(run["state_bytes"] / 1e6, 1),
        step_ms=round(1000 * without, 1),
        stalled_frac=round(statistics.median(stalls), 4),
        lost_frac=round(with_them / without - 1, 4),
        spread_without=round((max(took[False]) - min(took[False])) / without, 4),
    )


def train(folder: Path, store_uri: str, run_id: str, num_steps: int, *, checkpoints: bool) -> dict[str, Any]:
    """One training of so many steps: seconds of a step, and how much of them checkpoints took.

    What follows the last step is not counted: the artifact, and the wait for the last checkpoint.
    """
    torch.set_num_threads(1)
    trainers: list[loop.Trainer] = []
    done_at: list[float] = []
    waited_s: list[float] = []
    train_step = loop.Trainer.train_step

    def timed(self: loop.Trainer, batch: Any) -> torch.Tensor:
        if not trainers:
            trainers.append(self)
        loss = train_step(self, batch)
        done_at.append(time.perf_counter())
        waited_s.append(self.checkpointing.waited_s)
        return loss

    loop.Trainer.train_step = timed  # the only seam at which a step ends
    try:
        result = loop.run(order_of(folder, store_uri, run_id, num_steps, checkpoints), World(), lambda event: None)
    finally:
        loop.Trainer.train_step = train_step
    assert result.num_steps == num_steps
    (trainer,) = trainers
    whole_s = done_at[-1] - done_at[0]
    saved = [info for info in open_store(store_uri).list(layout.checkpoints(run_id)) if "/part-" in info.key]
    return {
        "checkpoints": checkpoints,
        "step_s": round(whole_s / (num_steps - 1), 5),
        "stalled_frac": round(waited_s[-1] / whole_s, 5),
        "state_bytes": sum(tensor.nbytes for tensor in trainer.parallel.tensors().values()),
        "moments": (done_at[EVERY_STEPS // 2], done_at[EVERY_STEPS - 2], done_at[-1]),
        "kept": len(saved),
    }


def order_of(folder: Path, store_uri: str, run_id: str, num_steps: int, checkpoints: bool) -> TrainOrder:
    spec = PipelineSpec.model_validate(
        {
            "name": "bench",
            "data": {"source": {"format": "sklearn", "dataset": "iris"}, "target": "y"},
            "model": {"kind": "mlp", "hidden": HIDDEN},
            "train": {
                "epochs": 1,
                "global_batch_size": BATCH,
                "optimizer": {"kind": "adam"},
                "checkpoint": {"every_steps": EVERY_STEPS},
            },
        }
    )
    data = dataset(store_uri, num_steps)
    return TrainOrder(spec, data, store_uri, run_id, f"runs/{run_id}/train/artifact", checkpoints=checkpoints)


def dataset(store_uri: str, num_steps: int) -> DatasetVersion:
    random = np.random.default_rng(0)
    x = random.normal(size=(num_steps * BATCH, 784)).astype(np.float32)
    return tiny_dataset(open_store(store_uri), {"x": x}, random.integers(0, 10, len(x)), rows_per_shard=10**6)


def memory(folder: Path, store_uri: str) -> float:
    """Measured in a process of its own, whose memory nothing else has used before."""
    child = [sys.executable, __file__, "--child", str(folder), store_uri]
    printed = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = json.loads(printed.splitlines()[-1])
    print(json.dumps(found), flush=True)
    return round((found["peak_bytes"] - found["before_bytes"]) / found["state_bytes"], 3)


def measure_memory(folder: Path, store_uri: str) -> None:
    samples: list[tuple[float, int]] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE_S):
            samples.append((time.perf_counter(), own_bytes()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    run = train(folder, store_uri, "memory", MEMORY_STEPS, checkpoints=True)
    done.set()
    watcher.join()
    begin, first, last = run["moments"]
    before = max(found for at, found in samples if begin <= at < first)
    peak = max(found for at, found in samples if first <= at <= last)
    print(json.dumps({"before_bytes": before, "peak_bytes": peak, "state_bytes": run["state_bytes"]}))


def own_bytes() -> int:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, "Linux tells it"
    return int(found[1]) * 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        measure_memory(Path(sys.argv[2]), sys.argv[3])
    else:
        numbers = [int(arg) for arg in sys.argv[1:]]
        main(*numbers, *[3, 201][len(numbers) :])
