"""What of a training is kept in the store, and taken up again: all its tensors, and where it stands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from raypipe.errors import CheckpointError
from raypipe.storage import Store
from raypipe.train import checkpoints
from raypipe.train.average import Ema
from raypipe.train.checkpoints import Saver, Span, StoredCheckpoint, StoredTensor, TrainState
from raypipe.train.goodput import Stopwatch
from raypipe.train.growth import Growth
from raypipe.train.order import TrainOrder
from raypipe.train.parallel import MODEL, Parallel, like, piece_of
from raypipe.train.preemption import Notices, Preemption
from raypipe.train.reporter import EventReporter
from raypipe.train.rows import World
from raypipe.train.step import FiniteCheck
from raypipe.train.together import gathered, summed

AVERAGE, BEST = "average/", "best/"


class Checkpointing:
    """Saves and restores one training; of none where the order keeps no checkpoints.

    Attributes:
        best: weights of the best epoch so far, held as those of the model are; empty where none is remembered.

    Args:
        preemption: how this rank learns that its machine is taken away.
        reporter: told what a person should know, and that this rank lives while a write is waited for.
        watch: what checkpoints take counts for them; its time is kept and taken up again, too.
    """

    def __init__(
        self,
        order: TrainOrder,
        world: World,
        store: Store,
        parallel: Parallel,
        average: Ema,
        finite: FiniteCheck,
        preemption: Preemption,
        reporter: EventReporter,
        watch: Stopwatch,
    ) -> None:
        self._watch = watch
        self._order, self._world, self._store = order, world, store
        self._parallel, self._average, self._finite = parallel, average, finite
        self._fingerprint = order.fingerprint()
        self._preemption, self._notices, self._must_leave = preemption, Notices(preemption, world), False
        self._growth, self._grows = Growth(order.spec.train, world, preemption), False
        self._saver = Saver(
            store,
            order.run_id,
            order.spec.train,
            rank=world.rank,
            size=world.size,
            device=world.device,
            parallel=parallel.name,
            gather=partial(gathered, world=world),
            say=reporter.note,
            alive=reporter.alive,
        )
        self.best: dict[str, Tensor] = {}

    # ---- saving

    def is_due(self, step: int) -> bool:
        """Whether there is a reason to save after a step in mid-epoch; on every rank after each."""
        every = self._order.spec.train.checkpoint.every_steps
        self._must_leave = self._notices.came(step)
        return self._must_leave or bool(every and step % every == 0)

    def save(self, state: TrainState, *, may_grow: bool = False) -> None:
        """Keep all that a resumed training needs; on every rank at the same time. A step waits for the copy alone.

        Args:
            may_grow: an epoch ended and the training goes on; with more workers if there is room (`leave_to_grow`).
        Raises:
            NonFiniteLossError: a gradient or a weight is not finite; nothing is written.
            PreemptedError: the machine is taken away, and this checkpoint is there.
            StoreError: an earlier checkpoint could not be written for too long, or never can.
        """
        with self._watch.during("checkpoints"):
            self._grows = may_grow and self._order.checkpoints and self._growth.is_due()
            self._save(state)

    def _save(self, state: TrainState) -> None:
        self._finite.raise_if_found()
        if self._order.checkpoints:
            loss_sum, num_rows = summed([state.loss_sum, state.rows], self._world)
            state.loss_sum, state.rows = (loss_sum, int(num_rows)) if self._world.rank == 0 else (0.0, 0)
            if not torch.isfinite(self._parallel.weights_norm()):
                raise self._finite.error(state.step)  # a gradient can overflow where the loss does not
            self._parallel.agree_on_buffers()
            state.spent_s, state.spent_until = self._watch.so_far()
            self._saver.save(state, self._spans, wait=self._must_leave or self._grows)
        if self._must_leave:
            self._preemption.leave(state.step)

    def leave_to_grow(self, step: int) -> None:
        """After `save`: end this attempt where more workers shall go on. Raises MoreWorkersError."""
        if self._grows:
            self._growth.leave(step)

    def finish(self, state: TrainState) -> None:
        """The training is over: return when its last checkpoint is there. Raises what `save` raises."""
        if self._order.checkpoints:
            with self._watch.during("checkpoints"):
                self._saver.finish(state, self._spans)

    def close(self) -> None:
        """The training ends, in whatever way."""
        self._saver.close()

    @property
    def waited_s(self) -> float:
        """How long steps have waited for checkpoints so far."""
        return self._saver.waited_s

    def remember_best(self) -> None:
        """The weights of now are the best so far."""
        held = self._parallel.module.state_dict()
        self.best = {name: value.detach().clone() for name, value in held.items()}

    def use_best(self) -> None:
        """Give the model the best epoch's weights, where one was remembered."""
        if self.best:
            self._parallel.module.load_state_dict(self.best)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = self._parallel.tensors()
        tensors |= {AVERAGE + name: value for name, value in self._average.tensors().items()}
        return tensors | {BEST + name: value for name, value in self.best.items()}

    def _spans(self) -> dict[str, Span]:
        """What this rank writes: its part of sharded tensors, and a share of those that all ranks hold alike."""
        tensors = self._tensors()
        copies = {name: tensor for name, tensor in tensors.items() if not isinstance(tensor, DTensor)}
        spans = checkpoints.cut(copies, self._world.rank, self._world.size)
        for name, tensor in tensors.items():
            if isinstance(tensor, DTensor):
                values, shape, start, _ = piece_of(tensor)
                if values.numel():
                    spans[name] = Span(values, shape, start[0] * math.prod(shape[1:]))
        return spans

    # ---- restoring

    def restore(self) -> tuple[TrainState, list[str]]:
        """Continue from the run's newest complete checkpoint that every rank can read, if there is one.

        Returns:
            Where the training stands, and what was passed over, in words.
        Raises:
            CheckpointError: none of several can be used, it belongs to others, or is past the last epoch of the file.
        """
        fresh = TrainState(fingerprint=self._fingerprint)
        if not self._order.checkpoints:
            return fresh, []
        elastic = self._order.spec.train.elastic
        state, notes = checkpoints.restore(
            self._store,
            self._order.run_id,
            self._fingerprint,
            self._world,
            self._continue_from,
            None if elastic is None else elastic.max,
        )
        if state is None:
            return fresh, notes
        self._check_epochs(state)
        self._watch.resume(state.spent_s, state.spent_until)
        if self._world.rank != 0:
            state.loss_sum, state.rows = 0.0, 0  # rank 0 goes on with the sums of all
        return state, notes

    def _check_epochs(self, state: TrainState) -> None:
        """A model is never one of more epochs than the file says."""
        begun, epochs = state.epoch - 1 + bool(state.epoch_step), self._order.spec.train.epochs
        if begun > epochs:
            raise CheckpointError(
                f"run {self._order.run_id} has trained into epoch {begun} already (step {state.step}), and "
                f"train.epochs is {epochs}",
                f"set train.epochs to {begun} or more, or begin the training anew: --run {self._order.run_id} --fresh",
            )

    def _continue_from(self, found: StoredCheckpoint) -> None:
        held = self._parallel.module.state_dict()
        found.check_holds({MODEL + name: StoredTensor(each.dtype, tuple(each.shape)) for name, each in held.items()})
        spans = {name: self._span(name, tensor) for name, tensor in found.tensors.items()}
        found.read_into(spans)
        mine = {name: span.values for name, span in spans.items()}
        self._parallel.load(mine)
        self._average.load(_named(mine, AVERAGE))
        self.best = {name: like(held[name], values) for name, values in _named(mine, BEST).items()}

    def _span(self, name: str, tensor: StoredTensor) -> Span:
        """Room for what this rank holds of a stored tensor."""
        place = self._parallel.place(name, tensor.shape)
        values = torch.empty([each.stop - each.start for each in place], dtype=tensor.dtype)
        first_row = place[0].start if place else 0
        return Span(values, tensor.shape, first_row * math.prod(tensor.shape[1:]))


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
