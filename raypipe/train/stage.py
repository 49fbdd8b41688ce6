"""train(): chooses who carries the order out, waits, returns the record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from raypipe.records import DatasetVersion, TrainResult
from raypipe.runtime.connect import is_on_this_machine_alone
from raypipe.runtime.context import RunContext
from raypipe.runtime.progress import Listener
from raypipe.spec.pipeline import PipelineSpec
from raypipe.spec.train import TrainSpec
from raypipe.storage import layout
from raypipe.train import actors
from raypipe.train.order import TrainOrder
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
        from raypipe.train import checkpoint  # brings torch, which this process does without

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
    choice = choose(order.spec.train, checkpoints=order.checkpoints)
    ctx.progress.say("train", f"{choice.text}: {choice.reason}", trainer=choice.way)
    with Listener(channel, on_event) as listener:
        if choice.way == "ray_train":
            from raypipe.train import ray_train

            return ray_train.fit(order, listener.channel, ctx)
        return actors.fit(order, listener.channel, ctx.workers)


class Choice(NamedTuple):
    """Who carries an order out, and why."""

    way: Literal["actors", "ray_train"]
    reason: str

    @property
    def text(self) -> str:
        return "workers of Ray Train" if self.way == "ray_train" else "workers started directly"


def choose(spec: TrainSpec, *, checkpoints: bool = True) -> Choice:
    """Ray Train where the file wants it or workers may lie on several machines; it takes 10 s longer to start."""
    if spec.trainer == "ray_train":
        return Choice("ray_train", "train.trainer asks for it")
    if not checkpoints:
        return Choice("ray_train", "it frees what a stopped trial held")
    if not is_on_this_machine_alone():
        return Choice("ray_train", "this is a cluster")
    return Choice("actors", "all are on this machine")
