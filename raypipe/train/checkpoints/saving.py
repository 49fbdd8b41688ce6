"""Checkpoints while the training goes on: a step waits for the copy, one thread a rank writes.

Two saves of a rank never overlap: the next one waits for the write before, as long as writes usually take. If the store
is slower than that or away, the save is left out and the training goes on; the write is tried until it succeeds, or
`checkpoint.max_unsaved_s` have passed.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from raypipe.errors import RaypipeError, StoreError, TrainingError
from raypipe.spec.train import TrainSpec
from raypipe.storage import Store
from raypipe.train.checkpoints.image import PartImage
from raypipe.train.checkpoints.index import TrainState
from raypipe.train.checkpoints.spans import Span
from raypipe.train.checkpoints.writing import Writer

FIRST_PATIENCE_S = 10.0
"""How long a save waits for the write before, where none was ever finished."""

PATIENCE_S, PATIENCE_FACTOR = 1.0, 4.0
"""Later: so many times the longest write so far, and this at the least."""

RETRY_S, LONGEST_RETRY_S = 0.5, 10.0
"""Between two tries of a write; the store's own retries are within each."""

ASK_S = 1.0
"""Ranks that wait for each other's writes ask so often whether one has failed: the part of that one never comes."""

CLOSE_S = 5.0
"""How long a training that ends with an error waits for its last write; peers that are gone never send a receipt."""


class Status(NamedTuple):
    """What a rank tells the others before each save.

    Attributes:
        token: rank 0's counts for all.
        pending_step: of the checkpoint that is still being written; -1: none is.
        pending_s: since when.
        problem: the last error of a write that is tried again.
        failure: why nothing more can be written; None: no such reason.
    """

    token: str
    pending_step: int
    pending_s: float
    problem: str
    failure: RaypipeError | None


Gather = Callable[[Status], list[Status]]
"""Every rank's status, by rank; called by all ranks at once."""


class _GiveUp(Exception):
    """A write is no longer waited for."""


