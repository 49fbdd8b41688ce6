"""What a training came to: whether an epoch is the best so far, whether to go on, and the record at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from raypipe.errors import DataError
from raypipe.records import ArtifactRef, EpochMetrics, Goodput, TargetTransform, TrainResult
from raypipe.spec.metrics import is_better_when_higher
from raypipe.spec.optim import PlateauSchedule
from raypipe.spec.pipeline import PipelineSpec
from raypipe.spec.train import EarlyStoppingSpec
from raypipe.train.checkpoints import TrainState
from raypipe.train.order import TrainOrder


def check_watched(metrics: Mapping[str, float], spec: PipelineSpec) -> None:
    """Refuse to go by a metric that the validation rows do not define, as a ranking of rows of one class.

    Raises:
        DataError: early stopping, a plateau's schedule or a search would.
    """
    early, schedule, tune = spec.train.early_stopping, spec.train.schedule, spec.tune
    watched = {
        "train.early_stopping.metric": None if early is None else early.metric,
        "train.schedule.metric": schedule.metric if isinstance(schedule, PlateauSchedule) else None,
        "tune.metric": None if tune is None else tune.metric,
    }
    for field, name in watched.items():
        if name is not None and name not in metrics:
            raise DataError(
                f"{field}: the validation rows do not define {name}: roc_auc and pr_auc need rows of several classes "
                "(256 at most), top_5_accuracy more than 5 classes",
                f"go by one of {', '.join(metrics)}",
            )


def is_best(state: TrainState, early: EarlyStoppingSpec | None) -> bool:
    """Whether the last epoch of the history is better than the best before, by the watched metric."""
    if early is None or state.best_epoch == 0:
        return True
    sign = 1 if is_better_when_higher(early.metric.removeprefix("val_")) else -1
    now, best = (state.history[i]["metrics"][early.metric] for i in (-1, state.best_epoch - 1))
    return sign * (now - best) > early.min_delta


def stops_early(state: TrainState, early: EarlyStoppingSpec | None) -> bool:
    """Whether the watched metric has not improved for `patience_epochs`."""
    return early is not None and state.epoch - 1 - state.best_epoch >= early.patience_epochs


def train_result(
    order: TrainOrder,
    state: TrainState,
    artifact: ArtifactRef,
    *,
    total_steps: int,
    num_parameters: int,
    num_workers: int,
    target_transform: TargetTransform,
    goodput: Callable[[float], Goodput],
) -> TrainResult:
    """The record of a training that ended.

    Args:
        total_steps: those it would have had without early stopping.
        goodput: where its time went, asked at last and told the rows of all workers a second.
    """
    spec = order.spec.train
    rates = [entry["rows_per_s"] for entry in state.history]
    rows_per_s = float(np.median(rates[1:] or rates))
    history = [{k: v for k, v in entry.items() if k != "rows_per_s"} for entry in state.history]
    return TrainResult(
        run_id=order.run_id,
        dataset=order.dataset.version,
        artifact=artifact,
        history=tuple(EpochMetrics.model_validate(entry) for entry in history),
        best_epoch=state.best_epoch if spec.early_stopping else len(history),
        num_steps=state.step,
        num_parameters=num_parameters,
        num_workers=num_workers,
        stopped_early=state.step < total_steps,
        rows_per_s=rows_per_s,
        target_transform=target_transform,
        quantile=spec.quantile,
        weighted_by=None if order.dataset.weights is None else order.dataset.weights.column,
        goodput=goodput(rows_per_s),
    )
