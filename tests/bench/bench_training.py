"""How fast our loop trains, beside what others train the same network with; JSON lines, the last one is the headline.

    .venv/bin/python tests/bench/bench_training.py [ROUNDS [THREADS [WORK...]]]

Every side is a process of its own that lives through the run; they train in turn, ROUNDS times (default 5), three
epochs each, of which the first does not count. Adam with a rate of 0.001 everywhere, the fused one wherever there is a
choice. WORK (default: all):

- mnist: the articles' network (784-128-relu-dropout 0.2-10) on the 60,000 images of MNIST, 32 and 128 rows a step.
  ours: raypipe.train.loop.run, with a checkpoint an epoch and a look at every loss; hand: a loop over tensors in
  memory; keras: Keras 3's `fit` on torch over arrays in memory, without metrics; lightning: Lightning's Trainer over a
  DataLoader, with neither logger nor checkpoints. The latter two live in .venv-trainers (`make install-trainers`) and
  are left out where it is not. THREADS each: one a core, as torch takes where OMP_NUM_THREADS is not set.
- two: the same over two workers of one thread (OMP_NUM_THREADS=1, which torchrun sets, too), 32 and 128 rows a step of
  both: ours beside DistributedDataParallel over half the tensors each. Both under torchrun.
- gpt: of 0.8 million parameters, 16 rows of 64 characters a step; resnet: of 6 convolutions over MNIST, 64 rows a step.
  Ours and a loop by hand over the same network.

MNIST comes from $RAYPIPE_MNIST or ../shared/data/mnist, the text from $RAYPIPE_SHAKESPEARE or
../shared/data/shakespeare; without them rows of the same shape are drawn. `ratio`: how many times the rows of the other
side ours trains in a second; `cpu_ratio`: in a second of CPU time, for machines that do other things, too.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs as a file

from tests.bench.loading import surroundings
from tests.bench.training_sides import (
    GPT_MODEL,
    MNIST_MODEL,
    PEERS,
    RESNET_MODEL,
    Side,
    compare,
    digits,
    text,
)
from tests.bench.trainings.turns import Work

EPOCHS, LR = 3, 1e-3
BATCHES = (32, 128)
LARGER_ROWS = {"gpt": 640, "resnet": 1280}
"""Of an epoch, which takes seconds."""
BARS = {"hand": 1.0, "keras": 1.6, "lightning": 2.0, "torchrun": 0.95, "gpt": 0.97, "resnet": 0.97}

Found = dict[str, Any]


def main(rounds: int, threads: int, works: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="raypipe-bench-") as name:
        folder = Path(name)
        results: dict[str, Found] = {}
        for work in works:
            results |= WORKS[work](rounds, threads, folder)
    left_out = [] if PEERS.exists() or "mnist" not in works else ["keras", "lightning"]
    headline = {
        "bench": "training",
        **surroundings(["torch", "numpy"]),
        "rounds": rounds,
        "threads": threads,
        **results,
        "bars": BARS,
        "misses": misses(results),
        "left_out": left_out,
    }
    print(json.dumps(headline), flush=True)


def misses(results: dict[str, Found]) -> list[str]:
    """What is below its bar."""
    return [
        f"{work}: {ratio} of {side}, bar {bar}"
        for work, found in results.items()
        for side, ratio in found["ratio"].items()
        if ratio < (bar := BARS.get(work, BARS.get(side, 0.0)))
    ]


def mnist(rounds: int, threads: int, folder: Path) -> dict[str, Found]:
    dataset, _ = digits(folder / "mnist")
    found: dict[str, Found] = {}
    for batch in BATCHES:
        work = Work("mnist", folder / "mnist", MNIST_MODEL, batch, LR, threads, EPOCHS)
        sides = [Side("ours", "by_raypipe.py", work), Side("hand", "by_hand.py", work)]
        if PEERS.exists():
            sides += [Side(name, f"by_{name}.py", work, python=PEERS) for name in ("keras", "lightning")]
        found[f"mnist_{batch}"] = compare(
            {"work": "mnist", "batch": batch}, sides, rounds, dataset.splits["train"].num_rows
        )
    return found


def two(rounds: int, threads: int, folder: Path) -> dict[str, Found]:
    dataset, _ = digits(folder / "two")
    found: dict[str, Found] = {}
    for batch in BATCHES:
        work = Work("mnist", folder / "two", MNIST_MODEL, batch, LR, 1, EPOCHS)
        sides = [
            Side("ours", "by_raypipe.py", work, num_workers=2),
            Side("torchrun", "by_hand.py", work, num_workers=2),
        ]
        found[f"two_{batch}"] = compare(
            {"work": "two", "batch": batch}, sides, rounds, dataset.splits["train"].num_rows
        )
    return found


def gpt(rounds: int, threads: int, folder: Path) -> dict[str, Found]:
    text(folder / "gpt", LARGER_ROWS["gpt"])
    work = Work("gpt", folder / "gpt", GPT_MODEL, 16, LR, threads, EPOCHS)
    return {"gpt": larger(work, rounds)}


def resnet(rounds: int, threads: int, folder: Path) -> dict[str, Found]:
    digits(folder / "resnet", LARGER_ROWS["resnet"])
    work = Work("resnet", folder / "resnet", RESNET_MODEL, 64, LR, threads, EPOCHS)
    return {"resnet": larger(work, rounds)}


def larger(work: Work, rounds: int) -> Found:
    sides = [Side("ours", "by_raypipe.py", work), Side("hand", "by_hand.py", work)]
    return compare({"work": work.kind, "batch": work.batch}, sides, rounds, LARGER_ROWS[work.kind])


WORKS: dict[str, Callable[[int, int, Path], dict[str, Found]]] = {
    "mnist": mnist,
    "two": two,
    "gpt": gpt,
    "resnet": resnet,
}


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(
        int(arguments[0]) if arguments else 5,
        int(arguments[1]) if len(arguments) > 1 else os.cpu_count() or 1,
        arguments[2:] or list(WORKS),
    )
