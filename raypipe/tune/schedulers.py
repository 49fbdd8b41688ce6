"""Which trials stop early."""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from raypipe.spec.tune import AshaScheduler, Scheduler


def build_scheduler(spec: Scheduler, *, max_epochs: int) -> Any:
    """The scheduler the file names; time is counted in epochs."""
    if isinstance(spec, AshaScheduler):
        return ASHAScheduler(
            time_attr="training_iteration",
            max_t=max_epochs,
            grace_period=min(spec.grace_epochs, max_epochs),
            reduction_factor=spec.reduction_factor,
        )
    return FIFOScheduler()
