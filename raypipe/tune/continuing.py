"""A training that begins with the checkpoint of another: how a population's worst continue from its best."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import torch
from torch import Tensor

from raypipe.errors import CheckpointError
from raypipe.storage import Store
from raypipe.train import checkpoints
from raypipe.train.checkpoints import Saver, StoredCheckpoint
from raypipe.train.order import TrainOrder
from raypipe.train.rows import World


def begin_where_another_ended(store: Store, order: TrainOrder, before: TrainOrder) -> None:
    """Give a training the last checkpoint of another, unless it has one of its own already.

    Weights, the optimizer's state and all epochs so far go along; learning rate and other values are the new ones.

    Raises:
        CheckpointError: the other has left none that can be read.
    """
    if checkpoints.stored_steps(store, order.run_id)[0]:
        return
    tensors: dict[str, Tensor] = {}

    def take(found: StoredCheckpoint) -> None:
        tensors.clear()
        tensors.update(found.read())

    alone = World(rank=0, size=1, device=torch.device("cpu"))
    state, _ = checkpoints.restore(store, before.run_id, before.fingerprint(), alone, take)
    if state is None:
        raise CheckpointError(
            f"the training to continue from, {before.run_id}, has left no checkpoint",
            "begin the search anew: --fresh",
        )
    with closing(Saver(store, order.run_id, order.spec.train, rank=0, size=1)) as saver:
        mine = replace(state, fingerprint=order.fingerprint())
        saver.save(mine, lambda: checkpoints.whole(tensors), wait=True)
