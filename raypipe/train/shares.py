"""Which rows a worker holds in memory and which it reads as it trains: told, and without part in the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from raypipe.data.shards import share
from raypipe.errors import DataError
from raypipe.records import DatasetVersion, TargetTransform
from raypipe.runtime.memory import available_bytes
from raypipe.spec.train import TrainSpec
from raypipe.storage import Store
from raypipe.train.resident import Resident
from raypipe.train.rows import NO_TRANSFORM, Share, World, row_bytes
from raypipe.train.streamed import HOST, Streamed

BUDGET_FRAC = 0.4
"""Of the memory that is available. The rest is for the model, its optimizer, and what else runs on the node."""

WINDOW_BYTES = 256 * 2**20
"""Of a window where the file says nothing. It depends on the data alone: no machine may change the order of rows."""

Home = Literal["gpu", "memory", "store"]


@dataclass(frozen=True)
class Budget:
    """Bytes of rows that this worker may hold.

    Attributes:
        gpu_bytes: of them on its GPU, 0 where it has none.
        why: where the number comes from.
    """

    host_bytes: int
    gpu_bytes: int
    why: str


@dataclass(frozen=True)
class Plan:
    """Where the rows of one split are for one worker.

    Attributes:
        num_bytes: of the whole share, as the model reads it.
    """

    split: str
    home: Home
    num_bytes: int


@dataclass(frozen=True)
class Shares:
    """The shares one worker trains with.

    Attributes:
        told: the event that says where they are.
    """

    train: Share
    val: Share | None
    told: dict[str, Any]


def open_shares(
    store: Store,
    dataset: DatasetVersion,
    spec: TrainSpec,
    world: World,
    *,
    side_by_side: int = 1,
    target_transform: TargetTransform = NO_TRANSFORM,
) -> Shares:
    """This worker's rows of train and val.

    Args:
        side_by_side: trainings on this node at one time, which share its memory.
        target_transform: what is done to a regression target.
    Raises:
        DigestMismatch, ObjectMissing: a shard is not what was written.
        DataError: there are fewer training rows than workers, or a value that the transforms refuse.
    """
    num_rows = dataset.splits["train"].num_rows
    if num_rows < world.size:
        raise DataError(
            f"{world.size} workers cannot share {num_rows} training rows; each needs at least one",
            "lower train.num_workers",
        )
    budget = budget_of(spec, world, side_by_side)
    window_rows = spec.rows.window_rows or max(1, WINDOW_BYTES // row_bytes(dataset))
    plans = plan(dataset, world, budget, window_rows)
    opened = {p.split: _open(p, store, dataset, world, window_rows, target_transform) for p in plans}
    return Shares(opened["train"], opened.get("val"), _told(plans, budget, window_rows, spec, dataset))


def budget_of(spec: TrainSpec, world: World, side_by_side: int) -> Budget:
    """What the file says, or a share of what is available now."""
    gpu_bytes = 0
    if world.device.type == "cuda":
        workers_a_gpu = max(1.0, 1 / max(spec.resources.num_gpus, 1e-9))
        gpu_bytes = int(torch.cuda.mem_get_info(world.device)[0] * BUDGET_FRAC / workers_a_gpu)
    if spec.rows.resident_bytes is not None:
        host_bytes = spec.rows.resident_bytes
        return Budget(host_bytes, min(gpu_bytes, host_bytes), "train.rows.resident_bytes")
    workers = world.local_size * side_by_side
    available = available_bytes()
    there, why = available / workers, f"{size(available)} available to {workers} worker(s)"
    reserved = spec.resources.memory_bytes
    if reserved is not None and reserved < there:
        there, why = reserved, f"the {size(reserved)} of train.resources.memory_bytes"
    return Budget(int(there * BUDGET_FRAC), gpu_bytes, f"{BUDGET_FRAC:.0%} of {why}")


def plan(dataset: DatasetVersion, world: World, budget: Budget, window_rows: int) -> list[Plan]:
    """For train, then val: the GPU where it fits there, memory where it fits there, otherwise the store."""
    gpu_left, host_left = budget.gpu_bytes, budget.host_bytes
    plans: list[Plan] = []
    for split in ("train", "val"):
        num_rows_all = dataset.splits[split].num_rows
        if not num_rows_all:
            continue
        start, stop = share(num_rows_all, world.rank, world.size)
        num_bytes = (stop - start) * row_bytes(dataset)
        if world.device.type == "cuda" and num_bytes <= gpu_left:
            gpu_left -= num_bytes
            plans.append(Plan(split, "gpu", num_bytes))
        elif num_bytes <= host_left:
            host_left -= num_bytes
            plans.append(Plan(split, "memory", num_bytes))
        else:
            host_left -= 2 * window_rows * row_bytes(dataset)
            plans.append(Plan(split, "store", num_bytes))
    return plans


def size(num_bytes: float) -> str:
    """Bytes as a person reads them, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.4g} TB"


def _open(
    plan: Plan,
    store: Store,
    dataset: DatasetVersion,
    world: World,
    window_rows: int,
    target_transform: TargetTransform,
) -> Share:
    if plan.home == "store":
        return Streamed(store, dataset, plan.split, world, window_rows=window_rows, target_transform=target_transform)
    home = world.device if plan.home == "gpu" else HOST
    return Resident(
        store, dataset, plan.split, world, window_rows=window_rows, home=home, target_transform=target_transform
    )


def _told(
    plans: list[Plan], budget: Budget, window_rows: int, spec: TrainSpec, dataset: DatasetVersion
) -> dict[str, Any]:
    words = {
        "gpu": "resident on the GPU",
        "memory": "resident in memory",
        "store": f"streamed in windows of {window_rows} rows",
    }
    parts = [f"{p.split} {words[p.home]} ({size(p.num_bytes)})" for p in plans]
    limit = f"budget of a worker: {size(budget.host_bytes)}, {budget.why}"
    if budget.gpu_bytes:
        limit += f"; {size(budget.gpu_bytes)} on its GPU"
    num_rows = dataset.splits["train"].num_rows
    if spec.global_batch_size > num_rows:
        limit += f"; one step an epoch: global_batch_size {spec.global_batch_size} is more than all {num_rows} rows"
    return {
        "event": "rows",
        "text": f"rows: {', '.join(parts)}; {limit}",
        "budget_bytes": budget.host_bytes,
        "window_rows": window_rows,
        "rows": {p.split: {"home": p.home, "num_bytes": p.num_bytes} for p in plans},
    }
