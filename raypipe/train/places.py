"""Where the workers of a training run: what a cluster lends it, and how many that are now.

Ray's placement groups reserve it. Those that are asked for and not there yet tell an autoscaler what is missing, come
by themselves where there is room, and come back where a node was lost. So how many workers there is room for is
counted, not guessed from what nodes have in all, which others may use.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from raypipe.runtime.resources import ray_bundle
from raypipe.spec.train import TrainSpec

TELL_AFTER_S = 5.0
"""Who waits for room longer than that is told for what."""

SETTLE_S = 1.0
"""So long a training that has room enough looks whether there is room for more."""

LOOK_S = 0.1


class Place(NamedTuple):
    """What one worker occupies.

    Attributes:
        group, index: the placement group and which of its bundles.
        node: Ray's id of the node it is on.
    """

    group: Any
    index: int
    node: str


class Places:
    """Those of one training: of a fixed number of workers all at once; of an elastic one the fewest at once, so that no
    two trainings wait for what the other holds, and each further one by itself.

    Args:
        say: told what is waited for.
    """

    def __init__(self, spec: TrainSpec, say: Callable[[str], object] = lambda text: None) -> None:
        self._spec, self._say = spec, say
        self._groups: list[Any] = []

    def take(self) -> list[Place]:
        """The places of as many workers as shall run now, those of one node side by side.

        Raises:
            TimeoutError: there was no room within `train.start_timeout_s`.
        """
        if not self._groups or not self._is_there(self._groups[0]):
            self.give_back()  # what was lost may fit where others of ours are
            self._ask()
            self._wait_for_the_fewest()
        elastic = self._spec.elastic
        if elastic is None:
            return self.there()
        deadline = time.monotonic() + SETTLE_S
        while len(self.there()) < elastic.max and time.monotonic() < deadline:
            time.sleep(LOOK_S)  # Ray tells nobody when a group is placed
        found = self.there()
        return found[: elastic.num_useful(len(found))]

    def there(self) -> list[Place]:
        """All places that a worker can run in now, those of one node side by side."""
        from ray.util.placement_group import placement_group_table

        table, draining = placement_group_table(), draining_nodes()
        found: list[Place] = []
        for group in self._groups:
            described = table.get(group.id.hex(), {})
            if described.get("state") == "CREATED":
                nodes = described["bundles_to_node_id"]
                if draining.intersection(nodes.values()):
                    continue
                found += [Place(group, index, nodes[index]) for index in range(group.bundle_count)]
        return sorted(found, key=lambda place: place.node)

    def give_back(self) -> None:
        """Twice does no harm."""
        from ray.util.placement_group import remove_placement_group

        for group in self._groups:
            with suppress(Exception):  # a Ray that is gone took them along
                remove_placement_group(group)
        self._groups = []

    def _ask(self) -> None:
        from ray.util.placement_group import placement_group

        bundle = ray_bundle(self._spec.resources)
        fewest, most = self._spec.min_workers, self._spec.max_workers
        self._groups = [placement_group([bundle] * fewest)]
        self._groups += [placement_group([bundle]) for _ in range(most - fewest)]

    def hold(self, places: Iterable[Place]) -> bool:
        """Whether all these places are still there."""
        now = {(place.group.id, place.index, place.node) for place in self.there()}
        return all((place.group.id, place.index, place.node) in now for place in places)

    def _is_there(self, group: Any) -> bool:
        return any(place.group is group for place in self.there())

    def _wait_for_the_fewest(self) -> None:
        limit_s = self._spec.start_timeout_s
        first_s = min(TELL_AFTER_S, limit_s)
        if self._groups[0].wait(first_s):
            return
        if first_s < limit_s:
            self._say(self._waited_for())
            if self._groups[0].wait(limit_s - first_s):
                return
        raise TimeoutError("what they need is not free")

    def _waited_for(self) -> str:
        import ray

        bundle, free = ray_bundle(self._spec.resources), ray.available_resources()
        name = "train.num_workers" + ("" if self._spec.elastic is None else ".min")
        each = ", ".join(f"{kind} {amount:g}" for kind, amount in bundle.items())
        there = ", ".join(f"{kind} {free.get(kind, 0.0):g}" for kind in bundle)
        return (
            f"waiting for room for {self._spec.min_workers} worker(s) ({name}) of {each} each; free now: {there}. "
            f"Goes on when others end or nodes join, within {self._spec.start_timeout_s:g} s (train.start_timeout_s)"
        )


def draining_nodes() -> frozenset[str]:
    """Ids of nodes that are taken away soon, of which Ray has been told; Ray Train asks in the same way."""
    import ray._private.state

    return frozenset(ray._private.state.state.get_draining_nodes() or {})
