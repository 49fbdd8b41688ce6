"""What a pipeline asks of the machine."""

from __future__ import annotations

from typing import Any

import pytest

from raypipe.pipeline.demand import demand_of
from raypipe.spec.pipeline import PipelineSpec

SEARCH = {"num_trials": 2, "metric": "val_accuracy", "space": {"train.optimizer.lr": {"uniform": [0.1, 0.2]}}}
STEPS = ["data", "train", "evaluate"]


def spec(**fields: Any) -> PipelineSpec:
    base = {
        "name": "digits",
        "data": {"source": {"format": "sklearn", "dataset": "digits"}, "target": "label"},
        "model": {"kind": "mlp"},
    }
    return PipelineSpec.model_validate({**base, **fields})


@pytest.mark.parametrize(
    ("fields", "steps", "wanted"),
    [
        ({}, STEPS, False),
        ({"train": {"num_workers": 2}}, STEPS, False),
        ({"train": {"trainer": "ray_train"}}, STEPS, True),
        ({"train": {"trainer": "ray_train"}}, ["evaluate"], False),
        ({"tune": SEARCH}, ["data", "tune"], False),
        ({"tune": SEARCH, "train": {"num_workers": 2}}, ["data", "tune"], True),
    ],
)
def test_ray_train_is_reckoned_with_where_it_will_run(fields: dict[str, Any], steps: list[str], wanted: bool):
    assert demand_of(spec(**fields), steps).ray_train is wanted


def test_elastic_workers_need_room_for_the_fewest_alone():
    demand = demand_of(spec(train={"num_workers": {"min": 2, "max": 8}}), STEPS)
    assert (demand.num_cpus, demand.wanted_cpus) == (2 + 1, 0)


def test_cpus_for_replicas_that_wait_beside_the_training_are_wanted_and_not_needed():
    serving = spec(train={"num_workers": 2}, serve={"min_replicas": 2, "max_replicas": 2})
    demand = demand_of(serving, [*STEPS, "serve"])
    assert (demand.num_cpus, demand.wanted_cpus) == (2 + 1, 2 + 1 + 2)
    assert demand_of(serving, STEPS).wanted_cpus == 0
    searching = spec(
        tune={**SEARCH, "num_trials": 8, "max_concurrent_trials": 8}, serve={"min_replicas": 1, "max_replicas": 1}
    )
    assert demand_of(searching, ["data", "tune", "serve"]).wanted_cpus == 8 + 1, "no trial waits for a replica's CPU"
