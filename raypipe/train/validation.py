"""Loss and metrics over the validation split, the same numbers on every rank."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, closing

import torch
from torch import Tensor, nn

from raypipe.model.losses import Loss
from raypipe.model.measures import Measures
from raypipe.model.tasks import task_of
from raypipe.records import TargetTransform
from raypipe.train import outcome
from raypipe.train.measured import measured, of_all_ranks, validation_metrics
from raypipe.train.order import TrainOrder
from raypipe.train.rows import Share, World
from raypipe.train.together import agreed
from raypipe.train.user_errors import NetworkRuns

VALIDATION_ROWS = 4096
"""Rows of one validation call, where each has one answer."""


class Validation:
    """Measures a network on this rank's validation rows, together with the other ranks.

    Args:
        val: None where there is no such split; then there is nothing to measure.
        loss_factor: from the loss the network learns by to the one that is told.
        autocast: around each forward pass.
        calls_meet: a forward pass waits for those of the other ranks, so all make equally many.
    """

    def __init__(
        self,
        val: Share | None,
        order: TrainOrder,
        loss: Loss,
        world: World,
        *,
        loss_factor: float,
        target_transform: TargetTransform,
        runs: NetworkRuns,
        autocast: Callable[[], AbstractContextManager[object]],
        calls_meet: bool,
    ) -> None:
        self._val, self._loss, self._world = val, loss, world
        self._task, self._spec = task_of(order.dataset.signature), order.spec
        self._loss_factor, self._target_transform = loss_factor, target_transform
        self._runs, self._autocast, self._calls_meet = runs, autocast, calls_meet
        self._is_calling = False
        """A forward pass has begun and not ended: it failed where there is an error."""

    @torch.no_grad()
    def measure(self, module: nn.Module, step: int, spare: Tensor | None) -> dict[str, float]:
        """`val_loss` and the metrics of the task, on every rank at the same time.

        Args:
            module: is left in evaluation mode.
            step: after which it is measured, for messages.
            spare: features that can be read, for calls that only have to take place.
        Raises:
            UserCodeError: the network raised; where its calls meet, on this rank alone: the others wait in that call.
            DataError: the rows do not define a metric that the file says to go by.
            NonFiniteLossError: an answer or a loss is NaN or infinite.
        """
        val = self._val
        if val is None:
            return {}
        module.eval()
        during = f"validation after step {step}"
        mine = agreed(
            lambda: self._measured(val, module, during, spare),
            self._world,
            may_meet=lambda: not (self._calls_meet and self._is_calling),
        )
        measures, quantile = of_all_ranks(mine, self._world), self._spec.train.quantile
        metrics = validation_metrics(self._task, measures, self._loss_factor, quantile, during=during)
        outcome.check_watched(metrics, self._spec)
        return metrics

    def _measured(self, val: Share, module: nn.Module, during: str, spare: Tensor | None) -> Measures:
        """What this worker's rows contribute."""
        found = Measures()
        largest = -(-val.num_rows_all // self._world.size)
        most = max(1, VALIDATION_ROWS // self._task.num_places)
        calls_left = -(-largest // most)
        try:
            with closing(val.in_order(most)) as batches:
                for rows in batches:
                    with self._runs.during(during):
                        self._is_calling = True
                        with self._autocast():
                            output = module(rows.features)
                        self._is_calling = False
                        calls_left -= 1
                        loss = self._loss(output, rows.target)
                    found += measured(self._task, output, rows, loss, self._target_transform)
        except Exception:
            if not self._is_calling:
                self._only_call(module, during, spare, calls_left)
            raise
        self._only_call(module, during, spare, calls_left)
        return found

    def _only_call(self, module: nn.Module, during: str, spare: Tensor | None, calls_left: int) -> None:
        """Take part in the calls that other ranks still make."""
        if self._calls_meet and spare is not None:
            for _ in range(calls_left):
                with self._runs.during(during), self._autocast():
                    self._is_calling = True
                    module(spare)
                    self._is_calling = False
