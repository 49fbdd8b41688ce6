from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from raypipe.spec.optim import (
    AdamSpec,
    AdamWSpec,
    ConstantSchedule,
    CosineRestartsSchedule,
    CosineSchedule,
    LinearSchedule,
    OneCycleSchedule,
    PlateauSchedule,
    SgdSpec,
    StepSchedule,
)
from raypipe.train.optim import build_optimizer, lr_factor, plateau_factor, take_step


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


def test_lr_factor_linear_falls_in_a_straight_line_after_warm_up() -> None:
    schedule = LinearSchedule(kind="linear", warmup_steps=2, final_frac=0.2)

    factors = [lr_factor(schedule, step, steps_per_epoch=3, total_steps=10) for step in (0, 1, 2, 6, 10, 99)]

    assert factors == pytest.approx([0.5, 1, 1, 0.6, 0.2, 0.2])


def test_lr_factor_one_cycle_is_that_of_torch() -> None:
    schedule = OneCycleSchedule(kind="one_cycle")
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=21, cycle_momentum=False)

    for step in range(21):
        ours = lr_factor(schedule, step, steps_per_epoch=3, total_steps=21)
        assert ours == pytest.approx(lr_of(optimizer))
        optimizer.step()
        if step < 20:
            theirs.step()


def lr_of(optimizer: torch.optim.Optimizer) -> float:
    return optimizer.param_groups[0]["lr"]


def test_lr_factor_cosine_restarts_is_that_of_torch() -> None:
    schedule = CosineRestartsSchedule(kind="cosine_restarts", first_epochs=2, growth=2, final_frac=0.1)
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=6, T_mult=2, eta_min=0.1)

    for step in range(45):
        assert lr_factor(schedule, step, steps_per_epoch=3, total_steps=45) == pytest.approx(lr_of(optimizer))
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(("metric", "sign"), [("val_loss", 1), ("val_accuracy", -1)])
def test_plateau_factor_cuts_after_so_many_epochs_without_a_gain(metric: str, sign: int) -> None:
    schedule = PlateauSchedule(
        kind="plateau", metric=metric, patience_epochs=2, gamma=0.5, min_delta=0.1, final_frac=0.3
    )
    values = [1.0, 0.8, 0.75, 0.78, 0.5, 0.5, 0.5, 0.5, 0.5, 0.4]
    history = [{"metrics": {metric: sign * value}} for value in values]

    factors = [plateau_factor(schedule, history[:epochs]) for epochs in range(len(history) + 1)]

    assert factors == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3, 0.3]


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


@pytest.mark.parametrize(
    "spec",
    [SgdSpec(kind="sgd", momentum=0.9, nesterov=True), AdamSpec(kind="adam"), AdamWSpec(kind="adamw")],
    ids=lambda spec: spec.kind,
)
def test_step_without_torchs_wrappers_has_the_bits_of_torchs_own(spec: SgdSpec | AdamSpec | AdamWSpec) -> None:
    def trained(take: Callable[[torch.optim.Optimizer], object]) -> list[float]:
        torch.manual_seed(0)
        network = nn.Linear(7, 3)
        optimizer = build_optimizer(spec, network.parameters())
        for _ in range(5):
            network(torch.randn(4, 7)).square().sum().backward()
            take(optimizer)
            optimizer.zero_grad()
        return torch.cat([parameter.detach().reshape(-1) for parameter in network.parameters()]).tolist()

    assert trained(take_step) == trained(lambda optimizer: optimizer.step())
