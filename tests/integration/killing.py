"""Starts trainings whose ranks are killed (`killed_ranks`), and says what each kill cost."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from raypipe.records import TrainResult
from tests.integration import killed_ranks
from tests.unit.train.orders import killable

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 240.0


class Kill(NamedTuple):
    """One that was done.

    Attributes:
        line: of the plan.
        done: the step that was done.
        kept: the newest step of which a checkpoint was complete then.
        next_start: from where the next attempt went on.
    """

    line: str
    done: int
    kept: int
    next_start: int


def train(folder: Path, parallel: str, plan: Sequence[str], epochs: int) -> tuple[TrainResult, TrainResult, list[Kill]]:
    """Train to the end without a kill, and with all those of a plan.

    Returns:
        Both results, and each kill.
    """
    for run_id, lines in {"whole": [], "hit": plan}.items():
        order = killable(folder / "store", run_id, parallel=parallel, epochs=epochs)
        (folder / f"{run_id}.pickle").write_bytes(pickle.dumps(order))
        (folder / f"{run_id}.plan").write_text("\n".join(lines))
    words = [sys.executable, "-W", "error::UserWarning", "-m", killed_ranks.__name__, str(folder), "whole", "hit"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    for _ in range(1 + sum(line.startswith("driver") for line in plan)):
        ended = subprocess.run(words, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_S)
        if ended.returncode != -signal.SIGKILL:
            break
    assert ended.returncode == 0, ended.stderr
    whole, killed = (
        TrainResult.model_validate_json((folder / f"{run_id}.json").read_text()) for run_id in ("whole", "hit")
    )
    starts = [int(path.read_text()) for path in sorted(folder.glob("hit-started-*"))]
    marks = [path.read_text().split() for path in sorted(folder.glob("hit-killed-*"))]
    assert len(marks) == len(plan) == len(starts) - 1, f"one fault an attempt: {starts} {marks}\n{ended.stderr}"
    return (
        whole,
        killed,
        [
            Kill(line, int(done), int(kept), start)
            for line, (done, kept), start in zip(plan, marks, starts[1:], strict=True)
        ],
    )


def check_cost(kill: Kill, interval: int) -> None:
    """At most one interval is done again. Where a checkpoint was being written, it is counted from the one before, and
    the steps that were done meanwhile are lost too: the next save would have waited for it."""
    assert kill.kept <= kill.next_start <= kill.done, kill
    within_a_write = kill.line.startswith("commit") or kill.line.endswith("at_once")
    assert kill.done - kill.next_start <= interval * (2 if within_a_write else 1), kill
