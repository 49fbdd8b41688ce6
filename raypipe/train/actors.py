"""A light worker group: plain Ray actors on one machine, started again from the newest checkpoint when one is lost.

Ray Train is five more processes for what a single machine does not need; without them, and without importing ray.train
anywhere, the first step comes 10 s sooner.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

from raypipe.records import TrainResult
from raypipe.runtime.connect import loopback_env
from raypipe.runtime.progress import Reporter
from raypipe.runtime.resources import ray_bundle, ray_options
from raypipe.spec.train import TrainSpec
from raypipe.train.failures import explained, lasting
from raypipe.train.loop import TrainOrder, run
from raypipe.train.rows import World
from raypipe.train.together import is_from_peers

ADDRESS = "127.0.0.1"
"""Where the workers meet: all of them are on this machine."""

MEET_TIMEOUT_S = 600.0
"""Longest wait for workers that have their place to start, import torch and form their group."""

GRACE_S = 10.0
"""Where a worker only says that another one is gone, so long the others are given to say why."""


class WorkersLost(Exception):
    """An attempt ended.

    Attributes:
        worker_failures: what each rank raised that ended by itself.
    """

    def __init__(self, worker_failures: dict[int, Exception]) -> None:
        super().__init__(", ".join(f"worker {rank}: {type(error).__name__}" for rank, error in worker_failures.items()))
        self.worker_failures = worker_failures


def fit(order: TrainOrder, channel: str) -> TrainResult:
    """Carry out an order; rank 0's events go to `channel`. Raises what `train` raises."""
    from ray.util.placement_group import placement_group, remove_placement_group

    spec = order.spec.train
    places = placement_group([ray_bundle(spec.resources)] * spec.num_workers)
    try:
        if not places.wait(spec.start_timeout_s):
            raise explained(TimeoutError("what they need is not free"), order)
        for attempt in range(spec.max_failures + 1):
            try:
                return _attempt(order, channel, places)
            except WorkersLost as lost:
                if attempt == spec.max_failures or lasting(lost.worker_failures) is not None:
                    raise explained(lost, order) from lost
        raise AssertionError("the last attempt returns or raises")
    finally:
        remove_placement_group(places)


def _attempt(order: TrainOrder, channel: str, places: Any) -> TrainResult:
    """One life of the group.

    The workers of the next one take the places of these, so they start when these are gone.
    """
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    spec = order.spec.train
    remote = ray.remote(TrainWorker)
    workers: list[Any] = []
    try:
        for rank in range(spec.num_workers):
            place = PlacementGroupSchedulingStrategy(places, placement_group_bundle_index=rank)
            options: dict[str, Any] = {**ray_options(spec.resources), "scheduling_strategy": place, "max_restarts": 0}
            workers.append(remote.options(**options).remote(rank, spec.num_workers))
        (port,) = _all_of([workers[0].open_store.remote()], MEET_TIMEOUT_S)
        _all_of([worker.enter.remote(port, spec) for worker in workers], MEET_TIMEOUT_S)
        results = _all_of([worker.train.remote(order, channel) for worker in workers])
        return TrainResult.model_validate(results[0])
    finally:
        for worker in workers:
            with suppress(Exception):  # a Ray that is gone took them along
                ray.kill(worker)


def _all_of(calls: list[Any], timeout_s: float | None = None) -> list[Any]:
    """What all calls answer.

    Raises:
        WorkersLost: one raised, or was lost, or did not answer in time.
    """
    import ray

    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    ranks = {call: rank for rank, call in enumerate(calls)}
    answers: dict[int, Any] = {}
    failures: dict[int, Exception] = {}
    waiting = list(calls)
    while waiting:
        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        ended, waiting = ray.wait(waiting, num_returns=1, timeout=left_s)
        if not ended and not failures:
            failures = {ranks[call]: TimeoutError(f"no answer in {timeout_s:g} s") for call in waiting}
        for call in ended:
            try:
                answers[ranks[call]] = ray.get(call)
            except Exception as error:  # a worker's own, or Ray's where it is lost
                if not failures:
                    deadline = time.monotonic() + GRACE_S
                failures[ranks[call]] = error
        if failures and (not ended or not all(is_from_peers(error) for error in failures.values())):
            break
    if failures:
        raise WorkersLost(failures)
    return [answers[rank] for rank in range(len(calls))]


class TrainWorker:
    """A training process."""

    def __init__(self, rank: int, size: int) -> None:
        self._rank, self._size = rank, size

    def open_store(self) -> int:
        """In the first one: the port where all meet."""
        from raypipe.train import meeting

        return meeting.open_store(ADDRESS, self._size)

    def enter(self, port: int, spec: TrainSpec) -> None:
        """Form the process group, with what torch and a user's code read about it in the environment."""
        import torch
        import torch.distributed as dist

        from raypipe.train import meeting

        on_gpu = spec.resources.num_gpus > 0
        self._device = torch.device("cuda:0" if on_gpu and torch.cuda.is_available() else "cpu")
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)  # Ray shows each worker its own GPUs alone
        torch.set_num_threads(max(1, round(spec.resources.num_cpus)))
        for name, value in loopback_env().items():
            os.environ.setdefault(name, value)
        rank, size = str(self._rank), str(self._size)
        os.environ.update(MASTER_ADDR=ADDRESS, MASTER_PORT=str(port), RANK=rank, WORLD_SIZE=size, NODE_RANK="0")
        os.environ.update(LOCAL_RANK=rank, LOCAL_WORLD_SIZE=size, ACCELERATE_TORCH_DEVICE=str(self._device))
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            rank=self._rank,
            world_size=self._size,
            timeout=timedelta(seconds=meeting.TIMEOUT_S),
        )

    def train(self, order: TrainOrder, channel: str) -> dict[str, Any]:
        """The loop, to its end; the TrainResult as JSON."""
        world = World(self._rank, self._size, self._device, self._size)
        report = partial(Reporter(channel).send, force=True) if self._rank == 0 else _silent
        return run(order, world, report).model_dump(mode="json")


def _silent(event: dict[str, Any]) -> None:
    """Rank 0 speaks for all."""
