"""What every search must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from raypipe.storage import open_store


class SearchContract:
    """A search stays in bounds, repeats under the same seed, gives the best of its trials, and goes on. Needs Ray.

    Args:
        name: key in raypipe.tune.search.SEARCHES.
        folder: an empty one.
    """

    def __init__(self, name: str, folder: Path) -> None:
        from raypipe.spec.pipeline import PipelineSpec
        from raypipe.testing.fakes import tiny_dataset

        self._store = open_store(str(folder))
        random = np.random.default_rng(0)
        x = random.normal(size=(80, 3)).astype(np.float32)
        self._dataset = tiny_dataset(self._store, {"x": x}, (x @ [1.0, -2.0, 0.5] > 0).astype(np.int64), num_val=20)
        self._spec = PipelineSpec.model_validate(
            {
                "name": "contract",
                "data": {"source": {"format": "sklearn", "dataset": "iris"}, "target": "y"},
                "model": {"kind": "mlp"},
                "train": {"epochs": 2, "global_batch_size": 20, "optimizer": {"kind": "sgd"}},
                "tune": {
                    "space": {
                        "train.optimizer.lr": {"log_uniform": [0.001, 1.0]},
                        "train.optimizer.momentum": {"uniform": [0.1, 0.9]},
                        "train.epochs": {"int_uniform": [1, 2]},
                        "model.hidden": {"choice": [[4], [8, 4]]},
                    },
                    "num_trials": 3,
                    "search": {"kind": name},
                    "max_concurrent_trials": 1,  # so that a search that learns sees the same trials in the same order
                },
            }
        )

    def check_search(self) -> None:
        """Two searches with one seed: the same points, in bounds; the best of them becomes the model."""
        first, again = self._search("first"), self._search("again")
        for trial in first.trials:
            assert trial.status == "completed" and trial.metric is not None
            lr, momentum, epochs, hidden = trial.values.values()
            assert 0.001 <= lr <= 1 and 0.1 <= momentum <= 0.9
            assert epochs in (1, 2) and hidden in ([4], [8, 4])
            assert trial.epochs == epochs
        assert len({trial.values["train.optimizer.lr"] for trial in first.trials}) == len(first.trials) == 3
        best = min(first.trials, key=lambda trial: trial.metric or 0.0)
        assert (first.best_trial, first.best_values) == (best.trial_id, best.values)
        assert first.best.metrics["val_loss"] == best.metric
        points = [sorted((trial.values for trial in result.trials), key=str) for result in (first, again)]
        assert points[0] == points[1]
        assert first.best.artifact.digest == again.best.artifact.digest

    def check_goes_on(self) -> None:
        """A search that was broken off keeps the trials that finished: they count, and are not trained again."""
        from raypipe.storage import layout
        from raypipe.tune.finished import finished_trials

        first = self._search("broken-off")
        lost = first.best_trial
        kept = {trial.trial_id: trial for trial in first.trials if trial.trial_id != lost}
        self._store.delete(layout.trial_record("broken-off", lost))
        written = {trial_id: self._artifact(trial_id) for trial_id in kept}

        again = self._search("broken-off")

        assert len(again.trials) == len(first.trials) == 3
        assert {trial.trial_id: trial for trial in again.trials if trial.trial_id in kept} == kept
        assert {trial_id: self._artifact(trial_id) for trial_id in kept} == written
        assert len(finished_trials(self._store, "broken-off")) == 3

    def _artifact(self, trial_id: str) -> list[Any]:
        from raypipe.storage import layout

        return list(self._store.list(layout.trial_artifact("broken-off", trial_id)))

    def _search(self, run_id: str) -> Any:
        from raypipe.testing.fakes import run_context
        from raypipe.tune.stage import tune

        return tune(self._spec, self._dataset, run_context(self._store, run_id=run_id))
