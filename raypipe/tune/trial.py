"""One trial is train() with overrides and a reporter."""

from __future__ import annotations

import faulthandler
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypipe.data.stage import prepare
from raypipe.errors import DataError, ModelError, NonFiniteLossError, SpecError, UserCodeError, find_known
from raypipe.records import ArtifactRef, DatasetVersion, TrainResult
from raypipe.runtime.context import RunContext
from raypipe.runtime.progress import Progress
from raypipe.spec.data import DataSpec
from raypipe.spec.load import with_values
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import Store, layout, open_store
from raypipe.train.order import TrainOrder
from raypipe.train.stage import fit
from raypipe.tune.points import End, Point
from raypipe.tune.telling import reason_of
from raypipe.tune.trial_log import read_point, write_outcome

TRIAL_ID = "trial_id_in_store"
"""Under this name a process is told which trial it is."""

FAILURE = "failure"
"""Under this name a trial reports why it ends: an `End` as a document."""

OF_THE_POINT = (SpecError, DataError, ModelError, UserCodeError)
"""Errors that the same point would meet again."""


@dataclass(frozen=True)
class TrialBase:
    """What all trials of a search share; plain values, so that it travels to any process.

    Attributes:
        side_by_side: trials on a node at one time.
        first_weights: what `model.init_from` names.
    """

    spec: PipelineSpec
    dataset: DatasetVersion
    store_uri: str
    run_id: str
    name: str
    code_dir: Path | None
    side_by_side: int = 1
    first_weights: ArtifactRef | None = None


def run_trial(config: dict[str, Any], base: TrialBase) -> None:
    """Train at one point of the space; runs in a process of its own, called by Tune.

    What it raises is reported, not raised: the process may serve the next trial, and the reason is told at once.
    """
    import ray.tune

    trial_id = str(config[TRIAL_ID])
    assert base.spec.tune is not None
    reports = Reports(base.spec.tune.metric)
    try:
        with _no_longer_than(base.spec.tune.max_trial_minutes):
            _train(trial_id, base, reports)
    except Exception as error:
        ray.tune.report({FAILURE: failure_of(error, reports.told).document()})
    else:
        reports.tell_last()


def failure_of(error: BaseException, told: dict[int, float]) -> End:
    """How a trial that raised ends.

    Args:
        told: the metric of each epoch before.
    """
    known = find_known(error)
    if isinstance(known, NonFiniteLossError):
        return End("diverged", reports=told, reason=reason_of(error))
    lasting = isinstance(known, OF_THE_POINT) and not known.transient
    return End("failed", reports=told, reason=reason_of(error), lasting=lasting)


def order_of(point: Point, base: TrialBase, dataset: DatasetVersion) -> TrainOrder:
    """What a trial's workers are told. Its checkpoints lie with it, so that one that was broken off goes on."""
    spec = with_values(base.spec, point.values)
    # What a trial's own workers held is free when the trial is stopped only where Ray Train started them.
    changes: dict[str, Any] = {"trainer": "ray_train"}
    if point.until_epoch is not None:
        changes["epochs"] = point.until_epoch
    return TrainOrder(
        spec=spec.model_copy(update={"train": spec.train.model_copy(update=changes)}),
        dataset=dataset,
        store_uri=base.store_uri,
        run_id=layout.training_of_trial(base.run_id, point.trial_id),
        artifact_key=layout.trial_artifact(base.run_id, point.trial_id),
        code_dir=base.code_dir,
        side_by_side=base.side_by_side,
        first_weights=base.first_weights,
    )


def _train(trial_id: str, base: TrialBase, reports: Reports) -> None:
    """Train, and leave the outcome in the store."""
    store = open_store(base.store_uri)
    point = read_point(store, base.run_id, trial_id)
    spec = with_values(base.spec, point.values)
    dataset = base.dataset if spec.data == base.spec.data else _prepared(spec.data, base)
    order = order_of(point, base, dataset)
    if point.continues is not None:
        from raypipe.tune.continuing import begin_where_another_ended

        before = read_point(store, base.run_id, point.continues)
        begin_where_another_ended(store, order, order_of(before, base, dataset))
    ctx = _silent_context(base, store, f"{base.name}-{trial_id}")
    reports.until(order.spec.train.epochs)
    result = _alone(order, reports) if spec.train.max_workers == 1 else _distributed(order, trial_id, ctx, reports)
    write_outcome(store, base.run_id, trial_id, dataset, result.model_copy(update={"run_id": base.run_id}))


