from __future__ import annotations

import io
from typing import Any

from raypipe.runtime.progress import Progress
from raypipe.spec.tune import TuneSpec
from raypipe.tune.points import End, Point
from raypipe.tune.telling import Teller, shown


def _tune(**fields: Any) -> TuneSpec:
    return TuneSpec.model_validate({"space": {"seed": {"choice": [1, 2]}}, "num_trials": 2, **fields})


def test_teller_says_each_epoch_the_best_so_far_and_what_is_left() -> None:
    stream = io.StringIO()
    teller = Teller(Progress("r1", stream), _tune(metric="val_accuracy"), epochs=3, mode="max")
    first, second = Point("a", "trial 1/2", {"seed": 1}), Point("b", "trial 2/2", {"seed": 2}, until_epoch=2)

    teller.kept([], 2)
    teller.begins(first)
    teller.begins(second)
    teller.epoch(first, 1, 0.9)
    teller.epoch(second, 1, 0.5)
    teller.ends(first, End("completed", 0.9), left=1)
    teller.ends(second, End("failed", reason="no such token"), left=0)
    teller.over({"failed": 1, "completed": 1})

    lines = [line.split("tune", 1)[1].strip() for line in stream.getvalue().splitlines()]
    assert lines == [
        "trial 1/2  begins: seed=1",
        "trial 2/2  begins: seed=2",
        "trial 1/2  epoch 1/3  val_accuracy 0.9  best 0.9",
        "trial 2/2  epoch 1/2  val_accuracy 0.5  best 0.9",
        "trial 1/2  completed  val_accuracy 0.9; 1 left",
        "trial 2/2  failed: no such token; 0 left",
        "2 trials: 1 completed, 1 failed",
    ]


def test_teller_of_a_search_that_goes_on_knows_the_best_so_far() -> None:
    stream = io.StringIO()
    teller = Teller(Progress("r1", stream), _tune(), epochs=3, mode="min")

    teller.kept([End("completed", 0.5, {1: 0.75, 2: 0.5}), End("stopped", 2.0, {1: 2.0})], 4)
    teller.epoch(Point("c", "trial 3/4", {"seed": 1}), 1, 0.9)

    lines = [line.split("tune", 1)[1].strip() for line in stream.getvalue().splitlines()]
    assert lines == [
        "2 of 4 trials ended before and are kept: 1 completed, 1 stopped early",
        "trial 3/4  epoch 1/3  val_loss 0.9  best 0.5",
    ]


def test_shown_point_is_short() -> None:
    assert shown({"train.optimizer.lr": 0.00123456, "model.hidden": [8, 4]}) == (
        "train.optimizer.lr=0.001235, model.hidden=[8, 4]"
    )
    assert len(shown({"model": {"layers": list(range(1000))}})) == 200
