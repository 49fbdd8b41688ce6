"""One trial is train() with overrides and a reporter."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
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
from raypipe.storage.documents import read_document, write_document
from raypipe.train.loop import TrainOrder, run
from raypipe.train.rows import World
from raypipe.train.stage import fit
from raypipe.tune import space


@dataclass(frozen=True)
class TrialBase:
    """What all trials of a search share; plain values, so that it travels to any process.

    Attributes:
        side_by_side: trials on a node at one time.
    """

    spec: PipelineSpec
    dataset: DatasetVersion
    store_uri: str
    run_id: str
    name: str
    code_dir: Path | None
    side_by_side: int = 1


def run_trial(drawn: dict[str, Any], base: TrialBase) -> None:
    """Train at one point of the space; runs in a process of its own, called by Tune."""
    import ray.tune

    trial_id = str(ray.tune.get_context().get_trial_id())
    store = open_store(base.store_uri)
    assert base.spec.tune is not None
    spec = with_values(base.spec, space.values(base.spec.tune.space, drawn))
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
    reports = Reports(spec.train.epochs)
    result = _alone(order, reports) if spec.train.num_workers == 1 else _distributed(order, trial_id, ctx, reports)
    write_outcome(store, base.run_id, trial_id, dataset, result)
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
    return prepare(data, _silent_context(base, open_store(base.store_uri), base.name))


def _silent_context(base: TrialBase, store: Store, name: str) -> RunContext:
    return RunContext(
        run_id=base.run_id,
        store=store,
        progress=Progress(base.run_id, stream=None),
        name=name,
        seed=base.spec.seed,
        code_dir=base.code_dir,
    )


def write_outcome(store: Store, run_id: str, trial_id: str, dataset: DatasetVersion, result: TrainResult) -> None:
    """Leave a finished trial's records; a trial that was stopped early leaves none."""
    write_document(store, layout.trial_dataset(run_id, trial_id), dataset)
    write_document(store, layout.trial_record(run_id, trial_id), result)


def read_outcome(store: Store, run_id: str, trial_id: str) -> tuple[DatasetVersion, TrainResult] | None:
    """What `write_outcome` left, or None."""
    record = layout.trial_record(run_id, trial_id)
    if not store.exists(record):
        return None
    dataset = read_document(store, layout.trial_dataset(run_id, trial_id), DatasetVersion)
    return dataset, read_document(store, record, TrainResult)


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
