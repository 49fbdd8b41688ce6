"""The loop each worker runs, top to bottom; kept whole, so that one file tells what happens to a row.

The same loop runs in the workers of either way to start them (one process a rank) and, alone, in a tuning trial. How
the ranks hold the model is behind `parallel`, an optimizer step behind `step`, what is kept behind `checkpointing`.
"""

from __future__ import annotations

import sys
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from raypipe.errors import NonFiniteLossError
from raypipe.model.artifact import write_artifact
from raypipe.model.build import check_single_row
from raypipe.records import ArtifactRef, EpochMetrics, TrainResult
from raypipe.runtime import seeds
from raypipe.storage import open_store
from raypipe.train import optim, outcome, precision
from raypipe.train.augment import Augment
from raypipe.train.average import Ema
from raypipe.train.checkpointing import Checkpointing
from raypipe.train.draws import Draws
from raypipe.train.fit_out import fit_out
from raypipe.train.goodput import Stopwatch
from raypipe.train.mfu import DeviceUse
from raypipe.train.order import TrainOrder
from raypipe.train.parallel_choice import build_parallel
from raypipe.train.preemption import Preemption
from raypipe.train.reporter import EventReporter, Report
from raypipe.train.rows import Batch, World
from raypipe.train.shares import open_shares
from raypipe.train.start import build_network, start
from raypipe.train.step import FiniteCheck, ForwardLoss, OptimizerStep
from raypipe.train.together import Reading, agreed, summed
from raypipe.train.user_errors import NetworkRuns
from raypipe.train.validation import Validation


def run(order: TrainOrder, world: World, report: Report, preemption: Preemption | None = None) -> TrainResult:
    """Train to the end and package the model; rank 0's result carries the artifact's digest.

    Args:
        preemption: how this worker learns that its machine is taken away; unset: it does not.
    Raises:
        UserCodeError: the user's network raised; on every rank, except where one raises it in a backward pass, or in
            a forward pass that waits for other ranks (sharded, train.sync_batch_norm): these wait and must be ended.
        NonFiniteLossError: a gradient, or what is told of validation rows, became NaN or infinite, at the same step
            on every rank.
        DataError, ModelError: data or model do not allow training.
        ResourceError: the device cannot do what the file asks for.
        DigestMismatch, ObjectMissing, StoreError: rows could not be read, or checkpoints not written for too long.
        PreemptedError: the machine is taken away, and a checkpoint is kept.
        MoreWorkersError: there is room for more workers, and a checkpoint is kept.
    """
    torch.manual_seed(seeds.derive(order.spec.seed, "weights"))  # the same first weights on every rank
    trainer = agreed(lambda: Trainer(order, world, report), world)
    trainer.connect(preemption or Preemption())
    with closing(trainer.checkpointing):
        trainer.restore()
        while trainer.goes_on():
            try:
                trainer.train_epoch()
                trainer.finish_epoch()
            except NonFiniteLossError as error:
                agreed(trainer.reading.raise_failure, world, met=error)  # on every rank at the same step: none waits
                raise
        return trainer.package()


