"""A light worker group: plain Ray actors, started again from the newest checkpoint when one is lost.

Ray Train is five more processes for what a single machine does not need; without them, and without importing ray.train
anywhere, the first step comes 10 s sooner. An elastic number of workers is started here on a cluster, too: there Ray
Train counts what nodes have, not what is free of it, and waits all of a start's time for a node that is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from raypipe.errors import MoreWorkersError, find_known
from raypipe.records import TrainResult
from raypipe.runtime import notices
from raypipe.runtime.connect import is_on_this_machine_alone
from raypipe.runtime.resources import ray_options
from raypipe.spec.train import TrainSpec
from raypipe.train.failures import explained, is_from_peers, is_preempted, lasting, num_oom_kills
from raypipe.train.order import TrainOrder
from raypipe.train.places import Place, Places
from raypipe.train.worker import TrainWorker, room_name

MEET_TIMEOUT_S = 600.0
"""Longest wait for workers that have their place to start, import torch and form their group."""

LOOK_S = 1.0
"""So often the places are looked at while workers are waited for."""

GRACE_S = 10.0
"""Where a worker only says that another one is gone, so long the others are given to say why."""


class WorkersLost(Exception):
    """An attempt ended.

    Attributes:
        worker_failures: what each rank raised that ended by itself.
        num_workers: of the attempt.
    """

    is_late_news = False
    """Whether it belongs to a failure before: what was lost then was not known to be gone."""

    def __init__(self, worker_failures: dict[int, Exception], num_workers: int) -> None:
        super().__init__(", ".join(f"worker {rank}: {type(error).__name__}" for rank, error in worker_failures.items()))
        self.worker_failures, self.num_workers = worker_failures, num_workers


class PlacesLost(WorkersLost):
    """The node of a worker that was to be started is gone."""

    is_late_news = True


class Group:
    """The processes of a training, and the places they take of what the cluster lends.

    Args:
        say: told what is waited for.
    """

    def __init__(self, spec: TrainSpec, say: Callable[[str], object] = lambda text: None) -> None:
        self._spec = spec
        self._reserved = Places(spec, say)
        self._places: list[Place] = []
        self._workers: list[Any] = []

    def begin(self) -> None:
        """Start the processes before their turn, without their places, which others have now. Of a fixed number."""
        self._start([None] * self._spec.max_workers)

    def place(self) -> None:
        """Take the places, and start the processes unless they have begun.

        Raises:
            TimeoutError: the places did not become free within `train.start_timeout_s`.
        """
        if self._workers:
            self._reserved.take()
        else:
            self.start_anew()

    def start_anew(self) -> None:
        """Start processes in the places there are now; those before, which had them, are ended first.

        Raises:
            TimeoutError: as above.
        """
        self._kill()
        self._places = self._reserved.take()
        self._start(self._places)

    def _start(self, places: Sequence[Place | None]) -> None:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        remote = ray.remote(TrainWorker)
        for rank, place in enumerate(places):
            more: dict[str, Any] = {"num_cpus": 0}
            if place is not None:
                strategy = PlacementGroupSchedulingStrategy(place.group, placement_group_bundle_index=place.index)
                more = {**ray_options(self._spec.resources), "scheduling_strategy": strategy}
            self._workers.append(remote.options(max_restarts=0, **more).remote(rank, len(places)))

    def train(self, order: TrainOrder, channel: str) -> TrainResult:
        """One attempt at an order. Raises WorkersLost."""
        address, port = _all_of(
            [self._workers[0].open_store.remote(is_on_this_machine_alone())], MEET_TIMEOUT_S, self._check_places
        )[0]
        nodes = [place.node for place in self._places] or [""] * len(self._workers)
        joining = [worker.enter.remote(address, port, self._spec, nodes) for worker in self._workers]
        _all_of(joining, MEET_TIMEOUT_S, self._check_places)
        running = [worker.train.remote(order, channel) for worker in self._workers]
        if self._spec.elastic is None:
            results = _all_of(running)
        else:
            with self._room_told(channel) as tell_room:
                results = _all_of(running, look=tell_room)
        return TrainResult.model_validate(results[0])

    def _check_places(self) -> None:
        """Raise PlacesLost where a worker that does not answer never will: Ray may learn late that its node is gone."""
        if self._places and not self._reserved.hold(self._places):
            raise PlacesLost({}, len(self._places))

    @contextmanager
    def _room_told(self, channel: str) -> Iterator[Callable[[], None]]:
        """While the block runs the workers can know how many of them there is room for, each time it is looked at."""
        last = ""

        def tell() -> None:
            nonlocal last
            room = str(len(self._reserved.there()))
            if room != last:
                notices.post(room_name(channel), room)
                last = room

        try:
            yield tell
        finally:
            with suppress(Exception):  # a Ray that is gone took it along
                notices.withdraw(room_name(channel))

    def retire(self) -> None:
        """Give the places back and keep the first process, unless it lies in one: what scores can run in it."""
        self._kill(keep=0 if self._places else 1)
        self._give_places_back()

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """A reference to what a function answers in a process that `retire` has kept; None where there is none."""
        return self._workers[0].call.remote(function, *args) if self._workers else None

    def end(self) -> None:
        """Give processes and places back; twice does no harm."""
        self._kill()
        self._give_places_back()

    def _give_places_back(self) -> None:
        self._reserved.give_back()
        self._places = []

    def _kill(self, keep: int = 0) -> None:
        import ray

        while len(self._workers) > keep:
            with suppress(Exception):  # a Ray that is gone took them along
                ray.kill(self._workers.pop())


def fit(
    order: TrainOrder, channel: str, begun: Group | None = None, say: Callable[[str], object] = lambda text: None
) -> TrainResult:
    """Carry out an order; rank 0's events go to `channel`. Raises what `train` raises.

    Args:
        begun: a group for this order's spec whose processes start already; it retires here.
        say: told what is waited for.
    """
    spec = order.spec.train
    group = begun or Group(spec, say)
    num_failures = 0
    start = group.place
    try:
        while True:
            try:
                start()
            except TimeoutError as error:
                raise explained(error, order) from None
            oom_kills = num_oom_kills()
            try:
                return group.train(order, channel)
            except WorkersLost as lost:
                num_failures += not (lost.is_late_news or is_preempted(lost.worker_failures))
                if num_failures > spec.max_failures or lasting(lost.worker_failures) is not None:
                    raise explained(lost, order, oom_kills=num_oom_kills() - oom_kills) from lost
                if any(isinstance(find_known(error), MoreWorkersError) for error in lost.worker_failures.values()):
                    order = replace(order, asked_at=time.time())  # nothing was lost since
            start = group.start_anew
    finally:
        if begun is None:
            group.end()
        else:
            group.retire()


def _all_of(calls: list[Any], timeout_s: float | None = None, look: Callable[[], None] | None = None) -> list[Any]:
    """What all calls answer.

    Args:
        look: called about every LOOK_S while they are waited for; may raise.
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
        looks = look is not None and not failures and (left_s is None or left_s > LOOK_S)
        ended, waiting = ray.wait(waiting, num_returns=1, timeout=LOOK_S if looks else left_s)
        if looks and not ended:
            assert look is not None
            look()
            continue
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
        raise WorkersLost(failures, len(calls))
    return [answers[rank] for rank in range(len(calls))]
