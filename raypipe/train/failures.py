"""Which errors of workers end a training at once, which of several is told, and in what words."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from raypipe.errors import ClusterError, RaypipeError, TrainingError, causes, find_known
from raypipe.runtime.resources import ray_bundle
from raypipe.train.order import TrainOrder

FROM_PEERS = ("gloo", "nccl", "connection closed by peer", "connection reset by peer")
"""In what a collective operation raises where another worker is gone."""


def is_from_peers(error: BaseException) -> bool:
    """Whether an error, or what it wraps, only says that another worker is gone: why, only that one can tell."""
    kinds: tuple[type[BaseException], ...] = (ConnectionError,)
    if (distributed := sys.modules.get("torch.distributed")) is not None:  # else none of its errors can be here
        kinds += (distributed.DistError,)
    return any(
        isinstance(each, kinds) or any(word in str(each).lower() for word in FROM_PEERS) for each in causes(error)
    )


def lasting(worker_exceptions: Mapping[int, Exception]) -> RaypipeError | None:
    """Of the first rank that raised an error of ours that does not pass by itself; None when none did."""
    known = (find_known(worker_exceptions[rank]) for rank in sorted(worker_exceptions))
    return next((error for error in known if error is not None and not error.transient), None)


def most_telling(worker_exceptions: Mapping[int, Exception]) -> int:
    """The first rank whose error is its own; the first of all where each only says that another one is gone."""
    own = [rank for rank, error in worker_exceptions.items() if not is_from_peers(error)]
    return min(own or worker_exceptions)


def explained(error: Exception, order: TrainOrder) -> RaypipeError:
    """The error of a worker group in our words, with the cause a worker gave.

    Args:
        error: `worker_failures` holds what each rank raised; without them, the workers were never placed.
    """
    failures: dict[int, Exception] = getattr(error, "worker_failures", None) or {}
    known = lasting(failures) or find_known(error)
    if known is not None:
        return known
    resume = f"raypipe run FILE --resume {order.run_id} continues from the newest checkpoint"
    if failures:
        rank = most_telling(failures)
        original = list(causes(failures[rank]))[-1]
        lines = str(original).strip().splitlines()
        text = f"{type(original).__name__}: {lines[-1][:500]}" if lines else type(original).__name__
        return TrainingError(f"train: worker {rank} of {order.spec.train.num_workers} failed: {text}", resume)
    spec = order.spec.train
    wanted = f"{spec.num_workers} workers of {ray_bundle(spec.resources)}"
    return ClusterError(
        f"train: {wanted} were not placed within {spec.start_timeout_s:g}s: {str(error).splitlines()[0][:300]}",
        f"lower train.num_workers, free the cluster, or wait longer (train.start_timeout_s); {resume}",
    )