@contextmanager
def _no_longer_than(minutes: float | None) -> Iterator[None]:
    """End this process when the time is over: a trial that hangs hears nothing else, not even an exception."""
    if minutes is None:
        yield
        return
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(minutes * 60, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def _prepared(data: DataSpec, base: TrialBase) -> DatasetVersion:
    """A dataset of the trial's own, made outside the trial's placement group: Tune lets no task start inside."""
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    # None stands for no group at all; Ray's annotation leaves it out.
    outside = PlacementGroupSchedulingStrategy(placement_group=None)  # pyright: ignore[reportArgumentType]
    task = ray.remote(prepare_apart).options(num_cpus=0, scheduling_strategy=outside)
    return ray.get(task.remote(data, base))


def prepare_apart(data: DataSpec, base: TrialBase) -> DatasetVersion:
    """`prepare` in a process of its own."""
    return prepare(data, _silent_context(base, open_store(base.store_uri), base.name), as_latest=False)


def _silent_context(base: TrialBase, store: Store, name: str) -> RunContext:
    return RunContext(
        run_id=base.run_id,
        store=store,
        progress=Progress(base.run_id, stream=None),
        name=name,
        seed=base.spec.seed,
        code_dir=base.code_dir,
    )


class Reports:
    """A trial's epochs, told to Tune.

    The last one waits until the outcome is written: a scheduler stops a trial that reports its last epoch at once.

    Args:
        metric: what the search compares.
    """

    def __init__(self, metric: str) -> None:
        self._metric = metric
        self._epochs = 0
        self._last: dict[str, Any] | None = None
        self.told: dict[int, float] = {}
        """The metric of each epoch so far."""

    def until(self, epochs: int) -> None:
        """Which epoch is the last."""
        self._epochs = epochs

    def tell(self, event: dict[str, Any]) -> None:
        """Pass on an event of the loop."""
        import ray.tune

        if event["event"] != "epoch":
            return
        metrics = {**event["metrics"], "epoch": event["epoch"]}
        if event["epoch"] == self._epochs:
            self._last = metrics
            return
        self.told[event["epoch"]] = event["metrics"][self._metric]
        ray.tune.report(metrics)

    def tell_last(self) -> None:
        """Pass on what waits."""
        import ray.tune

        if self._last is not None:
            ray.tune.report(self._last)


def _alone(order: TrainOrder, reports: Reports) -> TrainResult:
    """In this process: a later trial that reuses it starts at once."""
    import torch

    from raypipe.train.loop import run
    from raypipe.train.rows import World

    resources = order.spec.train.resources
    torch.set_num_threads(max(1, round(resources.num_cpus)))
    device = torch.device("cuda" if resources.num_gpus and torch.cuda.is_available() else "cpu")
    return run(order, World(device=device), reports.tell)


def _distributed(order: TrainOrder, trial_id: str, ctx: RunContext, reports: Reports) -> TrainResult:
    """On a worker group of its own; this process only passes its reports on to Tune."""
    events: queue.Queue[dict[str, Any] | TrainResult | BaseException] = queue.Queue()

    def fit_aside() -> None:
        try:
            events.put(fit(order, f"raypipe/{order.run_id}/tune/{trial_id}", events.put, ctx))
        except BaseException as error:  # handed to the trial's own thread, which raises it
            events.put(error)

    threading.Thread(target=fit_aside, name=f"fit-{trial_id}", daemon=True).start()
    while True:
        event = events.get()
        if isinstance(event, TrainResult):
            return event
        if isinstance(event, BaseException):
            raise event
        reports.tell(event)
