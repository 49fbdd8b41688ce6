"""What bench_startup compares with: digits from data to a saved model with Ray's own libraries and defaults.

    python bare_ray.py FOLDER

Written as Ray's user guides do it (Ray Data -> TorchTrainer -> batch inference), by someone who keeps data in blocks
and scales it once. Prints one JSON line.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray
import ray.data
import ray.train
import torch
from ray.train import Checkpoint, CheckpointConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model
from sklearn.datasets import load_digits
from torch import nn

EPOCHS, BATCH, WORKERS = 30, 64, 2


def network() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 256),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(256, 128),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(128, 10),
    )


def scale(batch: Any) -> Any:
    return {"image": (batch["image"] / 16.0).astype(np.float32), "label": batch["label"]}


def train_worker(config: dict[str, Any]) -> None:
    module: Any = prepare_model(network())
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.003)
    loss_of = nn.CrossEntropyLoss()
    shard: Any = ray.train.get_dataset_shard
    train, val = shard("train"), shard("val")
    for epoch in range(EPOCHS):
        module.train()
        for batch in train.iter_torch_batches(batch_size=BATCH // WORKERS, local_shuffle_buffer_size=1000):
            loss = loss_of(module(batch["image"]), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        module.eval()
        right = rows = 0
        with torch.no_grad():
            for batch in val.iter_torch_batches(batch_size=1024):
                right += int((module(batch["image"]).argmax(dim=1) == batch["label"]).sum())
                rows += len(batch["label"])
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = None
            if ray.train.get_context().get_world_rank() == 0:
                torch.save({"epoch": epoch, "module": module.module.state_dict()}, Path(folder) / "checkpoint.pt")
                checkpoint = Checkpoint.from_directory(folder)
            ray.train.report({"loss": loss.item(), "val_accuracy": right / rows}, checkpoint=checkpoint)


def main(folder: Path) -> None:
    start = time.perf_counter()
    # One CPU beside the workers': with two logical CPUs Ray Data and the workers wait for each other for ever.
    ray.init(num_cpus=WORKERS + 1)
    init_s = time.perf_counter() - start
    digits: Any = load_digits()
    rows = ray.data.from_pandas(pd.DataFrame({"image": list(digits.images), "label": digits.target}))
    train, held_out = rows.map_batches(scale).train_test_split(0.3, shuffle=True, seed=0)
    val, test = held_out.train_test_split(2 / 3)
    trainer = TorchTrainer(
        train_worker,
        datasets={"train": train, "val": val},
        scaling_config=ScalingConfig(num_workers=WORKERS),
        run_config=RunConfig(
            name="digits", storage_path=str(folder / "ray"), checkpoint_config=CheckpointConfig(num_to_keep=2)
        ),
    )
    result: Any = trainer.fit()
    module = network()
    with result.checkpoint.as_directory() as place:
        module.load_state_dict(torch.load(Path(place) / "checkpoint.pt")["module"])
    module.eval()
    right = rows_seen = 0
    with torch.no_grad():
        for batch in test.iter_torch_batches(batch_size=1024):
            right += int((module(batch["image"]).argmax(dim=1) == batch["label"]).sum())
            rows_seen += len(batch["label"])
    torch.save(module.state_dict(), folder / "model.pt")
    ray.shutdown()
    print(json.dumps({"ray_init_s": round(init_s, 2), "test_accuracy": round(right / rows_seen, 4)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