class _Write:
    """A write under way."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.began = time.monotonic()
        self.done = threading.Event()
        self.stopped = threading.Event()
        self.problem = ""
        self.failure: RaypipeError | None = None


class Saver:
    """One rank's checkpoints.

    Attributes:
        waited_s: how long steps have waited for checkpoints so far: for copies and for writes before.
        num_saved: checkpoints that this rank began to write.
        left_out: steps of saves that were left out, for the store had not taken the one before.

    Args:
        parallel: how the ranks hold the model.
        gather: tells the ranks of each other; unset for one rank alone.
        say: told what a person should know.
        alive: called while a write is waited for, which may take longer than anything else of a training.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        spec: TrainSpec,
        *,
        rank: int = 0,
        size: int = 1,
        device: torch.device | None = None,
        parallel: str | None = None,
        gather: Gather | None = None,
        say: Callable[[str], None] = lambda text: None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._run_id, self._spec = store, run_id, spec
        self._rank, self._size, self._device = rank, size, device or torch.device("cpu")
        self._parallel = parallel
        self._gather: Gather = gather or (lambda status: [status])
        self._say, self._alive = say, alive
        self._token = secrets.token_hex(4)
        self._image = PartImage()
        self._pending: _Write | None = None
        self._longest_s: float | None = None
        self._is_late = False
        self._last_step = -1
        self.waited_s = 0.0
        self.num_saved = 0
        self.left_out: list[int] = []

    def save(self, state: TrainState, spans: Callable[[], Mapping[str, Span]], *, wait: bool = False) -> bool:
        """Copy the spans of this rank and begin to write them; called by all ranks at the same step.

        Args:
            state: must not be changed by others while this runs; it is copied.
            spans: what this rank writes; asked only when it is copied.
            wait: return when the checkpoint is there, on all ranks, not before.
        Returns:
            Whether it is being written; False: left out.
        Raises:
            StoreError, TrainingError: nothing could be written for `checkpoint.max_unsaved_s`, or never can; the same
                on every rank.
        """
        began = time.perf_counter()
        if wait:
            self._join_all()
            is_free = True
        else:
            self._join(self._patience_s())
            is_free = self._agree(state.step)
        if is_free:
            self._begin(state, spans)
            if wait:
                self._join_all()
        self.waited_s += time.perf_counter() - began
        return is_free

    def finish(self, state: TrainState, spans: Callable[[], Mapping[str, Span]]) -> None:
        """Return when the checkpoint of `state` is there; called by all ranks. Raises what `save` raises."""
        began = time.perf_counter()
        self._join(max(PATIENCE_S, self._patience_s()))
        if self._pending is not None and not self._pending.done.is_set() and self._rank == 0:
            self._say(f"the training is done; its checkpoint of step {self._pending.step} waits for the store")
        self._join_all()
        self.waited_s += time.perf_counter() - began
        if self._last_step != state.step:
            self.save(state, spans, wait=True)

    def close(self) -> None:
        """Stop writing, after the last write where it ends soon; harmless twice, and when others are gone."""
        if self._pending is not None:
            self._pending.done.wait(max(CLOSE_S, PATIENCE_FACTOR * (self._longest_s or 0.0)))
            self._pending.stopped.set()

    # ---- parts

    def _patience_s(self) -> float:
        if self._is_late:
            return 0.0
        if self._longest_s is None:
            return FIRST_PATIENCE_S
        return max(PATIENCE_S, PATIENCE_FACTOR * self._longest_s)

    def _join(self, timeout_s: float | None) -> None:
        if self._pending is not None:
            self._pending.done.wait(timeout_s)

    def _join_all(self) -> None:
        """Until no rank writes any more. Raises the failure of the first rank that has one."""
        while True:
            self._join(ASK_S)
            self._alive()
            if not self._late():
                return

    def _agree(self, step: int) -> bool:
        """Whether no rank writes any more. Raises the failure of the first rank that has one."""
        late = self._late()
        if late:
            self._leave_out(step, max(late, key=lambda status: (bool(status.problem), status.pending_s)))
        return not late

    def _late(self) -> list[Status]:
        """Of the ranks that still write. Raises the failure of the first rank that has one."""
        statuses = self._gather(self._status())
        self._token = statuses[0].token
        failure = next((status.failure for status in statuses if status.failure is not None), None)
        if failure is not None:
            if self._pending is not None:
                self._pending.stopped.set()  # a checkpoint needs every rank's part
            raise failure
        late = [status for status in statuses if status.pending_step >= 0]
        if not late:
            self._pending, self._is_late = None, False
        return late

    def _status(self) -> Status:
        write = self._pending
        if write is None:
            return Status(self._token, -1, 0.0, "", None)
        if not write.done.is_set():
            return Status(self._token, write.step, time.monotonic() - write.began, write.problem, None)
        return Status(self._token, -1, 0.0, "", write.failure)

    def _leave_out(self, step: int, late: Status) -> None:
        self.left_out.append(step)
        if not self._is_late and self._rank == 0:
            why = f": {late.problem}" if late.problem else ""
            self._say(
                f"the store has not taken the checkpoint of step {late.pending_step} for {late.pending_s:.0f} s{why}; "
                f"training goes on, and that of step {step} is left out"
            )
        self._is_late = True

    def _begin(self, state: TrainState, spans: Callable[[], Mapping[str, Span]]) -> None:
        write = self._pending = _Write(state.step)
        try:
            self._image.take(spans(), self._device)
        except Exception as error:  # of what this rank holds alone: told when the ranks meet again
            if self._size == 1:
                raise
            write.failure = _ours(error, state.step)
            write.done.set()
            return
        writer = Writer(self._store, self._run_id, self._spec, self._rank, self._size, self._token, self._parallel)
        copied = TrainState(**{**state.__dict__, "history": list(state.history)})
        self._last_step = state.step
        self.num_saved += 1
        threading.Thread(
            target=self._run, args=(write, writer, copied), name=f"checkpoint-{state.step}", daemon=True
        ).start()

    def _run(self, write: _Write, writer: Writer, state: TrainState) -> None:
        """In the thread: until it is written, never can be, or took too long."""

        def pause(length_s: float) -> None:
            if write.stopped.wait(length_s) or time.monotonic() - write.began > self._spec.checkpoint.max_unsaved_s:
                raise _GiveUp

        retry_s = RETRY_S
        try:
            while True:
                try:
                    writer.write(self._image, state, pause)
                    took_s = time.monotonic() - write.began
                    if not write.problem:  # an outage says nothing about how long a write takes
                        self._longest_s = max(took_s, self._longest_s or 0.0)
                    return
                except RaypipeError as error:
                    if not error.transient:
                        raise
                    write.problem = error.message
                pause(retry_s)
                retry_s = min(2 * retry_s, LONGEST_RETRY_S)
        except RaypipeError as error:
            write.failure = error
        except _GiveUp:
            write.failure = self._given_up(write)
        except Exception as error:  # of a part of ours that has a fault: told, instead of a thread that ends unheard
            write.failure = _ours(error, write.step)
        finally:
            write.done.set()

    def _given_up(self, write: _Write) -> RaypipeError:
        limit_s = self._spec.checkpoint.max_unsaved_s
        why = write.problem or "not all workers' parts came"
        return StoreError(
            f"the checkpoint of step {write.step} could not be written for {limit_s:g} s "
            f"(train.checkpoint.max_unsaved_s): {why}",
            f"look at the store, then go on: raypipe run FILE --resume {self._run_id}",
        )


def _ours(error: Exception, step: int) -> RaypipeError:
    if isinstance(error, RaypipeError):
        return error
    return TrainingError(f"the checkpoint of step {step} failed: {type(error).__name__}: {error}")
