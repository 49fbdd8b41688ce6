"""A regression target on its way into a network, and the network's answer on its way back into the target's unit.

A network begins with answers of about 0 and steps of about the learning rate, so it learns a target of about that size;
what is trained is therefore the target less its mean, in standard deviations.  All of it is computed in float64: the
mean of a target may be far larger than its spread.  B rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.errors import DataError
from raypipe.records import Signature, TargetStatistics, TargetTransform
from raypipe.spec.train import TargetScaling

LARGEST = 1e150
"""Squares of larger values do not fit float64, and neither loss nor metrics could be told."""


def resolved(wanted: TargetScaling, signature: Signature) -> TargetScaling:
    """What `auto` is: standardize for regression, none for classification."""
    if wanted != "auto":
        return wanted
    return "standardize" if signature.task == "regression" else "none"


def fit_target(wanted: TargetScaling, signature: Signature, train: Sequence[TargetStatistics]) -> TargetTransform:
    """What is done to the targets of one training, each by itself.

    A target that is the same in every row of train is only moved to 0.

    Args:
        wanted: standardize or log.
        train: of each target, of the train split alone.
    Raises:
        DataError: the logarithm of a target that is not above 0, or values too large to be squared.
    """
    each = [_fit_one(wanted, name, of_train) for name, of_train in zip(signature.targets, train, strict=True)]
    if isinstance(signature.target, str):
        return each[0]
    means, stds = tuple(_one(of.mean) for of in each), tuple(_one(of.std) for of in each)
    return TargetTransform(kind=each[0].kind, mean=means, std=stds)


def _one(value: float | tuple[float, ...]) -> float:
    assert isinstance(value, float), "of one target"
    return value


def _fit_one(wanted: TargetScaling, name: str, train: TargetStatistics) -> TargetTransform:
    if wanted == "log":
        if train.log_mean is None or train.log_std is None:
            raise _not_positive(name, train.num_not_positive, train.num_rows, train.min, "train")
        return TargetTransform(kind="log", mean=train.log_mean, std=train.log_std or 1.0)
    if max(abs(train.min), abs(train.max)) > LARGEST:
        raise DataError(
            f"target '{name}' holds values from {train.min:g} to {train.max:g}, whose squares no float64 "
            f"holds; they must lie within {LARGEST:g}",
            "give the target in a larger unit, or set train.target_transform: log",
        )
    return TargetTransform(kind="standardize", mean=train.mean, std=train.std or 1.0)


def to_model(target_B: NDArray[np.float64], transform: TargetTransform, name: str) -> NDArray[np.float32]:
    """What the loss reads, float32 [B].

    Args:
        name: of the target, for messages.
    Raises:
        DataError: the logarithm of a value that is not above 0.
    """
    if transform.kind == "none":
        return target_B.astype(np.float32)
    if transform.kind == "log":
        wrong_B = ~(target_B > 0)
        if wrong_B.any():
            raise _not_positive(name, int(wrong_B.sum()), len(target_B), float(target_B[wrong_B][0]), "these")
        target_B = np.log(target_B)
    return ((target_B - np.asarray(transform.mean)) / np.asarray(transform.std)).astype(np.float32)


def to_unit(answer_B: NDArray[Any], transform: TargetTransform) -> NDArray[Any]:
    """The network's answers [B] in the target's unit: float64, or as they are where nothing was done to the target."""
    if transform.kind == "none":
        return answer_B
    moved_B = answer_B.astype(np.float64) * np.asarray(transform.std) + np.asarray(transform.mean)
    with np.errstate(over="ignore"):  # infinity is found where answers are judged
        return np.exp(moved_B) if transform.kind == "log" else moved_B


def loss_factor(loss: str, transform: TargetTransform) -> float:
    """What the loss of the network's answers is multiplied by to be told in the target's unit: squared for mse and
    huber, and that of the natural logarithm for `log`. 1 for several targets, whose units differ.

    Args:
        loss: as train.loss names it, `auto` among them.
    """
    if isinstance(transform.std, tuple):
        return 1.0
    return transform.std if loss in ("mae", "quantile") else transform.std**2


def step_size(values_B: NDArray[Any], transform: TargetTransform) -> float:
    """How far the largest answer moves where the network's moves by 1: what rounding differences are in proportion to.

    Args:
        values_B: answers in the target's unit.
    """
    std = max(transform.std) if isinstance(transform.std, tuple) else transform.std
    return std * float(np.abs(values_B).max(initial=0.0)) if transform.kind == "log" else std


def describe(transform: TargetTransform, signature: Signature, train: Sequence[TargetStatistics]) -> str:
    """One line for people: what is done to the targets, and in which unit everything is told."""
    if isinstance(transform.mean, tuple) and isinstance(transform.std, tuple):
        what = "their natural logarithms are standardized" if transform.kind == "log" else "standardized"
        each = ", ".join(
            f"{name} mean {mean:.6g} standard deviation {std:.4g}"
            for name, mean, std in zip(signature.targets, transform.mean, transform.std, strict=True)
        )
        return f"targets {what} ({each}); losses are of them as they are learned, metrics and predictions in own units"
    (name,), (of_train,), mean, std = signature.targets, train, _one(transform.mean), _one(transform.std)
    if of_train.min == of_train.max:
        return f"target {name}: all {of_train.num_rows} train rows hold {of_train.min:g}, so there is nothing to learn"
    what, told = "standardized", "losses, metrics and predictions are"
    if transform.kind == "log":
        what, told = "its natural logarithm is standardized", "losses are of the logarithm, metrics and predictions"
    return (
        f"target {name}: {what} (mean {mean:.6g}, standard deviation {std:.4g} of "
        f"{of_train.num_rows} train rows); {told} in its own unit"
    )


def _not_positive(name: str, num_wrong: int, num_rows: int, example: float, which: str) -> DataError:
    return DataError(
        f"train.target_transform: log needs a target above 0, but '{name}' is not in {num_wrong} of {num_rows} "
        f"{'rows of train' if which == 'train' else 'rows'}, e.g. {example:g}",
        "set train.target_transform: standardize, or leave such rows out (data.expectations, kind: range)",
    )
