"""train(): chooses who carries the order out, waits, returns the record."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

from raypipe.errors import TrainingError
from raypipe.records import ArtifactRef, DatasetVersion, TrainResult
from raypipe.runtime.connect import is_on_this_machine_alone
from raypipe.runtime.context import RunContext
from raypipe.runtime.progress import Listener
from raypipe.spec.pipeline import PipelineSpec
from raypipe.spec.train import TrainSpec
from raypipe.storage import layout
from raypipe.train import actors
from raypipe.train.failures import hung
from raypipe.train.goodput import with_restarts
from raypipe.train.order import TrainOrder
from raypipe.train.progress_lines import ProgressLines


def train(
    spec: PipelineSpec, dataset: DatasetVersion, ctx: RunContext, first_weights: ArtifactRef | None = None
) -> TrainResult:
    """Train one model on `spec.train.num_workers` workers.

    Continues from the run's newest checkpoint, unless `ctx.fresh`: then they are deleted first. A lost worker group
    starts again from the newest, `max_failures` times.

    Args:
        first_weights: what `spec.model.init_from` names.
    Raises:
        NonFiniteLossError, DataError, ModelError: found by the workers; trying again would not help.
        ClusterError: the workers could not be placed in time.
        UserCodeError: the user's network raised.
        TrainingError: the workers were lost more often than allowed.
    """
    if ctx.fresh:
        from raypipe.train import checkpoints  # brings torch, which this process does without

        checkpoints.clear(ctx.store, ctx.run_id)
    order = TrainOrder(
        spec=spec,
        dataset=dataset,
        store_uri=ctx.store.uri,
        run_id=ctx.run_id,
        artifact_key=layout.artifact(ctx.run_id, "train"),
        code_dir=ctx.code_dir,
        first_weights=first_weights,
    )
    channel = f"raypipe/{ctx.run_id}/train"
    progress_lines = ProgressLines(ctx.progress, spec.train)
    try:
        result = fit(order, channel, progress_lines.tell, ctx)
    except TrainingError as error:
        if not progress_lines.hung:
            raise
        raise hung(progress_lines.hung, error) from error
    goodput = result.goodput
    if goodput is not None:
        if progress_lines.attempts > 1 and progress_lines.starting_s is not None:
            goodput = with_restarts(goodput, progress_lines.starting_s)
        ctx.progress.say("train", goodput.text, event="goodput", goodput=goodput.model_dump(mode="json"))
    changed = {"attempts": max(1, progress_lines.attempts), "goodput": goodput}
    if spec.train.elastic is not None:
        changed["workers_by_attempt"] = tuple(progress_lines.num_workers)
    return result.model_copy(update=changed)


def fit(order: TrainOrder, channel: str, on_event: Callable[[dict[str, Any]], None], ctx: RunContext) -> TrainResult:
    """Carry out an order on a worker group; `on_event` is told what rank 0 reports. Raises what `train` raises."""
    choice = choose(order.spec.train)
    ctx.progress.say("train", f"{choice.text}: {choice.reason}", trainer=choice.way)
    with Listener(channel, on_event) as listener:
        if choice.way == "ray_train":
            from raypipe.train import ray_train

            return ray_train.fit(order, listener.channel, ctx)
        return actors.fit(order, listener.channel, ctx.workers, partial(ctx.progress.say, "train"))


class Choice(NamedTuple):
    """Who carries an order out, and why."""

    way: Literal["actors", "ray_train"]
    reason: str

    @property
    def text(self) -> str:
        return "workers of Ray Train" if self.way == "ray_train" else "workers started directly"


def choose(spec: TrainSpec) -> Choice:
    """Ray Train where the file wants it or a fixed number of workers may lie on several machines; it takes 10 s longer
    to start."""
    if spec.trainer == "ray_train":
        return Choice("ray_train", "train.trainer asks for it")
    if is_on_this_machine_alone():
        return Choice("actors", "all are on this machine")
    if spec.elastic is not None:
        return Choice("actors", "their number is elastic")
    return Choice("ray_train", "this is a cluster")
