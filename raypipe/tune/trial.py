"""One trial is train() with overrides and a reporter."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raypipe.data.stage import prepare
from raypipe.records import DatasetVersion, TrainResult
from raypipe.runtime.context import RunContext
from raypipe.runtime.progress import Progress
from raypipe.spec.data import DataSpec
from raypipe.spec.load import with_values
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import Store, layout, open_store
from raypipe.train.loop import run
from raypipe.train.order import TrainOrder
from raypipe.train.rows import World
from raypipe.train.stage import fit
from raypipe.tune import space
from raypipe.tune.finished import FinishedTrial, point_of, read_outcome, write_outcome

KEPT = "kept_trial"
"""Under this name a trial reports which finished one it stands for."""


@dataclass(frozen=True)
class TrialBase:
    """What all trials of a search share; plain values, so that it travels to any process.

    Attributes:
        side_by_side: trials on a node at one time.
        finished: trials that an earlier attempt at this search finished, by point of the space.
    """

    spec: PipelineSpec
    dataset: DatasetVersion
    store_uri: str
    run_id: str
    name: str
    code_dir: Path | None
    side_by_side: int = 1
    finished: Mapping[str, FinishedTrial] = field(default_factory=dict)


def run_trial(drawn: dict[str, Any], base: TrialBase) -> None:
    """Train at one point of the space; runs in a process of its own, called by Tune."""
    import ray.tune

    trial_id = str(ray.tune.get_context().get_trial_id())
    store = open_store(base.store_uri)
    assert base.spec.tune is not None
    spec = with_values(base.spec, space.values(base.spec.tune.space, drawn))
    reports = Reports(spec.train.epochs)
    before = base.finished.get(point_of(drawn))
    outcome = None if before is None else read_outcome(store, base.run_id, before.trial_id)
    if before is not None and outcome is not None:
        reports.repeat(outcome[1], before.trial_id)
        return
    ctx = _silent_context(base, store, f"{base.name}-{trial_id}")
    dataset = base.dataset if spec.data == base.spec.data else _prepared(spec.data, base)
    order = TrainOrder(
        spec=spec,
        dataset=dataset,
        store_uri=base.store_uri,
        run_id=base.run_id,
        artifact_key=layout.trial_artifact(base.run_id, trial_id),
        code_dir=base.code_dir,
        checkpoints=False,
        side_by_side=base.side_by_side,
    )
    result = _alone(order, reports) if spec.train.num_workers == 1 else _distributed(order, trial_id, ctx, reports)
    write_outcome(store, base.run_id, trial_id, drawn, dataset, result)
    reports.tell_last()


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
    """

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._last: dict[str, Any] | None = None

    def tell(self, event: dict[str, Any]) -> None:
        """Pass on an event of the loop."""
        import ray.tune

        if event["event"] != "epoch":
            return
        metrics = {**event["metrics"], "epoch": event["epoch"]}
        if event["epoch"] == self._epochs:
            self._last = metrics
        else:
            ray.tune.report(metrics)

    def repeat(self, result: TrainResult, trial_id: str) -> None:
        """Pass on the epochs of a trial that finished before, as `KEPT` of this one."""
        import ray.tune

        for entry in result.history:
            ray.tune.report({**entry.metrics, "epoch": entry.epoch, KEPT: trial_id})

    def tell_last(self) -> None:
        """Pass on what waits."""
        import ray.tune

        if self._last is not None:
            ray.tune.report(self._last)


def _alone(order: TrainOrder, reports: Reports) -> TrainResult:
    """In this process: a later trial that reuses it starts at once."""
    import torch

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
