"""Ranks that save checkpoints side by side in one process, each in a thread: without torch.distributed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import torch
from torch import Tensor

from raypipe.spec.train import TrainSpec
from raypipe.storage import Store
from raypipe.train.checkpoints import Saver, Span, Status, StoredCheckpoint, TrainState, cut, open_checkpoint

T = TypeVar("T")

TENSORS: dict[str, Tensor] = {
    "model/weight": torch.tensor([[0.1, -0.0], [float("inf"), 1e-40]]),
    "model/conv": torch.arange(48.0).reshape(2, 3, 2, 4).to(memory_format=torch.channels_last),
    "model/steps": torch.tensor(7),
    "model/half": torch.linspace(-3, 3, 11).bfloat16(),
    "model/mask": torch.tensor([True, False, True]),
    "model/nothing": torch.zeros(0, 4),
    "optimizer/0/exp_avg": torch.linspace(0, 1, 1001, dtype=torch.float64),
}
"""Of many dtypes and shapes, with values that a copy through text or another dtype would change."""


class SideBySide:
    """The Savers of `size` ranks, which act at once."""

    def __init__(self, store: Store, size: int, train: Mapping[str, Any] | None = None, *, run_id: str = "r1") -> None:
        spec = TrainSpec.model_validate({"checkpoint": {"num_to_keep": 10}, **(train or {})})
        self.said: list[str] = []
        self._statuses: list[Status | None] = [None] * size
        self._barrier = threading.Barrier(size)
        self._pool = ThreadPoolExecutor(size)
        self.savers = [
            Saver(
                store,
                run_id,
                spec,
                rank=rank,
                size=size,
                gather=lambda status, rank=rank: self._gather(rank, status),
                say=self.said.append,
            )
            for rank in range(size)
        ]

    def _gather(self, rank: int, status: Status) -> list[Status]:
        self._statuses[rank] = status
        self._barrier.wait(10)
        statuses = [status for status in self._statuses if status is not None]
        self._barrier.wait(10)
        return statuses

    def _each(self, act: Callable[[int], T]) -> list[T]:
        """What each rank gives, once all are done; raises what the first raised."""
        acting = [self._pool.submit(act, rank) for rank in range(len(self.savers))]
        wait(acting)
        return [each.result() for each in acting]

    def save(self, state: TrainState, tensors: Mapping[str, Tensor] = TENSORS, *, wait: bool = True) -> list[bool]:
        """Every rank saves its share of tensors that all hold alike."""

        def of(rank: int) -> bool:
            share = lambda: cut(tensors, rank, len(self.savers))  # noqa: E731
            return self.savers[rank].save(state, share, wait=wait)

        return self._each(of)

    def save_spans(self, state: TrainState, by_rank: list[dict[str, Span]]) -> None:
        """Every rank saves spans of its own."""
        self._each(lambda r: self.savers[r].save(state, lambda: by_rank[r], wait=True))

    def finish(self, state: TrainState, tensors: Mapping[str, Tensor] = TENSORS) -> None:
        """At the end of the training."""
        size = len(self.savers)
        self._each(lambda r: self.savers[r].finish(state, lambda: cut(tensors, r, size)))


def state(step: int, **fields: Any) -> TrainState:
    """In mid-epoch, unless `epoch_step` says otherwise."""
    return TrainState(
        **{"fingerprint": "f", "epoch": 2, "epoch_step": 1, "step": step, "loss_sum": 0.1 + 0.2, **fields}
    )


def opened(store: Store, step: int) -> StoredCheckpoint:
    return open_checkpoint(store, "r1", step, "f")


def same_bits(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    """Equal names, dtypes, shapes and bytes."""
    return some.keys() == others.keys() and all(
        value.dtype == others[name].dtype
        and value.shape == others[name].shape
        and torch.equal(_bytes(value), _bytes(others[name]))
        for name, value in some.items()
    )


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)
