"""What happens in a search, without Ray: a trial's epochs are a function of its point, the store is in memory."""

from __future__ import annotations

import io
import statistics
from typing import Any

import numpy as np
import pytest

from raypipe.errors import ModelError, NonFiniteLossError, SpecError, TrainingError
from raypipe.runtime.progress import Progress
from raypipe.spec.pipeline import PipelineSpec
from raypipe.storage import layout
from raypipe.testing.fakes import FakeClock, MemoryStore
from raypipe.testing.trials import Trials
from raypipe.tune.points import Point
from raypipe.tune.stage import best_of
from tests.unit.tune.searches import LR, MOMENTUM, far_from_a_tenth, search_spec, status_counts, told_lines

# ---- spaces


def test_space_whose_every_point_is_refused_ends_before_the_first_trial() -> None:
    # Alone each is allowed beside what the file says; together none of the points is.
    space = {MOMENTUM: {"choice": [0.0]}, "train.optimizer.nesterov": {"choice": [True]}}
    spec = search_spec(space, optimizer={"kind": "sgd", "momentum": 0.9})
    trials = Trials(spec, MemoryStore(), far_from_a_tenth)

    with pytest.raises(SpecError, match=r"tune.space: none of 100 points can be trained; .*nesterov needs momentum"):
        trials.search()
    assert trials.trained == []


def test_point_that_the_rules_refuse_costs_no_trial() -> None:
    space = {MOMENTUM: {"choice": [0.0, 0.5, 0.9]}, "train.optimizer.nesterov": {"choice": [True, False]}}
    spec = search_spec(space, optimizer={"kind": "sgd", "momentum": 0.9}, search={"kind": "grid"}, num_trials=10)
    stream = io.StringIO()

    trials = Trials(spec, MemoryStore(), lambda point, epoch: 1 / epoch, progress=Progress("r1", stream)).search()

    assert len(trials) == 5 and {trial.status for trial in trials} == {"completed"}
    assert {MOMENTUM: 0.0, "train.optimizer.nesterov": True} not in [trial.values for trial in trials]
    assert "the search ends: the grid has no other point" in told_lines(stream)


@pytest.mark.parametrize("search", ["random", "tpe"])
def test_search_of_a_small_space_tries_each_point_once_and_says_that_there_is_no_other(search: str) -> None:
    spec = search_spec({LR: {"choice": [0.1, 1.0, 10.0]}}, num_trials=20, search={"kind": search})
    stream = io.StringIO()

    trials = Trials(spec, MemoryStore(), far_from_a_tenth, progress=Progress("r1", stream)).search()

    assert sorted(trial.values[LR] for trial in trials) == [0.1, 1.0, 10.0]
    assert any(
        "the last 100 points drawn were refused, or had been tried before" in line for line in told_lines(stream)
    )


@pytest.mark.parametrize("search", ["random", "grid", "tpe"])
def test_field_exists_only_where_another_has_the_option_it_names(search: str) -> None:
    space = {
        "train.optimizer.eps": {"choice": [1e-8, 1e-6], "when": {"train.optimizer": {"kind": "adam"}}},
        MOMENTUM: {"uniform": [0.0, 0.9], "step": 0.3, "when": {"train.optimizer": {"kind": "sgd"}}},
        "train.optimizer": {"choice": [{"kind": "sgd"}, {"kind": "adam"}]},
    }
    spec = search_spec(space, num_trials=6, search={"kind": search})

    trials = Trials(spec, MemoryStore(), lambda point, epoch: 1 / epoch).search()

    kinds = {trial.trial_id: trial.values["train.optimizer"]["kind"] for trial in trials}
    assert len(trials) == 6 and set(kinds.values()) == {"sgd", "adam"}, "four and two points, each once"
    for trial in trials:
        own = {"sgd": MOMENTUM, "adam": "train.optimizer.eps"}[kinds[trial.trial_id]]
        assert set(trial.values) == {"train.optimizer", own}


# ---- when it ends


