"""What begins before its stage: workers beside the data; the scoring process and Ray Serve beside the training.

Most of a start is one process that waits for another, and imports.  What has begun takes none of the CPUs that Ray
lends, so no stage waits for one that is before its turn.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from raypipe.runtime.connect import Cluster, is_on_this_machine_alone
from raypipe.runtime.environment import hush
from raypipe.spec.pipeline import PipelineSpec
from raypipe.spec.serve import ServeSpec

if TYPE_CHECKING:
    from raypipe.train.actors import Group


class Ahead:
    """What has begun so far.

    Attributes:
        workers: for the train stage; None where it starts them itself.
    """

    def __init__(self, workers: Group | None = None, rest: threading.Thread | None = None) -> None:
        self.workers = workers
        self._rest = rest

    def done(self, stage: str) -> None:
        """To be told of each stage that is done, or was found done."""
        if stage == "data" and self._rest is not None:
            self._rest.start()
        if stage == "train" and self.workers is not None:
            self.workers.end()


@contextmanager
def begun_ahead(spec: PipelineSpec, steps: Collection[str], cluster: Cluster | None) -> Iterator[Ahead]:
    """For the stages that will run, on a Ray of this machine; what has begun and is still there ends with the block.

    Ray Serve only on a Ray that was started here: there it ends with the block, too.
    """
    if cluster is None or not is_on_this_machine_alone():
        yield Ahead()
        return
    serves = spec.serve if "serve" in steps and cluster.started_here else None
    workers = _workers(spec) if {"data", "train"} <= set(steps) else None
    rest = threading.Thread(target=_begin_rest, args=("evaluate" in steps, serves), name="raypipe-ahead", daemon=True)
    try:
        yield Ahead(workers, rest)
    finally:
        if workers is not None:
            workers.end()
        if rest.ident is not None:
            rest.join()
        if serves is not None:
            stop_serving()


def stop_serving() -> None:
    """Take every application down before the Ray started here ends, so that no proxy stays behind."""
    from ray.exceptions import RayActorError

    from raypipe.serve.ray_serve import shut_down

    hush()
    with suppress(RayActorError):  # somebody else stops it at this moment
        shut_down()


def _workers(spec: PipelineSpec) -> Group | None:
    """Where each gets a core; a GPU is lent only together with its place."""
    from raypipe.train import actors, stage

    train = spec.train
    if train.resources.num_gpus or train.num_workers > (os.cpu_count() or 1) or stage.choose(train).way != "actors":
        return None
    group = actors.Group(train)
    group.begin()
    return group


def _begin_rest(scores: bool, serves: ServeSpec | None) -> None:
    """Whatever goes wrong: the stage that needs it meets the same error, and tells it."""
    with suppress(Exception):
        if scores:
            from raypipe.evaluate.score import begin_process

            begin_process()
        if serves is not None:
            from raypipe.serve.ray_serve import start

            start(serves)
