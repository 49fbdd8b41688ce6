"""Which errors of workers end a training at once, which of several is told, and in what words."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raypipe.errors import (
    ClusterError,
    MoreWorkersError,
    PreemptedError,
    RaypipeError,
    TrainingError,
    causes,
    find_known,
)
from raypipe.runtime.resources import ray_bundle
from raypipe.train.order import TrainOrder

FROM_PEERS = re.compile(
    r"\b(processgroup)?gloo\b|\b(processgroup)?nccl|connection (closed|reset) by peer", re.IGNORECASE
)
"""In what a collective operation raises where another worker is gone."""

OF_MEMORY = ("OutOfMemoryError", "MemoryError")
"""Types of what is raised for want of memory: Python's, torch's, and Ray's where its memory monitor ended a worker."""

MEMORY_WORDS = ("low on memory", "memory pressure", "not enough memory", "can't allocate memory")
"""In errors for want of memory that have another type. Not "OOM": Ray names that as a possible cause of any death."""


def is_from_peers(error: BaseException) -> bool:
    """Whether an error, or what it wraps, only says that another worker is gone: why, only that one can tell."""
    kinds: tuple[type[BaseException], ...] = (ConnectionError,)
    if (distributed := sys.modules.get("torch.distributed")) is not None:  # else none of its errors can be here
        kinds += (distributed.DistError,)
    return any(
        isinstance(each, kinds) or (not isinstance(each, RaypipeError) and FROM_PEERS.search(str(each)))
        for each in causes(error)
    )


def lasting(worker_exceptions: Mapping[int, Exception]) -> RaypipeError | None:
    """Of the first rank that raised an error of ours that does not pass by itself; None when none did."""
    known = (find_known(worker_exceptions[rank]) for rank in sorted(worker_exceptions))
    return next((error for error in known if error is not None and not error.transient), None)


def most_telling(worker_exceptions: Mapping[int, Exception]) -> int:
    """The first rank whose error is its own; the first of all where each only says that another one is gone."""
    own = [rank for rank, error in worker_exceptions.items() if not is_from_peers(error)]
    return min(own or worker_exceptions)


def is_preempted(worker_exceptions: Mapping[int, Exception]) -> bool:
    """Whether the workers ended because a machine was taken away, or for more of them to go on: nobody's failure, so
    that none is charged."""
    return any(
        isinstance(find_known(error), (PreemptedError, MoreWorkersError)) or getattr(each, "preempted", False)
        for error in worker_exceptions.values()
        for each in causes(error)
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was not enough; the kernel says nothing when it kills (`num_oom_kills`)."""
    return any(
        type(each).__name__ in OF_MEMORY or any(word in str(each) for word in MEMORY_WORDS) for each in causes(error)
    )


def num_oom_kills(counts_file: Path = Path("/proc/vmstat")) -> int:
    """How many processes of this machine the kernel has killed for want of memory, in a container of its or outside;
    0 where it does not tell."""
    try:
        counts = dict(line.split() for line in counts_file.read_text().splitlines())
        return int(counts.get("oom_kill", 0))
    except (OSError, ValueError):
        return 0


def explained(error: Exception, order: TrainOrder, *, oom_kills: int = 0) -> RaypipeError:
    """The error of a worker group in our words, with the cause a worker gave.

    Args:
        error: `worker_failures` holds what each rank raised; without them, the workers were never placed.
        oom_kills: processes that the kernel has killed for want of memory while they ran.
    """
    failures: dict[int, Exception] = getattr(error, "worker_failures", None) or {}
    size: int = getattr(error, "num_workers", order.spec.train.max_workers)
    known = lasting(failures) or find_known(error)
    if known is not None:
        return known
    resume = f"raypipe run FILE --resume {order.run_id} continues from the newest checkpoint"
    if failures:
        rank = most_telling(failures)
        if is_out_of_memory(failures[rank]) or oom_kills:
            return _out_of_memory(rank, failures[rank], order, resume, size)
        original = list(causes(failures[rank]))[-1]
        lines = str(original).strip().splitlines()
        text = f"{type(original).__name__}: {lines[-1][:500]}" if lines else type(original).__name__
        return TrainingError(f"train: worker {rank} of {size} failed: {text}", resume)
    spec = order.spec.train
    field = "train.num_workers" if spec.elastic is None else "train.num_workers.min"
    wanted = f"{spec.min_workers} workers of {ray_bundle(spec.resources)}"
    return ClusterError(
        f"train: {wanted} were not placed within {spec.start_timeout_s:g}s: {str(error).splitlines()[0][:300]}",
        f"lower {field}, free the cluster, or wait longer (train.start_timeout_s); {resume}",
    )


def hung(told: Sequence[Mapping[str, Any]], error: TrainingError) -> TrainingError:
    """The error of a group that was ended because it hung, with where each worker stood.

    Args:
        told: events of `watching.Watch`.
        error: with which the last attempt ended.
    """
    where = "; ".join(f"worker {event['rank']}: {event['stack']}" for event in told)
    return TrainingError(
        f"train: no step for {max(event['silent_s'] for event in told):.0f} s after step "
        f"{max(event['step'] for event in told)} (train.hung_after_s), and the workers were ended. {where}"[:2000],
        error.hint,
    )


def _out_of_memory(rank: int, error: Exception, order: TrainOrder, resume: str, size: int) -> TrainingError:
    spec = order.spec.train
    who = "Ray's memory monitor ended it" if is_out_of_memory(error) else "the kernel killed it"
    return TrainingError(
        f"train: worker {rank} of {size} was out of memory (OOM; {who}) at "
        f"{spec.global_batch_size // size} rows a step on each worker "
        f"(train.global_batch_size={spec.global_batch_size})",
        f"lower train.global_batch_size or train.rows.resident_bytes, use more workers or a smaller model; {resume}",
    )
