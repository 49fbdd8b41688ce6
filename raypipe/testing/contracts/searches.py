"""What every search must hold."""

from __future__ import annotations

from typing import Any

from raypipe.records import Trial
from raypipe.spec.pipeline import PipelineSpec
from raypipe.testing.fakes import MemoryStore
from raypipe.testing.trials import DriverKilled, Trials
from raypipe.tune.points import Point, same_point

NUM_TRIALS = 12

SPACES: dict[str, dict[str, Any]] = {
    "grid": {
        "train.optimizer.lr": {"choice": [0.01, 0.1, 0.5]},
        "train.optimizer.momentum": {"uniform": [0.0, 0.9], "step": 0.3},
        "train.epochs": {"int_uniform": [1, 2]},
    },
    "pbt": {
        "train.optimizer.lr": {"log_uniform": [0.001, 1.0]},
        "train.optimizer.momentum": {"uniform": [0.1, 0.9]},
    },
}
"""Of searches that do not take this one."""

SPACE: dict[str, Any] = {
    "train.optimizer.lr": {"log_uniform": [0.001, 1.0]},
    "train.optimizer.momentum": {"uniform": [0.1, 0.9]},
    "train.global_batch_size": {"int_uniform": [8, 64], "step": 8},
    "train.clip_grad_norm": {"choice": [None, 1.0]},
}


class SearchContract:
    """A search stays in bounds, repeats under the same seed, tries no point twice, and goes on. Needs no Ray.

    Args:
        name: key in raypipe.tune.search.SEARCHES.
    """

    def __init__(self, name: str) -> None:
        self.spec = PipelineSpec.model_validate(
            {
                "name": "contract",
                "data": {"source": {"format": "sklearn", "dataset": "iris"}, "target": "y"},
                "model": {"kind": "mlp"},
                "train": {"epochs": 3, "global_batch_size": 16, "optimizer": {"kind": "sgd"}},
                "tune": {
                    "space": SPACES.get(name, SPACE),
                    "num_trials": 4 if name == "pbt" else NUM_TRIALS,
                    "search": {"kind": name},
                },
            }
        )

    def check_search(self) -> None:
        """Two searches with one seed: the same trials, in bounds; with another seed, unless all is listed, others."""
        first, again = self._trials().search(), self._trials().search()
        assert first == again
        tune = self.spec.tune
        assert tune is not None
        for trial in first:
            assert trial.status == "completed" and trial.metric is not None
            for path, value in trial.values.items():
                allowed = tune.space[path]
                assert value in allowed.listed if allowed.listed else allowed.bounds[0] <= value <= allowed.bounds[1]
        if tune.search.kind == "pbt":
            assert len(first) == 12, "four trainings of three epochs, compared after each"
            return
        assert len({same_point(trial.values) for trial in first}) == len(first) == NUM_TRIALS
        other = self._trials(self.spec.model_copy(update={"seed": 1})).search()
        assert ([trial.values for trial in other] == [trial.values for trial in first]) == (tune.search.kind == "grid")

    def check_goes_on(self) -> None:
        """Killed again and again: the same trials as without, none that ended trained twice."""
        whole = self._trials().search()
        trials = self._trials()
        kills = 0
        while True:
            try:
                broken_off = trials.search(killed_after=5)
                break
            except DriverKilled:
                kills += 1
        assert kills >= 3
        assert broken_off == whole
        again = len(trials.trained) - len(set(trials.trained))
        assert again <= kills, "only what ran when the driver died is trained again"

    def check_side_by_side(self) -> None:
        """Three trials at one time: as many trials, none twice."""
        trials = Trials(self.spec, MemoryStore(), metric, at_one_time=3)
        assert len(trials.search()) == len(set(trials.trained)) == len(trials.trained) == 12

    def _trials(self, spec: PipelineSpec | None = None) -> Trials:
        return Trials(spec or self.spec, MemoryStore(), metric)


def metric(point: Point, epoch: int) -> float:
    """Falls from epoch to epoch; least at a learning rate of 0.1 and a momentum of 0.5."""
    lr, momentum = point.values["train.optimizer.lr"], point.values["train.optimizer.momentum"]
    return (lr - 0.1) ** 2 + (momentum - 0.5) ** 2 + 1 / epoch


def best_value(trials: list[Trial]) -> float:
    """The least metric."""
    return min(trial.metric for trial in trials if trial.metric is not None)
