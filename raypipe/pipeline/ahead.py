"""What begins before its stage: workers beside the data; scoring process, Ray Serve and replicas beside the training.

Most of a start is one process that waits for another, and imports.  What has begun takes none of the CPUs that the
other stages need, so no stage waits for one that is before its turn.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from raypipe.pipeline.demand import cpus_with_waiting_replicas
from raypipe.runtime.connect import Cluster, is_on_this_machine_alone
from raypipe.runtime.context import RunContext
from raypipe.runtime.environment import hush
from raypipe.runtime.progress import Progress
from raypipe.spec.pipeline import PipelineSpec

if TYPE_CHECKING:
    from raypipe.train.actors import Group


class Ahead:
    """What has begun so far.

    Attributes:
        workers: for the train stage, and the first of them for what scores after it; None where none has begun.
    """

    def __init__(self, progress: Progress, workers: Group | None = None, rest: threading.Thread | None = None) -> None:
        self.workers = workers
        self._progress = progress
        self._rest = rest

    def done(self, stage: str) -> None:
        """To be told of each stage that is done, or was found done."""
        if stage == "data" and self._rest is not None:
            self._rest.start()
        if stage == "train" and self.workers is not None:
            self.workers.retire()
        if stage == "serve" and self.workers is not None:
            self.workers.end()  # the endpoint may stay for days
        if stage == "register" and self._rest is not None and self._rest.is_alive():
            with self._progress.awaiting("serve", "starting Ray Serve"):
                self._rest.join()  # one deploys at a time


@contextmanager
def begun_ahead(
    spec: PipelineSpec, steps: Collection[str], cluster: Cluster | None, ctx: RunContext
) -> Iterator[Ahead]:
    """For the stages that will run, on a Ray of this machine; what has begun and is still there ends with the block.

    Ray Serve only on a Ray that was started here: there it ends with the block, too.
    """
    if cluster is None or not is_on_this_machine_alone():
        yield Ahead(ctx.progress)
        return
    serves = "serve" in steps and cluster.started_here
    workers = _workers(spec) if {"data", "train"} <= set(steps) else None
    begin_rest = partial(
        _begin_rest, "evaluate" in steps and workers is None, _serving(spec, steps, ctx) if serves else None
    )
    rest = threading.Thread(target=begin_rest, name="raypipe-ahead", daemon=True)
    try:
        yield Ahead(ctx.progress, workers, rest)
    finally:
        if workers is not None:
            workers.end()
        if rest.ident is not None:
            rest.join()
        if serves:
            stop_serving(spec.model_name)


def stop_serving(awaited_model: str | None = None) -> None:
    """Take every application down before the Ray started here ends, so that no proxy stays behind."""
    from ray.exceptions import RayActorError

    from raypipe.serve import awaited
    from raypipe.serve.ray_serve import shut_down

    hush()
    if awaited_model is not None:
        awaited.give_up(awaited_model)
    with suppress(RayActorError):  # somebody else stops it at this moment
        shut_down()


def _workers(spec: PipelineSpec) -> Group | None:
    """Where each gets a core, and their number is known; a GPU is lent only together with its place."""
    from raypipe.train import actors, stage

    train = spec.train
    if train.elastic is not None or train.resources.num_gpus or train.max_workers > (os.cpu_count() or 1):
        return None
    if stage.choose(train).way != "actors":
        return None
    group = actors.Group(train)
    group.begin()
    return group


def _serving(spec: PipelineSpec, steps: Collection[str], ctx: RunContext) -> Callable[[], object]:
    """What begins Ray Serve; few replicas, too, where the CPUs they hold while they wait are more than others need."""
    import ray

    from raypipe.serve import awaited
    from raypipe.serve.ray_serve import start

    serves = spec.serve
    assert serves is not None
    needs = serves.resources
    few = serves.min_replicas * needs.num_cpus <= (os.cpu_count() or 1)  # each holds its memory while it waits
    fits = few and cpus_with_waiting_replicas(spec, serves, steps) <= ray.cluster_resources()["CPU"]
    if fits and not needs.num_gpus and needs.memory_bytes is None:
        return partial(awaited.begin, serves, spec.model_name, ctx.store.uri, ctx.code_dir)
    return partial(start, serves)


def _begin_rest(scores: bool, begin_serving: Callable[[], object] | None) -> None:
    """Whatever goes wrong: the stage that needs it meets the same error, and tells it."""
    with suppress(Exception):
        if scores:
            from raypipe.evaluate.score import begin_process

            begin_process()
        if begin_serving is not None:
            begin_serving()
