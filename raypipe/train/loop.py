"""The loop each worker runs, top to bottom; kept whole, so that one file tells what happens to a row.

The same loop runs in the workers of either way to start them (DDP, one process a rank) and, alone, in a tuning trial.
Shape letters: B rows, K classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raypipe.data.shards import share
from raypipe.data.shuffle.target import statistics
from raypipe.errors import CheckpointError, DigestMismatch, NonFiniteLossError, ObjectMissing, RaypipeError
from raypipe.model.artifact import write_artifact
from raypipe.model.build import build_model, check_single_row
from raypipe.model.losses import build_loss
from raypipe.model.metrics import classification_metrics, regression_metrics
from raypipe.model.target import describe, fit_target, loss_factor, resolved, to_unit
from raypipe.model.trainable import check_trainable, told
from raypipe.records import ArtifactRef, EpochMetrics, TargetTransform, TrainResult
from raypipe.runtime import seeds
from raypipe.spec.pipeline import HIGHER_IS_BETTER
from raypipe.storage import open_store
from raypipe.train import augment, checkpoint, optim
from raypipe.train.checkpoint import Checkpoint, TrainState
from raypipe.train.draws import Draws
from raypipe.train.order import TrainOrder
from raypipe.train.rows import Batch, Share, World
from raypipe.train.shares import open_shares
from raypipe.train.together import agreed, from_rank_0
from raypipe.train.user_errors import NetworkRuns

VALIDATION_ROWS = 4096
"""Rows of one validation call."""
SAY_EVERY_S = 2.0
GPU_CHECK_STEPS = 16
"""On a GPU, asking whether the gradient is finite waits for the device; so it is asked this often."""


Report = Callable[[dict[str, Any]], None]
"""Told what happens: {"event": "rows" | "target" | "start" | "step" | "epoch", ...}; called by every rank."""


def run(order: TrainOrder, world: World, report: Report) -> TrainResult:
    """Train to the end and package the model; rank 0's result carries the artifact's digest.

    Raises:
        UserCodeError: the user's network raised; where only one rank raises it, the others wait and must be ended.
        NonFiniteLossError: the gradient became NaN or infinite, at the same step on every rank.
        DataError, ModelError: data or model do not allow training.
        DigestMismatch, ObjectMissing, StoreError: rows could not be read, before or while training.
    """
    torch.manual_seed(seeds.derive(order.spec.seed, "weights"))  # the same first weights on every rank
    trainer = agreed(lambda: Trainer(order, world, report), world)
    notes = trainer.restore()
    trainer.connect()
    report(trainer.shares.told)
    if trainer.target_told:
        report(
            {"event": "target", "text": trainer.target_told, "target": trainer.target_transform.model_dump(mode="json")}
        )
    if trainer.unused:
        text = f"the network's forward does not use {told(trainer.unused)}: they stay as they are"
        report({"event": "unused", "text": text, "parameters": trainer.unused})
    report({"event": "start", "step": trainer.state.step, "total_steps": trainer.total_steps, "notes": notes})
    while trainer.state.epoch <= order.spec.train.epochs and not trainer.stops_early():
        try:
            trainer.train_epoch()
            trainer.finish_epoch()
        except NonFiniteLossError as error:
            agreed(trainer.raise_failure, world, met=error)  # on every rank at the same step, so none waits
            raise
    return trainer.package()


class Trainer:
    """One worker's model, optimizer, rows and progress."""

    def __init__(self, order: TrainOrder, world: World, report: Report) -> None:
        self.order, self.world, self.report = order, world, report
        self.spec = order.spec.train
        self.store = open_store(order.store_uri)
        signature = order.dataset.signature
        module = build_model(order.spec.model, signature, order.dataset.feature_shape, order.code_dir)
        self.unused = check_trainable(module, order.spec.model.kind, order.dataset.feature_shape)
        self.module: nn.Module = module.to(world.device)
        self.parallel = self.module
        self.loss = build_loss(self.spec, signature.task)
        if self.spec.augment is not None:
            augment.check(self.spec.augment, order.dataset.feature_shape)
        self.parameters = list(self.module.parameters())
        self.optimizer = optim.build_optimizer(self.spec.optimizer, self.parameters)
        self.target_told = ""
        self.target_transform = self._transform_target()
        self.loss_factor = loss_factor(self.spec.loss, self.target_transform)
        self.shares = open_shares(
            self.store,
            order.dataset,
            self.spec,
            world,
            side_by_side=order.side_by_side,
            target_transform=self.target_transform,
        )
        self.train_rows = self.shares.train
        self.worker_batch_size = self.spec.global_batch_size // world.size
        if min(self.worker_batch_size, self.train_rows.num_rows_all // world.size) == 1:
            check_single_row(self.module, order.dataset.feature_shape)
        self.steps_per_epoch = self.train_rows.num_steps(self.worker_batch_size)
        self.total_steps = self.steps_per_epoch * self.spec.epochs
        self.state = TrainState(fingerprint=order.fingerprint())
        self.best_weights: dict[str, Tensor] = {}
        self.step_s: list[float] = []
        """Of each epoch this process trained: seconds a step."""
        self.failure: RaypipeError | None = None
        """Why this rank could not read its rows, until all ranks have stopped."""
        self.first_bad_step = torch.zeros((), dtype=torch.int64, device=world.device)
        self.draws = Draws(order.spec.seed, world)
        self.network_runs = NetworkRuns(world)

    def connect(self) -> None:
        """Join the other ranks: from here on gradients are averaged over all."""
        if self.world.size > 1:
            devices = [self.world.device] if self.world.device.type == "cuda" else None
            self.parallel = DistributedDataParallel(
                self.module, device_ids=devices, find_unused_parameters=bool(self.unused)
            )
            self._settle()

    # ---- one epoch

    def train_epoch(self) -> None:
        """Every row of the share once, in an order given by (seed, epoch, rank)."""
        self.parallel.train()
        start = said = time.perf_counter()
        first_step = self.state.epoch_step
        loss_sum = torch.tensor(self.state.loss_sum, dtype=torch.float64, device=self.world.device)
        order_seed = seeds.derive(self.order.spec.seed, "shuffle", self.state.epoch, self.world.rank)
        with closing(self.train_rows.batches(self.worker_batch_size, order_seed, first_step=first_step)) as batches:
            for batch in self._failing_together(batches):
                loss = self.train_step(batch)
                loss_sum.add_(loss, alpha=batch.num_rows)
                self.state.step += 1
                self.state.epoch_step += 1
                self.state.rows += batch.num_rows
                every = self.spec.checkpoint.every_steps
                if every and self.state.step % every == 0 and self.state.epoch_step < self.steps_per_epoch:
                    self.state.loss_sum = float(loss_sum)
                    self.save()
                    loss_sum.fill_(self.state.loss_sum)
                if time.perf_counter() - said > SAY_EVERY_S:
                    said = time.perf_counter()
                    self._say_step(float(loss), (said - start) / (self.state.epoch_step - first_step))
        self.state.loss_sum = float(loss_sum)
        self.step_s.append((time.perf_counter() - start) / max(1, self.steps_per_epoch - first_step))

    def train_step(self, batch: Batch) -> Tensor:
        """One optimizer step; returns the mean loss over this worker's rows."""
        lr = self.spec.optimizer.lr * optim.lr_factor(
            self.spec.schedule, self.state.step, self.steps_per_epoch, self.total_steps
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.draws.begin(self.state.step)
        features = self._augmented(batch.rows.features)
        with self.network_runs.during(f"training step {self.state.step + 1}"):
            loss = self.loss(self.parallel(features), batch.rows.target, reduction="mean")
            self._forget_gradients()
            (loss if batch.weight == 1.0 else loss * batch.weight).backward()
        norm, loss = self._clip(), loss.detach()
        self._check_finite(loss if norm is None else norm)
        self.optimizer.step()
        return loss

    def finish_epoch(self) -> None:
        """Validate, note the epoch, remember the best, save."""
        loss_sum, num_rows = self._loss_of_all()
        metrics = {"train_loss": loss_sum / num_rows * self.loss_factor}
        if self.shares.val is not None:
            self._agree_on_buffers()
            metrics |= self.validate(self.shares.val)
        if not all(np.isfinite(value) for value in metrics.values()):
            raise self._non_finite(self.state.step)
        rows_per_s = self.train_rows.num_rows_all / (self.step_s[-1] * self.steps_per_epoch)
        finished = EpochMetrics(epoch=self.state.epoch, step=self.state.step, metrics=metrics)
        self.state.history.append({**finished.model_dump(), "rows_per_s": rows_per_s})
        if self._is_best():
            self.state.best_epoch = self.state.epoch
            if self.spec.early_stopping:
                self.best_weights = {k: v.detach().clone() for k, v in self.module.state_dict().items()}
        self.state.epoch, self.state.epoch_step = self.state.epoch + 1, 0
        self.state.loss_sum, self.state.rows = 0.0, 0
        self.save()
        self.report({"event": "epoch", **self.state.history[-1], "left_s": self._left_s()})

    @torch.inference_mode()
    def validate(self, val: Share) -> dict[str, float]:
        """Loss and metrics over the whole validation split, the same numbers on every rank."""
        self.module.eval()
        mine = agreed(lambda: self._answers(val), self.world)
        target_B, answer_B, loss_B = self._gather(mine, val.num_rows_all).T.cpu().numpy()
        classes = self.order.dataset.signature.classes
        if classes is None:
            in_unit = (to_unit(values_B, self.target_transform) for values_B in (target_B, answer_B))
            metrics = regression_metrics(*in_unit)
        else:
            metrics, _, _ = classification_metrics(target_B.astype(np.int64), answer_B.astype(np.int64), len(classes))
        return {
            "val_loss": float(loss_B.mean()) * self.loss_factor,
            **{f"val_{name}": value for name, value in metrics.items()},
        }

    def _answers(self, val: Share) -> Tensor:
        """Target, answer and loss of this worker's rows, float64 [B, 3]."""
        parts = [torch.zeros(0, 3, dtype=torch.float64, device=self.world.device)]
        with closing(val.in_order(VALIDATION_ROWS)) as batches:
            for features, target in batches:
                with self.network_runs.during(f"validation after step {self.state.step}"):
                    output = self.module(features)
                    loss = self.loss(output, target)
                classes = self.order.dataset.signature.classes
                answer = output.argmax(dim=1) if classes is not None else output.reshape(-1)
                parts.append(torch.stack([target.double(), answer.double(), loss.double()], dim=1))
        return torch.cat(parts)

    # ---- where it stands

    def restore(self) -> list[str]:
        """Continue from the run's newest complete checkpoint, if there is one: rank 0 chooses, all read the same.

        Returns:
            What rank 0 passed over, in words.
        Raises:
            CheckpointError: none of several can be read, a rank cannot read the chosen one, or it belongs to others.
        """
        if not self.order.checkpoints:
            return []
        chosen, notes = agreed(self._choose, self.world)
        step = from_rank_0(None if chosen is None else chosen.state.step, self.world)
        if step is not None:
            agreed(lambda: self._continue_from(chosen or self._read(step)), self.world)
        return notes

    def _choose(self) -> tuple[Checkpoint | None, list[str]]:
        # Each rank choosing for itself would follow its own listing of the store, and one may lag behind.
        if self.world.rank != 0:
            return None, []
        return checkpoint.newest(self.store, self.order.run_id, self.state.fingerprint)

    def _read(self, step: int) -> Checkpoint:
        try:
            return checkpoint.read(self.store, self.order.run_id, step, self.state.fingerprint)
        except (DigestMismatch, ObjectMissing) as error:
            raise CheckpointError(
                f"worker {self.world.rank} of {self.world.size} cannot read the checkpoint of step {step}, from which "
                f"worker 0 goes on: {error.message}",
                "look whether all nodes reach the same store; raypipe run FILE --resume "
                f"{self.order.run_id} tries again",
            ) from None

    def _continue_from(self, found: Checkpoint) -> None:
        self.state, tensors = found
        if self.world.rank != 0:
            self.state.loss_sum, self.state.rows = 0.0, 0  # rank 0 goes on with the sums of all
        weights = {k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")}
        self.module.load_state_dict(weights)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict(checkpoint.unflatten_optimizer(tensors, groups))
        self.best_weights = {k.removeprefix("best/"): v for k, v in tensors.items() if k.startswith("best/")}

    def save(self) -> None:
        """Rank 0 saves for all: DDP keeps every rank's model and optimizer equal."""
        if int(self.first_bad_step):
            raise self._non_finite(int(self.first_bad_step))
        if not self.order.checkpoints:
            return
        loss_sum, num_rows = self._loss_of_all()
        self.state.loss_sum, self.state.rows = (loss_sum, num_rows) if self.world.rank == 0 else (0.0, 0)
        agreed(self._write_checkpoint, self.world)

    def _write_checkpoint(self) -> None:
        if self.world.rank != 0:
            return
        if not torch.isfinite(nn.utils.get_total_norm([p.detach() for p in self.parameters])):
            raise self._non_finite(self.state.step)  # a gradient can overflow where the loss does not
        tensors = {f"model/{name}": value for name, value in self.module.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in self.best_weights.items()}
        tensors |= checkpoint.flatten_optimizer(self.optimizer.state_dict())
        checkpoint.save(
            self.store, self.order.run_id, self.state, tensors, num_to_keep=self.spec.checkpoint.num_to_keep
        )

    def stops_early(self) -> bool:
        """Whether the watched metric has not improved for `patience_epochs`."""
        early = self.spec.early_stopping
        return early is not None and self.state.epoch - 1 - self.state.best_epoch >= early.patience_epochs

    def package(self) -> TrainResult:
        """Rank 0 writes the artifact: the best epoch's weights under early stopping, else the last epoch's."""
        if self.best_weights:
            self.module.load_state_dict(self.best_weights)
        ref = ArtifactRef(key=self.order.artifact_key, digest="")
        if self.world.rank == 0:
            ref = write_artifact(
                self.store,
                self.order.artifact_key,
                self.module,
                self.order.spec.model,
                self.order.dataset,
                code_dir=self.order.code_dir,
                target_transform=self.target_transform,
            )
        rates = [entry["rows_per_s"] for entry in self.state.history]
        history = [{k: v for k, v in entry.items() if k != "rows_per_s"} for entry in self.state.history]
        return TrainResult(
            run_id=self.order.run_id,
            dataset=self.order.dataset.version,
            artifact=ref,
            history=tuple(EpochMetrics.model_validate(entry) for entry in history),
            best_epoch=self.state.best_epoch if self.spec.early_stopping else len(history),
            num_steps=self.state.step,
            num_parameters=sum(p.numel() for p in self.parameters),
            num_workers=self.world.size,
            stopped_early=self.state.epoch <= self.spec.epochs,
            rows_per_s=float(np.median(rates[1:] or rates)),
            target_transform=self.target_transform,
        )

    # ---- parts

    def _transform_target(self) -> TargetTransform:
        """What is done to the target, and a line that says so; nothing of either where it is left as it is."""
        signature = self.order.dataset.signature
        wanted = resolved(self.spec.target_transform, signature)
        if wanted == "none":
            return TargetTransform()
        train = statistics(self.store, self.order.dataset)
        fitted = fit_target(wanted, signature, train)
        self.target_told = describe(fitted, signature.target, train)
        return fitted

    def _settle(self) -> None:
        """One step that changes nothing.

        DDP regroups gradients once, after its first backward pass, and from 3 ranks on the order of a sum shows in its
        last bits. A resumed run must not have its first step summed in another order than the uninterrupted one.
        """
        before = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        rows = agreed(lambda: self.train_rows.first(self.worker_batch_size), self.world)
        self.spare_rows = rows
        self.parallel.train()
        with self.network_runs.during("its first step, which changes nothing"):
            self.loss(self.parallel(rows.features), rows.target, reduction="mean").backward()
        self._forget_gradients()
        self.module.load_state_dict(before)  # normalisation layers keep running averages of what they see

    def _agree_on_buffers(self) -> None:
        """Give every rank the running averages of rank 0, which are those that are saved.

        DDP does so before its next forward pass only, and each rank would validate with its own until then.
        """
        if self.world.size > 1:
            for buffer in self.module.buffers():
                dist.broadcast(buffer, src=0)

    def _failing_together(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches. Where other ranks wait, one that cannot be read makes the gradient NaN, which all ranks see at
        the same step; then they ask each other why."""
        try:
            yield from batches
        except RaypipeError as error:
            if self.world.size == 1:
                raise
            self.failure = error
        while self.failure is not None and self.state.epoch_step < self.steps_per_epoch:
            yield Batch(self.spare_rows, math.nan, 0)

    def raise_failure(self) -> None:
        """Raise why this rank could not go on, if it could not."""
        if self.failure is not None:
            raise self.failure

    def _loss_of_all(self) -> tuple[float, int]:
        """Summed loss and rows of this epoch so far, over all ranks."""
        totals = torch.tensor([self.state.loss_sum, self.state.rows], dtype=torch.float64, device=self.world.device)
        if self.world.size > 1:
            dist.all_reduce(totals)
        return float(totals[0]), int(totals[1])

    def _augmented(self, features: Tensor) -> Tensor:
        if self.spec.augment is None:
            return features
        where = self.state.epoch, self.state.step, self.world.rank
        return augment.augmented(features, self.spec.augment, seeds.derive(self.order.spec.seed, "augment", *where))

    def _forget_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _clip(self) -> Tensor | None:
        """Clip the gradient.

        Returns:
            Its norm, the same on every rank after DDP's all-reduce; None where one rank alone need not know it.
        """
        if self.spec.clip_grad_norm is not None:
            return nn.utils.clip_grad_norm_(self.parameters, self.spec.clip_grad_norm)
        if self.world.size > 1:
            return nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        return None

    def _check_finite(self, value: Tensor) -> None:
        """Stop at the first step whose loss or gradient is not finite (on a GPU: before it is saved or published).

        Args:
            value: one number, the same on every rank, so that all stop at the same step.
        """
        step = self.state.step + 1
        if self.world.device.type == "cpu":
            if not math.isfinite(float(value)):
                raise self._non_finite(step)
            return
        self.first_bad_step += (~torch.isfinite(value) & (self.first_bad_step == 0)) * step
        if step % GPU_CHECK_STEPS == 0 and int(self.first_bad_step):
            raise self._non_finite(int(self.first_bad_step))

    def _say_step(self, loss: float, step_s: float) -> None:
        rows_per_s = self.spec.global_batch_size / step_s
        left = step_s * (self.total_steps - self.state.step)
        self.report(
            {
                "event": "step",
                "epoch": self.state.epoch,
                "step": self.state.step,
                "loss": loss * self.loss_factor,
                "rows_per_s": rows_per_s,
                "left_s": left,
            }
        )

    def _left_s(self) -> float:
        return self.step_s[-1] * (self.total_steps - self.state.step)

    def _non_finite(self, step: int) -> NonFiniteLossError:
        return NonFiniteLossError(
            f"training step {step} (epoch {self.state.epoch}): the loss or its gradient is NaN or infinite; "
            "training stopped and nothing was published",
            "lower train.optimizer.lr, set train.clip_grad_norm, or standardize the features",
        )

    def _is_best(self) -> bool:
        early = self.spec.early_stopping
        if early is None or self.state.best_epoch == 0:
            return True
        sign = 1 if early.metric.removeprefix("val_") in HIGHER_IS_BETTER else -1
        now, best = (self.state.history[i]["metrics"][early.metric] for i in (-1, self.state.best_epoch - 1))
        return sign * (now - best) > early.min_delta

    def _gather(self, mine: Tensor, num_rows_all: int) -> Tensor:
        """Rows of all ranks, in split order [num_rows_all, 3]."""
        if self.world.size == 1:
            return mine
        largest = -(-num_rows_all // self.world.size)
        padded = torch.full((largest, 3), float("nan"), dtype=torch.float64, device=self.world.device)
        padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in range(self.world.size)]
        dist.all_gather(parts, padded)
        bounds = [share(num_rows_all, rank, self.world.size) for rank in range(self.world.size)]
        return torch.cat([part[: stop - start] for part, (start, stop) in zip(parts, bounds, strict=True)])
