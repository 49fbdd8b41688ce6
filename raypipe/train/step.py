"""One optimizer step: forward and backward over micro batches, the gradient's norm, the optimizer.  B rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from raypipe.errors import NonFiniteLossError, UserCodeError
from raypipe.model.losses import Loss
from raypipe.spec.train import TrainSpec
from raypipe.train.failures import is_from_peers
from raypipe.train.fitting import largest_that_fits, room_for_state
from raypipe.train.optim import take_step
from raypipe.train.own_step import OwnStep
from raypipe.train.parallel import Parallel
from raypipe.train.precision import Scale
from raypipe.train.rows import Batch, Rows, World
from raypipe.train.together import agreed
from raypipe.train.user_errors import NetworkRuns

GPU_CHECK_STEPS = 16
"""On a GPU, asking whether the gradient is finite waits for the device; so it is asked this often."""

LossOfRows = Callable[[nn.Module, Rows], Tensor]
"""Runs a network in training on rows: their mean loss, one number with a gradient."""


class ForwardLoss:
    """The usual LossOfRows, and the user's own where there is one.

    Args:
        autocast: around the forward pass.
        own_step: the user's way from rows to a loss.
    """

    def __init__(self, loss: Loss, autocast: Callable[[], AbstractContextManager[object]], own_step: OwnStep | None):
        self._loss, self._autocast, self._own_step = loss, autocast, own_step

    def __call__(self, network: nn.Module, rows: Rows) -> Tensor:
        with self._autocast():
            if self._own_step is not None:
                return self._own_step(network, rows, self._loss)
            output = network(rows.features)
        if rows.weight is None:
            return self._loss(output, rows.target, reduction="mean")
        return (self._loss(output, rows.target) * rows.weight).mean()


class OptimizerStep:
    """Takes steps of one worker, each together with all others.

    The loss of a step is the sum over the rows of all workers, divided by their number, whatever their weights: so
    neither the number of workers nor that of micro batches, nor who shares a batch, changes what is learned.

    Args:
        parallel: with its optimizer.
        loss_of: runs the network.
        runs: what the user's code raises is told by it.
        finite: looks at each step's gradient.
        on_failure: told why this rank's network could not take a step that the others take; the gradient is NaN then.
        on_overflow: called on every rank before a step is left out; it may know of a better reason, and raise it.
    """

    def __init__(
        self,
        parallel: Parallel,
        loss_of: LossOfRows,
        world: World,
        spec: TrainSpec,
        *,
        scale: Scale,
        runs: NetworkRuns,
        finite: FiniteCheck,
        on_failure: Callable[[Exception], None],
        on_overflow: Callable[[], None],
    ) -> None:
        self._parallel, self._loss_of, self._world = parallel, loss_of, world
        self._on_failure, self._is_in_backward = on_failure, False
        self._scale, self._runs, self._clip = scale, runs, spec.clip_grad_norm
        self._finite, self._on_overflow = finite, on_overflow
        self._num_shares = spec.num_shares(world.size)
        self.micro_batch_rows = None if spec.micro_batch_rows == "auto" else spec.micro_batch_rows
        """Of one forward and backward pass; None takes a worker's batch at once."""
        runs.rows = self.micro_batch_rows

    def take(self, batch: Batch, step: int) -> Tensor:
        """Step number `step`, from 0; returns the mean loss over this worker's rows.

        Raises:
            NonFiniteLossError: the loss or its gradient is NaN or infinite, on every rank at the same step.
            UserCodeError: the user's network raised, and this rank cannot take part without it.
        """
        try:
            with self._runs.during(f"training step {step + 1}"):
                self._parallel.begin_step()
                loss = self._backward(batch)
        except Exception as error:
            if not self._stands_in(error):
                raise
            self._on_failure(error)
            loss = torch.full((), math.nan, device=self._world.device)
        if self._scale.is_used:
            self._scale.undo(self._parallel.gradients())
        norm = self._parallel.norm_and_clip(self._clip)
        if self._scale.is_used:
            norm = self._parallel.norm() if norm is None else norm
            if not self._scale.takes(norm):
                self._on_overflow()
                return loss
        self._finite.check(loss if norm is None else norm, step + 1)
        take_step(self._parallel.optimizer)
        return loss

    def settle(self, rows: Rows, *, fits_gpu: bool) -> None:
        """One step that changes nothing; on every rank at the same time.

        DDP regroups gradients once, after its first backward pass, and from 3 ranks on the order of a sum shows in its
        last bits. A resumed run must not have its first step summed in another order than the uninterrupted one.

        Args:
            rows: a worker's batch.
            fits_gpu: first make micro batches as large as a GPU has room for.
        Raises:
            UserCodeError: the user's network raised, or has no room; on every rank where it could take part without.
        """
        module = self._parallel.module
        before = {name: value.detach().clone() for name, value in module.state_dict().items()}
        self._parallel.network.train()
        if fits_gpu:
            self._runs.rows = self.micro_batch_rows = self._largest_that_fits(rows)
        failure = self._first_pass(_first(rows, self.micro_batch_rows))
        agreed(partial(_raise, failure), self._world)
        self._parallel.forget_gradients()
        module.load_state_dict(before)  # normalization layers keep running averages of what they see

    def _first_pass(self, rows: Rows) -> Exception | None:
        try:
            with (
                self._runs.during("its first step, which changes nothing"),
                self._parallel.accumulate(is_last=True),
            ):
                loss = self._loss_of(self._parallel.network, rows)
                self._is_in_backward = True
                loss.backward()
                self._is_in_backward = False
        except Exception as error:
            if not self._stands_in(error):
                raise
            return error
        return None

    def _stands_in(self, error: Exception) -> bool:
        """Whether this rank took part in the backward pass of the others without its network, which raised.

        Not where that was in a backward pass: some gradients may have been averaged by then.
        """
        if self._is_in_backward or is_from_peers(error):
            return False
        try:
            return self._parallel.stand_in()
        except Exception:  # the error before counts: it may be what has broken the group, or another rank is gone
            return False

    def _largest_that_fits(self, rows: Rows) -> int:
        def attempt(num_rows: int) -> None:
            room = room_for_state(self._parallel.optimizer)
            try:
                with self._runs.during("its first step, which changes nothing"):
                    self._loss_of(self._parallel.module, _first(rows, num_rows)).backward()
            except UserCodeError as error:
                if isinstance(error.__cause__, torch.OutOfMemoryError):
                    raise error.__cause__ from None
                raise
            finally:
                self._parallel.forget_gradients()
                del room

        return largest_that_fits(attempt, len(rows.target), self._world)

    def _backward(self, batch: Batch) -> Tensor:
        """Leave the gradient of the step's loss in the parameters."""
        parts = micro_batches(batch, self.micro_batch_rows, self._world.size, self._num_shares)
        mean: Tensor | None = None
        for number, (rows, frac) in enumerate(parts):
            with self._parallel.accumulate(is_last=number == len(parts) - 1):
                loss = self._loss_of(self._parallel.network, rows)
                if number == 0:
                    self._parallel.forget_gradients()
                weight = batch.weight * frac * self._scale.factor
                self._is_in_backward = True
                (loss if weight == 1.0 else loss * weight).backward()
                self._is_in_backward = False
            part = loss.detach() if frac == 1.0 else loss.detach() * frac
            mean = part if mean is None else mean + part
        assert mean is not None
        return mean


