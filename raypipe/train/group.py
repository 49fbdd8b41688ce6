"""How Ray Train's workers meet: as Ray has it, but on one address, and on a port that is held from the first moment on
(`rendezvous`); and torch is loaded in the workers alone, neither in the driver nor in Ray Train's controller."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.train.backend import Backend, BackendConfig

LEAVE_TIMEOUT_S = 30.0
"""Longest wait for processes that leave their group."""


@dataclass
class GroupConfig(BackendConfig):
    """Names GroupBackend and OnItsDevice to Ray Train."""

    @property
    def backend_cls(self) -> type[Backend]:
        return GroupBackend

    @property
    def train_func_context(self) -> type[OnItsDevice]:
        return OnItsDevice


class OnItsDevice:
    """While the block runs torch's current GPU is the worker's own, where it has one."""

    def __enter__(self) -> None:
        import ray.train.torch
        import torch

        if torch.cuda.is_available():
            device = ray.train.torch.get_device()
            if device.type == "cuda":
                torch.cuda.set_device(device)

    def __exit__(self, *raised: object) -> None:
        pass


class GroupBackend(Backend):
    """Forms the group with Ray's own steps; differs in who opens the store's socket."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        on_gpus = worker_group.get_resources_per_worker().get("GPU", 0) > 0
        size = len(worker_group)
        address, port = worker_group.execute_single(0, _open_store, size)
        worker_group.execute(_enter, address, port)
        backend = "nccl" if on_gpus else "gloo"
        ray.get([worker_group.execute_single_async(rank, _join, backend, rank, size) for rank in range(size)])

    def on_shutdown(self, worker_group: Any, backend_config: BackendConfig) -> None:
        leaving = worker_group.execute_async(_leave, len(worker_group) > 1)
        with suppress(GetTimeoutError):
            ray.get(leaving, timeout=LEAVE_TIMEOUT_S)


# --- in the workers ---------------------------------------------------------------------------------------------------


def _open_store(size: int) -> tuple[str, int]:
    """In the first one: where all meet."""
    from raypipe.train import rendezvous

    return rendezvous.open_store_of_this_node(size)


def _enter(address: str, port: int) -> None:
    """What torch, and a user's code, read about the group."""
    from ray.train.torch.config import _set_torch_distributed_env_vars

    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = address, str(port)
    _set_torch_distributed_env_vars()


def _join(backend: str, rank: int, size: int) -> None:
    from ray.train.torch.config import _setup_torch_process_group

    from raypipe.train import rendezvous

    _setup_torch_process_group(backend, rank, size, "env://", rendezvous.TIMEOUT_S)


def _leave(has_peers: bool) -> None:
    from ray.train.torch.config import _shutdown_torch

    _shutdown_torch(destroy_process_group=has_peers)
