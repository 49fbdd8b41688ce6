"""train(): builds the Ray trainer, waits, returns the record."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

from raypipe.errors import ClusterError, RaypipeError, TrainingError, causes, find_known
from raypipe.records import DatasetVersion, TrainResult
from raypipe.runtime.context import RunContext
from raypipe.runtime.progress import Listener, Reporter
from raypipe.runtime.resources import ray_bundle
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import layout
from raypipe.train import checkpoint
from raypipe.train.loop import TrainOrder, run
from raypipe.train.rows import World
from raypipe.train.telling import Teller


def train(spec: PipelineSpec, dataset: DatasetVersion, ctx: RunContext) -> TrainResult:
    """Train one model with DDP on `spec.train.num_workers` workers.

    Continues from the run's newest checkpoint, unless `ctx.fresh`: then they are deleted first. A lost worker group
    starts again from the newest, `max_failures` times.

    Raises:
        NonFiniteLossError, DataError, ModelError: found by the workers; trying again would not help.
        ClusterError: the workers could not be placed in time.
        UserCodeError: the user's network raised.
        TrainingError: the workers were lost more often than allowed.
    """
    if ctx.fresh:
        checkpoint.clear(ctx.store, ctx.run_id)
    order = TrainOrder(
        spec=spec,
        dataset=dataset,
        store_uri=ctx.store.uri,
        run_id=ctx.run_id,
        artifact_key=layout.artifact(ctx.run_id, "train"),
        code_dir=ctx.code_dir,
    )
    channel = f"raypipe/{ctx.run_id}/train"
    teller = Teller(ctx.progress, spec.train)
    result = fit(order, channel, teller.tell, ctx)
    return result.model_copy(update={"attempts": max(1, teller.attempts)})


def fit(order: TrainOrder, channel: str, on_event: Callable[[dict[str, Any]], None], ctx: RunContext) -> TrainResult:
    """Carry out an order on a worker group; `on_event` is told what rank 0 reports. Raises what `train` raises."""
    with Listener(channel, on_event) as listener:
        return _fit(order, listener.channel, ctx)


def _fit(order: TrainOrder, channel: str, ctx: RunContext) -> TrainResult:
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    from raypipe.train.group import GroupConfig
    from raypipe.train.stopping import StopAtKnownError

    spec = order.spec.train
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(spec.start_timeout_s)
    scratch = _Scratch(ctx)
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"order": order, "channel": channel},
        torch_config=GroupConfig(),
        scaling_config=ScalingConfig(
            num_workers=spec.num_workers,
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

    order: TrainOrder = config["order"]
    context = ray.train.get_context()
    world = World(
        context.get_world_rank(),
        context.get_world_size(),
        ray.train.torch.get_device(),
        context.get_local_world_size(),
    )
    torch.set_num_threads(max(1, round(order.spec.train.resources.num_cpus)))
    report = partial(Reporter(config["channel"]).send, force=True) if world.rank == 0 else _silent
    return run(order, world, report).model_dump(mode="json")


def _silent(event: dict[str, Any]) -> None:
    """Rank 0 speaks for all."""


def explained(error: Exception, order: TrainOrder) -> RaypipeError:
    """Ray Train's error in our words, with the cause a worker gave."""
    from raypipe.train.stopping import lasting, most_telling

    failures: dict[int, Exception] = getattr(error, "worker_failures", None) or {}
    known = lasting(failures) or find_known(error)
    if known is not None:
        return known
    resume = f"raypipe run FILE --resume {order.run_id} continues from the newest checkpoint"
    if failures:
        rank = most_telling(failures)
        original = list(causes(failures[rank]))[-1]
        lines = str(original).strip().splitlines()
        text = f"{type(original).__name__}: {lines[-1][:500]}" if lines else type(original).__name__
        return TrainingError(f"train: worker {rank} of {order.spec.train.num_workers} failed: {text}", resume)
    spec = order.spec.train
    wanted = f"{spec.num_workers} workers of {ray_bundle(spec.resources)}"
    return ClusterError(
        f"train: {wanted} were not placed within {spec.start_timeout_s:g}s: {str(error).splitlines()[0][:300]}",
        f"lower train.num_workers, free the cluster, or wait longer (train.start_timeout_s); {resume}",
    )
