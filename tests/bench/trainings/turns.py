"""What every side of a training benchmark is: a process that trains when it is told to, and says how long epochs took.

It needs numpy and torch alone, as some sides live in environments without raypipe.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Work:
    """What is trained, the same for every side.

    Attributes:
        kind: mnist, resnet, gpt or tiny.
        folder: where the rows are, as the model reads them.
        model: as a pipeline file says it.
        batch: rows of a step of all workers.
        threads: of a process.
        epochs: of a turn.
    """

    kind: str
    folder: Path
    model: dict[str, Any]
    batch: int
    lr: float
    threads: int
    epochs: int

    def rows(self, split: str = "train") -> tuple[Tensor, Tensor]:
        """Features float32 (ids int64 for a text) and targets int64, in memory."""
        features, target = (torch.from_numpy(np.load(self.folder / f"{split}-{name}.npy")) for name in ("x", "y"))
        return (features.long() if self.kind == "gpt" else features), target

    def test_accuracy(self, logits_of: Callable[[Tensor], Tensor]) -> float | None:
        """Share of the test images that are told right; None for work without any."""
        if self.kind != "mnist":
            return None
        features, target = self.rows("test")
        return float((logits_of(features).argmax(dim=1) == target).float().mean())


class Stopwatch:
    """When epochs began and ended, by the clock and by what this process computed, in all its threads."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, float]] = []

    def mark(self) -> None:
        """Where an epoch ends and the next one begins."""
        self._marks.append((time.perf_counter(), time.process_time()))

    def epochs(self) -> list[tuple[float, float]]:
        """Seconds of each epoch, and CPU seconds."""
        return [(end - begin, end_cpu - cpu) for (begin, cpu), (end, end_cpu) in pairwise(self._marks)]


Turn = tuple[Stopwatch, float | None]
"""The epochs of a turn, and the test accuracy."""


def take_turns(make_turn: Callable[[Work], Callable[[], Turn]]) -> None:
    """Train at each line of the standard input until it ends; rank 0 reads it, and answers with a line of JSON."""
    fields = json.loads(sys.argv[1])
    work = Work(**{**fields, "folder": Path(fields["folder"])})
    torch.set_num_threads(work.threads)
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if size > 1:
        dist.init_process_group("gloo")
    turn = make_turn(work)
    while _told(rank, size):
        stopwatch, accuracy = turn()
        if rank == 0:
            seconds, cpu_s = zip(*stopwatch.epochs(), strict=True)
            told = {"epoch_s": seconds, "epoch_cpu_s": cpu_s, "test_accuracy": accuracy}
            print(json.dumps({**told, "threads": torch.get_num_threads()}), flush=True)
    if size > 1:
        dist.destroy_process_group()


def _told(rank: int, size: int) -> bool:
    goes_on = torch.tensor(bool(sys.stdin.readline()) if rank == 0 else False)
    if size > 1:
        dist.broadcast(goes_on, src=0)
    return bool(goes_on)
