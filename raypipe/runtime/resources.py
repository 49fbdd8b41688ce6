"""Spec resources -> Ray options: the only translation, and the check that they can fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from raypipe.errors import ResourceError
from raypipe.spec.resources import ResourceSpec

MAX_OVERSUBSCRIPTION = 4
"""A local Ray gets at most this many logical CPUs a core: enough to run a small pipeline on a laptop."""


NODE_GROUP = "ray.io/node-group"
"""Label of nodes that `ray up` or KubeRay started: only there can an autoscaler add more."""


@dataclass(frozen=True)
class Bundle:
    """`count` processes that must run at the same time."""

    what: str
    count: int
    resources: ResourceSpec


@dataclass(frozen=True)
class Demand:
    """What a command needs: each group runs at once, groups run one after another, Ray Data needs one CPU beside."""

    groups: tuple[tuple[Bundle, ...], ...] = ()
    data_cpus: float = field(default=1.0)
    wanted_cpus: float = 0.0
    """CPUs a Ray started here gets if the machine may lend them: for most replicas, for trials side by side."""
    ray_train: bool = False
    """Ray Train runs too: it asks Ray's dashboard which of its runs died, and frees what they held."""

    @property
    def num_cpus(self) -> float:
        """What must be there at once."""
        peak = max((sum(b.count * b.resources.num_cpus for b in group) for group in self.groups), default=0.0)
        return peak + self.data_cpus


def ray_options(resources: ResourceSpec) -> dict[str, Any]:
    """Options of a Ray task or actor."""
    options: dict[str, Any] = {"num_cpus": resources.num_cpus, "num_gpus": resources.num_gpus}
    if resources.memory_bytes is not None:
        options["memory"] = resources.memory_bytes
    return options


def ray_bundle(resources: ResourceSpec) -> dict[str, float]:
    """One placement-group bundle, as Ray Train writes it."""
    bundle = {"CPU": resources.num_cpus}
    if resources.num_gpus:
        bundle["GPU"] = resources.num_gpus
    if resources.memory_bytes is not None:
        bundle["memory"] = float(resources.memory_bytes)
    return bundle


def can_grow(nodes: Iterable[Mapping[str, Any]]) -> bool:
    """Whether an autoscaler may add nodes to a cluster.

    Args:
        nodes: the cluster's, as `ray.nodes()` describes them.
    """
    return any((node.get("Labels") or {}).get(NODE_GROUP) for node in nodes)


def check_fits(demand: Demand, nodes: Iterable[dict[str, float]]) -> None:
    """Refuse what these nodes can never place together.

    Processes of one kind are counted exactly.  Where a group mixes kinds, one order of placing them is tried, so an odd
    mix on unequal nodes may be refused although another order would fit.

    Args:
        nodes: resources of each node, Ray's names (CPU, GPU, memory).
    Raises:
        ResourceError: with what was asked for and what there is.
    """
    sizes = list(nodes)
    for group in demand.groups:
        for bundle in group:
            _check_bundle(bundle, sizes)
        for kind, attribute in (("CPU", "num_cpus"), ("GPU", "num_gpus")):
            wanted = sum(b.count * getattr(b.resources, attribute) for b in group)
            there = sum(size.get(kind, 0.0) for size in sizes)
            if wanted > there + 1e-6:
                asked = ", ".join(f"{b.count} x {getattr(b.resources, attribute):g} for {b.what}" for b in group)
                raise ResourceError(
                    f"the file asks for {wanted:g} {kind}s at once ({asked}), but the cluster has {there:g} in all",
                    "lower the worker count or the resources of one worker, or add nodes",
                )
        _check_packing(group, sizes)


def _check_bundle(bundle: Bundle, nodes: list[dict[str, float]]) -> None:
    need = ray_bundle(bundle.resources)
    if any(_holds(node, need) for node in nodes):
        return
    largest = {kind: max((node.get(kind, 0.0) for node in nodes), default=0.0) for kind in need}
    raise ResourceError(
        f"one process for {bundle.what} needs {_show(need)}, but no node has that; the largest have {_show(largest)}",
        f"lower {bundle.what}.resources, or add a larger node",
    )


def _check_packing(group: tuple[Bundle, ...], nodes: list[dict[str, float]]) -> None:
    """Each process lies on one node: 2 x 3 CPUs are more than two nodes of 4 and 2 hold.

    The first node that fits is taken, by what needs GPUs first, then memory, then most CPUs.
    """

    def rank(bundle: Bundle) -> tuple[float, ...]:
        needs = bundle.resources
        return needs.num_gpus, needs.memory_bytes or 0, needs.num_cpus

    free = [dict(node) for node in nodes]
    for bundle in sorted(group, key=rank, reverse=True):
        need = ray_bundle(bundle.resources)
        for placed in range(bundle.count):
            node = next((node for node in free if _holds(node, need)), None)
            if node is None:
                there = Counter(_show({kind: node.get(kind, 0.0) for kind in need}) for node in nodes)
                raise ResourceError(
                    f"the file asks for {bundle.count} x {_show(need)} for {bundle.what}, each on one node, but only "
                    f"{placed} fit at once; the cluster has {'; '.join(f'{n} x {size}' for size, n in there.items())}",
                    "make one worker small enough for several to share a node, lower their count, or add nodes",
                )
            node.update({kind: node[kind] - amount for kind, amount in need.items()})


def _holds(node: dict[str, float], need: dict[str, float]) -> bool:
    return all(node.get(kind, 0.0) + 1e-6 >= amount for kind, amount in need.items())


def _show(amounts: dict[str, float]) -> str:
    return ", ".join(f"{kind} {amount:g}" for kind, amount in amounts.items())
