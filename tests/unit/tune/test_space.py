from __future__ import annotations

import json
from typing import Any

import numpy as np
import optuna
import pytest

from raypipe.spec.pipeline import PipelineSpec
from raypipe.spec.ranges import Choice, IntRange, LogUniformRange, UniformRange
from raypipe.tune import space
from raypipe.tune.stage import max_concurrent, resolved_mode, trial_bundle

SPACE: space.Space = {
    "a": UniformRange(uniform=(-1, 1)),
    "b": LogUniformRange(log_uniform=(1e-4, 1)),
    "c": IntRange(int_uniform=(2, 4)),
    "d": Choice(choice=[[64], [128, 64], None]),
    "e": IntRange(int_uniform=(32, 200), step=64),
    "f": UniformRange(uniform=(0.1, 0.4), step=0.1),
    "g": IntRange(int_uniform=(1, 1000), log=True),
}


def _spec(tune: dict[str, Any], **train: Any) -> PipelineSpec:
    return PipelineSpec.model_validate(
        {
            "name": "search",
            "data": {"source": {"format": "sklearn", "dataset": "iris"}, "target": "target"},
            "model": {"kind": "linear"},
            "train": {"optimizer": {"kind": "sgd"}, "global_batch_size": 8, **train},
            "tune": {"space": {"train.optimizer.lr": {"uniform": [0.1, 0.2]}}, **tune},
        }
    )


def test_space_many_draws_stay_in_bounds_and_reach_every_whole_number_and_option() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [space.draw(SPACE, study.ask()) for _ in range(300)]

    points = [space.values(SPACE, draw) for draw in drawn]

    assert all(-1 <= point["a"] <= 1 and 1e-4 <= point["b"] <= 1 for point in points)
    assert {point["c"] for point in points} == {2, 3, 4}
    assert {str(point["d"]) for point in points} == {"[64]", "[128, 64]", "None"}
    assert {point["e"] for point in points} == {32, 96, 160}, "256 is no whole step above 32"
    assert {point["f"] for point in points} == {0.1, 0.2, 0.3, 0.4}
    assert np.median([point["g"] for point in points]) < 40, "evenly in the logarithm"
    assert {type(point["c"]) for point in points} == {type(point["g"]) for point in points} == {int}
    assert json.loads(json.dumps(drawn)) == drawn, "what is drawn is kept as JSON"


def test_grid_lists_every_point_once_the_last_field_changing_fastest_and_conditions_kept() -> None:
    searched: space.Space = {
        "kind": Choice(choice=["a", "b"]),
        "depth": IntRange(int_uniform=(1, 3), step=2),
        "rate": UniformRange(uniform=(0.0, 0.5), step=0.5, when={"kind": "b"}),
    }

    points = [space.values(searched, drawn) for drawn in space.grid(searched)]

    assert points == [
        {"kind": "a", "depth": 1},
        {"kind": "a", "depth": 3},
        {"kind": "b", "depth": 1, "rate": 0.0},
        {"kind": "b", "depth": 1, "rate": 0.5},
        {"kind": "b", "depth": 3, "rate": 0.0},
        {"kind": "b", "depth": 3, "rate": 0.5},
    ]


@pytest.mark.parametrize(
    ("metric", "mode", "expected"),
    [
        ("val_loss", "auto", "min"),
        ("val_accuracy", "auto", "max"),
        ("val_f1_macro", "auto", "max"),
        ("val_loss", "max", "max"),
    ],
)
def test_resolved_mode_follows_the_metric_unless_told(metric: str, mode: str, expected: str) -> None:
    tune = _spec({"metric": metric, "mode": mode}).tune

    assert tune is not None and resolved_mode(tune) == expected


@pytest.mark.parametrize(
    ("tune", "train", "there", "expected"),
    [
        ({"num_trials": 10}, {}, {"CPU": 8.0}, 7),
        ({"num_trials": 3}, {}, {"CPU": 8.0}, 3),
        ({"num_trials": 10, "max_concurrent_trials": 2}, {}, {"CPU": 8.0}, 2),
        ({"num_trials": 10}, {"num_workers": 2}, {"CPU": 8.0}, 3),
        ({"num_trials": 10}, {"resources": {"num_gpus": 1}}, {"CPU": 64.0, "GPU": 4.0}, 4),
        ({"num_trials": 10}, {"resources": {"memory_bytes": 400}}, {"CPU": 64.0, "memory": 1000.0}, 2),
        ({"num_trials": 10}, {}, {"CPU": 1.0}, 1),
        ({"num_trials": 10}, {}, {}, 1),
        (
            {
                "num_trials": 9,
                "space": {"train.num_workers": {"choice": [1, 4]}, "train.epochs": {"int_uniform": [1, 5]}},
            },
            {},
            {"CPU": 9.0},
            2,
        ),
    ],
)
def test_max_concurrent_is_what_was_asked_and_what_fits(
    tune: dict[str, Any], train: dict[str, Any], there: dict[str, float], expected: int
) -> None:
    assert max_concurrent(_spec(tune, **train), there) == expected


def test_max_concurrent_on_a_cluster_that_grows_from_zero_is_what_was_asked() -> None:
    assert max_concurrent(_spec({"num_trials": 10, "max_concurrent_trials": 6}), {}, grows=True) == 6


def test_max_concurrent_of_trials_with_workers_of_their_own_is_what_fits_even_where_the_cluster_grows() -> None:
    spec = _spec({"num_trials": 10}, num_workers=2)

    assert max_concurrent(spec, {"CPU": 8.0}, grows=True) == 3


def test_trial_bundle_is_what_one_worker_of_train_occupies() -> None:
    resources = {"num_cpus": 2, "num_gpus": 1, "memory_bytes": 2**30}

    assert trial_bundle(_spec({}, resources=resources)) == {"CPU": 2.0, "GPU": 1.0, "memory": float(2**30)}


def test_largest_train_takes_the_upper_end_of_what_is_searched() -> None:
    searched = {
        "train.num_workers": {"choice": [1, 4, 2]},
        "train.epochs": {"int_uniform": [1, 5]},
        "train.resources.num_cpus": {"uniform": [0.5, 2.0]},
    }

    largest = _spec({"space": searched}).largest_train

    assert (largest.num_workers, largest.epochs, largest.resources.num_cpus) == (4, 5, 2.0)
    assert largest.optimizer == _spec({}).train.optimizer