def test_search_out_of_minutes_stops_what_runs_and_says_so() -> None:
    clock, stream = FakeClock(), io.StringIO()
    spec = search_spec({LR: {"log_uniform": [1e-4, 10]}}, num_trials=40, max_minutes=5)

    def minute(point: Point, epoch: int) -> float:
        clock.advance(30)
        return far_from_a_tenth(point, epoch)

    store = MemoryStore()
    trials = Trials(spec, store, minute, at_one_time=2, progress=Progress("r1", stream), clock=clock).search()

    # Two trials take three epochs of half a minute each: three minutes; the next two are in their second epoch.
    assert status_counts(trials) == {"completed": 2, "stopped": 2}
    assert "tune.max_minutes=5 is over: 4 of 40 trials began" in told_lines(stream)

    # The time of all attempts counts: none is left, unless the search is given more.
    assert len(Trials(spec, store, minute, clock=clock).search()) == 2
    more = search_spec({LR: {"log_uniform": [1e-4, 10]}}, num_trials=40, max_minutes=8)
    again = Trials(more, store, minute, clock=clock)
    assert again.search()[:3] != trials[:3] and again.trained[:2] == [trials[2].trial_id, trials[3].trial_id]


def test_search_out_of_minutes_before_any_trial_finished_lets_one_finish() -> None:
    clock = FakeClock()
    spec = search_spec({LR: {"log_uniform": [1e-4, 10]}}, num_trials=40, max_minutes=1)

    def slow(point: Point, epoch: int) -> float:
        clock.advance(60)
        return far_from_a_tenth(point, epoch)

    trials = Trials(spec, MemoryStore(), slow, at_one_time=2, clock=clock).search()

    assert status_counts(trials) == {"completed": 1, "stopped": 1}


def test_search_whose_trials_all_fail_ends_early_with_the_first_reason() -> None:
    spec = search_spec({LR: {"log_uniform": [1e-4, 10]}}, num_trials=40, max_failed_trials=3)
    stream = io.StringIO()

    def fails(point: Point, epoch: int) -> float:
        raise NonFiniteLossError(f"nan at {point.trial_id}", "lower the rate")

    trials = Trials(spec, MemoryStore(), fails, progress=Progress("r1", stream)).search()

    assert status_counts(trials) == {"diverged": 3}
    assert told_lines(stream)[-2:] == ["3 trials failed and none finished: the search ends", "3 trials: 3 diverged"]
    with pytest.raises(TrainingError, match="tune: none of 3 trials finished; the first said: nan at t00001"):
        best_of(trials, "min")


def test_failed_and_diverged_trials_are_told_and_counted_and_the_best_of_the_others_wins() -> None:
    spec = search_spec({LR: {"choice": [0.1, 1.0, 5.0, 10.0]}}, search={"kind": "grid"})
    stream = io.StringIO()

    def metric(point: Point, epoch: int) -> float:
        if point.values[LR] == 5.0:
            raise ModelError("too deep", "fewer layers")
        if point.values[LR] == 10.0 and epoch == 2:
            raise NonFiniteLossError("the loss is nan", "lower the rate")
        return far_from_a_tenth(point, epoch)

    trials = Trials(spec, MemoryStore(), metric, progress=Progress("r1", stream)).search()

    assert best_of(trials, "min").values == {LR: 0.1} and best_of(trials, "max").values == {LR: 1.0}
    assert [(trial.status, trial.epochs) for trial in trials[2:]] == [("failed", 0), ("diverged", 1)]
    told = told_lines(stream)
    assert "trial 1/10  begins: train.optimizer.lr=0.1" in told
    assert "trial 3/10  failed: too deep; 7 left" in told
    assert "trial 4/10  diverged: the loss is nan; 6 left" in told
    assert told[-1] == "4 trials: 2 completed, 1 diverged, 1 failed"


@pytest.mark.parametrize(
    "scheduler",
    [{"kind": "asha", "reduction_factor": 2}, {"kind": "median", "num_startup_trials": 3}, {"kind": "hyperband"}],
)
def test_scheduler_stops_weak_trials_and_the_best_is_the_one_without_it(scheduler: dict[str, Any]) -> None:
    space = {LR: {"log_uniform": [1e-4, 10]}}
    spec = search_spec(space, epochs=9, num_trials=20, scheduler=scheduler)
    all_of_them = Trials(search_spec(space, epochs=9, num_trials=20), MemoryStore(), far_from_a_tenth).search()

    trials = Trials(spec, MemoryStore(), far_from_a_tenth, at_one_time=2).search()

    counts = status_counts(trials)
    assert counts["stopped"] >= 5 and counts["completed"] >= 1 and counts.total() == 20
    assert all(1 <= trial.epochs < 9 for trial in trials if trial.status == "stopped")
    assert best_of(trials, "min").values == best_of(all_of_them, "min").values


