"""`raypipe up`: a Ray between commands. Who joins it, who does not, what ends it, and that nothing is left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.sockets import MARK, Watch, processes_of

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
LEAVE_TIMEOUT_S = 30.0

FILE = """\
name: flowers
data: {source: {format: sklearn, dataset: iris}, target: target}
model: {kind: import, path: "model.py:build"}
train: {epochs: 2, global_batch_size: 16, optimizer: {kind: adamw, lr: 0.05}}
"""

MODEL = """\
from torch import nn

def build():
    return nn.Linear(4, 3)
"""

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def home(private_dir: Path, tmp_path: Path) -> Path:
    (tmp_path / "p.yaml").write_text(FILE)
    (tmp_path / "model.py").write_text(MODEL)
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture
def raypipe(home: Path, private_dir: Path) -> Iterator[Command]:
    """Runs a command as a user whose home is `home`; what is up then is down when the test ends."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env = {**clean, "HOME": str(home), "RAY_TMPDIR": str(private_dir), "PYTHONPATH": str(ROOT), MARK: str(home)}

    def run(*words: str, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "raypipe", *words],
            cwd=home.parent,
            env={**env, **more},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, done.stderr[-3000:]
        return done

    yield run
    run("down")
    assert processes_of(str(home), LEAVE_TIMEOUT_S) == []


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return json.loads(done.stdout)


def test_commands_join_what_is_up_and_it_is_this_user_s_alone(raypipe: Command, home: Path, private_dir: Path):
    with Watch(str(home), private_dir) as watch:
        first = told(raypipe("up", "--json"))
        assert told(raypipe("up", "--json")) == first, "twice is once"

        run = raypipe("run", "p.yaml", "--until", "train", "--store", "kept")
        assert f"joining the Ray that raypipe up keeps at {first['address']}" in run.stderr
        assert "epoch 2/2" in run.stderr, "its workers import the user's module"
        other = raypipe("data", "p.yaml", "--store", "other", AWS_REGION="eu-west-1")
        assert "keeps has other settings" in other.stderr and "starting Ray on this machine" in other.stderr

        assert raypipe("status").stdout == "nothing is served\n"
        assert told(raypipe("down", "--json")) == {"ended": first["address"]}
        assert told(raypipe("down", "--json")) == {"ended": None}
    assert processes_of(str(home), LEAVE_TIMEOUT_S) == []
    assert watch.open_to_others == set()
    for program in ("raylet", "dashboard/dashboard.py"):  # of what is up: commands of later may need Ray Train
        assert any(program in command for command in watch.on_loopback), program
    assert set(watch.modes.values()) == {0o700}


def test_keeper_that_is_killed_is_nobody_s_ray(raypipe: Command, home: Path):
    first = told(raypipe("up", "--json"))
    os.kill(first["process"], signal.SIGKILL)
    assert processes_of(str(home), LEAVE_TIMEOUT_S) == []
    assert told(raypipe("up", "--json"))["process"] != first["process"], "its note is not believed"


def test_ray_that_is_up_and_idle_ends_by_itself(raypipe: Command, home: Path):
    first = told(raypipe("up", "--idle-minutes", "0.02", "--json"))
    deadline = time.monotonic() + LEAVE_TIMEOUT_S
    while Path(f"/proc/{first['process']}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_of(str(home), LEAVE_TIMEOUT_S) == []
    assert told(raypipe("down", "--json")) == {"ended": None}
