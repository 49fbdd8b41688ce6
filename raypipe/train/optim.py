"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from raypipe.spec.metrics import is_better_when_higher
from raypipe.spec.optim import (
    AdamSpec,
    AdamWSpec,
    ConstantSchedule,
    CosineRestartsSchedule,
    CosineSchedule,
    LinearSchedule,
    OneCycleSchedule,
    Optimizer,
    PlateauSchedule,
    Schedule,
    SgdSpec,
    StepSchedule,
)
from raypipe.spec.train import TrainSpec


def build_optimizer(spec: Optimizer, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer the file names, in its fused form (one kernel for all parameters) where there is one."""
    if isinstance(spec, SgdSpec):
        parameters = list(parameters)
        is_sharded = any(isinstance(parameter, DTensor) for parameter in parameters)  # of which torch fuses Adam alone
        return torch.optim.SGD(
            parameters,
            lr=spec.lr,
            momentum=spec.momentum,
            nesterov=spec.nesterov,
            weight_decay=spec.weight_decay,
            **({"foreach": True} if is_sharded else {"fused": True}),
        )
    kind = torch.optim.AdamW if isinstance(spec, AdamWSpec) else torch.optim.Adam
    assert isinstance(spec, AdamSpec)
    return kind(parameters, lr=spec.lr, betas=spec.betas, eps=spec.eps, weight_decay=spec.weight_decay, fused=True)


def take_step(optimizer: torch.optim.Optimizer) -> None:
    """What `optimizer.step()` does, without what torch wraps around it for profilers, compilers and hooks. There are
    none here, and for a small network that takes as long as all the rest of the optimizer."""
    with torch.no_grad():
        _bare_step(type(optimizer))(optimizer)


@cache
def _bare_step(kind: type[torch.optim.Optimizer]) -> Callable[[torch.optim.Optimizer], object]:
    return inspect.unwrap(kind.step)


class Rate:
    """The learning rate of one training.

    Args:
        optimizer: gets the rate before each step.
    """

    def __init__(
        self, spec: TrainSpec, optimizer: torch.optim.Optimizer, steps_per_epoch: int, total_steps: int
    ) -> None:
        self._lr, self._schedule, self._optimizer = spec.optimizer.lr, spec.schedule, optimizer
        self._steps_per_epoch, self._total_steps = steps_per_epoch, total_steps
        self._peak = self._lr

    def begin_epoch(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Before the epoch after those of the history."""
        self._peak = self._lr * plateau_factor(self._schedule, history)

    def set(self, step: int) -> None:
        """Before step `step` of the training, from 0."""
        lr = self._peak * lr_factor(self._schedule, step, self._steps_per_epoch, self._total_steps)
        for group in self._optimizer.param_groups:  # others once a state was loaded
            group["lr"] = lr


def lr_factor(schedule: Schedule, step: int, steps_per_epoch: int, total_steps: int) -> float:
    """Share of the full learning rate at one optimizer step; of a plateau, before any cut.

    A pure function of the step, so that a resumed run needs no scheduler state.

    Args:
        step: from 0.
    """
    if isinstance(schedule, OneCycleSchedule):
        peak, last = schedule.warmup_frac * total_steps - 1, total_steps - 1
        if step < peak:
            return _cosine(schedule.start_frac, 1.0, step / peak)
        return _cosine(1.0, schedule.final_frac, min(1.0, (step - peak) / max(1.0, last - peak)))
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    done = min(1.0, (step - schedule.warmup_steps) / max(1, total_steps - schedule.warmup_steps))
    if isinstance(schedule, CosineSchedule):
        return schedule.final_frac + (1 - schedule.final_frac) * 0.5 * (1 + math.cos(math.pi * done))
    if isinstance(schedule, LinearSchedule):
        return 1 + (schedule.final_frac - 1) * done
    if isinstance(schedule, CosineRestartsSchedule):
        step, length = step - schedule.warmup_steps, schedule.first_epochs * steps_per_epoch
        while step >= length:
            step, length = step - length, length * schedule.growth
        return _cosine(1.0, schedule.final_frac, step / length)
    if isinstance(schedule, StepSchedule):
        return schedule.gamma ** (step // steps_per_epoch // schedule.every_epochs)
    assert isinstance(schedule, ConstantSchedule | PlateauSchedule)
    return 1.0


def plateau_factor(schedule: Schedule, history: Sequence[Mapping[str, Any]]) -> float:
    """What a plateau leaves of the rate in the epoch after those of the history; 1 for other schedules.

    Args:
        history: `metrics` of each finished epoch: so a resumed run cuts where the lost one would have.
    """
    if not isinstance(schedule, PlateauSchedule):
        return 1.0
    sign = 1 if is_better_when_higher(schedule.metric.removeprefix("val_")) else -1
    best, waited, factor = -math.inf, 0, 1.0
    for epoch in history:
        value = sign * epoch["metrics"][schedule.metric]
        waited = 0 if value - best > schedule.min_delta else waited + 1
        best = max(best, value) if waited == 0 else best
        if waited == schedule.patience_epochs:
            factor, waited = max(schedule.final_frac, factor * schedule.gamma), 0
    return factor


def _cosine(first: float, last: float, done: float) -> float:
    """From one number to another along half a cosine; done: in [0, 1]."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * done))
