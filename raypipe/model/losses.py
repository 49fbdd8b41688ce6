"""Losses as pure functions over tensors: one value a row, or their mean (`reduction="mean"`, which torch does faster).

Shape letters: B rows, K classes or labels, T tokens of a text or targets, V ids.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

import torch
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


def next_token(output_BTV: Tensor, target_BT: Tensor, /, *, reduction: str = "none") -> Tensor:
    """Negative log-likelihood of the tokens that follow, divided by the places that a row has; those of padding (0)
    count nothing. So every token counts alike, whichever rows share its batch, its worker or its micro batch: to divide
    by the tokens of a batch would need a word between the workers, and weigh short targets more in some steps."""
    how = "none" if reduction == "none" else "sum"
    tokens = F.cross_entropy(output_BTV.float().flatten(0, 1), target_BT.flatten(), reduction=how, ignore_index=0)
    return tokens / target_BT.numel() if how == "sum" else tokens.view_as(target_BT).mean(dim=1)


def binary_cross_entropy(output_BK: Tensor, target_BK: Tensor, /, *, reduction: str = "none") -> Tensor:
    """Negative log-likelihood of having each label or not, from logits, their mean."""
    return _of_rows(F.binary_cross_entropy_with_logits(output_BK.float(), target_BK, reduction=reduction))


def squared_error(output: Tensor, target: Tensor, /, *, reduction: str = "none") -> Tensor:
    """Of several targets [B, T] the mean, as of the other losses of numbers; one may be answered as [B, 1]."""
    return _of_rows(F.mse_loss(output.float().reshape(target.shape), target, reduction=reduction))


def absolute_error(output: Tensor, target: Tensor, /, *, reduction: str = "none") -> Tensor:
    return _of_rows(F.l1_loss(output.float().reshape(target.shape), target, reduction=reduction))


def huber(output: Tensor, target: Tensor, /, *, reduction: str = "none") -> Tensor:
    """Quadratic up to 1, linear beyond (Huber 1964); 1 is a standard deviation where the target is standardized."""
    return _of_rows(F.huber_loss(output.float().reshape(target.shape), target, reduction=reduction))


def pinball(output: Tensor, target: Tensor, /, *, quantile: float, reduction: str = "none") -> Tensor:
    """An answer that is too low costs `quantile` times the distance, one that is too high the rest of it; least where
    that share of the targets is no larger (Koenker and Bassett 1978)."""
    missing = target - output.float().reshape(target.shape)
    rows = _of_rows(torch.maximum(quantile * missing, (quantile - 1) * missing))
    return rows.mean() if reduction == "mean" else rows


def _of_rows(losses: Tensor) -> Tensor:
    """Of each row [B] where there are several a row; else as they are."""
    return losses.mean(dim=1) if losses.dim() == 2 else losses


def weighted(loss: Loss, weights_K: Tensor) -> Loss:
    """Each row times the weight of its class. The mean is over the rows, not over their weights: so it does not depend
    on which rows share a batch."""

    def of_rows(output: Tensor, target_B: Tensor, /, *, reduction: str = "none") -> Tensor:
        shared = target_B.is_floating_point()  # a step of one's own may mix rows: each class has a share [B, K]
        rows_B = loss(output, target_B) * (target_B @ weights_K if shared else weights_K[target_B])
        return rows_B.mean() if reduction == "mean" else rows_B

    return of_rows


LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "mse": squared_error,
    "mae": absolute_error,
    "huber": huber,
}


def build_loss(spec: TrainSpec, task: Task, class_weights: Tensor | None = None) -> Loss:
    """The loss the file names; `auto` is cross_entropy for classification and where tokens are told, that of each label
    for multi-label, mse for regression.

    Args:
        class_weights: [K], on the device of the rows; None weighs all alike.
    """
    if task in ("language_model", "sequence_to_sequence"):
        return next_token
    if task == "multi_label":
        return binary_cross_entropy
    kind = spec.loss if spec.loss != "auto" else "cross_entropy" if task == "classification" else "mse"
    if kind == "quantile":
        assert spec.quantile is not None, "the spec refuses the loss without it"
        return partial(pinball, quantile=spec.quantile)
    if kind != "cross_entropy":
        return LOSSES[kind]
    loss = partial(cross_entropy, label_smoothing_frac=spec.label_smoothing_frac)
    return loss if class_weights is None else weighted(loss, class_weights)
