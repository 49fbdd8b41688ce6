"""Ray tasks of the data room: how many at once, waiting for them, their errors, and the memory of their processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import RayError, RayTaskError

from raypipe.errors import ClusterError, find_known

STALL_S = 1800.0
"""Longest wait for the next task to finish."""

END_S = 60.0
"""How long tasks that are no longer needed are waited for."""

MEMORY_STEP = 64 * 2**20


def num_cpus() -> int:
    """Of the whole cluster."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def store_bytes() -> int:
    """Of the object stores of all nodes."""
    return int(ray.cluster_resources()["object_store_memory"])


def declared_memory(num_bytes: int) -> int:
    """What a task that takes about so much memory asks Ray for (`memory=`).

    Ray starts no more tasks on a node than fit into its memory: without this, a node of many cores and little memory
    starts one a core.  Nobody waits while it holds memory, so tasks cannot lock each other out; never more than half of
    what the largest node has, so that every task can be placed, two at once.  In steps, as Ray queues tasks of
    different needs separately.
    """
    largest = max((node["Resources"].get("memory", 0) for node in ray.nodes() if node["Alive"]), default=0)
    return min(-(-num_bytes // MEMORY_STEP) * MEMORY_STEP, int(largest) // 2)


class Window:
    """Tasks that are under way, so few that what they fetch fits into the object stores.

    Ray fetches the arguments of tasks ahead of time; where they fill a store, every task that returns something there
    waits two seconds for room.
    """

    def __init__(self, room_bytes: int, what: str, take: Callable[[Any], None]) -> None:
        """
        Args:
            room_bytes: for what all tasks fetch together.
            what: they do, for messages.
            take: is given the result of each, in order.
        """
        self._room_bytes, self._what, self._take = room_bytes, what, take
        self._waiting: deque[tuple[ray.ObjectRef, int]] = deque()

    def make_room(self, num_bytes: int) -> None:
        """Wait until a task that fetches so much may begin; two always may."""
        while len(self._waiting) >= 2 and num_bytes + sum(size for _, size in self._waiting) > self._room_bytes:
            self._take_first()

    def add(self, ref: ray.ObjectRef, num_bytes: int) -> None:
        """A task that was started; `ref`: its result."""
        self._waiting.append((ref, num_bytes))

    def finish(self) -> None:
        """Wait for all tasks."""
        while self._waiting:
            self._take_first()

    def _take_first(self) -> None:
        (result,) = collect([self._waiting[0][0]], self._what)
        self._waiting.popleft()
        self._take(result)

    def wait_until_ended(self) -> None:
        """Wait until nothing is under way, whatever comes of it, so that nothing more is written.

        Not by ray.cancel: where a task ends in that moment, Ray's core ends the driver, without a word.
        """
        refs = [ref for ref, _ in self._waiting]
        if refs:
            ray.wait(refs, num_returns=len(refs), timeout=END_S, fetch_local=False)


def collect(refs: Sequence[ray.ObjectRef], what: str) -> list[Any]:
    """All results, in order; the first failure ends the wait with the error the task raised."""
    waiting = list(refs)
    try:
        while waiting:
            done, waiting = ray.wait(waiting, timeout=STALL_S)
            if not done:
                raise ClusterError(f"{what}: no task finished in {STALL_S:.0f} s", "look at the cluster: ray status")
            ray.get(done)
        return ray.get(list(refs))
    except RayError as error:
        raise explained(error, what) from None


def explained(error: RayError, what: str) -> Exception:
    """What the task raised; where it was lost with its worker more often than Ray tries again, that."""
    known = find_known(error)
    if known is not None or isinstance(error, RayTaskError):
        return known or error
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ClusterError(f"{what}: {text}", "see which nodes there are and what memory they have: ray status")


def keep_freed() -> None:
    """Have Arrow take its memory from the C library, for the rest of this process.

    Arrow's own pool gives a freed column back to the operating system at once, and taking the pages anew for the next
    one costs more than decoding it: with it, reading 5,000,000 rows of 20 columns took 1.7 s of one core, and 1.0 s
    without (a virtual machine; tests/bench/RESULTS.md).
    """
    pa.set_memory_pool(pa.system_memory_pool())
