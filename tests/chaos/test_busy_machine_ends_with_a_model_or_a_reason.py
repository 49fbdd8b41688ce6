"""A machine with much more to do than it can: Ray starts late or not at all, and every run says how it ended.

Eight processes that never rest on the machine's cores; each run may end well, or with exit 4 and a reason to read.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import CLEARED

BUSY_PROCESSES = 8
RUNS = 5
RUN_TIMEOUT_S = 900

FILE = """\
name: flowers
data: {source: {format: sklearn, dataset: iris}, target: target}
model: {kind: linear}
train: {epochs: 1}
"""


@pytest.fixture
def busy() -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(BUSY_PROCESSES)]
    yield
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.timeout(RUNS * RUN_TIMEOUT_S + 60)
def test_busy_machine_ends_every_run_with_a_model_or_with_exit_4_and_a_reason(
    busy: None, tmp_path: Path, private_dir: Path
):
    (tmp_path / "p.yaml").write_text(FILE)
    env = {name: value for name, value in os.environ.items() if not name.startswith(CLEARED)}
    env |= {"PYTHONPATH": os.pathsep.join(sys.path), "RAY_TMPDIR": str(private_dir)}
    ends: list[str] = []
    for number in range(RUNS):
        words = [sys.executable, "-m", "raypipe", "run", "p.yaml", "--fresh", "--store", f"store-{number}"]
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=RUN_TIMEOUT_S)
        told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        if done.returncode == 0:
            ends.append("well")
        elif done.returncode == 4 and told and len(told[-1]) > len("error: "):
            ends.append("exit 4")
        else:
            ends.append(f"exit {done.returncode}: {done.stderr[-2000:]}")
    assert set(ends) <= {"well", "exit 4"}, ends
