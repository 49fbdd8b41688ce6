"""Small trainings by name, for one rank or several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from raypipe.records import DatasetVersion
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import Store
from raypipe.storage.local import LocalFolder
from raypipe.testing.contracts.models import PAIRS
from raypipe.testing.fakes import tiny_dataset, tiny_pairs
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
    """A training on `dataset` in the store at `folder`, unless `data` in `options` is another one, which `described`
    says of what kind."""
    store = LocalFolder(str(folder))
    described = options.pop("described", {"source": {"format": "sklearn", "dataset": "iris"}, "target": "y"})
    made: DatasetVersion = options.pop("data", None) or dataset(store)
    spec = PipelineSpec.model_validate(
        {
            "name": "small",
            "seed": 7,
            "data": described,
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


def _weighted(folder: Path, run_id: str, size: int) -> TrainOrder:
    """As `_full_batch`, with rows that count differently, in two passes a step."""
    weight = np.random.default_rng(8).uniform(0, 3, NUM_TRAIN + NUM_VAL)
    data = dataset(LocalFolder(str(folder)), name="weighted", weight=weight)
    train = {"num_workers": size, "global_batch_size": 72, "micro_batch_rows": -(-NUM_TRAIN // (2 * size))}
    return order(folder, run_id, train, model={"kind": "mlp", "hidden": [16]}, data=data)


def _oversampled(folder: Path, run_id: str, size: int) -> TrainOrder:
    """One step an epoch over all rows, those of the rarer class several times."""
    store = LocalFolder(str(folder))
    x = np.random.default_rng(9).normal(size=(60, 3)).astype(np.float32)
    data = tiny_dataset(store, {"x": x}, (np.arange(60) % 5 == 0).astype(int), rows_per_shard=10, name="rare")
    train = {"num_workers": size, "global_batch_size": 120, "balance": "oversample", "epochs": 2}
    return order(folder, run_id, train, model={"kind": "mlp", "hidden": [16]}, data=data)


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


def _sharded(folder: Path, run_id: str, size: int) -> TrainOrder:
    """As `_checkpointed`, each rank with a part of every tensor, with averages and the best epoch's weights."""
    settings = {"parallel": "sharded", "ema_decay": 0.9, "early_stopping": {"patience_epochs": 3}}
    return _with(_checkpointed(folder, run_id, size), **settings, micro_batch_rows=2)


def _with(order: TrainOrder, **settings: Any) -> TrainOrder:
    """The order with other settings of `train`."""
    fields = order.spec.model_dump(mode="json")
    fields["train"] |= settings
    return replace(order, spec=PipelineSpec.model_validate(fields))


def _same(folder: Path, run_id: str, size: int, train: dict[str, Any]) -> TrainOrder:
    """50 steps, each over all 67 rows, which no world size divides: the same mathematics at any size."""
    train = {"num_workers": size, "epochs": NUM_SAME_STEPS, "global_batch_size": 72, **train}
    train = {"optimizer": {"kind": "adamw", "lr": 0.01}, **train}
    return order(folder, run_id, train, model={"kind": "mlp", "hidden": [16, 8]}, checkpoints=False)


