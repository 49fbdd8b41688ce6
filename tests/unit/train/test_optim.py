from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from raypipe.spec.train import AdamSpec, AdamWSpec, ConstantSchedule, CosineSchedule, SgdSpec, StepSchedule
from raypipe.train.optim import build_optimizer, lr_factor


def test_lr_factor_warm_up_climbs_linearly_to_the_full_rate() -> None:
    schedule = ConstantSchedule(warmup_steps=4)

    factors = [lr_factor(schedule, step, steps_per_epoch=10, total_steps=20) for step in range(6)]

    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_lr_factor_cosine_starts_full_passes_half_and_ends_at_its_final_share() -> None:
    schedule = CosineSchedule(kind="cosine", warmup_steps=2, final_frac=0.1)

    at = {step: lr_factor(schedule, step, steps_per_epoch=10, total_steps=22) for step in (2, 12, 21, 22, 500)}

    assert at[2] == 1.0
    assert at[12] == pytest.approx(0.55)
    assert at[21] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 19 / 20)))
    assert at[22] == at[500] == pytest.approx(0.1)


def test_lr_factor_step_multiplies_every_so_many_epochs() -> None:
    schedule = StepSchedule(kind="step", every_epochs=2, gamma=0.5)

    factors = [lr_factor(schedule, 3 * epoch, steps_per_epoch=3, total_steps=18) for epoch in range(6)]

    assert factors == [1, 1, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    ("spec", "reference"),
    [
        (
            SgdSpec(kind="sgd", lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        ),
        (AdamSpec(kind="adam", lr=0.1, eps=1e-6), lambda p: torch.optim.Adam(p, lr=0.1, eps=1e-6)),
        (
            AdamWSpec(kind="adamw", lr=0.1, betas=(0.8, 0.9), weight_decay=0.3),
            lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.9), weight_decay=0.3),
        ),
    ],
)
def test_build_optimizer_steps_as_torch_does_with_the_same_settings(spec, reference) -> None:
    ours, theirs = nn.Linear(4, 3), nn.Linear(4, 3)
    theirs.load_state_dict(ours.state_dict())
    pairs = [(ours, build_optimizer(spec, ours.parameters())), (theirs, reference(theirs.parameters()))]

    for module, optimizer in pairs:
        for _ in range(3):
            optimizer.zero_grad()
            module(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()

    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-6, atol=1e-6)
