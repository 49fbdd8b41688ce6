"""Which trials stop early: Optuna's pruners, told of the epochs of all trials."""

from __future__ import annotations

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner

from raypipe.spec.tune import AshaScheduler, HyperbandScheduler, MedianScheduler, Scheduler


def build_pruner(spec: Scheduler, *, max_epochs: int) -> BasePruner:
    """The scheduler the file names; time is counted in epochs."""
    if isinstance(spec, AshaScheduler):
        return SuccessiveHalvingPruner(
            min_resource=min(spec.grace_epochs, max_epochs), reduction_factor=spec.reduction_factor
        )
    if isinstance(spec, MedianScheduler):
        # An epoch is told when it has run: the last one of the grace may be a trial's last.
        return MedianPruner(n_startup_trials=spec.num_startup_trials, n_warmup_steps=spec.grace_epochs)
    if isinstance(spec, HyperbandScheduler):
        return HyperbandPruner(
            min_resource=min(spec.grace_epochs, max_epochs),
            max_resource=max_epochs,
            reduction_factor=spec.reduction_factor,
        )
    return NopPruner()
