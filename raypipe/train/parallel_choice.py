"""Which way to hold the model a training takes: the one of the file, or where that leaves it open one that fits."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import nn

from raypipe.spec.train import TrainSpec
from raypipe.storage import Store
from raypipe.train import checkpoints, precision
from raypipe.train.order import TrainOrder
from raypipe.train.parallel import Alone, Ddp, Parallel, Sharded
from raypipe.train.rows import World
from raypipe.train.shares import size
from raypipe.train.state_memory import free_bytes, state_bytes
from raypipe.train.together import from_rank_0, gathered

STATE_FRAC = 0.8
"""Of free memory. The rest is for what passes through the layers, of which nothing is known before."""


def build_parallel(order: TrainOrder, store: Store, world: World, module: nn.Module, *, has_unused: bool) -> Parallel:
    """Take a network into use, on every rank at the same time.

    Args:
        module: on the CPU.
        has_unused: there are parameters that the forward does not use.
    Raises:
        StoreError: the store did not tell how the training that goes on here was held; the same on every rank.
    """
    spec = order.spec.train
    name, told = spec.parallel, None
    if name == "auto" and world.size > 1:
        name = kept_way(order, store, world)  # so that it ends with the same bits
        if name is None:
            told = reason_to_shard(module, spec, world)
            name = "sharded" if told is not None else "ddp"
    if name == "sharded" and dist.is_initialized():  # a trial of one worker joins no group
        made: Parallel = Sharded(world, module, precision.policy(spec.precision))
    else:
        made = Ddp(world, module, has_unused) if world.size > 1 else Alone(world, module)
    made.told += [told] if told is not None else []
    return made


def kept_way(order: TrainOrder, store: Store, world: World) -> str | None:
    """How the training that goes on here was held, on every rank at the same time; None: nothing is kept of it."""
    if not order.checkpoints:
        return None
    return from_rank_0(lambda: checkpoints.parallel_of_newest(store, order.run_id), world)


def reason_to_shard(module: nn.Module, spec: TrainSpec, world: World) -> dict[str, Any] | None:
    """The event that says why not every rank can hold a copy, the same on all of them; None: they can.

    Args:
        module: on the CPU, not in use yet.
    """
    need = state_bytes(module, spec, world)
    total, free = sum(need), min(gathered(free_bytes(need, spec, world), world))
    if total <= STATE_FRAC * free:
        return None
    text = (
        f"train.parallel: auto takes sharded, each of {world.size} workers a part: a whole copy takes {size(total)} a "
        f"worker ({need.text}), which is more than {STATE_FRAC:.0%} of the {size(free)} that there are for one"
    )
    return {"event": "parallel", "text": text, "state_bytes": total, "free_bytes": free}
