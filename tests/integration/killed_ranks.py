"""Trainings on ranks of real torch.distributed, without Ray, that are killed again and again; then all start anew.

    python -m tests.integration.killed_ranks FOLDER RUN...

For each run it reads FOLDER/RUN.pickle, a TrainOrder, and FOLDER/RUN.plan, a line for each attempt: `rank R AFTER
[at_once]` kills rank R once AFTER steps of the attempt are done, `driver AFTER` this process and with it all ranks
(then whoever started it does so again), `commit R WRITE` rank R as it begins its write number WRITE below the run's
checkpoints.

Leaves FOLDER/RUN-started-NN (the step at which an attempt began), FOLDER/RUN-killed-NN (steps done, and the newest step
that was kept, when it was ended), and FOLDER/RUN.json, the TrainResult.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from raypipe.storage.local import LocalFolder
from raypipe.train import checkpoints, loop, reporter
from raypipe.train.order import TrainOrder
from raypipe.train.rows import World

SIZE = 2
PR_SET_PDEATHSIG = 1
COMMIT_TIMEOUT_S = 30.0


class Killer:
    """Kills as a line of the plan says."""

    def __init__(self, folder: Path, run_id: str, number: int, line: str, rank: int, order: TrainOrder) -> None:
        self.mark, self.rank, self.order = folder / f"{run_id}-killed-{number:02d}", rank, order
        self.kind, *self.words = line.split() or [""]
        self.driver = os.getppid()
        self.store = LocalFolder(order.store_uri)
        self.first = self.done = 0
        self.writes = 0

    def report(self, event: dict[str, Any]) -> None:
        """Hear an event of the loop, as every rank does."""
        if event["event"] == "start":
            self.first = self.done = event["step"]
            if self.rank == 0:
                self.mark.with_name(self.mark.name.replace("killed", "started")).write_text(str(self.first))
        if event["event"] == "step":
            self.done = event["step"]
            is_mine = (self.kind == "driver" and self.rank == 0) or (
                self.kind == "rank" and self.words[0] == str(self.rank)
            )
            if is_mine and self.done - self.first == int(self.words[self.kind == "rank"]):
                if "at_once" not in self.words:
                    self._wait_for_the_checkpoint()
                self.kill()

    def write(self) -> None:
        """Hear that this rank begins a write of a checkpoint."""
        self.writes += 1
        if self.kind == "commit" and self.words == [str(self.rank), str(self.writes)]:
            self.kill()

    def kill(self) -> None:
        self.mark.write_text(f"{self.done} {self.kept()}")
        os.kill(self.driver if self.kind == "driver" else os.getpid(), signal.SIGKILL)
        signal.pause()  # the kernel ends this process with the driver's

    def kept(self) -> int:
        return max(checkpoints.stored_steps(self.store, self.order.run_id)[0], default=0)

    def _wait_for_the_checkpoint(self) -> None:
        """As in a training whose steps take longer than a checkpoint; a step may be told before it is kept itself."""
        every = self.order.spec.train.checkpoint.every_steps
        assert every is not None
        deadline = time.monotonic() + COMMIT_TIMEOUT_S
        while self.kept() < (self.done - 1) // every * every and time.monotonic() < deadline:
            time.sleep(0.01)  # a store tells nobody what it was given


class HeardStore(LocalFolder):
    """Tells of each write of a checkpoint before it is done."""

    killer: Killer

    def write(self, key: str, data: Any) -> None:
        if "/checkpoints/" in key:
            self.killer.write()
        super().write(key, data)


def run_rank(folder: Path, order: TrainOrder, rank: int, number: int, line: str) -> None:
    torch.set_num_threads(1)
    reporter.REPORT_EVERY_S = 0.0  # every step is told
    where = f"file://{folder}/{order.run_id}-meeting-{number}-{os.getppid()}"
    dist.init_process_group("gloo", init_method=where, world_size=SIZE, rank=rank)
    HeardStore.killer = killer = Killer(folder, order.run_id, number, line, rank, order)
    loop.open_store = HeardStore
    result = loop.run(order, World(rank, SIZE), killer.report)
    if rank == 0:
        (folder / f"{order.run_id}.json").write_text(result.model_dump_json())


def start_rank(folder: Path, order: TrainOrder, rank: int, number: int, line: str) -> int:
    """Fork: importing torch takes longer than an attempt, and up to here it has started no thread."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # as Ray ends the workers of a driver that is gone
        run_rank(folder, order, rank, number, line)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def train(folder: Path, run_id: str) -> None:
    """All attempts at a training."""
    order: TrainOrder = pickle.loads((folder / f"{run_id}.pickle").read_bytes())
    plan = (folder / f"{run_id}.plan").read_text().splitlines()
    while not (folder / f"{run_id}.json").exists():
        number = len(list(folder.glob(f"{run_id}-killed-*")))
        line = plan[number] if number < len(plan) else ""
        pids = [start_rank(folder, order, rank, number, line) for rank in range(SIZE)]
        ended, status = os.wait()
        is_killed = os.WIFSIGNALED(status)
        for pid in pids:
            if pid != ended:
                if is_killed:  # the others wait for it
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        if not is_killed and os.WEXITSTATUS(status) and len(list(folder.glob(f"{run_id}-killed-*"))) == number:
            sys.exit(1)  # nobody was killed


if __name__ == "__main__":
    import_module("torch._dynamo")  # every optimizer does when it is made: once here instead of once a rank
    for each in sys.argv[2:]:
        train(Path(sys.argv[1]), each)
