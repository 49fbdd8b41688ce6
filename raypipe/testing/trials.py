"""Carries out the trials of a search in this process: no Ray, no training, the same conductor and the same store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from raypipe.records import DatasetVersion, TrainResult, Trial
from raypipe.runtime.progress import Progress
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import Store, layout
from raypipe.storage.publish import publish
from raypipe.testing.fakes import tiny_dataset
from raypipe.tune.budget import Budget
from raypipe.tune.conductor import Conductor
from raypipe.tune.points import Point
from raypipe.tune.search import SEARCHES
from raypipe.tune.search.base import Setup
from raypipe.tune.stage import resolved_mode, shaping
from raypipe.tune.telling import Teller
from raypipe.tune.trial import TrialBase, failure_of
from raypipe.tune.trial_log import TrialLog, write_outcome

Metric = Callable[[Point, int], float]
"""What a trial's epoch has for its metric; may raise what a training raises."""


class DriverKilled(BaseException):
    """Stands for SIGKILL: nothing is told, nothing is tidied."""


class Trials:
    """One attempt after another at a search.

    Args:
        metric: see `Metric`.
        at_one_time: trials that run side by side, an epoch each in turn.
    Attributes:
        trained: ids of all trials that began, over all attempts, in order.
    """

    def __init__(
        self,
        spec: PipelineSpec,
        store: Store,
        metric: Metric,
        *,
        at_one_time: int = 1,
        progress: Progress | None = None,
        clock: Callable[[], float] = time.monotonic,
        run_id: str = "r1",
    ) -> None:
        self._spec, self._store, self._metric, self._at_one_time = spec, store, metric, at_one_time
        self._progress, self._clock, self._run_id = progress or Progress(run_id, stream=None), clock, run_id
        self._dataset: DatasetVersion = tiny_dataset(store, {"x": np.eye(4)}, np.arange(4) % 2, num_val=1)
        self.trained: list[str] = []

    def search(self, *, killed_after: int | None = None) -> list[Trial]:
        """Search to the end.

        Args:
            killed_after: epochs, after which the driver dies.
        Raises:
            DriverKilled: it did.
        """
        assert self._spec.tune is not None
        mode = resolved_mode(self._spec.tune)
        base = TrialBase(self._spec, self._dataset, self._store.uri, self._run_id, "test", None)
        log = TrialLog(self._store, self._run_id, shaping(base), self._spec.tune.metric)
        for note in log.notes:
            self._progress.say("tune", note)
        search = SEARCHES[self._spec.tune.search.kind](Setup(self._spec, mode, log))
        teller = Teller(self._progress, self._spec.tune, self._spec.largest_train.epochs, mode)
        conductor = Conductor(
            self._spec.tune, search, log, Budget(self._spec.tune.max_minutes, log.spent_s, self._clock), teller
        )
        running: dict[str, Iterator[bool]] = {}
        num_epochs = 0
        while True:
            while len(running) < self._at_one_time and (point := conductor.next()) is not None:
                self.trained.append(point.trial_id)
                running[point.trial_id] = self._train(point, conductor)
            if not running:
                assert conductor.is_over, "nothing runs, and nothing begins"
                return conductor.close()
            for trial_id, epochs in list(running.items()):
                if conductor.stops_all:
                    return conductor.close()
                ended = next(epochs, True)
                num_epochs += 1
                if num_epochs == killed_after:
                    raise DriverKilled
                if ended:
                    del running[trial_id]
                    conductor.end(trial_id)

    def _train(self, point: Point, conductor: Conductor) -> Iterator[bool]:
        """One trial as `tune.trial` does it: the last epoch is told when the outcome is there. Yields whether it is."""
        last = point.until_epoch or self._spec.train.epochs
        told: dict[int, float] = {}
        try:
            for epoch in range(1, last + 1):
                told[epoch] = self._metric(point, epoch)
                if epoch == last:
                    self._write_outcome(point, told)
                if conductor.report(point.trial_id, epoch, told[epoch]) and epoch < last:
                    return
                yield epoch == last
        except Exception as error:
            conductor.failed(point.trial_id, failure_of(error, told))

    def _write_outcome(self, point: Point, told: dict[int, float]) -> None:
        assert self._spec.tune is not None
        key = layout.trial_artifact(self._run_id, point.trial_id)
        digest = publish(self._store, key, {"weights": point.trial_id.encode()}).digest
        history = [
            {"epoch": epoch, "step": epoch, "metrics": {self._spec.tune.metric: value}} for epoch, value in told.items()
        ]
        result = TrainResult.model_validate(
            {
                "run_id": self._run_id,
                "dataset": self._dataset.version,
                "artifact": {"key": key, "digest": digest},
                "history": history,
                "best_epoch": len(history),
                "num_steps": len(history),
                "num_parameters": 1,
                "num_workers": 1,
                "rows_per_s": 1.0,
            }
        )
        write_outcome(self._store, self._run_id, point.trial_id, self._dataset, result)
