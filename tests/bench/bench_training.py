"""Rows per second of our loop on MNIST, beside plain PyTorch; JSON lines, the last one is the headline.

    .venv/bin/python tests/bench/bench_training.py [ROUNDS [THREADS]]

The same 60,000 images, network (784-128-relu-dropout 0.2-10), batch of 128 rows, SGD
with momentum under a cosine schedule, and thread count:
- ours: raypipe.train.loop.run in this process, one worker, a checkpoint an epoch included;
- plain: tensors in memory, indexed by a permutation, as a good engineer would write it;
- dataloader: torch's DataLoader over a TensorDataset, at the best of 0, 1 and 2 loader processes.
Every epoch but the first of each turn counts; the three take turns, and the medians are compared.

MNIST comes from $RAYPIPE_MNIST or ../shared/data/mnist; without it, random pixels of the same shape (no accuracy).
"""

from __future__ import annotations

import gzip
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs as a file

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from raypipe.model.predictor import Predictor
from raypipe.records import DatasetVersion, TrainResult
from raypipe.spec.pipeline import PipelineSpec
from raypipe.spec.transforms import ScaleTransform
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.train import loop
from raypipe.train.rows import World

BATCH, LR, MOMENTUM = 128, 0.2, 0.9
EPOCHS_A_TURN, EPOCHS_FOR_ACCURACY = 3, 5
NUM_THREADS = int(sys.argv[2]) if len(sys.argv) > 2 else os.cpu_count() or 1
"""PyTorch's own default: one a core."""
MODEL = {"kind": "mlp", "hidden": [128], "dropout_frac": 0.2}

Images = tuple[np.ndarray, np.ndarray]


def main(rounds: int) -> None:
    torch.set_num_threads(NUM_THREADS)
    train, test, is_mnist = load_mnist()
    with tempfile.TemporaryDirectory(prefix="raypipe-bench-") as folder:
        dataset = tiny_dataset(
            LocalFolder(folder),
            {"image": np.concatenate([train[0], test[0]])},
            np.concatenate([train[1], test[1]]),
            transforms=[ScaleTransform(kind="scale", columns=["image"], factor=1 / 255)],
            num_test=len(test[1]),
            rows_per_shard=100_000,
        )
        compare_speed(rounds, train, dataset, folder, is_mnist)
        if is_mnist:
            compare_accuracy(train, test, dataset, folder)
    print(json.dumps(HEADLINE), flush=True)


HEADLINE: dict[str, Any] = {
    "bench": "training",
    "rows": "MNIST",
    "batch": BATCH,
    "threads": NUM_THREADS,
    "cpu_cores": os.cpu_count(),
    "torch": torch.__version__,
    "python": platform.python_version(),
}


def compare_speed(rounds: int, train: Images, dataset: DatasetVersion, folder: str, is_mnist: bool) -> None:
    loader_s = {n: min(epochs_dataloader(train, EPOCHS_A_TURN, n)) for n in (0, 1, 2)}
    num_workers = min(loader_s, key=lambda n: loader_s[n])
    turns: dict[str, Callable[[], list[float]]] = {
        "ours": lambda: train_ours(dataset, folder, EPOCHS_A_TURN)[0],
        "plain": lambda: epochs_plain(train, EPOCHS_A_TURN)[0],
        "dataloader": lambda: epochs_dataloader(train, EPOCHS_A_TURN, num_workers),
    }
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds):
        for name, turn in turns.items():
            epochs_s = turn()
            seconds[name] += epochs_s[1:]
            print(json.dumps({"round": number, "loop": name, "epoch_s": [round(s, 4) for s in epochs_s]}), flush=True)
    rate = {name: len(train[1]) / statistics.median(values) for name, values in seconds.items()}
    HEADLINE.update(
        rows="MNIST" if is_mnist else "generated",
        rounds=rounds,
        dataloader_workers=num_workers,
        rows_per_s={name: round(value) for name, value in rate.items()},
        ours_over_plain=round(rate["ours"] / rate["plain"], 3),
        ours_over_dataloader=round(rate["ours"] / rate["dataloader"], 3),
    )


