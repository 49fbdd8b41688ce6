"""What a search says about a trial that failed."""

from __future__ import annotations

import pytest
from ray.exceptions import RayTaskError

from raypipe.errors import TrainingError
from raypipe.spec.pipeline import PipelineSpec
from raypipe.tune.stage import side_by_side
from raypipe.tune.telling import reason_of


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (TrainingError("the loss is nan", "lower the learning rate"), "the loss is nan"),
        (ValueError("two lines\nof somebody else"), "of somebody else"),
        (ValueError(), "ValueError"),
    ],
)
def test_reason_of_a_failed_trial_is_what_was_found_without_ray_or_the_hint(raised: Exception, told: str):
    wrapped = RayTaskError("run_trial", "Traceback", raised, proctitle="ray::f", pid=1, ip="127.0.0.1")
    assert reason_of(wrapped.as_instanceof_cause()) == told


@pytest.mark.parametrize(
    ("nodes", "max_concurrent", "expected"),
    [
        ([(8.0, True)], 3, 3),
        ([(8.0, True)], 10, 4),
        ([(2.0, True), (5.0, True), (64.0, False)], 10, 2),
        ([(1.0, True)], 10, 1),
        ([], 10, 1),
    ],
)
def test_side_by_side_is_what_the_roomiest_living_node_takes(
    nodes: list[tuple[float, bool]], max_concurrent: int, expected: int
) -> None:
    spec = PipelineSpec.model_validate(
        {
            "name": "n",
            "data": {"source": {"format": "sklearn", "dataset": "iris"}, "target": "y"},
            "model": {"kind": "linear"},
            "train": {"num_workers": 2, "global_batch_size": 10},
        }
    )
    listed = [{"Alive": alive, "Resources": {"CPU": num_cpus, "memory": 1e9}} for num_cpus, alive in nodes]

    assert side_by_side(spec, listed, max_concurrent) == expected
