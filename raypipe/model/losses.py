"""Losses as pure functions over tensors: one value a row, or their mean (`reduction="mean"`, which torch does faster).

Shape letters: B rows, K classes.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

from raypipe.spec.data import Task
from raypipe.spec.train import TrainSpec


class Loss(Protocol):
    """(output, target) -> loss of each row, float32 [B], or with `reduction="mean"` their mean."""

    def __call__(self, output: Tensor, target: Tensor, /, *, reduction: str = "none") -> Tensor: ...


def cross_entropy(
    output_BK: Tensor, target_B: Tensor, /, *, reduction: str = "none", label_smoothing_frac: float = 0.0
) -> Tensor:
    """Negative log-likelihood of the true class, from logits."""
    return F.cross_entropy(output_BK.float(), target_B, reduction=reduction, label_smoothing=label_smoothing_frac)


def squared_error(output_B1: Tensor, target_B: Tensor, /, *, reduction: str = "none") -> Tensor:
    return F.mse_loss(output_B1.float().reshape(-1), target_B, reduction=reduction)


def absolute_error(output_B1: Tensor, target_B: Tensor, /, *, reduction: str = "none") -> Tensor:
    return F.l1_loss(output_B1.float().reshape(-1), target_B, reduction=reduction)


def huber(output_B1: Tensor, target_B: Tensor, /, *, reduction: str = "none") -> Tensor:
    """Quadratic up to 1, linear beyond (Huber 1964); 1 is a standard deviation where the target is standardized."""
    return F.huber_loss(output_B1.float().reshape(-1), target_B, reduction=reduction)


LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "mse": squared_error,
    "mae": absolute_error,
    "huber": huber,
}


def build_loss(spec: TrainSpec, task: Task) -> Loss:
    """The loss the file names; `auto` is cross_entropy for classification, mse for regression."""
    kind = spec.loss if spec.loss != "auto" else "cross_entropy" if task == "classification" else "mse"
    if kind == "cross_entropy":
        return partial(cross_entropy, label_smoothing_frac=spec.label_smoothing_frac)
    return LOSSES[kind]
