"""Two ranks of real torch.distributed, of which one meets an error of its own; without Ray, and so with nobody who
would end the other.

    python -m tests.integration.one_rank_raises FOLDER

Reads FOLDER/orders.pickle, name -> TrainOrder. Leaves FOLDER/NAME-RANK.json: the error's type and words, and after how
many seconds it came. Orders that `raises_alone` says leave the other rank waiting are run last, each in a group of its
own; there the rank that raised ends its process, as it would be ended.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
import traceback
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from raypipe.errors import StoreError
from raypipe.storage.local import LocalFolder
from raypipe.storage.store import ObjectInfo
from raypipe.train import loop
from raypipe.train.failures import is_from_peers
from raypipe.train.order import TrainOrder
from raypipe.train.parallel import Ddp
from raypipe.train.rows import World

SIZE = 2


class Away(LocalFolder):
    """A store that lists no checkpoints."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        if "/checkpoints" in prefix:
            raise StoreError(f"{self.uri} did not answer: rank 0 asks in vain", "try again")
        return super().list(prefix)


class Broken(LocalFolder):
    """A store whose tensors of checkpoints meet an error that is none of ours."""

    def read_range(self, key: str, start: int, stop: int) -> memoryview:
        raise OSError(5, "Input/output error")


STORES: dict[str, tuple[type[LocalFolder], type[LocalFolder]]] = {
    "listing": (Away, LocalFolder),
    "way": (Away, LocalFolder),
    "reading": (LocalFolder, Broken),
}
"""By order: what each rank sees of the store."""


def raises_alone(name: str) -> bool:
    """Whether the other rank of an order waits until the one that raised is gone."""
    return name.startswith("alone_")


def answer(name: str, order: TrainOrder, world: World) -> dict[str, Any]:
    """How a rank ended."""
    loop.open_store = STORES.get(name, (LocalFolder, LocalFolder))[world.rank]
    began = time.monotonic()
    try:
        loop.run(order, world, lambda event: None)
    except Exception as error:
        seconds = time.monotonic() - began
        found = {"error": type(error).__name__, "message": str(error), "is_from_peers": is_from_peers(error)}
        return {**found, "seconds": seconds}
    return {"error": "", "message": "", "is_from_peers": False, "seconds": time.monotonic() - began}


class Branching(nn.Module):
    """Leaves a layer out where a row is 99."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, rows: Tensor) -> Tensor:
        return self.last(rows[:, :1].expand(-1, 4) if (rows == 99).any() else self.first(rows))


def differences(world: World) -> dict[str, float]:
    """By how much gradients of ranks together differ from the mean of each one's own, where rank 1 leaves a layer out:
    in all its passes, in the last or in the first of two."""
    found: dict[str, float] = {}
    for name, odd in {"one": [True], "both": [True, True], "last": [False, True], "first": [True, False]}.items():
        torch.manual_seed(0)
        alone, parallel = Branching(), Ddp(world, Branching(), has_unused=False)
        parallel.module.load_state_dict(alone.state_dict())
        for number, is_odd in enumerate(odd):
            rows = torch.randn(5, 3, generator=torch.Generator().manual_seed(10 * world.rank + number))
            rows[0] = 99.0 if is_odd and world.rank == 1 else rows[0]
            with parallel.accumulate(is_last=number == len(odd) - 1):
                parallel.network(rows).square().sum().backward()
            alone(rows).square().sum().backward()
        far = 0.0
        for mine, shared in zip(alone.parameters(), parallel.parameters, strict=True):
            mean = torch.zeros_like(mine) if mine.grad is None else mine.grad.clone()
            dist.all_reduce(mean)
            assert shared.grad is not None
            far = max(far, float((mean / world.size - shared.grad).abs().max() / mean.abs().max()))
        found[name] = far
    return found


def run_orders(folder: Path, rank: int, names: list[str]) -> None:
    torch.set_num_threads(1)
    meeting = folder / f"meeting-{names[0]}"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", world_size=SIZE, rank=rank)
    orders = pickle.loads((folder / "orders.pickle").read_bytes())
    for name in names:
        found = answer(name, orders[name], World(rank, SIZE))
        (folder / f"{name}-{rank}.json").write_text(json.dumps(found))
    if len(names) > 1:
        (folder / f"differences-{rank}.json").write_text(json.dumps(differences(World(rank, SIZE))))


def start_rank(folder: Path, rank: int, names: list[str]) -> None:
    """Fork: importing torch takes longer than all the orders, and up to here it has started no thread."""
    if os.fork():
        return
    code = 1
    try:
        run_orders(folder, rank, names)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def main(folder: Path) -> None:
    """Exit status 1 where a rank did not end as `answer` expects."""
    import_module("torch._dynamo")  # every optimizer does when it is made: once here instead of once a rank
    names = list(pickle.loads((folder / "orders.pickle").read_bytes()))
    groups = [[name for name in names if not raises_alone(name)], *([name] for name in names if raises_alone(name))]
    for group in groups:
        for rank in range(SIZE):
            start_rank(folder, rank, group)
        for _ in range(SIZE):
            if os.wait()[1]:
                sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
