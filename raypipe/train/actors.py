"""A light worker group: plain Ray actors on one machine, started again from the newest checkpoint when one is lost.

Ray Train is five more processes for what a single machine does not need; without them, and without importing ray.train
anywhere, the first step comes 10 s sooner.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from importlib import import_module
from typing import Any

from raypipe.records import TrainResult
from raypipe.runtime.environment import loopback_env
from raypipe.runtime.progress import Reporter
from raypipe.runtime.resources import ray_bundle, ray_options
from raypipe.spec.train import TrainSpec
from raypipe.train.failures import explained, is_from_peers, lasting
from raypipe.train.order import TrainOrder

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


class Group:
    """The processes of a training, and the places they take of what the machine lends."""

    def __init__(self, spec: TrainSpec) -> None:
        self._spec = spec
        self._places: Any = None
        self._workers: list[Any] = []
        self._in_places = False

    def begin(self) -> None:
        """Start the processes before their turn, without their places, which others have now."""
        self._start({"num_cpus": 0})

    def place(self) -> None:
        """Take the places, and start the processes unless they have begun.

        Raises:
            TimeoutError: the places did not become free within `train.start_timeout_s`.
        """
        from ray.util.placement_group import placement_group

        self._places = placement_group([ray_bundle(self._spec.resources)] * self._spec.num_workers)
        if not self._places.wait(self._spec.start_timeout_s):
            raise TimeoutError("what they need is not free")
        if not self._workers:
            self.start_anew()

    def start_anew(self) -> None:
        """Start processes in the places; those before, which had them, are ended first."""
        self._kill()
        self._in_places = True
        self._start(ray_options(self._spec.resources), self._places)

    def _start(self, options: dict[str, Any], places: Any = None) -> None:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        remote = ray.remote(TrainWorker)
        for rank in range(self._spec.num_workers):
            more: dict[str, Any] = {"max_restarts": 0}
            if places is not None:
                more["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                    places, placement_group_bundle_index=rank
                )
            self._workers.append(remote.options(**options, **more).remote(rank, self._spec.num_workers))

    def train(self, order: TrainOrder, channel: str) -> TrainResult:
        """One attempt at an order. Raises WorkersLost."""
        (port,) = _all_of([self._workers[0].open_store.remote()], MEET_TIMEOUT_S)
        _all_of([worker.enter.remote(port, self._spec) for worker in self._workers], MEET_TIMEOUT_S)
        results = _all_of([worker.train.remote(order, channel) for worker in self._workers])
        return TrainResult.model_validate(results[0])

    def retire(self) -> None:
        """Give the places back and keep the first process, unless it lies in one: what scores can run in it."""
        self._kill(keep=0 if self._in_places else 1)
        self._give_places_back()

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """A reference to what a function answers in a process that `retire` has kept; None where there is none."""
        return self._workers[0].call.remote(function, *args) if self._workers else None

    def end(self) -> None:
        """Give processes and places back; twice does no harm."""
        self._kill()
        self._give_places_back()

    def _give_places_back(self) -> None:
        from ray.util.placement_group import remove_placement_group

        if self._places is not None:
            with suppress(Exception):  # as below
                remove_placement_group(self._places)

    def _kill(self, keep: int = 0) -> None:
        import ray

        while len(self._workers) > keep:
            with suppress(Exception):  # a Ray that is gone took them along
                ray.kill(self._workers.pop())


def fit(order: TrainOrder, channel: str, begun: Group | None = None) -> TrainResult:
    """Carry out an order; rank 0's events go to `channel`. Raises what `train` raises.

    Args:
        begun: a group for this order's spec whose processes start already; it retires here.
    """
    spec = order.spec.train
    group = begun or Group(spec)
    try:
        try:
            group.place()
        except TimeoutError as error:
            raise explained(error, order) from None
        for attempt in range(spec.max_failures + 1):
            if attempt:
                group.start_anew()
            try:
                return group.train(order, channel)
            except WorkersLost as lost:
                if attempt == spec.max_failures or lasting(lost.worker_failures) is not None:
                    raise explained(lost, order) from lost
        raise AssertionError("the last attempt returns or raises")
    finally:
        if begun is None:
            group.end()
        else:
            group.retire()


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
        # The longest part of its start, which nobody waits for here; every optimizer imports the second.
        for module in ("raypipe.train.loop", "torch._dynamo"):
            import_module(module)
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
        import torch.distributed as dist

        from raypipe.train.loop import run
        from raypipe.train.rows import World

        world = World(self._rank, self._size, self._device, self._size)
        report = partial(Reporter(channel).send, force=True) if self._rank == 0 else _silent
        result = run(order, world, report).model_dump(mode="json")
        dist.destroy_process_group()  # this process may live on when its peers have gone
        return result

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Something else, once the training is done."""
        return function(*args)


def _silent(event: dict[str, Any]) -> None:
    """Rank 0 speaks for all."""
