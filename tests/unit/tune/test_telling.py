from __future__ import annotations

import io
import pickle
from types import SimpleNamespace
from typing import Any

from raypipe.records import Trial
from raypipe.runtime.progress import Progress
from raypipe.spec.tune import TuneSpec
from raypipe.tune.telling import Teller, tell_failures
from raypipe.tune.trial import KEPT


def _tune(**fields: Any) -> TuneSpec:
    return TuneSpec.model_validate({"space": {"seed": {"choice": [1, 2]}}, "num_trials": 2, **fields})


def test_teller_says_each_epoch_the_best_so_far_and_what_is_left() -> None:
    stream = io.StringIO()
    teller = Teller(Progress("r1", stream), _tune(metric="val_accuracy"), epochs=3, mode="max")
    first = SimpleNamespace(trial_id="a", last_result={})
    second = SimpleNamespace(trial_id="b", last_result={})

    teller.on_trial_result(1, [], first, {"val_accuracy": 0.9, "epoch": 1})
    teller.on_trial_result(2, [], second, {"val_accuracy": 0.5, "epoch": 1})
    teller.on_trial_complete(3, [], first)
    teller.on_trial_error(4, [], second)

    lines = [line.split("tune", 1)[1].strip() for line in stream.getvalue().splitlines()]
    assert lines == [
        "trial 1/2  epoch 1/3  val_accuracy 0.9  best 0.9",
        "trial 2/2  epoch 1/3  val_accuracy 0.5  best 0.9",
        "trial 1/2  ended; 1 left",
        "trial 2/2  failed; 0 left",
    ]


def test_failures_of_trials_are_told_once_a_reason() -> None:
    stream = io.StringIO()
    failed = {"values": {}, "status": "failed", "metric": None, "epochs": 0}
    trials = [Trial(trial_id=str(n), error="the loss is nan" if n else "no such token", **failed) for n in range(3)]

    tell_failures(trials, Progress("r1", stream))

    assert [line.split("tune", 1)[1].strip() for line in stream.getvalue().splitlines()] == [
        "2 trial(s) failed: the loss is nan",
        "1 trial(s) failed: no such token",
    ]


def test_teller_of_a_trial_that_finished_before_says_only_that_it_is_kept() -> None:
    stream = io.StringIO()
    teller = Teller(Progress("r1", stream), _tune(metric="val_accuracy"), epochs=3, mode="max")
    report = {"val_accuracy": 0.9, "epoch": 1, KEPT: "old"}

    teller.on_trial_result(1, [], SimpleNamespace(trial_id="a"), report)
    teller.on_trial_complete(2, [], SimpleNamespace(trial_id="a", last_result=report))

    assert [line.split("tune", 1)[1].strip() for line in stream.getvalue().splitlines()] == [
        "trial 1/2  finished before, kept; 1 left"
    ]


def test_teller_is_copied_by_tune_without_its_progress() -> None:
    teller = Teller(Progress("r1", io.StringIO()), _tune(), epochs=3, mode="min")

    assert isinstance(pickle.loads(pickle.dumps(teller)), Teller)
