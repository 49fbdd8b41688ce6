"""Shape letters: B rows, K classes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raypipe.model.losses import LOSSES, build_loss
from raypipe.spec.train import TrainSpec

OUTPUT_BK = torch.randn(7, 4, generator=torch.Generator().manual_seed(1))
CLASS_B = torch.tensor([0, 1, 2, 3, 0, 1, 2])
VALUE_B = torch.linspace(-3, 3, 7)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_mean_of_rows_equals_torch_reduction(smoothing: float) -> None:
    row_loss = build_loss(TrainSpec(label_smoothing_frac=smoothing), "classification")

    mean = row_loss(OUTPUT_BK, CLASS_B).mean()

    torch.testing.assert_close(mean, nn.CrossEntropyLoss(label_smoothing=smoothing)(OUTPUT_BK, CLASS_B))


@pytest.mark.parametrize(
    ("name", "reference"), [("mse", nn.MSELoss()), ("mae", nn.L1Loss()), ("huber", nn.HuberLoss())]
)
def test_regression_loss_mean_of_rows_equals_torch_reduction(name: str, reference: nn.Module) -> None:
    output_B1 = OUTPUT_BK[:, :1]

    row_B = LOSSES[name](output_B1, VALUE_B)

    assert row_B.shape == (7,)
    torch.testing.assert_close(row_B.mean(), reference(output_B1[:, 0], VALUE_B))


def test_regression_loss_flat_output_equals_column_output() -> None:
    column, flat = LOSSES["mse"](OUTPUT_BK[:, :1], VALUE_B), LOSSES["mse"](OUTPUT_BK[:, 0], VALUE_B)

    assert torch.equal(column, flat)


def test_build_loss_auto_follows_the_task() -> None:
    assert build_loss(TrainSpec(), "regression") is LOSSES["mse"]
    assert build_loss(TrainSpec(), "classification")(OUTPUT_BK, CLASS_B).shape == (7,)