def _in_four_passes(size: int) -> int:
    return -(-NUM_TRAIN // (4 * size))


NUM_SAME_STEPS = 50


def _synced(folder: Path, run_id: str, size: int, **settings: Any) -> TrainOrder:
    """As `_same`, with batch normalization over the rows of all ranks."""
    made = _batch_norm(folder, run_id, size)
    return _with(made, epochs=20, global_batch_size=72, sync_batch_norm=True, **settings)


def _pairs(folder: Path, run_id: str, size: int, **settings: Any) -> TrainOrder:
    """As `_same`, from words to the same words backwards; they have 2 to 8 letters, so ranks unequally many tokens."""
    random = np.random.default_rng(9)
    words = ["".join(random.choice(list("abcd"), 2 + number % 7)) for number in range(NUM_TRAIN + NUM_VAL)]
    made = tiny_pairs(LocalFolder(str(folder)), [(word, word[::-1]) for word in words], num_val=NUM_VAL, num_test=0)
    network = {"kind": "encoder_decoder", "dim": 8, "num_layers": 1, "num_heads": 2}
    train = {"num_workers": size, "epochs": NUM_PAIR_STEPS, "global_batch_size": 72, **settings}
    optimizer = {"kind": "adamw", "lr": 0.01}
    return order(
        folder,
        run_id,
        {**train, "optimizer": optimizer},
        model=network,
        data=made,
        described=PAIRS,
        checkpoints=False,
    )


NUM_PAIR_STEPS = 10

SAME: dict[str, Callable[[int], dict[str, Any]]] = {
    "same": lambda size: {},
    "same_sharded": lambda size: {"parallel": "sharded"},
    "same_accumulated": lambda size: {"micro_batch_rows": _in_four_passes(size)},
    "same_recomputed": lambda size: {"recompute": True},
    "same_sharded_recomputed": lambda size: {"parallel": "sharded", "recompute": True},
    "same_sharded_accumulated": lambda size: {"parallel": "sharded", "micro_batch_rows": _in_four_passes(size)},
}
"""Settings, by world size, that change nothing but the order of sums."""


def killable(folder: Path, run_id: str, *, parallel: str, epochs: int) -> TrainOrder:
    """Two ranks with dropout, averages and the best epoch's weights; six steps an epoch, a checkpoint every two."""
    made = _checkpointed(folder, run_id, 2)
    best = {"ema_decay": 0.9, "early_stopping": {"patience_epochs": epochs}}
    return _with(made, parallel=parallel, epochs=epochs, **best)


def _other_number_of_ranks(parallel: str, folder: Path, run_id: str, size: int) -> TrainOrder:
    """As `_full_batch`; three ranks train the first epoch, and two go on with it. One rank trains another run."""
    train = {"num_workers": size, "global_batch_size": 72, "clip_grad_norm": 0.5, "label_smoothing_frac": 0.1}
    train |= {"optimizer": {"kind": "adamw", "lr": 0.01}, "epochs": 1 if size == 3 else 3}
    if size > 1:
        train, run_id = {**train, "parallel": parallel}, run_id.replace(f"-{size}", "")
    return order(folder, run_id, train, model={"kind": "mlp", "hidden": [16]})


def _elastic(folder: Path, run_id: str, size: int, **settings: Any) -> TrainOrder:
    """Three steps an epoch, with uneven shares. Several ranks train one run in turns, one rank trains another alone."""
    train = {"num_workers": {"min": 1, "max": 4}, "global_batch_size": 24, "checkpoint": {"every_steps": 2}}
    train |= {"optimizer": {"kind": "adamw", "lr": 0.01}, "micro_batch_rows": 4}
    if size > 1:
        train, run_id = {**train, **settings}, run_id.replace(f"-{size}", "")
    return order(folder, run_id, train, model={"kind": "mlp", "hidden": [16]})


ORDERS = {
    "fewer_ranks": partial(_other_number_of_ranks, "ddp"),
    "fewer_sharded_ranks": partial(_other_number_of_ranks, "sharded"),
    "full_batch": _full_batch,
    "weighted": _weighted,
    "oversampled": _oversampled,
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
    "synced": _synced,
    "synced_sharded": partial(_synced, parallel="sharded"),
    "synced_recomputed": partial(_synced, recompute=True),
    "sharded_resumed": _sharded,
    "sharded_whole": _sharded,
    "sharded_by_itself_resumed": lambda *where: _with(
        _sharded(*where), parallel="auto", resources={"memory_bytes": 1_000}
    ),
    "sharded_batch_norm": lambda *where: _with(_batch_norm(*where), parallel="sharded"),
    "sharded_unused": lambda *where: _with(_unused(*where), parallel="sharded"),
    "sharded_damaged_while_training": lambda *where: _with(_damaged_while_training(*where), parallel="sharded"),
    "sharded_damaged_val": lambda *where: _with(_damaged_val(*where), parallel="sharded"),
    "accumulated_damaged_while_training": lambda *where: _with(_damaged_while_training(*where), micro_batch_rows=2),
    "scaled_damaged_while_training": lambda *where: _with(_damaged_while_training(*where), precision="float16"),
}

ELASTIC_ORDERS: dict[str, Callable[[Path, str, int], TrainOrder]] = {
    "elastic": _elastic,
    "elastic_sharded": partial(_elastic, parallel="sharded"),
}
"""At every size."""

SAME_ORDERS: dict[str, Callable[[Path, str, int], TrainOrder]] = {
    name: partial(lambda folder, run_id, size, settings: _same(folder, run_id, size, settings(size)), settings=settings)
    for name, settings in SAME.items()
}
SAME_ORDERS["pairs"] = _pairs
SAME_ORDERS["pairs_accumulated"] = lambda folder, run_id, size: _pairs(
    folder, run_id, size, micro_batch_rows=_in_four_passes(size)
)
