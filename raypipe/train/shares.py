"""Which rows a worker holds in memory and which it reads as it trains: told, and without part in the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch

from raypipe.data.shards import share
from raypipe.errors import DataError
from raypipe.records import DatasetVersion, TargetTransform
from raypipe.runtime.memory import available_bytes
from raypipe.spec.train import TrainSpec
from raypipe.storage import Store
from raypipe.train.oversampling import Visits, visits_of
from raypipe.train.resident import Resident
from raypipe.train.rows import NO_TRANSFORM, Share, StoredSplit, World, row_bytes
from raypipe.train.several_shares import SeveralShares, shares_of
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
    alive: Callable[[], None] = lambda: None,
) -> Shares:
    """This worker's rows of train and val.

    Args:
        side_by_side: trainings on this node at one time, which share its memory.
        target_transform: what is done to a regression target.
        alive: called as rows are read into memory.
    Raises:
        DigestMismatch, ObjectMissing: a shard is not what was written.
        DataError: there are fewer training rows than workers, or a value that the transforms refuse.
    """
    num_rows = dataset.splits["train"].num_rows
    num_shares = spec.num_shares(world.size)
    if num_rows < num_shares:
        raise DataError(
            f"{num_shares} workers cannot share {num_rows} training rows; each needs at least one",
            "lower train.num_workers" + (".max" if spec.elastic is not None else ""),
        )
    budget = budget_of(spec, world, side_by_side)
    held_at_once = 1 if spec.elastic is None else num_shares  # by a single worker, which then reads all at one time
    window_rows = spec.rows.window_rows or max(1, WINDOW_BYTES // held_at_once // row_bytes(dataset))
    numbers = shares_of(world, num_shares)
    visits = visits_of(store, dataset, numbers, num_shares) if spec.balance == "oversample" else None
    plans = plan(dataset, world, budget, window_rows, num_shares, visits)
    train, *rest = (
        partial(_open, StoredSplit(store, dataset, each.split, target_transform), window_rows, each.home, alive)
        for each in plans
    )
    held = [
        train(replace(world, rank=number, size=num_shares), some)
        for number, some in zip(numbers, visits or [None] * len(numbers), strict=True)
    ]
    train_share = held[0] if num_shares == world.size else SeveralShares(held, world)
    val = rest[0](world, None) if rest else None
    told = _told(plans, budget, window_rows, spec, train_share)
    if visits is not None:
        num_visits = train_share.num_rows_all
        repeated = f"{num_visits} of {num_rows} train rows, each class {num_visits // num_classes(dataset)} times"
        told["text"] += f"; an epoch visits {repeated} (train.balance)"
    return Shares(train_share, val, told)


def num_classes(dataset: DatasetVersion) -> int:
    """Of a classification."""
    return len(dataset.signature.classes or ())


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


def plan(
    dataset: DatasetVersion,
    world: World,
    budget: Budget,
    window_rows: int,
    num_shares: int | None = None,
    visits: Sequence[Visits] | None = None,
) -> list[Plan]:
    """For train, then val: the GPU where it fits there, memory where it fits there, otherwise the store.

    Args:
        num_shares: that train is cut into; unset: one a worker.
        visits: of this worker's shares of train, where rows are visited several times: they say how many rows are held,
            as shares are then cut by visits, not by rows. None: each once.
    """
    gpu_left, host_left = budget.gpu_bytes, budget.host_bytes
    plans: list[Plan] = []
    for split, size in (("train", num_shares or world.size), ("val", world.size)):
        num_rows_all = dataset.splits[split].num_rows
        if not num_rows_all:
            continue
        mine = shares_of(world, size)
        start, stop = share(num_rows_all, mine[0], size)[0], share(num_rows_all, mine[-1], size)[1]
        num_rows = stop - start
        if split == "train" and visits is not None:
            num_rows = sum(each.num_rows for each in visits)
        num_bytes = num_rows * row_bytes(dataset)
        if world.device.type == "cuda" and num_bytes <= gpu_left:
            gpu_left -= num_bytes
            plans.append(Plan(split, "gpu", num_bytes))
        elif num_bytes <= host_left:
            host_left -= num_bytes
            plans.append(Plan(split, "memory", num_bytes))
        else:
            host_left -= 2 * len(mine) * window_rows * row_bytes(dataset)
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
    stored: StoredSplit,
    window_rows: int,
    home: Home,
    alive: Callable[[], None],
    world: World,
    visits: Visits | None,
) -> Share:
    if home == "store":
        return Streamed(stored, world, window_rows, visits)
    return Resident(stored, world, window_rows, visits, home=world.device if home == "gpu" else HOST, alive=alive)


def _told(plans: list[Plan], budget: Budget, window_rows: int, spec: TrainSpec, train: Share) -> dict[str, Any]:
    words = {
        "gpu": "resident on the GPU",
        "memory": "resident in memory",
        "store": f"streamed in windows of {window_rows} rows",
    }
    parts = [f"{p.split} {words[p.home]} ({size(p.num_bytes)})" for p in plans]
    limit = f"budget of a worker: {size(budget.host_bytes)}, {budget.why}"
    if budget.gpu_bytes:
        limit += f"; {size(budget.gpu_bytes)} on its GPU"
    if spec.global_batch_size > (num_rows := train.num_rows_all):
        limit += f"; one step an epoch: global_batch_size {spec.global_batch_size} is more than all {num_rows} rows"
    return {
        "event": "rows",
        "text": f"rows: {', '.join(parts)}; {limit}",
        "budget_bytes": budget.host_bytes,
        "window_rows": window_rows,
        "rows": {p.split: {"home": p.home, "num_bytes": p.num_bytes} for p in plans},
    }
