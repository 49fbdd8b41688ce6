"""What validation rows contribute to losses and metrics, on one rank and on all together.  B rows.

Only counts and sums travel between ranks, never rows, and all ranks end with the same bits: whole numbers are added up
by the process group, sums without rounding by each rank for itself.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from raypipe.data.table.sums import Sums, sums
from raypipe.errors import NonFiniteLossError
from raypipe.model.measures import Measures, times_of
from raypipe.model.target import to_unit
from raypipe.model.tasks import Task
from raypipe.records import TargetTransform
from raypipe.train.rows import Rows, World

LOSS = "loss"

LOSS_NOT_FINITE = "loss_not_finite"
"""Rows whose loss is NaN or infinite."""


def measured(task: Task, output: Tensor, rows: Rows, loss_B: Tensor, transform: TargetTransform) -> Measures:
    """What some rows contribute.

    Args:
        output: of the network.
        loss_B: of each row, as the network learns it, before it is weighted.
    """
    target_B = rows.target
    times_B = times_of(None if rows.weight is None else rows.weight.cpu().numpy())
    values = to_unit(task.learned(output.float(), target_B).cpu().numpy(), transform)
    losses: NDArray[Any] = loss_B.double().cpu().numpy()
    finite_B = np.isfinite(losses)
    total = sums(losses[finite_B], None if times_B is None else times_B[finite_B])
    of_losses = Measures({LOSS_NOT_FINITE: np.array(int((~finite_B).sum()))}, {LOSS: total})
    return task.measure(to_unit(target_B.cpu().numpy(), transform), values, times_B) + of_losses


def of_all_ranks(mine: Measures, world: World) -> Measures:
    """The measures of all ranks put together, on every rank; each must call it."""
    if world.size == 1:
        return mine
    shapes: list[dict[str, tuple[int, ...]] | None] = [None] * world.size
    parts: list[dict[str, Sums]] = [{}] * world.size
    dist.all_gather_object(shapes, {name: counts.shape for name, counts in mine.counts.items()})
    dist.all_gather_object(parts, dict(mine.sums))
    known = {name: shape for each in shapes for name, shape in (each or {}).items()}  # a rank may have had no rows
    counts: dict[str, NDArray[np.int64]] = {}
    for name in sorted(known):
        room = torch.from_numpy(np.asarray(np.zeros(known[name], np.int64) + mine.counts.get(name, 0))).to(world.device)
        dist.all_reduce(room)
        counts[name] = room.cpu().numpy()
    return reduce(Measures.__add__, (Measures(sums=part) for part in parts), Measures(counts))


def validation_metrics(
    task: Task, measures: Measures, loss_factor: float, quantile: float | None = None, *, during: str = "validation"
) -> dict[str, float]:
    """`val_loss` and the metrics of the task.

    Args:
        during: when it was measured, for messages.
    Raises:
        ValueError: there are no rows.
        NonFiniteLossError: an answer or a loss is NaN or infinite.
    """
    rows, answers, losses = (int(measures.counts.get(n, 0)) for n in ("rows", "not_finite", LOSS_NOT_FINITE))
    if answers or losses:
        raise NonFiniteLossError(
            f"{during}: the model's answers to {answers} of {rows} rows, and its losses on {losses}, are NaN or "
            "infinite; training stopped and nothing was published",
            "lower train.optimizer.lr, set train.clip_grad_norm, or standardize the features",
        )
    metrics = task.metrics(measures, quantile)
    loss = measures.sums[LOSS].mean
    assert loss is not None, "rows that can be measured have losses"
    return {"val_loss": loss * loss_factor, **{f"val_{name}": value for name, value in metrics.items()}}
