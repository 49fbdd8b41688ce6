"""Ray tasks of the data room: waiting for them, their errors, and the memory of their processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import RayError, RayTaskError

from raypipe.errors import ClusterError, find_known

STALL_S = 1800.0
"""Longest wait for the next task to finish."""


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
