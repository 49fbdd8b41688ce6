"""Shape letters: B rows, K classes."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import mean_pinball_loss
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


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_quantile_loss_is_the_pinball_loss_of_scikit_learn(quantile: float) -> None:
    loss = build_loss(TrainSpec(loss="quantile", quantile=quantile), "regression")
    output_B1 = OUTPUT_BK[:, :1]

    mean = loss(output_B1, VALUE_B, reduction="mean")

    assert loss(output_B1, VALUE_B).shape == (7,)
    assert float(mean) == pytest.approx(mean_pinball_loss(VALUE_B, output_B1[:, 0], alpha=quantile))


@pytest.mark.parametrize("quantile", [0.1, 0.9])
def test_quantile_loss_is_least_at_the_quantile(quantile: float) -> None:
    loss = build_loss(TrainSpec(loss="quantile", quantile=quantile), "regression")
    target_B = torch.randn(2001, generator=torch.Generator().manual_seed(0))
    candidates = torch.sort(target_B).values

    costs = [float(loss(value.expand(2001, 1), target_B, reduction="mean")) for value in candidates]

    best = candidates[int(torch.tensor(costs).argmin())]
    assert float((target_B <= best).float().mean()) == pytest.approx(quantile, abs=1e-3)


def test_class_weights_multiply_the_loss_of_a_row_whatever_else_is_in_the_batch() -> None:
    weights_K = torch.tensor([0.0, 1.0, 2.0, 0.5])
    loss = build_loss(TrainSpec(label_smoothing_frac=0.1), "classification", weights_K)
    plain = build_loss(TrainSpec(label_smoothing_frac=0.1), "classification")

    torch.testing.assert_close(loss(OUTPUT_BK, CLASS_B), plain(OUTPUT_BK, CLASS_B) * weights_K[CLASS_B])
    whole = loss(OUTPUT_BK, CLASS_B, reduction="mean")
    parts = [loss(OUTPUT_BK[some], CLASS_B[some], reduction="mean") * len(some) / 7 for some in (range(3), range(3, 7))]
    torch.testing.assert_close(whole, parts[0] + parts[1])


def test_class_weights_of_rows_that_share_classes_are_shared_alike() -> None:
    weights_K = torch.tensor([0.0, 1.0, 2.0, 0.5])
    loss = build_loss(TrainSpec(), "classification", weights_K)
    alone_BK = torch.eye(4)[CLASS_B]
    torch.testing.assert_close(loss(OUTPUT_BK, alone_BK), loss(OUTPUT_BK, CLASS_B))


def test_class_weights_of_one_learn_what_no_weights_do() -> None:
    loss, plain = (build_loss(TrainSpec(), "classification", w) for w in (torch.ones(4), None))
    torch.testing.assert_close(loss(OUTPUT_BK, CLASS_B, reduction="mean"), plain(OUTPUT_BK, CLASS_B, reduction="mean"))


def test_build_loss_auto_follows_the_task() -> None:
    assert build_loss(TrainSpec(), "regression") is LOSSES["mse"]
    assert build_loss(TrainSpec(), "classification")(OUTPUT_BK, CLASS_B).shape == (7,)