def compare_accuracy(train: Images, test: Images, dataset: DatasetVersion, folder: str) -> None:
    _, result = train_ours(dataset, folder, EPOCHS_FOR_ACCURACY)
    labels = Predictor.load(LocalFolder(folder), result.artifact).predict({"image": test[0]}).labels()
    module = epochs_plain(train, EPOCHS_FOR_ACCURACY)[1].eval()
    with torch.inference_mode():
        plain = module(torch.from_numpy(test[0]).float() / 255).argmax(dim=1).numpy()
    HEADLINE["test_accuracy"] = {"ours": float((labels == test[1]).mean()), "plain": float((plain == test[1]).mean())}


# ---- the three loops


def train_ours(dataset: DatasetVersion, folder: str, epochs: int) -> tuple[list[float], TrainResult]:
    """Seconds of each epoch, checkpoint included, and the result."""
    spec = PipelineSpec.model_validate(
        {
            "name": "mnist",
            "data": {"source": {"format": "idx", "images": "images", "labels": "labels"}, "target": "y"},
            "model": MODEL,
            "train": {
                "epochs": epochs,
                "global_batch_size": BATCH,
                "optimizer": {"kind": "sgd", "lr": LR, "momentum": MOMENTUM},
                "schedule": {"kind": "cosine"},
            },
        }
    )
    run_id = f"r{time.time_ns()}"
    times: list[float] = []
    order = loop.TrainOrder(spec, dataset, folder, run_id, f"runs/{run_id}/artifact")
    result = loop.run(order, World(), lambda event: times.append(time.perf_counter()) if _ends(event) else None)
    return list(np.diff(times)), result


def _ends(event: dict[str, Any]) -> bool:
    return event["event"] in ("start", "epoch")


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))


class Stepper:
    """SGD with momentum under a cosine schedule, as torch's own classes do it."""

    def __init__(self, module: nn.Module, epochs: int, num_rows: int) -> None:
        self.module = module
        self.optimizer = torch.optim.SGD(module.parameters(), lr=LR, momentum=MOMENTUM)
        steps = epochs * -(-num_rows // BATCH)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=steps)

    def step(self, image: Tensor, label: Tensor) -> None:
        loss = F.cross_entropy(self.module(image), label)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()


def epochs_plain(train: Images, epochs: int) -> tuple[list[float], nn.Module]:
    """Seconds of each epoch, and the network."""
    image, label = torch.from_numpy(train[0]).float() / 255, torch.from_numpy(train[1])
    module = network()
    stepper = Stepper(module, epochs, len(label))
    seconds: list[float] = []
    for _ in range(epochs):
        start = time.perf_counter()
        order = torch.randperm(len(label))
        for rows in order.split(BATCH):
            stepper.step(image[rows], label[rows])
        seconds.append(time.perf_counter() - start)
    return seconds, module


def epochs_dataloader(train: Images, epochs: int, num_workers: int) -> list[float]:
    """Seconds of each epoch."""
    rows = TensorDataset(torch.from_numpy(train[0]).float() / 255, torch.from_numpy(train[1]))
    loader = DataLoader(
        rows, batch_size=BATCH, shuffle=True, num_workers=num_workers, persistent_workers=num_workers > 0
    )
    stepper = Stepper(network(), epochs, len(rows))
    seconds: list[float] = []
    for _ in range(epochs):
        start = time.perf_counter()
        for image, label in loader:
            stepper.step(image, label)
        seconds.append(time.perf_counter() - start)
    return seconds


# ---- the data


def load_mnist() -> tuple[Images, Images, bool]:
    """Train and test, each images uint8 [B, 28, 28] and labels int64 [B]; whether they are the real ones."""
    folder = Path(os.environ.get("RAYPIPE_MNIST", Path(__file__).parents[3] / "shared" / "data" / "mnist"))
    if not folder.is_dir():
        random = np.random.default_rng(0)
        made = [(random.integers(0, 256, (n, 28, 28), np.uint8), random.integers(0, 10, n)) for n in (60_000, 10_000)]
        return made[0], made[1], False
    return _read_idx(folder, "train"), _read_idx(folder, "t10k"), True


def _read_idx(folder: Path, split: str) -> Images:
    images, labels = (next(folder.glob(f"{split}-{kind}")) for kind in ("images?idx3-ubyte.gz", "labels?idx1-ubyte.gz"))
    pixels = np.frombuffer(gzip.decompress(images.read_bytes()), np.uint8, offset=16)
    answers = np.frombuffer(gzip.decompress(labels.read_bytes()), np.uint8, offset=8)
    return pixels.reshape(-1, 28, 28).copy(), answers.astype(np.int64)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
