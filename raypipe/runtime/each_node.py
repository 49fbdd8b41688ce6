"""One question to every node of a cluster, answered on each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from raypipe.errors import ClusterError
from raypipe.runtime.connect import first_line

ANSWER_TIMEOUT_S = 60.0
"""Longest wait for a node: it starts a process, and may unpack this raypipe first."""

HEAD = "node:__internal_head__"
"""What the head has among its resources, and no other node."""

Node = dict[str, Any]
"""As `ray.nodes()` describes it."""

Answer = TypeVar("Answer")


def alive_nodes() -> list[Node]:
    """Nodes of the cluster this process is on; one that comes later is not among them."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def ask_each(nodes: list[Node], question: Callable[..., Answer], *args: Any) -> list[Answer]:
    """What a function returns on each of these nodes.

    Args:
        question: of a module that every node can import, or a local one, which is sent whole.
    Raises:
        ClusterError: a node did not answer, or the function raised.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    task = ray.remote(question)
    asked = [task.options(num_cpus=0, scheduling_strategy=each).remote(*args) for each in there]
    try:
        return ray.get(asked, timeout=ANSWER_TIMEOUT_S)
    except RayError as error:
        raise ClusterError(
            f"not every node of the cluster answered within {ANSWER_TIMEOUT_S:g} s: {first_line(error)}",
            "see which nodes are there: ray status; then run it again",
        ) from None


def addresses_of(nodes: list[Node]) -> str:
    """Where they are, for a message: the first five."""
    found = [str(node["NodeManagerAddress"]) for node in nodes]
    return ", ".join([*found[:5], *["..."] * (len(found) > 5)])
