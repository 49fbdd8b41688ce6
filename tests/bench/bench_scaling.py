"""How training goes with more workers, and what a step of our loop costs by itself; JSON lines, the last one is the
headline.

    .venv/bin/python tests/bench/bench_scaling.py [ROUNDS [WORKERS...]]

- steps_per_s at 1, 2 and 4 WORKERS (default) of one thread, 128 rows each, MNIST, the articles' network: ours, and DDP
  by hand over tensors in memory, both under torchrun. More workers than cores share them.
- overhead_us: a step of ours over four numbers a row and a linear layer, one worker, less one that takes the same batch
  through the same network, loss, gradients and optimizer and does nothing else. So reading rows is in it, and a
  checkpoint every 10,000 steps. By the clock; and in CPU time, for machines that do other things, too.

Sides are processes that take turns, ROUNDS times (default 5), three epochs each, of which the first does not count.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs as a file

from tests.bench.loading import surroundings
from tests.bench.training_sides import MNIST_MODEL, Side, compare, digits, numbers
from tests.bench.trainings.turns import Work

EPOCHS, LR = 3, 1e-3
WORKER_BATCH = 128
TINY_BATCH, TINY_STEPS = 32, 10_000
OVERHEAD_BAR_US = 50.0


def main(rounds: int, sizes: list[int]) -> None:
    with tempfile.TemporaryDirectory(prefix="raypipe-bench-") as name:
        folder = Path(name)
        own = overhead(rounds, folder)
        workers = {str(size): found for size, found in scaling(rounds, sizes, folder).items()}
    headline = {
        "bench": "scaling",
        **surroundings(["torch", "numpy"]),
        "rounds": rounds,
        "worker_batch": WORKER_BATCH,
        "workers": workers,
        **own,
        "bars": {"overhead_us": OVERHEAD_BAR_US},
        "misses": ["overhead_us"] if own["overhead_us"] > OVERHEAD_BAR_US else [],
    }
    print(json.dumps(headline), flush=True)


def overhead(rounds: int, folder: Path) -> dict[str, Any]:
    numbers(folder / "tiny", TINY_BATCH * TINY_STEPS)
    work = Work("tiny", folder / "tiny", {"kind": "linear"}, TINY_BATCH, LR, 1, EPOCHS)
    sides = [Side("ours", "by_raypipe.py", work), Side("bare", "by_bare_steps.py", work)]
    found = compare({"work": "tiny", "batch": TINY_BATCH}, sides, rounds, TINY_BATCH * TINY_STEPS)
    step_us = {kind: {name: 1e6 * s / TINY_STEPS for name, s in found[kind].items()} for kind in ("epoch_s", "cpu_s")}
    return {
        "step_us": {name: round(us, 1) for name, us in step_us["epoch_s"].items()},
        "overhead_us": round(step_us["epoch_s"]["ours"] - step_us["epoch_s"]["bare"], 1),
        "overhead_cpu_us": round(step_us["cpu_s"]["ours"] - step_us["cpu_s"]["bare"], 1),
    }


def scaling(rounds: int, sizes: list[int], folder: Path) -> dict[int, dict[str, Any]]:
    dataset, _ = digits(folder / "mnist")
    num_rows = dataset.splits["train"].num_rows
    results: dict[int, dict[str, Any]] = {}
    for size in sizes:
        batch = WORKER_BATCH * size
        work = Work("mnist", folder / "mnist", MNIST_MODEL, batch, LR, 1, EPOCHS)
        sides = [
            Side("ours", "by_raypipe.py", work, num_workers=size),
            Side("torchrun", "by_hand.py", work, num_workers=size),
        ]
        found = compare({"workers": size}, sides, rounds, num_rows)
        steps = {name: round(rows / batch, 1) for name, rows in found["rows_per_s"].items()}
        results[size] = {"steps_per_s": steps, **{key: found[key] for key in ("ratio", "cpu_ratio", "load_1min")}}
    return results


if __name__ == "__main__":
    arguments = [int(word) for word in sys.argv[1:]]
    main(arguments[0] if arguments else 5, arguments[1:] or [1, 2, 4])
