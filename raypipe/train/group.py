"""How Ray Train's workers meet: as Ray has it, but on one address, and on a port that is held from the first moment on
(`rendezvous`)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import (
    _set_torch_distributed_env_vars,
    _setup_torch_process_group,
    _TorchBackend,
)

from raypipe.train import rendezvous


@dataclass
class GroupConfig(TorchConfig):
    """Ray's settings of a process group, set up by GroupBackend."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return GroupBackend


class GroupBackend(_TorchBackend):
    """Forms the group with Ray's own steps; differs in who opens the store's socket."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        on_gpus = worker_group.get_resources_per_worker().get("GPU", 0) > 0
        size = len(worker_group)
        address, port = worker_group.execute_single(
            0, rendezvous.open_store_of_this_node, size, backend_config.timeout_s
        )
        worker_group.execute(_enter, address, port)
        joining = [
            worker_group.execute_single_async(
                rank,
                _setup_torch_process_group,
                backend=backend_config.backend or ("nccl" if on_gpus else "gloo"),
                world_rank=rank,
                world_size=size,
                init_method="env://",
                timeout_s=backend_config.timeout_s,
            )
            for rank in range(size)
        ]
        ray.get(joining)


def _enter(address: str, port: int) -> None:
    """In every process: what torch, and a user's code, read about the group."""
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = address, str(port)
    _set_torch_distributed_env_vars()
