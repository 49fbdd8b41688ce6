"""FAULTS T8: a worker is killed for want of memory, by the kernel or by Ray's monitor: told as what it is, tried again
from the newest checkpoint, and nothing but the worker is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from raypipe.errors import TrainingError
from raypipe.storage import open_store
from raypipe.testing import faults
from tests.chaos import train_on_cluster
from tests.integration import faulty
from tests.integration.nodes import ROOT, running_head

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.timeout(600)]

TIMES = 5
LIMIT_BYTES = 64 * 2**20
GROUPS = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group of little memory, below the one that this process is in."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    mine = next((line.split(":", 2)[2] for line in lines if ":memory:" in line), None)
    if mine is None or not os.access(GROUPS, os.W_OK):
        pytest.skip("no control group of memory (version 1) can be made here, which takes root")
    parent = GROUPS / mine.lstrip("/")
    group = (parent if parent.exists() else GROUPS) / f"raypipe-{os.getpid()}"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text(str(LIMIT_BYTES))
    try:
        yield group
    finally:
        group.rmdir()


@pytest.mark.usefixtures("ray_cluster")
def test_worker_killed_by_the_kernel_is_told_with_its_rows_and_goes_on(tmp_path: Path, small_group: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    for number in range(TIMES):
        code_dir = faults.write_network(tmp_path / f"code{number}", ["1 6 memory"])
        (code_dir / "group").write_text(str(small_group))
        spec = faulty.pipeline(code_dir, max_failures=0)
        with pytest.raises(TrainingError) as caught:
            faulty.run(spec, store, code_dir, f"killed{number}")
        assert "was out of memory (OOM; the kernel killed it) at 5 rows a step on each worker" in caught.value.message
        assert ray.is_initialized() and ray.get(ray.remote(lambda: 7).remote()) == 7, "Ray is not hit"

    result, told = faulty.run(spec, store, code_dir, f"killed{TIMES - 1}")
    assert result.num_steps == 24 and faulty.starts(told)[-1] == 3, "the same command again goes on"


def test_worker_ended_by_rays_monitor_is_told_as_out_of_memory(private_dir: Path, tmp_path: Path) -> None:
    code = faults.write_network(tmp_path / "code", [])
    settings = json.dumps({"max_failures": 0})
    with running_head(private_dir / "m", {"RAY_memory_usage_threshold": "0.01"}) as head:  # more is in use anyway
        for number in range(TIMES):
            words = [head.address, str(code), str(tmp_path / "store"), f"r{number}", settings]
            driver = [sys.executable, "-m", train_on_cluster.__name__, *words]
            ended = subprocess.run(driver, env=head.env, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=200)
            lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
            assert ended.returncode == 0 and lines[-1]["event"] == "error", lines[-3:]
            assert "was out of memory (OOM; Ray's memory monitor ended it)" in lines[-1]["message"]
            assert head.num_nodes() == 1
