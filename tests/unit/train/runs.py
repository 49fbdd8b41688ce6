"""A training in this process, and what it left."""

from __future__ import annotations

import torch

from raypipe.model.artifact import read_artifact
from raypipe.records import TrainResult
from raypipe.storage import open_store
from raypipe.train import loop
from raypipe.train.order import TrainOrder
from raypipe.train.rows import World


def run_alone(order: TrainOrder) -> TrainResult:
    """On one rank."""
    return loop.run(order, World(), lambda event: None)


def weights_of(order: TrainOrder, result: TrainResult) -> dict[str, torch.Tensor]:
    """Of the artifact, by name."""
    return dict(read_artifact(open_store(order.store_uri), result.artifact, code_dir=order.code_dir)[1].state_dict())
