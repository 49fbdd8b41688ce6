"""Workers of Ray Train: for clusters, where it replaces lost nodes."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

from raypipe.records import TrainResult
from raypipe.runtime.context import RunContext
from raypipe.runtime.resources import ray_bundle
from raypipe.storage import layout
from raypipe.train.failures import explained
from raypipe.train.order import TrainOrder


def fit(order: TrainOrder, channel: str, ctx: RunContext) -> TrainResult:
    """Carry out an order on workers that Ray Train places, connects and restarts; raises what `train` raises."""
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from raypipe.train.group import GroupConfig
    from raypipe.train.stopping import StopAtKnownError

    spec = order.spec.train
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(spec.start_timeout_s)
    os.environ.setdefault("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "1")  # of a notice of 10 s, Ray's own 5 s are half
    scratch = _Scratch(ctx)
    trainer = DataParallelTrainer(
        _worker,
        train_loop_config={"order": order, "channel": channel},
        backend_config=GroupConfig(),
        scaling_config=ScalingConfig(
            num_workers=spec.max_workers,
            use_gpu=spec.resources.num_gpus > 0,
            resources_per_worker=ray_bundle(spec.resources),
        ),
        run_config=RunConfig(
            name=f"{ctx.name}-{ctx.run_id}",
            storage_path=scratch.path,
            failure_config=FailureConfig(max_failures=spec.max_failures, controller_failure_limit=0),
            # Its errors are tracebacks between our lines; what a worker raised is told by us.
            logging_config=LoggingConfig(log_level="ERROR" if os.environ.get("RAYPIPE_DEBUG") else "CRITICAL"),
            callbacks=[StopAtKnownError()],
        ),
    )
    try:
        return TrainResult.model_validate(trainer.fit().return_value)
    except TrainingFailedError as error:
        raise explained(error, order) from error
    finally:
        scratch.clear()


class _Scratch:
    """Where Ray Train keeps its own notes on a run: beside the run in S3, a temporary folder for a local store."""

    def __init__(self, ctx: RunContext) -> None:
        self._store, self._prefix = ctx.store, layout.train_scratch(ctx.run_id)
        self._remote = "://" in ctx.store.uri
        self.path = f"{ctx.store.uri}/{self._prefix}" if self._remote else tempfile.mkdtemp(prefix="raypipe-train-")

    def clear(self) -> None:
        if self._remote:
            self._store.delete_prefix(self._prefix)
        else:
            shutil.rmtree(self.path, ignore_errors=True)


def _worker(config: dict[str, Any]) -> dict[str, Any]:
    """Runs in each Ray Train worker."""
    import ray.train
    import ray.train.torch
    import torch

    from raypipe.train.loop import run
    from raypipe.train.preemption import NodeDrained, Preemption
    from raypipe.train.rows import World
    from raypipe.train.watching import watching

    order: TrainOrder = config["order"]
    context = ray.train.get_context()
    world = World(
        context.get_world_rank(),
        context.get_world_size(),
        ray.train.torch.get_device(),
        context.get_local_world_size(),
    )
    torch.set_num_threads(max(1, round(order.spec.train.resources.num_cpus)))
    preemption = NodeDrained(ray.train.get_preemption_info) if watches_nodes() else Preemption()
    with watching(order, world, config["channel"]) as report:
        return run(order, world, report, preemption).model_dump(mode="json")


def watches_nodes() -> bool:
    """Whether Ray Train tells its workers of nodes that are drained: its own setting."""
    return os.environ.get("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "1").lower() in ("1", "true")
