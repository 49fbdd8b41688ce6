"""Small trainings by name, for one rank or several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from raypipe.records import DatasetVersion
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import Store
from raypipe.storage.local import LocalFolder
from raypipe.testing.fakes import tiny_dataset
from raypipe.train.order import TrainOrder

NUM_TRAIN, NUM_VAL = 67, 20

STREAMED = {"resident_bytes": 0, "window_rows": 8}

NAN_FOR_ONE_ROW = """
import torch
from torch import nn

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
    def forward(self, x):
        return self.layer(x) * torch.where(x[:, :1] == 99.0, float("nan"), 1.0)

def build():
    return Own()
"""

UNUSED = """
from torch import nn

class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last, self.aux = nn.Linear(3, 8), nn.Linear(8, 2), nn.Linear(8, 5)
        self.first.bias.requires_grad_(False)
        for kept in (self.first.bias, self.aux.weight, self.aux.bias):
            nn.init.constant_(kept, 0.5)

    def forward(self, x):
        return self.last(self.first(x).relu())

def build():
    return Unused()
"""

BATCH_NORM = """
from torch import nn

def build():
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
"""


def dataset(store: Store, **options: Any) -> DatasetVersion:
    """67 train and 20 val rows of three numbers in two classes that overlap a little; 10 rows a shard."""
    random = np.random.default_rng(3)
    x = random.normal(size=(NUM_TRAIN + NUM_VAL, 3)).astype(np.float32)
    y = (x @ [1.0, -2.0, 0.5] + random.normal(scale=0.5, size=len(x)) > 0).astype(np.int64)
    return tiny_dataset(store, {"x": x}, y, num_val=NUM_VAL, rows_per_shard=10, **options)


def order(
    folder: Path, run_id: str, train: dict[str, Any], *, model: dict[str, Any] | None = None, **options: Any
) -> TrainOrder:
    """A training on `dataset` in the store at `folder`, unless `data` in `options` is another one."""
    store = LocalFolder(str(folder))
    made: DatasetVersion = options.pop("data", None) or dataset(store)
    spec = PipelineSpec.model_validate(
        {
            "name": "small",
            "seed": 7,
            "data": {"source": {"format": "sklearn", "dataset": "iris"}, "target": "y"},
            "model": model or {"kind": "mlp", "hidden": [16], "dropout_frac": 0.5},
            "train": {"epochs": 3, "global_batch_size": 12, "optimizer": {"kind": "sgd", "lr": 0.1}, **train},
        }
    )
    return TrainOrder(spec, made, store.uri, run_id, f"runs/{run_id}/train/artifact", **options)


def _nan_for_one_row(folder: Path, run_id: str, size: int) -> TrainOrder:
    """Only the last rank's share holds the row that gives NaN."""
    code_dir = folder / "code"
    code_dir.mkdir(exist_ok=True)
    (code_dir / "nan_model.py").write_text(NAN_FOR_ONE_ROW)
    x = np.random.default_rng(5).normal(size=(60, 3)).astype(np.float32)
    x[59, 0] = 99.0
    data = tiny_dataset(LocalFolder(str(folder)), {"x": x}, np.arange(60) % 2)
    own = {"kind": "import", "path": "nan_model.py:build"}
    return order(folder, run_id, {"num_workers": size}, model=own, code_dir=code_dir, data=data)


def _damaged_shard(folder: Path, run_id: str, size: int) -> TrainOrder:
    """Only the last rank reads the shard that is damaged."""
    store = LocalFolder(str(folder))
    made = dataset(store, name="damaged")
    key = made.splits["train"].shards[-1].key
    data = bytearray(store.read(key))
    data[-400] ^= 4
    store.write(key, bytes(data))
    return order(folder, run_id, {"num_workers": size}, data=made)


def _damaged_while_training(folder: Path, run_id: str, size: int) -> TrainOrder:
    """The last rank meets the damaged shard after some steps: rows are streamed."""
    store = LocalFolder(str(folder))
    made = dataset(store, name="damaged-later")
    key = made.splits["train"].shards[-1].key
    data = bytearray(store.read(key))
    data[-400] ^= 4
    store.write(key, bytes(data))
    return order(folder, run_id, {"num_workers": size, "rows": STREAMED}, data=made)


