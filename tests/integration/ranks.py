"""Ranks of real torch.distributed, without Ray: each runs the orders it finds, at 4 ranks, at 3 and then at 2.

    python -m tests.integration.ranks FOLDER

Reads FOLDER/orders-SIZE.pickle, name -> TrainOrder. Leaves FOLDER/NAME-SIZE-RANK.json: the TrainResult, or the error's
type and words; and FOLDER/imported.json, the names of all modules that a rank has imported.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import traceback
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from raypipe.errors import DataError, NonFiniteLossError, ObjectMissing, RaypipeError
from raypipe.storage.local import LocalFolder
from raypipe.storage.store import ObjectInfo
from raypipe.train import loop, reporter
from raypipe.train.failures import is_from_peers
from raypipe.train.fitting import largest_that_fits
from raypipe.train.rows import World
from raypipe.train.together import agreed
from tests.unit.train.interrupted import answer, answer_after_interruption, answer_until

SIZES = (4, 3, 2)

ELASTIC_STOPS = {4: 3, 3: 5, 2: None}
"""At which step the ranks of an elastic training are lost, within the first and within the second epoch."""


class StaleListing(LocalFolder):
    """A store whose listings show nothing of the newest checkpoint, as after a copy that lags behind."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        listed = list(super().list(prefix))
        newest = max((info.key.split("/")[4] for info in listed if "/checkpoints/step-" in info.key), default="none")
        return (info for info in listed if f"/{newest}/" not in info.key)


class Unreadable(LocalFolder):
    """A store that has lost the checkpoints' tensors."""

    def read_range(self, key: str, start: int, stop: int) -> memoryview:
        if key.endswith(".safetensors"):
            raise ObjectMissing(f"{self.uri}/{key} is not there")
        return super().read_range(key, start, stop)


STORES_OF_OTHER_RANKS = {"stale_resumed": StaleListing, "unreadable_resumed": Unreadable}
"""By order: what every rank but the first sees of the store."""


def answers_of_a_lost_peer(world: World) -> dict[str, Any]:
    """What rank 0 raises where the others are gone: without an error of its own, with one, and where it met one."""
    own, met = DataError("row 3 is wrong"), NonFiniteLossError("step 2: NaN")
    found: dict[str, Any] = {}
    try:
        agreed(lambda: None, world)
    except Exception as error:  # torch's own, of no type that says what it is
        found["nothing"] = [type(error).__name__, is_from_peers(error)]
    for name, raised, when in (("own", own, None), ("own_and_met", own, met), ("met", None, met)):
        try:
            agreed(lambda raised=raised: _raise(raised), world, met=when)
        except Exception as error:  # a lost peer's, if it were raised
            found[name] = [type(error).__name__, is_from_peers(error)]
    return found


def _raise(error: RaypipeError | None) -> None:
    if error is not None:
        raise error


def rows_that_fit(world: World) -> dict[str, Any]:
    """How many rows of a pass ranks settle on whose batches are of unlike size, where 5 rows fit; and what they try."""
    tried: list[int] = []

    def attempt(num_rows: int) -> None:
        tried.append(num_rows)
        if num_rows > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")

    return {"rows": largest_that_fits(attempt, 8 * (world.rank + 1), world), "tried": tried}


def run_orders(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    reporter.REPORT_EVERY_S = 0.0  # every step is told, so that a run can be stopped at one
    for size in SIZES:
        if rank >= size:
            continue
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting-{size}", world_size=size, rank=rank)
        for name, order in pickle.loads((folder / f"orders-{size}.pickle").read_bytes()).items():
            run = answer_after_interruption if name.endswith("resumed") else answer
            if name.startswith("elastic"):
                run = partial(answer_until, ELASTIC_STOPS[size])
            loop.open_store = STORES_OF_OTHER_RANKS.get(name, LocalFolder) if rank else LocalFolder
            (folder / f"{name}-{size}-{rank}.json").write_text(json.dumps(run(order, World(rank, size))))
        (folder / f"rows_that_fit-{size}-{rank}.json").write_text(json.dumps(rows_that_fit(World(rank, size))))
        if size == SIZES[-1]:
            if rank:
                return  # without a word to the others, as a process that is killed
            (folder / "lost-peer.json").write_text(json.dumps(answers_of_a_lost_peer(World(rank, size))))
        dist.destroy_process_group()
    if rank == 0:
        (folder / "imported.json").write_text(json.dumps(sorted(sys.modules)))


def start_rank(folder: Path, rank: int) -> None:
    """Fork: importing torch takes longer than all the orders, and up to here it has started no thread."""
    if os.fork():
        return
    code = 1
    try:
        run_orders(folder, rank)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # gloo's threads sometimes abort a process that ends before its peers do


def main(folder: Path) -> None:
    """Exit status 0 when all ranks ended well; 1 at once when one did not, for the others would wait for it."""
    import_module("torch._dynamo")  # every optimizer does when it is made: once here instead of once a rank
    ranks = range(max(SIZES))
    for rank in ranks:
        start_rank(folder, rank)
    for _ in ranks:
        _, status = os.wait()
        if status:
            sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