def test_tpe_finds_a_better_point_than_random_with_as_many_trials() -> None:
    space = {LR: {"log_uniform": [1e-4, 10]}, MOMENTUM: {"uniform": [0.0, 0.99]}}

    def distance(point: Point, epoch: int) -> float:
        return abs(np.log10(point.values[LR] / 0.1)) + (point.values[MOMENTUM] - 0.7) ** 2

    def median_of_the_last(kind: str) -> float:
        spec = search_spec(space, epochs=1, num_trials=30, search={"kind": kind})
        trials = Trials(spec, MemoryStore(), distance).search()
        return statistics.median(trial.metric or 0.0 for trial in trials[15:])

    assert median_of_the_last("tpe") < median_of_the_last("random") * 0.75


# ---- population based training


def _population(**search: Any) -> PipelineSpec:
    space = {LR: {"log_uniform": [1e-4, 10]}, "train.global_batch_size": {"int_uniform": [8, 64], "step": 8}}
    return search_spec(space, epochs=6, num_trials=4, search={"kind": "pbt", "every_epochs": 2, **search})


def test_population_the_worst_continues_from_the_best_with_changed_values() -> None:
    points: dict[str, Point] = {}

    def metric(point: Point, epoch: int) -> float:
        points[point.trial_id] = point
        return far_from_a_tenth(point, epoch)

    trials = Trials(_population(), MemoryStore(), metric, at_one_time=4).search()

    first, second = trials[:4], trials[4:8]
    assert [trial.epochs for trial in trials] == [2] * 4 + [4] * 4 + [6] * 4
    best, worst = best_of(first, "min"), best_of(first, "max")
    for member, trial in enumerate(second, 1):
        own = f"g001-m{member:03d}"
        if own == worst.trial_id:
            assert points[trial.trial_id].continues == best.trial_id and trial.values != best.values
        else:
            assert points[trial.trial_id].continues == own
            assert trial.values == points[own].values
    for trial in trials:
        assert 1e-4 <= trial.values[LR] <= 10 and trial.values["train.global_batch_size"] in range(8, 65, 8)


def test_population_keeps_checkpoints_while_somebody_continues_from_them() -> None:
    store, kept = MemoryStore(), dict[int, set[str]]()

    def metric(point: Point, epoch: int) -> float:
        training = layout.training_of_trial("r1", point.trial_id)
        store.write(f"{layout.checkpoint(training, epoch)}/manifest.json", b"{}")
        with_checkpoints = {info.key.split("/")[4] for info in store.list(layout.trials("r1")) if "/step-" in info.key}
        kept.setdefault(int(point.trial_id[1:4]), set()).update(with_checkpoints - {point.trial_id})
        if point.continues is not None:
            assert point.continues in with_checkpoints
        return far_from_a_tenth(point, epoch)

    Trials(_population(), store, metric).search()

    assert {trial_id[:4] for trial_id in kept[3]} == {"g002", "g003"}, "those of the first generation are gone"
    assert not [info.key for info in store.list(layout.trials("r1")) if "/step-" in info.key]


def test_population_member_that_diverges_continues_from_another_and_all_failing_ends() -> None:
    def metric(point: Point, epoch: int) -> float:
        if point.trial_id in ("g001-m002", "g001-m003"):
            raise NonFiniteLossError("the loss is nan")
        points[point.trial_id] = point
        return far_from_a_tenth(point, epoch)

    points: dict[str, Point] = {}
    trials = Trials(_population(), MemoryStore(), metric).search()

    assert [trial.status for trial in trials].count("diverged") == 2 and len(trials) == 12
    alive = {"g001-m001", "g001-m004"}
    assert points["g002-m002"].continues in alive and points["g002-m003"].continues in alive

    def fails(point: Point, epoch: int) -> float:
        raise NonFiniteLossError("the loss is nan")

    stream = io.StringIO()
    assert len(Trials(_population(), MemoryStore(), fails, progress=Progress("r1", stream)).search()) == 4
    assert "the search ends: every training of the population failed" in told_lines(stream)
