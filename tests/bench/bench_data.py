"""Rows per second handed to the training loop, beside DataLoader and Ray Data; JSON lines, the last is the headline.

    .venv/bin/python tests/bench/bench_data.py [ROUNDS [THREADS]]

MNIST's 60,000 images, 128 a batch, one process; a row counts once it is in a batch of float32 features in [0, 1] and
int64 targets that a model could take at once.  Nothing is trained.  An epoch of each takes turns, after one that does
not count, and the medians are compared:
- resident, streamed: our share of the rows, shuffled, in memory and read from a local folder, digests checked
  (10,000 rows a shard and a window);
- dataloader: torch's DataLoader over a TensorDataset of finished tensors, shuffled, at the best of 0, 1, 2 processes;
- ray_shuffled: `iter_torch_batches` over a materialized Ray dataset of finished rows, shuffled in a buffer as large as
  our window, at the better of 1 and 4 batches of prefetch;
- ray_in_order: the same without a shuffle, which hands out slices of its blocks; no one trains so, and it is shown.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs as a file

os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import numpy as np
import ray
import ray.data
import torch
from ray.data.block import BlockAccessor
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from raypipe.spec.transforms import ScaleTransform
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.train.resident import Resident
from raypipe.train.rows import Share, StoredSplit, World
from raypipe.train.streamed import Streamed
from tests.bench.training_sides import load_mnist

BATCH = 128
NUM_THREADS = int(sys.argv[2]) if len(sys.argv) > 2 else os.cpu_count() or 1
"""PyTorch's own default: one a core."""
ROWS_PER_SHARD = 10_000
BARS = {"resident_over_dataloader": 4.0, "resident_over_ray": 10.0, "streamed_over_ray": 1.0}

Batches = Iterator[tuple[Tensor, Tensor]]


def main(rounds: int) -> None:
    torch.set_num_threads(NUM_THREADS)
    (image, label), _, is_mnist = load_mnist()
    with tempfile.TemporaryDirectory(prefix="raypipe-bench-") as folder:
        ours = open_ours(folder, image, label)
        seconds = compare(rounds, {**ours, **open_dataloaders(image, label), **open_ray(image, label)}, len(label))
    rate = {name: len(label) / statistics.median(values) for name, values in seconds.items()}
    dataloader = best(rate, "dataloader")
    shuffled, in_order = best(rate, "ray_shuffled"), best(rate, "ray_in_order")
    ratios = {
        "resident_over_dataloader": rate["resident"] / rate[dataloader],
        "resident_over_ray": rate["resident"] / rate[shuffled],
        "streamed_over_ray": rate["streamed"] / rate[shuffled],
        "resident_over_ray_in_order": rate["resident"] / rate[in_order],
        "streamed_over_ray_in_order": rate["streamed"] / rate[in_order],
    }
    headline = {
        "bench": "data",
        "rows": "MNIST" if is_mnist else "generated",
        "batch": BATCH,
        "rounds": rounds,
        "rows_per_s": {name: round(value) for name, value in rate.items()},
        "best": [dataloader, shuffled, in_order],
        **{name: round(value, 2) for name, value in ratios.items()},
        "bars": BARS,
        "threads": NUM_THREADS,
        "cpu_cores": os.cpu_count(),
        "torch": torch.__version__,
        "ray": ray.__version__,
        "python": platform.python_version(),
    }
    print(json.dumps(headline), flush=True)


def best(rate: dict[str, float], prefix: str) -> str:
    """The fastest of the competitors whose name begins so."""
    return max((name for name in rate if name.startswith(prefix)), key=lambda name: rate[name])


def compare(rounds: int, turns: dict[str, Callable[[int], Batches]], num_rows: int) -> dict[str, list[float]]:
    """Seconds of each competitor's epochs; all take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name, epoch in turns.items():
            took_s = time_epoch(epoch(number), num_rows)
            if number:
                seconds[name].append(took_s)
            print(json.dumps({"round": number, "rows": name, "epoch_s": round(took_s, 4)}), flush=True)
    return seconds


def time_epoch(batches: Batches, num_rows: int) -> float:
    seen = 0
    start = time.perf_counter()
    for features, target in batches:
        assert features.dtype == torch.float32 and target.dtype == torch.int64 and len(features) == len(target)
        seen += len(target)
    took_s = time.perf_counter() - start
    assert seen == num_rows, f"{seen} of {num_rows} rows"
    return took_s


# ---- ours


def open_ours(folder: str, image: np.ndarray, label: np.ndarray) -> dict[str, Callable[[int], Batches]]:
    store = LocalFolder(folder)
    scale = ScaleTransform(kind="scale", columns=["image"], factor=1 / 255)
    dataset = tiny_dataset(store, {"image": image}, label, transforms=[scale], rows_per_shard=ROWS_PER_SHARD)
    train = StoredSplit(store, dataset, "train")
    held = Resident(train, World(), len(label), home=torch.device("cpu"))
    read = Streamed(train, World(), ROWS_PER_SHARD)
    return {"resident": lambda epoch: epoch_of(held, epoch), "streamed": lambda epoch: epoch_of(read, epoch)}


def epoch_of(share: Share, epoch: int) -> Batches:
    with closing(share.batches(BATCH, epoch, first_step=0)) as batches:
        for batch in batches:
            yield batch.rows.features, batch.rows.target


# ---- the others


def open_dataloaders(image: np.ndarray, label: np.ndarray) -> dict[str, Callable[[int], Batches]]:
    rows = TensorDataset(torch.from_numpy(image).float() / 255, torch.from_numpy(label))

    def loader(num_workers: int) -> Callable[[int], Batches]:
        batches = DataLoader(
            rows, batch_size=BATCH, shuffle=True, num_workers=num_workers, persistent_workers=num_workers > 0
        )
        return lambda epoch: iter(batches)

    return {f"dataloader/{n}": loader(n) for n in (0, 1, 2)}


def open_ray(image: np.ndarray, label: np.ndarray) -> dict[str, Callable[[int], Batches]]:
    ray.init(include_dashboard=False, log_to_driver=False)
    scaled = image.astype(np.float32) / 255
    blocks = [
        {"image": scaled[start : start + ROWS_PER_SHARD], "label": label[start : start + ROWS_PER_SHARD]}
        for start in range(0, len(label), ROWS_PER_SHARD)
    ]
    rows = ray.data.from_blocks([BlockAccessor.batch_to_block(block) for block in blocks]).materialize()

    def epochs(**options: Any) -> Callable[[int], Batches]:
        def epoch(number: int) -> Batches:
            for batch in rows.iter_torch_batches(batch_size=BATCH, **options):
                yield batch["image"], batch["label"]

        return epoch

    turns: dict[str, Callable[[int], Batches]] = {}
    for prefetch in (1, 4):
        turns[f"ray_in_order/{prefetch}"] = epochs(prefetch_batches=prefetch)
        turns[f"ray_shuffled/{prefetch}"] = epochs(
            prefetch_batches=prefetch, local_shuffle_buffer_size=ROWS_PER_SHARD, local_shuffle_seed=0
        )
    return turns


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