def _damaged_under_batch_norm(folder: Path, run_id: str, size: int) -> TrainOrder:
    """As `_damaged_while_training`, for a model that takes no single row in training; every batch is full."""
    code_dir = folder / "code"
    code_dir.mkdir(exist_ok=True)
    (code_dir / "batch_norm_model.py").write_text(BATCH_NORM)
    store = LocalFolder(str(folder))
    x = np.random.default_rng(6).normal(size=(60, 3)).astype(np.float32)
    data = tiny_dataset(store, {"x": x}, np.arange(60) % 2, rows_per_shard=10, name="damaged-batch-norm")
    store.write(data.splits["train"].shards[-1].key, b"nothing")
    own = {"kind": "import", "path": "batch_norm_model.py:build"}
    train = {"num_workers": size, "rows": STREAMED}
    return order(folder, run_id, train, model=own, code_dir=code_dir, data=data)


def _batch_norm(folder: Path, run_id: str, size: int) -> TrainOrder:
    """A model that takes no single row in training, where 66 of 67 rows fill a step at any number of ranks."""
    code_dir = folder / "code"
    code_dir.mkdir(exist_ok=True)
    (code_dir / "batch_norm_model.py").write_text(BATCH_NORM)
    own = {"kind": "import", "path": "batch_norm_model.py:build"}
    return order(folder, run_id, {"num_workers": size, "global_batch_size": 66}, model=own, code_dir=code_dir)


def _damaged_val(folder: Path, run_id: str, size: int) -> TrainOrder:
    """The last rank cannot read its val rows, which are streamed."""
    store = LocalFolder(str(folder))
    made = dataset(store, name="damaged-val")
    store.write(made.splits["val"].shards[-1].key, b"nothing")
    return order(folder, run_id, {"num_workers": size, "rows": STREAMED}, data=made)


def _full_batch(folder: Path, run_id: str, size: int) -> TrainOrder:
    """One step an epoch over all 67 rows, which no world size divides: the same set of rows at any size."""
    train = {"num_workers": size, "global_batch_size": 72, "clip_grad_norm": 0.5, "label_smoothing_frac": 0.1}
    return order(folder, run_id, train, model={"kind": "mlp", "hidden": [16]})


def _unused(folder: Path, run_id: str, size: int) -> TrainOrder:
    """As `_full_batch`, for a network with a layer that its forward does not use, and one that is frozen."""
    code_dir = folder / "code"
    code_dir.mkdir(exist_ok=True)
    (code_dir / "unused_model.py").write_text(UNUSED)
    train = {"num_workers": size, "global_batch_size": 66, "optimizer": {"kind": "adamw", "lr": 0.01}}
    own = {"kind": "import", "path": "unused_model.py:build"}
    return order(folder, run_id, train, model=own, code_dir=code_dir)


def _frozen(folder: Path, run_id: str, size: int) -> TrainOrder:
    """A learning rate that changes nothing, so train_loss is the mean over the rows that were seen.

    At 24 rows a step the last step has 19, which ranks take unevenly.
    """
    train = {"num_workers": size, "global_batch_size": 24, "optimizer": {"kind": "sgd", "lr": 1e-30}, "epochs": 2}
    return order(folder, run_id, train, model={"kind": "linear"})


def _checkpointed(folder: Path, run_id: str, size: int) -> TrainOrder:
    """Dropout, momentum, and checkpoints within epochs."""
    optimizer = {"kind": "adamw", "lr": 0.01}
    train = {"num_workers": size, "checkpoint": {"every_steps": 2}, "optimizer": optimizer}
    return order(folder, run_id, {**train, "rows": {"window_rows": STREAMED["window_rows"]}})


def _unwritable(folder: Path, run_id: str, size: int) -> TrainOrder:
    """A file stands where the folder of checkpoints must be."""
    place = folder / "runs" / run_id / "train"
    place.mkdir(parents=True, exist_ok=True)
    (place / "checkpoints").write_text("in the way")
    return order(folder, run_id, {"num_workers": size})


def _streamed(folder: Path, run_id: str, size: int) -> TrainOrder:
    """As `_checkpointed`, with rows that do not stay in memory."""
    optimizer = {"kind": "adamw", "lr": 0.01}
    train = {"num_workers": size, "checkpoint": {"every_steps": 2}, "optimizer": optimizer, "rows": STREAMED}
    return order(folder, run_id, train)


ORDERS = {
    "full_batch": _full_batch,
    "unused": _unused,
    "frozen": _frozen,
    "whole": _checkpointed,
    "resumed": _checkpointed,
    "streamed_resumed": _streamed,
    "stale_resumed": _checkpointed,
    "unreadable_resumed": _checkpointed,
    "nan": _nan_for_one_row,
    "damaged": _damaged_shard,
    "damaged_while_training": _damaged_while_training,
    "damaged_under_batch_norm": _damaged_under_batch_norm,
    "batch_norm": _batch_norm,
    "damaged_val": _damaged_val,
    "unwritable": _unwritable,
}
