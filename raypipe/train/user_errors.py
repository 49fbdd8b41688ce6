"""What the user's network raises while it is trained, as an error of ours that says what, where and at which step."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import torch
import torch.distributed as dist
from typing_extensions import Self

from raypipe.errors import RaypipeError, UserCodeError
from raypipe.model import user_code
from raypipe.train.failures import is_from_peers, is_out_of_memory
from raypipe.train.rows import World

MAY_PASS = (ConnectionError, TimeoutError, torch.AcceleratorError, dist.DistError)
"""Raised by networks and devices: the same step may go well on another attempt."""


class NetworkRuns:
    """A `with` block in which the user's network runs; reused for every step, as entering it must cost nothing.

    Steps are seeded by their number, so that what the network raises it would raise again: that becomes UserCodeError,
    after which nobody tries again. Other errors pass as they are: of a worker that is gone, of a device, or our own.

    Args:
        batch_rows: of a step of this worker, to be told where memory is not enough.
        alive: called before each run.
    Attributes:
        rows: of one forward pass, for messages; None: a worker's whole batch.
    """

    def __init__(self, world: World, batch_rows: int = 0, alive: Callable[[], None] = lambda: None) -> None:
        self._world, self._batch_rows, self._alive = world, batch_rows, alive
        self._doing = ""
        self.rows: int | None = None

    def during(self, doing: str) -> Self:
        """Name what the network runs for, e.g. `training step 3`."""
        self._doing = doing
        return self

    def __enter__(self) -> None:
        self._alive()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not self._may_pass(error):
            raise self._explained(error) from error

    def _may_pass(self, error: Exception) -> bool:
        if isinstance(error, (RaypipeError, *MAY_PASS)) or (self._world.size > 1 and is_from_peers(error)):
            return True
        if user_code.is_raised_by(error):
            return False
        return isinstance(error, OSError) or user_code.is_ours(error)

    def _explained(self, error: Exception) -> UserCodeError:
        worker = f", worker {self._world.rank} of {self._world.size}" if self._world.size > 1 else ""
        message = f"the model failed in {self._doing}{worker}: {user_code.described(error)}"
        if is_out_of_memory(error):
            num_rows = self.rows or self._batch_rows
            tried = f"{num_rows} rows" if num_rows else "a worker's whole share of train.global_batch_size"
            return UserCodeError(
                f"{message}; out of memory (OOM): {tried} at a time take more memory than there is",
                "set train.micro_batch_rows lower, which changes no result but its last bits; or use more workers, "
                "train.recompute: true or a smaller model",
            )
        if user_code.is_raised_by(error):
            return UserCodeError(message, "correct the code and run it again; changed code trains from the beginning")
        return UserCodeError(message, "look at model and train.loss in the file, and at what the data gives the model")
