"""What a pipeline needs at once, stage by stage: the sum a cluster must be able to place."""

from __future__ import annotations

from collections.abc import Collection

from raypipe.runtime.resources import Bundle, Demand
from raypipe.spec.pipeline import PipelineSpec
from raypipe.spec.serve import ServeSpec


def demand_of(spec: PipelineSpec, steps: Collection[str]) -> Demand:
    """The demand of some stages, which run one after another.

    Ray Train's controller, Serve's controller and proxy, and this process take no logical CPUs.
    """
    groups: list[tuple[Bundle, ...]] = []
    wanted, ray_train = 0.0, False
    for step in steps:
        if step == "train":
            ray_train = ray_train or spec.train.trainer == "ray_train"
            groups.append((Bundle("train", spec.train.min_workers, spec.train.resources),))
        elif step == "tune" and spec.tune is not None:
            # One trial must fit; more than one run side by side where there is room.
            largest = spec.largest_train
            ray_train = ray_train or largest.max_workers > 1
            groups.append((Bundle("train", largest.max_workers, largest.resources),))
            trials = min(spec.tune.max_concurrent_trials or 1, spec.tune.num_trials)
            wanted = max(wanted, trials * largest.max_workers * largest.resources.num_cpus)
        elif step == "evaluate":
            groups.append((Bundle("evaluate", spec.evaluate.num_workers, spec.evaluate.resources),))
        elif step == "serve" and spec.serve is not None:
            serving = serve_demand(spec.serve)
            groups.extend(serving.groups)
            wanted = max(wanted, serving.wanted_cpus)
            wanted = max(wanted, cpus_with_waiting_replicas(spec, spec.serve, steps))
    return Demand(groups=tuple(groups), wanted_cpus=wanted, ray_train=ray_train)


def cpus_with_waiting_replicas(spec: PipelineSpec, serve: ServeSpec, steps: Collection[str]) -> float:
    """CPUs with which replicas that wait for their model take nothing from the stages before them."""
    others = demand_of(spec, [step for step in steps if step != "serve"])
    return max(others.num_cpus, others.wanted_cpus) + serve.min_replicas * serve.resources.num_cpus


def serve_demand(spec: ServeSpec) -> Demand:
    """The smallest number of replicas must fit; the largest is wanted, for autoscaling to have room."""
    smallest = Bundle("serve", spec.min_replicas, spec.resources)
    return Demand(groups=((smallest,),), wanted_cpus=spec.max_replicas * spec.resources.num_cpus)
