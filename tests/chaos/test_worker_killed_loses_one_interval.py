"""FAULTS T1: rank 0, then rank 1, killed at five steps each; at most one checkpoint interval is lost each time."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from raypipe.model.artifact import WEIGHTS
from raypipe.runtime.context import RunContext
from raypipe.runtime.progress import Progress, read_events
from raypipe.storage import open_store
from raypipe.storage.publish import read_published
from raypipe.testing import faults
from raypipe.train.stage import train
from tests.integration import faulty

pytestmark = [
    *(pytest.mark.chaos, pytest.mark.ray, pytest.mark.s3),
    *(pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)),
]

INTERVAL = 3
EPOCHS = 6
AT_ONCE = " at_once"
PLAN = ["0 5", "1 6", "0 7 at_once", "1 8 at_once", "0 9", "1 5", "0 6 at_once", "1 7", "0 8", "1 9 at_once"]
"""Rank and training call of the attempt; the first call settles DDP, so call 5 is within the attempt's fourth step.

Neighbours differ in the call: the other rank still reaches the call in which the first died, and must survive it. Where
it happens at once, in a step of milliseconds, the checkpoint that was being written is lost too, as a step waits for
the copy and not for the store: so the interval before it is done again as well.
"""


@pytest.mark.parametrize("trainer", ["auto", "ray_train"])
def test_worker_killed_ten_times_loses_one_interval_each_and_ends_with_the_same_bits(
    tmp_path: Path, bucket: str, trainer: str
) -> None:
    weights: dict[str, dict[str, torch.Tensor]] = {}
    histories: dict[str, Any] = {}
    stores = {"whole": str(tmp_path / "store"), "killed": f"s3://{bucket}/some/prefix"}
    for run_id, plan in {"whole": [], "killed": PLAN}.items():
        code_dir = faults.write_network(tmp_path / run_id / "code", plan)
        store = open_store(stores[run_id])
        spec = faulty.pipeline(code_dir, epochs=EPOCHS, max_failures=len(PLAN), trainer=trainer)
        progress = Progress(run_id, stream=io.StringIO())
        ctx = RunContext(run_id=run_id, store=store, progress=progress, name=spec.name, code_dir=code_dir)
        result = train(spec, faulty.dataset(store), ctx)
        progress.save(store)
        files = read_published(store, result.artifact.key, digest=result.artifact.digest)
        weights[run_id] = safetensors.torch.load(files[WEIGHTS])
        histories[run_id] = result.history

    killed = faults.kills(code_dir)
    assert len(killed) == len(PLAN) and all(faults.is_gone(pid) for pid, _ in killed), "the faults must have happened"
    assert result.attempts == 1 + len(PLAN)
    events = read_events(store, "killed")
    starts = [event["step"] for event in events if event.get("event") == "start"]
    for line, (_, call), start, next_start in zip(PLAN, killed, starts[:-1], starts[1:], strict=True):
        done = start + call - 2  # without the settling call and the call that was cut short
        assert 0 <= done - next_start < (2 * INTERVAL if line.endswith(AT_ONCE) else INTERVAL), line
    assert all(torch.equal(weights["whole"][name], weights["killed"][name]) for name in weights["whole"])
    assert histories["whole"] == histories["killed"]
    assert not list(store.list("runs/killed/train/ray")), "Ray Train's own notes are cleared"