class Trainer:
    """One worker's model, optimizer, rows and progress."""

    def __init__(self, order: TrainOrder, world: World, report: Report) -> None:
        self.order, self.world = order, world
        self.spec, dataset = order.spec.train, order.dataset
        self.watch = Stopwatch(order.asked_at)
        precision.check_device(self.spec, world)
        self.store = open_store(order.store_uri)
        self.start = start(order, self.store, world)
        self.module, self.loss = self.start.module, self.start.loss
        self.augment = Augment(self.spec.augment, dataset.feature_shape, order.spec.seed, world.rank)
        self.reporter = EventReporter(report, self.spec.global_batch_size, self.start.loss_factor)
        target, alive = self.start.target_transform, self.reporter.alive
        self.shares = open_shares(
            self.store, dataset, self.spec, world, side_by_side=order.side_by_side, target_transform=target, alive=alive
        )
        num_shares = self.spec.num_shares(world.size)
        self.share_batch_size = self.spec.global_batch_size // num_shares
        num_rows = self.shares.train.num_rows_all // num_shares
        if 1 in (self.share_batch_size, num_rows, self.spec.micro_batch_rows):
            check_single_row(self.module, dataset.feature_shape)
        self.steps_per_epoch = self.shares.train.num_steps(self.share_batch_size)
        self.total_steps = min(self.steps_per_epoch * self.spec.epochs, self.spec.max_steps or sys.maxsize)
        self.step_s: list[float] = []
        """Of each epoch this process trained: seconds a step."""
        self.reporter.total_steps = self.total_steps
        self.draws = Draws(order.spec.seed, world)
        self.network_runs = NetworkRuns(world, self.spec.global_batch_size // world.size, self.reporter.alive)
        self.reading = Reading(world)

    def connect(self, preemption: Preemption) -> None:
        """Join the other ranks: from here on they hold the model together, and gradients are averaged over all."""
        spec, world, watch = self.spec, self.world, self.watch
        shape = self.order.dataset.feature_shape
        self.device_use = DeviceUse(spec, world, self.module, shape, counts=self.start.own_step is None)
        agreed(lambda: fit_out(self.module, spec, world), world)
        self.parallel = build_parallel(self.order, self.store, world, self.module, has_unused=bool(self.start.unused))
        self.parallel.optimizer = optim.build_optimizer(spec.optimizer, self.parallel.parameters)
        self.rate = optim.Rate(spec, self.parallel.optimizer, self.steps_per_epoch, self.total_steps)
        self.average = Ema(self.module, spec.ema_decay)
        self.scale = precision.Scale(spec.precision)
        self.autocast = precision.Autocast("float32" if self.parallel.casts else spec.precision, world.device)
        self.finite = FiniteCheck(world, self.steps_per_epoch)
        self.step = OptimizerStep(
            self.parallel,
            ForwardLoss(self.loss, self.autocast, self.start.own_step),
            world,
            spec,
            scale=self.scale,
            runs=self.network_runs,
            finite=self.finite,
            on_failure=self.reading.failed,
            on_overflow=lambda: agreed(self.reading.raise_failure, world),
        )
        self.checkpointing = Checkpointing(
            self.order, world, self.store, self.parallel, self.average, self.finite, preemption, self.reporter, watch
        )
        self.validation = Validation(
            self.shares.val,
            self.order,
            self.loss,
            world,
            loss_factor=self.start.loss_factor,
            target_transform=self.start.target_transform,
            runs=self.network_runs,
            autocast=self.autocast,
            calls_meet=self.parallel.calls_meet,
        )

    def restore(self) -> None:
        """Go on from the newest checkpoint, if there is one, and say so."""
        self.state, notes = self.checkpointing.restore()
        self.scale.resume(self.state)
        fits_gpu = self.spec.micro_batch_rows == "auto" and self.parallel.finds_room and not self.spec.sync_batch_norm
        if self.world.size > 1 or fits_gpu:
            rows = agreed(lambda: self.shares.train.first(self.share_batch_size), self.world)
            self.reading.spare = rows
            self.step.settle(rows, fits_gpu=fits_gpu)
        events, notes = [self.shares.told, *self.parallel.told, *self.start.events], [*self.start.notes, *notes]
        self.reporter.start(self.state.step, events, notes, self.watch.so_far()[0]["starting"], self.world.size)

    def goes_on(self) -> bool:
        """Whether there is a step left, and a reason to take it."""
        return self.state.step < self.total_steps and not outcome.stops_early(self.state, self.spec.early_stopping)

    # ---- one epoch

    def train_epoch(self) -> None:
        """Every row of the share once, in an order given by (seed, epoch, rank)."""
        self.parallel.network.train()
        self.rate.begin_epoch(self.state.history)
        state, first_step = self.state, self.state.epoch_step
        self.reporter.begin(state.step)
        loss_sum = torch.tensor(state.loss_sum, dtype=torch.float64, device=self.world.device)
        train, size = self.shares.train, self.share_batch_size
        with closing(train.epoch(size, self.order.spec.seed, state.epoch, first_step=first_step)) as batches:
            readable = self.reading.batches(batches, lambda: train.rows_left(state.epoch_step, size))
            for batch in self.watch.between_steps(readable):
                loss = self.train_step(batch)
                loss_sum.add_(loss, alpha=batch.num_rows)
                state.took_step(batch.num_rows)
                is_last = state.epoch_step == self.steps_per_epoch or state.step == self.total_steps
                if not is_last and self.checkpointing.is_due(state.step):
                    state.loss_sum = float(loss_sum)
                    self.checkpointing.save(state)
                    loss_sum.fill_(state.loss_sum)
                if self.reporter.is_time:
                    self.reporter.step(state, float(loss))
                if is_last:
                    break
        state.loss_sum = float(loss_sum)
        self.step_s.append(self.reporter.step_s(state.step))

    def train_step(self, batch: Batch) -> Tensor:
        """One optimizer step; returns the mean loss over this worker's rows."""
        step = self.state.step
        self.rate.set(step)
        self.draws.begin(step)
        loss = self.step.take(self.augment(batch, self.state.epoch, step), step)
        self.average.update(step)
        return loss

    def finish_epoch(self) -> None:
        """Validate, note the epoch, remember the best, save."""
        self.watch.turn_to("validation")
        state = self.state
        loss_sum, num_rows = summed([state.loss_sum, state.rows], self.world)
        metrics = {"train_loss": loss_sum / num_rows * self.start.loss_factor}
        with self.average.in_use():
            self.parallel.agree_on_buffers()
            metrics |= self.validation.measure(self.module, state.step, self.reading.spare_features)
            self.parallel.release()
            if not all(np.isfinite(value) for value in metrics.values()):
                raise self.finite.error(state.step)
            rows_per_s = self.shares.train.num_rows_all / (self.step_s[-1] * self.steps_per_epoch)
            finished = EpochMetrics(epoch=state.epoch, step=state.step, metrics=metrics)
            state.history.append({**finished.model_dump(), "rows_per_s": rows_per_s})
            if outcome.is_best(state, self.spec.early_stopping):
                state.best_epoch = state.epoch
                if self.spec.early_stopping:
                    self.checkpointing.remember_best()
        state.begin_epoch()
        self.checkpointing.save(state, may_grow=self.goes_on())
        self.reporter.epoch(state, self.step_s[-1])
        self.checkpointing.leave_to_grow(state.step)

    def package(self) -> TrainResult:
        """Rank 0 writes the artifact: the best epoch's weights under early stopping, else the last epoch's."""
        self.watch.turn_to("packaging")
        order = self.order
        self.checkpointing.finish(self.state)
        ref = ArtifactRef(key=order.artifact_key, digest="")
        self.average.use()
        self.checkpointing.use_best()
        module = self.parallel.packaged(lambda: build_network(order))
        if module is not None:
            ref = write_artifact(
                self.store,
                order.artifact_key,
                module,
                order.spec.model,
                order.dataset,
                code_dir=order.code_dir,
                target_transform=self.start.target_transform,
            )
        return outcome.train_result(
            order,
            self.state,
            ref,
            total_steps=self.total_steps,
            num_parameters=sum(parameter.numel() for parameter in self.parallel.parameters),
            num_workers=self.world.size,
            target_transform=self.start.target_transform,
            goodput=lambda rows_per_s: self.watch.goodput(self.device_use.share(rows_per_s)),
        )
