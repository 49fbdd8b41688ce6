"""One process of a training whose workers raypipe starts itself: a Ray actor."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from importlib import import_module
from typing import Any

from raypipe.runtime import notices
from raypipe.runtime.environment import loopback_env
from raypipe.spec.train import TrainSpec
from raypipe.train.order import TrainOrder
from raypipe.train.places import draining_nodes

ADDRESS = "127.0.0.1"
"""Where the workers meet where all of them are on this machine."""


class TrainWorker:
    """A training process."""

    def __init__(self, rank: int, size: int) -> None:
        # The longest part of its start, which nobody waits for here; every optimizer imports the second.
        for module in ("raypipe.train.loop", "torch._dynamo"):
            import_module(module)
        self._rank, self._size = rank, size

    def open_store(self, is_alone: bool) -> tuple[str, int]:
        """In the first one: where all meet. On this machine alone nobody else can join in."""
        from raypipe.train import rendezvous

        if is_alone:
            return ADDRESS, rendezvous.open_store(ADDRESS, self._size)
        return rendezvous.open_store_of_this_node(self._size)

    def enter(self, address: str, port: int, spec: TrainSpec, nodes: list[str]) -> None:
        """Form the process group, with what torch and a user's code read about it in the environment.

        Args:
            nodes: where each rank is.
        """
        import torch
        import torch.distributed as dist

        from raypipe.train import rendezvous

        on_gpu = spec.resources.num_gpus > 0
        self._device = torch.device("cuda:0" if on_gpu and torch.cuda.is_available() else "cpu")
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)  # Ray shows each worker its own GPUs alone
        torch.set_num_threads(max(1, round(spec.resources.num_cpus)))
        if rendezvous.is_loopback(address):
            for name, value in loopback_env().items():
                os.environ.setdefault(name, value)
        mine = nodes[self._rank]
        self._local_size, self._is_alone = nodes.count(mine), address == ADDRESS
        local_rank, node_rank = nodes[: self._rank].count(mine), list(dict.fromkeys(nodes)).index(mine)
        rank, size = str(self._rank), str(self._size)
        os.environ.update(MASTER_ADDR=address, MASTER_PORT=str(port), RANK=rank, WORLD_SIZE=size)
        os.environ.update(NODE_RANK=str(node_rank), LOCAL_RANK=str(local_rank), LOCAL_WORLD_SIZE=str(self._local_size))
        os.environ.update(ACCELERATE_TORCH_DEVICE=str(self._device))
        dist.init_process_group(
            "nccl" if self._device.type == "cuda" else "gloo",  # a GPU that is not there is refused by the loop
            rank=self._rank,
            world_size=self._size,
            timeout=timedelta(seconds=rendezvous.TIMEOUT_S),
        )

    def train(self, order: TrainOrder, channel: str) -> dict[str, Any]:
        """The loop, to its end; the TrainResult as JSON."""
        import torch.distributed as dist

        from raypipe.train.loop import run
        from raypipe.train.preemption import TermSignal
        from raypipe.train.rows import World
        from raypipe.train.watching import watching

        world = World(self._rank, self._size, self._device, self._local_size)
        is_drained = is_this_node_drained if not self._is_alone else lambda: False
        preemption = TermSignal(is_drained, partial(room_told, channel))
        with watching(order, world, channel) as report, preemption.listening():
            result = run(order, world, report, preemption).model_dump(mode="json")
        dist.destroy_process_group()  # this process may live on when its peers have gone
        return result

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Something else, once the training is done."""
        return function(*args)


def is_this_node_drained() -> bool:
    """Whether Ray was told that the node this process is on goes."""
    import ray

    return ray.get_runtime_context().get_node_id() in draining_nodes()


def room_told(channel: str) -> int:
    """Workers there is room for, as the driver has told; 0: it has told nothing."""
    return int(notices.posted(room_name(channel)) or 0)


def room_name(channel: str) -> str:
    """Under which name the driver tells how many workers there is room for."""
    return f"{channel}/room"
