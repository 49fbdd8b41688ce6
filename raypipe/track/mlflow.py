"""A run of MLflow for each run, in an experiment named like the pipeline."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from raypipe.track.events import Registered, Scalars
from raypipe.track.tracking import MLFLOW_URI, About

MAX_BATCH = 100
"""Parameters that MLflow takes in one call."""

MAX_VALUE_CHARS = 500


class MLflow:
    """Fields of the file are its parameters; figures are its metrics, by training step."""

    def __init__(self, about: About) -> None:
        self._client = MlflowClient(tracking_uri=os.environ[MLFLOW_URI])
        tags = {"raypipe.run": about.run_id, "raypipe.store": about.store.uri}
        run = self._client.create_run(self._experiment(about.pipeline), run_name=about.run_id, tags=tags)
        self._run = run.info.run_id
        params = [Param(name, str(value)[:MAX_VALUE_CHARS]) for name, value in about.asked.items()]
        for batch in _batches(params):
            self._client.log_batch(self._run, params=batch)
        self._step = 0

    def take(self, message: Scalars | Registered) -> None:
        if isinstance(message, Registered):
            self._client.set_tag(self._run, "raypipe.model", f"{message.model}@{message.version}")
            return
        self._step = self._step if message.step is None else message.step
        group = message.stage if message.trial is None else f"{message.stage}/{message.trial}"
        when = int(message.time * 1000)
        metrics = [Metric(f"{group}/{name}", value, when, self._step) for name, value in message.values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        try:
            return self._client.create_experiment(name)
        except MlflowException:  # another run was first
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return found.experiment_id


def _batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), MAX_BATCH):
        yield items[start : start + MAX_BATCH]
