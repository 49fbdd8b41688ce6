"""What can fit, and what never will."""

from __future__ import annotations

import pytest

from raypipe.errors import ResourceError
from raypipe.pipeline.demand import demand_of
from raypipe.runtime.resources import NODE_GROUP, Bundle, Demand, can_grow, check_fits, ray_bundle, ray_options
from raypipe.spec.load import parse_pipeline
from raypipe.spec.resources import ResourceSpec

PIPELINE = """\
name: flowers
data: {source: {format: sklearn, dataset: iris}, target: target}
model: {kind: linear}
train: {num_workers: 4, resources: {num_cpus: 0.5}}
evaluate: {num_workers: 3, resources: {num_cpus: 0.5}}
serve: {min_replicas: 1, max_replicas: 10, resources: {num_cpus: 0.5}}
"""


def test_demand_is_the_largest_stage_and_one_cpu_for_data():
    demand = demand_of(parse_pipeline(PIPELINE), ["data", "train", "evaluate", "register", "serve"])
    assert demand.num_cpus == 4 * 0.5 + 1
    assert demand.wanted_cpus == 10 * 0.5


def test_demand_of_stages_without_workers_is_data_alone():
    assert demand_of(parse_pipeline(PIPELINE), ["data", "register"]).num_cpus == 1


def test_demand_of_a_search_is_one_trial_and_wants_those_side_by_side():
    text = PIPELINE + "tune: {space: {seed: {choice: [1, 2, 3]}}, num_trials: 3, max_concurrent_trials: 8}\n"
    demand = demand_of(parse_pipeline(text), ["tune"])
    assert (demand.num_cpus, demand.wanted_cpus) == (3.0, 6.0)


def _one(what: str, count: int, **resources: float) -> Demand:
    return Demand(groups=((Bundle(what, count, ResourceSpec.model_validate(resources)),),))


def test_check_fits_what_is_there_passes():
    check_fits(Demand(groups=((Bundle("train", 4, ResourceSpec(num_cpus=1)),),)), [{"CPU": 2.0}, {"CPU": 2.0}])


def test_check_fits_too_many_workers_names_the_sum():
    with pytest.raises(ResourceError, match=r"5 CPUs at once \(5 x 1 for train\), but the cluster has 4 in all"):
        check_fits(Demand(groups=((Bundle("train", 5, ResourceSpec(num_cpus=1)),),)), [{"CPU": 2.0}, {"CPU": 2.0}])


def test_check_fits_worker_larger_than_any_node_names_the_largest():
    with pytest.raises(ResourceError, match="needs CPU 3, but no node has that; the largest have CPU 2"):
        check_fits(Demand(groups=((Bundle("train", 1, ResourceSpec(num_cpus=3)),),)), [{"CPU": 2.0}, {"CPU": 2.0}])


def test_check_fits_workers_whose_sum_fits_but_no_two_share_a_node_names_the_nodes():
    with pytest.raises(ResourceError, match=r"2 x CPU 3 .* only 1 fit at once; the cluster has 1 x CPU 4; 2 x CPU 2"):
        check_fits(_one("train", 2, num_cpus=3), [{"CPU": 4.0}, {"CPU": 2.0}, {"CPU": 2.0}])


def test_check_fits_workers_that_share_the_memory_of_too_few_nodes_are_refused():
    with pytest.raises(ResourceError, match="only 2 fit at once"):
        check_fits(_one("train", 3, memory_bytes=600), [{"CPU": 8.0, "memory": 1000.0}] * 2)


def test_check_fits_small_and_large_processes_of_one_stage_are_packed_largest_first():
    group = (Bundle("reading rows", 1, ResourceSpec(num_cpus=1)), Bundle("predict", 1, ResourceSpec(num_cpus=4)))
    check_fits(Demand(groups=(group,)), [{"CPU": 4.0}, {"CPU": 1.0}])


@pytest.mark.parametrize("kind", ["GPU", "memory"])
def test_check_fits_small_process_that_needs_what_one_node_has_is_placed_before_others_fill_it(kind: str):
    scarce = {"GPU": {"num_gpus": 1}, "memory": {"memory_bytes": 1}}[kind]
    needy = ResourceSpec.model_validate({"num_cpus": 0.5, **scarce})
    group = (Bundle("reading rows", 1, ResourceSpec(num_cpus=1)), Bundle("predict", 1, needy))
    check_fits(Demand(groups=(group,)), [{"CPU": 1.0, kind: 1.0}, {"CPU": 1.0}])


def test_check_fits_what_the_large_processes_leave_on_each_node_is_too_little_for_the_small_one():
    group = (Bundle("predict", 2, ResourceSpec(num_cpus=1.5)), Bundle("reading rows", 1, ResourceSpec(num_cpus=1)))
    with pytest.raises(ResourceError, match="for reading rows, each on one node, but only 0 fit"):
        check_fits(Demand(groups=(group,)), [{"CPU": 2.0}, {"CPU": 2.0}])


def test_can_grow_is_told_by_the_label_of_a_node_group():
    assert can_grow([{"Labels": {}}, {"Labels": {NODE_GROUP: "cpu"}}])
    assert not can_grow([{"Labels": {}}, {}])


def test_check_fits_gpu_without_gpus_is_refused():
    with pytest.raises(ResourceError, match="GPU 1"):
        check_fits(Demand(groups=((Bundle("train", 1, ResourceSpec(num_gpus=1)),),)), [{"CPU": 8.0}])


def test_ray_names_of_resources():
    resources = ResourceSpec(num_cpus=0.5, num_gpus=1, memory_bytes=2**30)
    assert ray_bundle(resources) == {"CPU": 0.5, "GPU": 1.0, "memory": float(2**30)}
    assert ray_options(resources) == {"num_cpus": 0.5, "num_gpus": 1.0, "memory": 2**30}
