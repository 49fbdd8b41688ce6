"""FAULTS T2, T11: a node goes in mid-epoch, or while a checkpoint is written; the training goes on with fewer workers,
and with more once a node joins; nothing that was learned differs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from raypipe.model.artifact import WEIGHTS
from raypipe.records import TrainResult
from raypipe.storage import open_store
from raypipe.storage.publish import read_published
from raypipe.testing import faults
from raypipe.testing.faults import kill_tree
from tests.chaos import train_on_cluster
from tests.integration.nodes import ROOT, Head, running_head

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.timeout(400)]

INTERVAL = 3
STEPS_PER_EPOCH = 8
SETTINGS = {
    "num_workers": {"min": 1, "max": 2, "grow_after_s": 0},
    "resources": {"num_cpus": 1},
    "epochs": 5,
    "max_failures": 1,
}


@pytest.fixture(scope="module")
def head(private_dir: Path) -> Iterator[Head]:
    with running_head(private_dir / "n") as found:
        yield found


@contextmanager
def training(head: Head, code: Path, store: Path, run_id: str) -> Iterator[Iterator[dict[str, Any]]]:
    """The events of a training as they come, the last of them its record."""
    words = [head.address, str(code), str(store), run_id, json.dumps(SETTINGS)]
    driver = [sys.executable, "-m", train_on_cluster.__name__, *words]
    with subprocess.Popen(driver, env=head.env, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield ({**json.loads(line), "at": time.monotonic()} for line in process.stdout if line.startswith("{"))
        finally:
            process.kill()


def weights(store: Path, record: dict[str, Any]) -> dict[str, torch.Tensor]:
    result = TrainResult.model_validate({k: v for k, v in record.items() if k != "at"})
    files = read_published(open_store(str(store)), result.artifact.key, digest=result.artifact.digest)
    return safetensors.torch.load(files[WEIGHTS])


def until(events: Iterator[dict[str, Any]], is_it: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Events up to that one."""
    seen: list[dict[str, Any]] = []
    for event in events:
        seen.append(event)
        if is_it(event):
            return seen
    pytest.fail(f"the training ended before: {seen[-3:]}")


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.02)  # a file tells nobody that it is there


@pytest.fixture(scope="module")
def undisturbed(head: Head, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """On two nodes from the beginning to the end."""
    folder = tmp_path_factory.mktemp("undisturbed")
    code = faults.write_network(folder / "code", plan=[])
    with head.joined(num_cpus=1), training(head, code, folder / "store", "whole") as events:
        record = list(events)[-1]
    assert record["workers_by_attempt"] == [2]
    return {**record, "weights": weights(folder / "store", record)}


@pytest.mark.parametrize("moment", ["mid-epoch", "while a checkpoint is written"])
def test_node_lost_then_joined_trains_the_same_rows_and_loses_one_interval(
    head: Head, undisturbed: dict[str, Any], tmp_path: Path, moment: str
) -> None:
    # With two workers the first call settles DDP: call 8 is step 7, after the checkpoint of step 6.
    plan = ["0 8 hold at_once" if "written" in moment else "0 9 hold", "0 12 hold"]
    code = faults.write_network(tmp_path / "code", plan)
    store = tmp_path / "store"
    with ExitStack() as leave:
        second = leave.enter_context(head.joined(num_cpus=1))
        events = leave.enter_context(training(head, code, store, "killed"))
        until(events, lambda event: event.get("event") == "start")
        wait_for(code / "killed-00")
        kill_tree(second)
        killed_at = time.monotonic()
        fewer = until(events, lambda event: event.get("event") == "start")[-1]
        wait_for(code / "killed-01")
        leave.enter_context(head.joined(num_cpus=1))
        until(events, lambda event: event.get("room") == 2)
        (code / "go").touch()
        rest = list(events)
    more = next(event for event in rest if event.get("event") == "start")
    record = rest[-1]

    assert record["workers_by_attempt"] == [2, 1, 2]
    done = 7 if "written" not in moment else 6
    assert 0 <= done - fewer["step"] <= INTERVAL
    assert more["step"] % STEPS_PER_EPOCH == 0, "where an epoch ended"
    print(f"{moment}: {fewer['at'] - killed_at:.1f} s from the kill to the first step")
    for alone, shared in zip(undisturbed["history"], record["history"], strict=True):
        assert shared["metrics"] == pytest.approx(alone["metrics"], rel=1e-5)
    for name, value in weights(store, record).items():
        torch.testing.assert_close(value, undisturbed["weights"][name], rtol=1e-5, atol=1e-6)