def _raise(error: Exception | None) -> None:
    if error is not None:
        raise error


def _first(rows: Rows, num_rows: int | None) -> Rows:
    return rows.each(lambda values: values[:num_rows])


def micro_batches(
    batch: Batch, rows_each: int | None, world_size: int, num_shares: int | None = None
) -> list[tuple[Rows, float]]:
    """The rows of a batch in parts, each with its share of them; equally many parts on every rank.

    Args:
        num_shares: of all workers; unset: one a worker.
        rows_each: rows of a part. One has up to two rows more where a worker has more than another, or where
            otherwise a part would be left with a single row, of which a normalization over rows makes nothing.
    """
    num_shares = num_shares or world_size
    smallest = batch.num_rows_all // num_shares * (num_shares // world_size)
    largest = -(-batch.num_rows_all // num_shares) * -(-num_shares // world_size)
    if rows_each is None or largest <= rows_each:
        return [(batch.rows, 1.0)]
    num_parts = max(1, min(-(-largest // rows_each), smallest // min(2, rows_each)))
    num_rows = len(batch.rows.target)
    if not batch.num_rows:  # rows that do not count: as many passes as the others make, over few of them
        return [(_first(batch.rows, rows_each), 1 / num_parts)] * num_parts
    bounds = [num_rows * part // num_parts for part in range(num_parts + 1)]
    return [
        (batch.rows.each(lambda values, some=slice(first, last): values[some]), (last - first) / num_rows)
        for first, last in pairwise(bounds)
    ]


class FiniteCheck:
    """Finds the first step whose loss or gradient is not finite: at once on a CPU, on a GPU before it is saved.

    What it is shown must be the same on every rank, so that all stop at the same step.
    """

    def __init__(self, world: World, steps_per_epoch: int) -> None:
        self._is_at_once = world.device.type == "cpu"
        self._steps_per_epoch = steps_per_epoch
        self._first_bad_step = torch.zeros((), dtype=torch.int64, device=world.device)

    def check(self, value: Tensor | float, step: int) -> None:
        """Look at one number of step `step`, from 1, on a GPU a tensor there. Raises NonFiniteLossError."""
        if self._is_at_once or not isinstance(value, Tensor):
            if not math.isfinite(float(value)):
                raise self.error(step)
            return
        self._first_bad_step += (~torch.isfinite(value) & (self._first_bad_step == 0)) * step
        if step % GPU_CHECK_STEPS == 0:
            self.raise_if_found()

    def raise_if_found(self) -> None:
        """Raise NonFiniteLossError if a step before was not finite."""
        if int(self._first_bad_step):
            raise self.error(int(self._first_bad_step))

    def error(self, step: int) -> NonFiniteLossError:
        """What is told of step `step`, from 1."""
        return NonFiniteLossError(
            f"training step {step} (epoch {(step - 1) // self._steps_per_epoch + 1}): the loss or its gradient is NaN "
            "or infinite; training stopped and nothing was published",
            "lower train.optimizer.lr, set train.clip_grad_norm, or standardize the features",
        )
