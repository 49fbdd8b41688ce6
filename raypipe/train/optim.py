"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from raypipe.spec.train import (
    AdamSpec,
    AdamWSpec,
    ConstantSchedule,
    CosineSchedule,
    Optimizer,
    Schedule,
    SgdSpec,
    StepSchedule,
)


def build_optimizer(spec: Optimizer, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer the file names, in its fused form (one kernel for all parameters)."""
    if isinstance(spec, SgdSpec):
        return torch.optim.SGD(
            parameters,
            lr=spec.lr,
            momentum=spec.momentum,
            nesterov=spec.nesterov,
            weight_decay=spec.weight_decay,
            fused=True,
        )
    kind = torch.optim.AdamW if isinstance(spec, AdamWSpec) else torch.optim.Adam
    assert isinstance(spec, AdamSpec)
    return kind(parameters, lr=spec.lr, betas=spec.betas, eps=spec.eps, weight_decay=spec.weight_decay, fused=True)


def lr_factor(schedule: Schedule, step: int, steps_per_epoch: int, total_steps: int) -> float:
    """Share of the full learning rate at one optimizer step.

    A pure function of the step, so that a resumed run needs no scheduler state.

    Args:
        step: from 0.
    """
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    if isinstance(schedule, CosineSchedule):
        length = max(1, total_steps - schedule.warmup_steps)
        done = min(1.0, (step - schedule.warmup_steps) / length)
        return schedule.final_frac + (1 - schedule.final_frac) * 0.5 * (1 + math.cos(math.pi * done))
    if isinstance(schedule, StepSchedule):
        return schedule.gamma ** (step // steps_per_epoch // schedule.every_epochs)
    assert isinstance(schedule, ConstantSchedule)
    return 1.0
